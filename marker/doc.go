// Package marker raises xtime, the time a GFID or anything below it last
// changed, from the GFID that changed up to the root of the brick.
//
// A fop only enters its GFIDs into a set in memory. A flush, at most
// [Options.Interval] later and before each seal of a changelog, writes each of
// them and each of their ancestors once, with the newest time that reached it.
//
// # Promise
//
// After a flush no parent is older than its child. A value is never lowered:
// times handed out here never go back, not over a restart either.
//
// The set dies with the process. The changelog is its redo log: whoever opens
// the brick next touches again what the unsealed changelog names.
//
// # Format
//
// FORMAT.md; follows glusterfs marker.c, mark_inode_xtime, which writes each
// ancestor for each fop.
package marker
