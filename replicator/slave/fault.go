package slave

import "syscall"

// fault is why an operation ended: an errno for the peer to act on, and words
// for a person.
type fault struct {
	errno  syscall.Errno
	detail string
}

func (f *fault) Error() string { return f.detail + ": " + f.errno.Error() }

// failed is a fault, or nil if errno is 0.
func failed(errno syscall.Errno, what string) *fault {
	if errno == 0 {
		return nil
	}
	return &fault{errno, what}
}
