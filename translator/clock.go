package translator

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
)

// fileClock tells whether two writes to a file of the brick always have
// different mtimes. They do with multigrain timestamps (Linux 6.13, most local
// file systems); before, only when a timer tick lies between.
type fileClock struct {
	coarse bool
	// blind says that a store through a mapping may move no time even after
	// write-back of the page was started, as in a file system in memory.
	blind bool
	began int64 // what the file system's clock said at the start, ns
	last  int64 // the time of day when last looked at, unix seconds; see noteClock
}

// tick is the longest a coarse file clock may stand still.
const tick = 20 * time.Millisecond

// probe writes to a file of its own and compares.
func (c *fileClock) probe(b *brick.Brick) error {
	f, err := os.CreateTemp(filepath.Join(b.Path(), brick.Dir, stateDir), "clock-")
	if err != nil {
		return fmt.Errorf("probe of the file clock: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var last int64
	for range 8 {
		if _, err := f.WriteAt([]byte{0}, 0); err != nil {
			return fmt.Errorf("probe of the file clock: %w", err)
		}
		var st unix.Statx_t
		if errno := brick.Fstatx(int(f.Fd()), &st); errno != 0 {
			return fmt.Errorf("probe of the file clock: %w", errno)
		}
		if c.began == 0 {
			c.began = nanos(st.Mtime)
		}
		if now := nanos(st.Mtime); now == last {
			c.coarse = true
			break
		} else {
			last = now
		}
	}
	c.blind, err = c.isBlind(f)
	if err != nil {
		return fmt.Errorf("probe of the file clock: %w", err)
	}
	return nil
}

// isBlind stores to a page of f, which has one byte, starts write-back, and
// stores again: the file system is blind to stores if that moves no time.
func (c *fileClock) isBlind(f *os.File) (bool, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return true, nil // so no user can store either
	}
	defer unix.Munmap(mem)
	mem[0]++
	const flags = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	if err := unix.SyncFileRange(int(f.Fd()), 0, 0, flags); err != nil {
		return true, nil
	}
	before, err := f.Stat()
	if err != nil {
		return true, err
	}
	if c.coarse {
		time.Sleep(tick)
	}
	mem[0]++
	after, err := f.Stat()
	return err == nil && after.ModTime().Equal(before.ModTime()), err
}

// version is what of a file moves with each change of its contents.
type version struct {
	mtime int64
	size  uint64
	// seen is when a coarse clock was read, 0 with a fine one: a change within
	// the same tick would not show.
	seen int64
}

func (c *fileClock) version(st *Attr) version {
	v := version{mtime: nanos(st.Mtime), size: st.Size}
	if c.coarse {
		v.seen = time.Now().UnixNano()
	}
	return v
}

// moved reports whether a file that was at v and is at now may have changed.
func (v version) moved(now version) bool {
	if v.mtime != now.mtime || v.size != now.size {
		return true
	}
	return v.seen != 0 && v.seen-v.mtime < int64(tick)
}
