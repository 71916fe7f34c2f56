// Package slave is the slave end of a session: the operations that bring a
// directory into step with a master brick, the client that asks for them and the
// server that applies them.
//
// A slave's root is laid out as a brick is (see package brick), so every
// operation goes by GFID and none needs a path. Besides a brick it has
//
//	.glusterfs/georep/slave         whose slave it is, see [Pairing]
//	.glusterfs/georep/orphans/<gfid>  directories that have no name now; for a
//	                                file that lost its last name, a symlink as note
//	.glusterfs/georep/conflicts/<time>-<name>  what others wrote, kept aside
//	.glusterfs/georep/tmp/          what is half made; empty between operations
//	.glusterfs/georep/receivers     locked by each rsync that writes here
//	trusted.georep.left             on regular files: size and mtime as we left
//	                                them, and whether data is still coming
//
// Client and server talk gRPC over one stream of bytes: the standard input and
// output of `georep agent`, or a socket pair inside one process.
//
// # Promise
//
// Every operation is idempotent: applied again, after a crash at any point of
// the first time too, it leads to the same tree. A name is replaced with
// rename(2), so a reader sees what was there or what comes. What this package
// did not leave behind is moved to conflicts, never destroyed. Nothing is
// durable before [Client.Sync] returns.
//
// # Confinement
//
// The server reaches every object by single components relative to descriptors
// of directories whose GFID it has checked, never through a symlink or a mount.
// Names, sizes and counts that the peer sends are checked before use.
package slave
