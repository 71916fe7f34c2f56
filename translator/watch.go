package translator

import (
	"context"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/changelog"
)

// scanInterval is how often files open for writing past us are looked at between
// seals, so that followers of the changelog hear of changes soon.
const scanInterval = time.Second

// Run rolls the changelog over, flushes xtimes and looks at files that are
// written past us, until ctx is done.
func (t *Translator) Run(ctx context.Context) error {
	var g errgroup.Group
	if t.full != nil {
		g.Go(func() error { return t.full.Run(ctx) })
	}
	if t.marker != nil {
		g.Go(func() error { return t.marker.Run(ctx) })
	}
	if t.reapLost {
		g.Go(func() error { t.reapLostHandles(ctx); return nil })
	}
	g.Go(func() error { return t.letGo(ctx) })
	g.Go(func() error {
		tick := time.NewTicker(scanInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				t.scan()
				t.settle()
				t.noteClock()
			case <-ctx.Done():
				return nil
			}
		}
	})
	return g.Wait()
}

// scan records D for the files that changed past us since they were last looked
// at, and lets those go whose last mapping ended.
func (t *Translator) scan() {
	for _, in := range t.writing.all() {
		if !in.lockSoon() {
			continue // the next look sees more
		}
		if in.isWritten() {
			t.scanOne(in)
		}
		in.mu.Unlock()
	}
}

func (t *Translator) scanOne(in *Inode) {
	o := in.open
	if o.writers > 0 || o.watchFD < 0 || hasWriter(o.watchFD) {
		t.look(in)
		return
	}
	o.owed = o.owed || o.written
	t.look(in)
	t.endWriting(in)
	t.closedIfUnused(in)
	// Stores through the mapping left the kernel's attributes stale.
	t.opts.Invalidate(in.id)
}

// look is check on whatever descriptor of the file there is.
func (t *Translator) look(in *Inode) bool {
	var st Attr
	if errno := brick.Statx(t.b.Handles(), brick.HandlePath(in.gfid), &st); errno != 0 {
		return t.checked(in, version{})
	}
	return t.checked(in, t.clock.version(&st))
}

// check records D for in if the file behind fd changed since it was last looked
// at. The caller holds in.mu.
func (t *Translator) check(in *Inode, fd int) bool {
	var st Attr
	if errno := brick.Fstatx(fd, &st); errno != 0 {
		return t.checked(in, version{}) // can't be seen: when in doubt, record
	}
	return t.checked(in, t.clock.version(&st))
}

func (t *Translator) checked(in *Inode, now version) bool {
	o := in.open
	if !o.passthrough && o.watchFD < 0 {
		return false // each write is a request, and recorded as such
	}
	if o.last.moved(now) {
		o.written, o.exposed = true, true
	} else if !o.owed {
		return false
	}
	// Before last moves on: whatever comes after the look is seen next time.
	o.owed = false
	o.last = now
	if o.setuid {
		if o.plain > 0 {
			o.setuid = false
			t.killPriv(in, o.plainest)
		}
	}
	t.recordData(in)
	return true
}

// BeforeSeal records what changed past us and writes xtimes, so that the slice
// about to be sealed holds every change made before. It is called without any
// lock of the log.
//
// Look, then write-protect, then seal: a store to a page that is dirty already
// moves no time, so pages must be clean at the seal for the next store to show.
func (t *Translator) BeforeSeal(changelog.Slice) {
	for _, in := range t.writing.all() {
		if !in.lockSoon() {
			continue // the next look sees more
		}
		if in.isWritten() {
			t.sealOne(in)
		}
		in.mu.Unlock()
	}
	if t.marker != nil {
		// What could not be written stays in the set and was logged.
		_ = t.marker.Flush()
	}
}

func (t *Translator) sealOne(in *Inode) {
	o := in.open
	t.scanOne(in)
	if in.open != o || !o.exposed {
		return // over, or unchanged since its pages were last made clean
	}
	t.writeProtect(in)
	o.exposed = false
	// A write may have been stamped before this look and copied after the seal:
	// the next slice has a record of it whatever is seen, and the last one too.
	o.owed = true
}

// writeProtect starts write-back of in's dirty pages, which makes the next store
// to each of them a fault that moves mtime.
func (t *Translator) writeProtect(in *Inode) {
	fd, errno := t.b.OpenHandle(in.gfid, unix.O_RDONLY)
	if errno != 0 {
		return
	}
	defer brick.Close(fd)
	if err := unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE); err != nil {
		unix.Fdatasync(fd) // an error of the disk is the writer's to see
	}
}

// watchSetuid notes that in got a setuid or setgid bit; if it is open for writing
// past us the next write must clear it. The caller holds in.mu.
func (t *Translator) watchSetuid(in *Inode) {
	if !in.isWritten() || !in.open.passthrough {
		return
	}
	t.look(in)
	in.open.setuid = true
	in.open.plainest = in.open.plainest.remembered()
}

// checkSetuid clears such a bit if the file was written since, before anybody is
// told of it. The caller holds in.mu.
func (t *Translator) checkSetuid(in *Inode) {
	if in.isWritten() && in.open.setuid {
		t.look(in)
	}
}

// watch keeps an eye on in, which a process of before had open for writing and
// somebody still has. fd reads it and is owned from here on; slot is in's in the
// set of writers. The caller holds in.mu, and has recorded in.
func (t *Translator) watch(in *Inode, fd, slot int) syscall.Errno {
	// First of all: a page that is dirty by now shows no further store.
	t.writeProtect(in)
	var st Attr
	if errno := brick.Fstatx(fd, &st); errno != 0 {
		return errno
	}
	// What was done before we looked can't be seen, so it counts as done.
	in.open = &openState{slot: slot, watchFD: fd, passthrough: true, last: t.clock.version(&st), written: true, exposed: true, owed: true}
	t.table.pin(in)
	t.writing.add(in)
	return 0
}
