package translator

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

// sweepMargin is how far before the last durable stamp a sweep begins: the
// stamps are in seconds, and the clock of the file system may lag.
const sweepMargin = 10 * time.Second

// sweep touches, after a loss of power, everything that changed since the last
// slice that is known to be durable: the file system may have kept changes whose
// records it lost. Readers of the changelog see the new HTIME file, and crawl by
// xtime, which then leads them to all of it.
func (t *Translator) sweep(last life) error {
	since := time.Unix(max(last.Began, last.durable), 0)
	since = since.Add(-sweepMargin)
	t.opts.Logger.Warn("the brick was not stopped cleanly and its file system was mounted anew: changes may be unrecorded, looking for them by ctime", "since", since.UTC())
	if t.marker == nil {
		return nil // the new HTIME tells of the gap; no xtime is kept to raise
	}
	s := sweeper{t: t, since: since.UnixNano()}
	if errno := s.dir(t.b.Root(), gfid.Root); errno != 0 {
		return fmt.Errorf("translator: sweep %q: %w", t.b.Path(), errno)
	}
	t.opts.Logger.Info("sweep done", "seen", s.seen, "touched", s.touched)
	return t.marker.Flush()
}

// durableStamp is the stamp of the newest slice in the index, 0 if there is none.
// A slice is synced before it is sealed, so all older changes are in changelogs
// that a loss of power did not harm. It is read before the log is opened, which
// seals what the last process left.
func (t *Translator) durableStamp() (int64, error) {
	h, err := changelog.OpenHistory(t.logDir())
	if err != nil {
		return 0, err
	}
	spans := h.Spans()
	if len(spans) == 0 {
		return 0, nil
	}
	return spans[len(spans)-1].End, nil
}

// sweeper walks the whole brick.
type sweeper struct {
	t             *Translator
	since         int64 // ns
	seen, touched int
}

// dir visits what is in the directory g behind fd, and then g itself.
func (s *sweeper) dir(fd int, g gfid.GFID) syscall.Errno {
	own, errno := brick.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errno != 0 {
		return errno
	}
	defer brick.Close(own)
	buf := make([]byte, direntBuffer)
	for {
		n, err := unix.Getdents(own, buf)
		if err != nil {
			return errnoOf(err)
		}
		if n == 0 {
			break
		}
		for rest := buf[:n]; len(rest) > 0; {
			var e Dirent
			rest = rest[e.parse(rest):]
			name := string(e.Name)
			if name == "." || name == ".." || g == gfid.Root && name == brick.Dir {
				continue
			}
			if errno := s.entry(own, g, name); errno != 0 && errno != syscall.ENOENT {
				return errno
			}
		}
	}
	var st Attr
	if errno := brick.Fstatx(own, &st); errno != 0 {
		return errno
	}
	s.visit(g, &st)
	return 0
}

func (s *sweeper) entry(dirfd int, parent gfid.GFID, name string) syscall.Errno {
	var st Attr
	if errno := brick.Statx(dirfd, name, &st); errno != 0 {
		return errno
	}
	g, _, errno := s.t.b.Identify(dirfd, name, parent, &st, &s.t.gfids)
	if errno != 0 {
		return errno
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		s.visit(g, &st)
		return 0
	}
	fd, errno := brick.Openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errno != 0 {
		return errno
	}
	defer brick.Close(fd)
	return s.dir(fd, g)
}

func (s *sweeper) visit(g gfid.GFID, st *Attr) {
	s.seen++
	if nanos(st.Ctime) >= s.since || nanos(st.Mtime) >= s.since {
		s.touched++
		s.t.touch(g)
	}
}
