package session

import "fmt"

// Kind says what sort of fault an Error is.
type Kind string

const (
	Usage        Kind = "usage"        // the request makes no sense
	NotFound     Kind = "not-found"    // what it names is not there
	Precondition Kind = "precondition" // it is there, but not in the state that is needed
	Timeout      Kind = "timeout"      // it did not happen in the time given
	Failed       Kind = "failed"       // tried, and failed
)

// Error is a fault that an operator can do something about. It travels over the
// daemon's API as it is.
type Error struct {
	Kind Kind   `json:"kind"`
	Text string `json:"error"`
	Hint string `json:"hint,omitempty"` // what to do next, one line; "" if nothing
}

func (e *Error) Error() string { return e.Text }

// Errorf is an Error without a hint.
func Errorf(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Text: fmt.Sprintf(format, args...)}
}

// WithHint is e with what to do next.
func (e *Error) WithHint(format string, args ...any) *Error {
	h := *e
	h.Hint = fmt.Sprintf(format, args...)
	return &h
}
