package brick

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick/gfid"
)

// AdoptOptions are the options of Adopt.
type AdoptOptions struct {
	// Workers is how many names are looked at at once; default one for each CPU,
	// two to four: a name takes some calls to a journal that all share.
	Workers int
	// Progress is told how far Adopt is, about ten times a second and at the
	// end, one call at a time.
	Progress func(Adoption)
	// Notice is told of each object that a person should know of: one that bore
	// another's GFID and got a fresh one (err nil), or one that could not be
	// adopted. path is below the brick's root. One call at a time.
	Notice func(path string, g gfid.GFID, err error)
}

// Adoption counts what Adopt has done. A hard link counts once for each name.
type Adoption struct {
	Dirs, Files int64 // looked at
	Given       int64 // had no GFID
	Mended      int64 // had a GFID, but no handle, a wrong one, or no gfid2path
	Copies      int64 // bore another's GFID
	Failed      int64
}

// Names is how many names were looked at.
func (a Adoption) Names() int64 { return a.Dirs + a.Files }

// Adopt gives a GFID, a handle and a gfid2path to every object in the brick that
// lacks one, as its first lookup through a mount would. The caller holds the
// lock: beside a mount a name could change its object between two steps.
//
// It may be stopped at any point and called again; what is done is then only
// looked at. When it returns without an error, all is on stable storage. Objects
// that could not be adopted are counted, not returned; the error is that of ctx,
// or that of a brick that takes no more: full or read-only.
func (b *Brick) Adopt(ctx context.Context, opts AdoptOptions) (Adoption, error) {
	if opts.Workers <= 0 {
		opts.Workers = defaultWorkers()
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	a := &adopter{b: b, opts: opts, stop: stop}
	err := ticking(opts.Progress, a.counts, func() error {
		return b.walk(ctx, opts.Workers, visit{dir: a.dir, file: a.file, trouble: a.trouble})
	})
	if err == nil {
		// A worker may have met the end of the disk after the walk's last look.
		err = context.Cause(ctx)
	}
	if err == nil {
		if e := unix.Syncfs(b.root); e != nil {
			err = fmt.Errorf("brick: adopt: sync %q: %w", b.path, e)
		}
	}
	return a.counts(), err
}

func defaultWorkers() int { return min(max(runtime.GOMAXPROCS(0), 2), 4) }

type adopter struct {
	b    *Brick
	opts AdoptOptions
	stop context.CancelCauseFunc
	src  gfid.Source
	mu   sync.Mutex // one Notice at a time

	dirs, files, given, mended, copies, failed atomic.Int64
}

func (a *adopter) counts() Adoption {
	return Adoption{a.dirs.Load(), a.files.Load(), a.given.Load(), a.mended.Load(), a.copies.Load(), a.failed.Load()}
}

func (a *adopter) dir(at *place, fd int, name string, st *unix.Statx_t) (gfid.GFID, bool) {
	a.dirs.Add(1)
	g, healed, errno := a.b.Identify(fd, name, at.gfid, st, &a.src)
	if errno != 0 {
		a.trouble(at, name, errno)
		return g, false
	}
	a.count(at, name, g, healed)
	return g, true
}

func (a *adopter) file(at *place, fd int, name string) {
	a.files.Add(1)
	var st unix.Statx_t
	errno := Statx(fd, name, &st)
	var g gfid.GFID
	var healed Healed
	if errno == 0 {
		g, healed, errno = a.b.Identify(fd, name, at.gfid, &st, &a.src)
	}
	// A brick may have been kept without them.
	if errno == 0 && healed == HealedNothing {
		key, _ := GFID2Path(at.gfid, name)
		if _, e := Getxattr(fd, name, key, nil); e == syscall.ENODATA {
			healed, errno = HealedHandle, a.b.ensureGFID2Path(fd, name, at.gfid)
		}
	}
	switch errno {
	case 0:
		a.count(at, name, g, healed)
	case syscall.ENOENT:
		// Gone since its directory was read.
	default:
		a.trouble(at, name, errno)
	}
}

func (a *adopter) count(at *place, name string, g gfid.GFID, healed Healed) {
	switch healed {
	case HealedGFID:
		a.given.Add(1)
	case HealedHandle:
		a.mended.Add(1)
	case HealedCopy:
		a.copies.Add(1)
		a.notice(at.path(name), g, nil)
	}
}

func (a *adopter) trouble(at *place, name string, errno syscall.Errno) {
	a.failed.Add(1)
	a.notice(at.path(name), gfid.GFID{}, errno)
	if errno == syscall.EROFS || errno == syscall.EDQUOT || errno == syscall.ENOSPC && a.b.full() {
		a.stop(fmt.Errorf("brick: adopt: on %q: %w", at.path(name), errno))
	}
}

func (a *adopter) notice(path string, g gfid.GFID, err error) {
	if a.opts.Notice != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.opts.Notice(path, g, err)
	}
}

// full reports whether the file system has no room for anybody. ENOSPC alone can
// mean that one object has no room for another xattr.
func (b *Brick) full() bool {
	var st unix.Statfs_t
	if err := unix.Fstatfs(b.root, &st); err != nil {
		return true
	}
	return st.Bfree < 16 || st.Files > 0 && st.Ffree == 0
}

// CountNames is how many names the brick has below its root, .glusterfs apart.
// It reads directories only, which takes a small part of what Adopt or Check
// takes. progress is told the number so far, as in AdoptOptions.
func (b *Brick) CountNames(ctx context.Context, progress func(int64)) (int64, error) {
	var n atomic.Int64
	err := ticking(progress, n.Load, func() error {
		return b.walk(ctx, 1, visit{
			dir:     func(*place, int, string, *unix.Statx_t) (gfid.GFID, bool) { n.Add(1); return gfid.GFID{}, true },
			file:    func(*place, int, string) { n.Add(1) },
			trouble: func(*place, string, syscall.Errno) {}, // it is told when the names are looked at
		})
	})
	return n.Load(), err
}

// ticking runs do and tells progress, if any, what counts returns ten times a
// second and at the end.
func ticking[T any](progress func(T), counts func() T, do func() error) error {
	if progress == nil {
		return do()
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				progress(counts())
			}
		}
	})
	err := do()
	close(done)
	wg.Wait()
	progress(counts())
	return err
}
