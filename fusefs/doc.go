// Package fusefs turns FUSE messages into calls of package translator and the
// answers back, on go-fuse's raw API.
//
// It owns what the kernel knows of us: node numbers are those of the
// translator's inodes, file handles are slots here, backing ids for passthrough
// are registered here. Attributes and names may be kept by the kernel for long,
// because nobody else writes to the brick; while somebody may write to a file
// past us its attributes may not be kept at all.
//
// # Limits
//
// What no FUSE file system can do: reflink and dedupe between files of the
// mount, FIEMAP, collapse and insert range, swap files, quota calls, fs-verity.
//
// What differs from the directory beneath, because the kernel asks for two things
// in the same words: chown(-1, -1) by one who does not own a set-uid file does
// nothing and succeeds; a write to a file that has set-uid and a capability clears
// both, whoever writes; a store to a mapping clears what a write would. A name
// that was removed while a file handle of NFS led to it can be opened by the handle
// until the kernel forgets it. The name .go-fuse-epoll-hack in the root is go-fuse's.
package fusefs
