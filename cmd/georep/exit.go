package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/georep/georep/brick"
)

// Exit codes of every georep command.
const (
	exitOK           = 0
	exitFailed       = 1 // tried and failed, or a check found something
	exitUsage        = 2 // the command line makes no sense; nothing was tried
	exitNotFound     = 3 // what it names is not there
	exitPrecondition = 4 // it is there, but not in the state the command needs
	exitTimeout      = 5
)

// exitError is an error that says how the process ends. err may be nil: then the
// command has said all there is to say and only the code counts.
type exitError struct {
	code int
	err  error
	hint string // what the operator can do next, one line; "" if nothing
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usagef is an error in the command line.
func usagef(format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// exitCode is the status the process ends with after err. An error that does not
// say so itself is judged by what it wraps.
func exitCode(err error) int {
	var e *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &e):
		return e.code
	case errors.Is(err, brick.ErrNotBrick), errors.Is(err, brick.ErrMounted):
		return exitPrecondition
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	case errors.Is(err, fs.ErrNotExist):
		return exitNotFound
	}
	return exitFailed
}

// printError writes err to w, each line of it and of its hint as "georep: …".
func printError(w io.Writer, err error) {
	var e *exitError
	var hint string
	if errors.As(err, &e) {
		if e.err == nil {
			return
		}
		hint = e.hint
	}
	for line := range strings.Lines(err.Error() + "\n" + hint) {
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintf(w, "georep: %s\n", line)
		}
	}
}
