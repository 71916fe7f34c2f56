package translator

import (
	"syscall"
	"time"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/marker"
)

// A write(2) past us holds the lock of the brick's inode while it copies, and a
// user can make that last as long as he likes. Whoever needs that lock waits:
// setxattr, and a fop of ours that holds in.mu meanwhile. What is done for all
// inodes in turn, seals above all, must not.

// patience is how long such a one waits for one inode.
const patience = 20 * time.Millisecond

// maxAside bounds how many threads wait in the kernel for stalled inodes.
const maxAside = 64

// lockSoon takes mu if it can be had soon. An inode that made somebody wait in
// vain makes nobody else wait until it is free again.
func (in *Inode) lockSoon() bool {
	if in.mu.TryLock() {
		in.stuck.Store(false)
		return true
	}
	if in.stuck.Load() {
		return false
	}
	for began := time.Now(); time.Since(began) < patience; time.Sleep(patience / 100) {
		if in.mu.TryLock() {
			return true
		}
	}
	in.stuck.Store(true)
	return false
}

// setXtimeAside writes the xtime of a file that is written past us, and goes on
// without it when that takes long. The caller holds in.mu, which whoever waits for
// the inode must not.
func (t *Translator) setXtimeAside(in *Inode, val []byte) error {
	if in.xtiming.Swap(true) {
		return marker.ErrBusy
	}
	select {
	case t.aside <- struct{}{}:
	default:
		in.xtiming.Store(false)
		return marker.ErrBusy
	}
	h, name := t.b.Handles(), brick.HandlePath(in.gfid)
	var before Attr
	if errno := brick.Statx(h, name, &before); errno != 0 {
		in.xtiming.Store(false)
		<-t.aside
		return errno
	}
	done := make(chan syscall.Errno, 1)
	go func() {
		done <- brick.SetOwnXattr(h, name, t.xtimeKey, val, 0)
		in.xtiming.Store(false)
		<-t.aside
	}()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case errno := <-done:
		var after Attr
		if errno == 0 && brick.Statx(h, name, &after) == 0 {
			in.hideCtime(&before, &after)
		}
		return errnoErr(errno)
	case <-late.C:
		return marker.ErrBusy
	}
}
