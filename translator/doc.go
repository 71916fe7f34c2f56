// Package translator carries out fops on a brick: one method per fop, which
// acts on the brick, records the change, touches its xtime and returns.
//
// It owns the inode table: one [Inode] per GFID the kernel knows, with its place
// (parent and name), the slices its records are in, and who has it open.
//
// # Promise
//
// When a method that changes the brick returns, the change is in the page cache
// of the brick and its record in that of the changelog. Between the two stands
// an intent in shared memory, so that the death of the process at any moment
// loses no record: [Open] compares what the dead process left with the brick.
// What the kernel writes past us (FUSE passthrough) is recorded when it is seen
// to have changed: at the last close, at every seal, and after a crash without
// looking.
//
// Failures are errnos of the call that failed, and leave nothing half made. A
// record that cannot be written fails no fop: the changelog is then in a gap.
//
// # Format
//
// FORMAT.md, "State of the mount".
package translator
