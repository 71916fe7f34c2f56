package translator

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

// leftovers is what a process before this one left in shared memory, which a
// clean stop leaves empty.
type leftovers struct {
	intents [][]changelog.Record
	writers []member
	orphans []member
	owing   int64 // see intents.owing
}

// recover records what a killed process could not.
//
//   - An intent whose act happened is recorded; a creation that got half way is
//     finished, so that it has the GFID of its record.
//   - A file that was open for writing counts as changed. One that somebody still
//     has open or mapped, past us, is watched until they end.
//   - A file that had lost its last name is removed.
//
// Each leaves the shared memory only once it was dealt with, so a second crash in
// the middle repeats the rest.
func (t *Translator) recover(left leftovers) error {
	if err := t.redoIntents(left.intents); err != nil {
		return err
	}
	t.intents.clear()
	if err := t.recoverWriters(left.writers); err != nil {
		return err
	}
	for _, m := range left.orphans {
		t.removeOrphan(m.gfid)
		t.orphaned.remove(m.slot)
	}
	if n := len(left.intents) + len(left.writers) + len(left.orphans); n > 0 {
		if t.full != nil {
			// These changes are older than this life, and what a later sweep looks for.
			if err := t.full.Sync(); err != nil {
				return err
			}
		}
		t.opts.Logger.Info("recovered from an unclean stop", "intents", len(left.intents), "writers", len(left.writers), "nameless", len(left.orphans))
	}
	return nil
}

// recoverWriters deals with the files that were open for writing. One may be
// there twice when the process died while it was entered.
func (t *Translator) recoverWriters(left []member) error {
	seen := make(map[gfid.GFID]bool, len(left))
	for _, m := range left {
		watched := false
		if !seen[m.gfid] {
			seen[m.gfid] = true
			var err error
			if watched, err = t.recoverWriter(m); err != nil {
				return fmt.Errorf("translator: recover writes to %v: %w", m.gfid, err)
			}
		}
		if !watched {
			t.writers.remove(m.slot)
		}
	}
	return nil
}

// recoverWriter records that m, which was open for writing, changed, and watches
// it if it still can change.
func (t *Translator) recoverWriter(m member) (watched bool, err error) {
	fd, errno := t.b.OpenHandle(m.gfid, unix.O_RDONLY)
	if errno != 0 {
		return false, nil // removed since
	}
	if _, err := t.log.Append(&changelog.Record{Type: changelog.Data, GFID: m.gfid}); err != nil {
		brick.Close(fd)
		return false, err
	}
	t.touch(m.gfid)
	var st Attr
	errno = brick.Fstatx(fd, &st)
	if errno != 0 || !hasWriter(fd) {
		brick.Close(fd)
		return false, errnoErr(errno)
	}
	t.opts.Logger.Warn("a process still writes to a file through a mount that is gone; it is watched until it ends", "gfid", m.gfid)
	in := t.table.enter(seen{m.gfid, st.Ino, uint32(st.Mode)}, nil, "", false)
	in.linked.Store(st.Nlink > 2)
	in.mu.Lock()
	errno = t.watch(in, fd, m.slot)
	in.mu.Unlock()
	t.unpin(in)
	if errno != 0 {
		brick.Close(fd)
	}
	return errno == 0, errnoErr(errno)
}
