// Package changelog writes and reads the record of what changed on a brick.
//
// A [Log] appends records to the file CHANGELOG. Every rollover interval it seals
// that file as YYYY/MM/DD/CHANGELOG.<unix seconds> and lists it in HTIME.<start>,
// so that one HTIME file covers <start> to its last changelog without a gap.
// [History] reads the index, [Reader] a changelog, [Follower] the one being
// written, and [Consumer] gives another program each sealed changelog once.
//
// # Promise
//
// When Append returns nil the record is in the page cache: it survives the
// death of this process. It survives power loss after the next sync, at most
// Options.FsyncInterval later. A failed Append leaves a gap (see [ErrGap]); the
// Log starts a new HTIME file before it records again. Stamps strictly increase
// and no changelog is ever overwritten. A process that dies at any step of a
// rollover leaves nothing that the next Open does not mend: what it had recorded
// is sealed and indexed, once.
//
// # Format
//
// FORMAT.md; follows glusterfs 10.3 changelog-encoders.c, version v1.2.
package changelog
