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
package fusefs
