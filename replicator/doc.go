// Package replicator brings a slave into step with a master brick: what changed
// is learned from the brick's changelogs, or by walking it, and what is then done
// on the slave follows from what the master has now.
//
// A changelog batch yields sets, not a script: names touched, GFIDs with data,
// GFIDs with metadata. For every touched name the master is asked what it has
// there, and the slave is made to agree; objects are found by GFID on both sides
// and never by path. So it does not matter how often, in which order and how
// late records are read, and swaps, replaced names, moved directories and hard
// links need no case of their own.
//
//	Worker   one brick and one slave: connects, chooses a crawl, keeps stime
//	batch    what a stretch of records touched
//	pass     a batch on its way: names, then contents, then attributes
//	hybrid   the walk by xtime: first copy, gaps in the records
//	bulk     contents of large files, by rsync or inside the connection
//
// # Promise
//
// stime on the master's root never passes a change that is not durable on the
// slave: the slave is synced first. What can't be done is kept in quarantine and
// tried again, the rest goes on, and stime stays before it. A crash of either
// side at any point is followed by the same work again from stime, which changes
// nothing that is right already.
//
// An object is destroyed on the slave only when the master has no name for it. A
// file that was unlinked while open has none: nothing but its open descriptors
// lead to it, and if it got a name after all, by link(2) from /proc, that is in a
// record and sends it anew.
package replicator
