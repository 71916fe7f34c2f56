// Package brick is the bytes on a brick: the handles below .glusterfs, the
// extended attributes that GlusterFS and georep keep, and the system calls that
// reach both relative to an open directory, never by a joined path.
//
// A Brick is a directory with
//
//	trusted.gfid                    16 raw bytes on every object
//	trusted.gfid2path.<xxh64>       one per name of a non-directory
//	trusted.glusterfs.volume-id     16 raw bytes on the root
//	.glusterfs/aa/bb/<gfid>         a handle per object: a hard link, or for a
//	                                directory a symlink to its parent's handle
//	.glusterfs/georep/              what only georep keeps
//
// # Promise
//
// No method follows a symlink below the root, and none reports success for a
// change the kernel refused. A name is made last: whoever sees an object made
// through this package sees its GFID and handle too, but for a crash in
// between, which [Brick.Heal] mends at the next lookup.
//
// # Format
//
// FORMAT.md; follows glusterfs posix-handle.c, posix-gfid-path.c.
package brick
