package slave

import "syscall"

// Hash is the hash of a regular file's content.
type Hash struct {
	// Errno is 0 if Sum is valid. EINVAL: not a regular file. EAGAIN: the file
	// changed while it was read.
	Errno syscall.Errno
	Sum   [32]byte // BLAKE3-256 of the content, holes as zeros
	Size  int64    // bytes hashed
	Mtime Time     // as it was before and after
	Ctime Time     // as it was before and after
}
