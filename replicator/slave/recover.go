package slave

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick/gfid"
)

// recover finishes or undoes what was under way when the last agent died. All
// that needs it has a name in tmp, but for what an exchange left in the orphans.
func (t *tree) recover() error {
	names, err := allNames(t.tmp)
	if err != nil || len(names) == 0 {
		return err
	}
	t.log.Info("finishing what was cut short", "operations", len(names))
	var errs []error
	// Markers first, so that directories can be reached. Of these, first those
	// of displaced directories: the others' handles tell where to look.
	for _, part := range []func(string) (bool, *fault){t.recoverDisplaced, t.recoverMove, t.recoverPut, t.recoverRest} {
		rest := names[:0:0]
		for _, name := range names {
			done, f := part(name)
			if f != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, f))
			} else if !done {
				rest = append(rest, name)
			}
		}
		names = rest
	}
	names, err = allNames(t.orphans)
	if err != nil {
		return err
	}
	for _, name := range names {
		i := inode{t.orphans, name}
		if g, errno := t.brick.GFIDOf(i.fd, i.name); errno == 0 && g.String() == name {
			continue
		}
		if _, errno := i.readlink(); errno == 0 {
			continue // a note of a nameless file
		}
		if f := t.clear(i); f != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, f))
		}
	}
	return errors.Join(errs...)
}

func allNames(dirfd int) ([]string, error) {
	f, errno := openList(dirfd)
	if errno != 0 {
		return nil, errno
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil && err != io.EOF {
		return nil, err
	}
	return names, nil
}

// readMarker reads the marker name: the directory g was about to be at p. What
// is no valid marker is removed.
func (t *tree) readMarker(name string) (g gfid.GFID, p place, ok bool) {
	text, ok := strings.CutPrefix(name, markerPrefix)
	if !ok {
		return g, p, false
	}
	g, err := gfid.Parse(text)
	target, errno := inode{t.tmp, name}.readlink()
	if err == nil && errno == 0 {
		if p, errno = placeOf(g, target); errno == 0 {
			return g, p, true
		}
	}
	inode{t.tmp, name}.unlink()
	return g, p, false
}

// recoverDisplaced takes the marker of a directory x meant for the orphans. After
// an exchange x is where the directory g was that now has x's name: where g's
// handle says until g's marker is committed.
func (t *tree) recoverDisplaced(name string) (bool, *fault) {
	x, p, ok := t.readMarker(name)
	if !ok || !p.orphan {
		return false, nil
	}
	if was, errno := t.readPlace(x); errno == 0 && !was.orphan && !t.isAt(x, p) {
		if parent, errno := t.dir(was.name.Parent); errno == 0 {
			g, errno := t.brick.GFIDOf(parent.fd, was.name.Base)
			t.dirs.release(parent)
			if from, e := t.readPlace(g); errno == 0 && e == 0 && g != x && t.isAt(x, from) {
				if f := t.orphanAt(x, from); f != nil {
					return true, f
				}
			}
		}
	}
	return t.recoverMove(name)
}

// orphanAt moves the directory x from p to the orphans.
func (t *tree) orphanAt(x gfid.GFID, p place) *fault {
	if p.orphan {
		return nil
	}
	d, errno := t.dir(p.name.Parent)
	if errno != 0 {
		return failed(errno, "directory "+p.name.Parent.String())
	}
	defer t.dirs.release(d)
	return failed(d.at(p.name.Base).rename(inode{t.orphans, x.String()}, unix.RENAME_NOREPLACE), "move to the orphans")
}

// recoverMove takes the marker of a directory: if it is there, its handle is made
// to say so.
func (t *tree) recoverMove(name string) (bool, *fault) {
	g, p, ok := t.readMarker(name)
	if !ok {
		return false, nil
	}
	if !t.isAt(g, p) {
		// Not moved yet: the handle is right.
		return true, failed(t.marker(g).unlink(), "unlink")
	}
	return true, failed(t.commit(g), "handle")
}

// isAt reports whether the directory g is at p.
func (t *tree) isAt(g gfid.GFID, p place) bool {
	i := inode{t.orphans, g.String()}
	if !p.orphan {
		d, errno := t.dir(p.name.Parent)
		if errno != 0 {
			return false
		}
		defer t.dirs.release(d)
		i = d.at(p.name.Base)
	}
	var st unix.Statx_t
	if errno := i.statx(&st); errno != 0 || !isDir(&st) {
		return false
	}
	got, errno := t.brick.GFIDOf(i.fd, i.name)
	return errno == 0 && got == g
}

// recoverPut ends what renew began: a new inode that has a name already, or whose
// forerunner is not ours any more, gets the other names and the handle; else it
// is given up.
func (t *tree) recoverPut(name string) (bool, *fault) {
	text, ok := strings.CutPrefix(name, putPrefix)
	if !ok {
		return false, nil
	}
	tmp := inode{t.tmp, name}
	var st, old unix.Statx_t
	if errno := tmp.statx(&st); errno != 0 {
		return true, failed(errno, "stat")
	}
	g, err := gfid.Parse(text)
	if err != nil || st.Nlink < 2 && t.isObject(g) {
		return true, failed(tmp.unlink(), "unlink")
	}
	errno := t.brick.StatHandle(g, &old)
	if errno == syscall.ENOENT {
		return true, t.swapIn(g, tmp, nil, false)
	}
	var names []Name // those that have the old inode still
	if errno == 0 {
		names, errno = t.names(g, &old)
	}
	if errno != 0 {
		return true, failed(errno, "names")
	}
	return true, t.swapIn(g, tmp, names, true)
}

func (t *tree) recoverRest(name string) (bool, *fault) { return true, t.clear(inode{t.tmp, name}) }

// clear takes away what is at i, in tmp or the orphans, and does not belong
// there: what is ours lives elsewhere or was half made, or has been displaced by
// an exchange, as has what is foreign.
func (t *tree) clear(i inode) *fault {
	var st unix.Statx_t
	if errno := i.statx(&st); errno != 0 {
		if errno == syscall.ENOENT {
			errno = 0
		}
		return failed(errno, "stat")
	}
	g, errno := t.brick.GFIDOf(i.fd, i.name)
	ours := errno == 0
	switch {
	case isDir(&st) && ours && t.isElsewhere(g):
	case isDir(&st) && ours && t.isKnown(g):
		return t.orphan(g, i)
	case isDir(&st) && i.rmdir() == 0: // half made
		return nil
	case !isDir(&st) && ours:
		var h unix.Statx_t
		if t.brick.StatHandle(g, &h) == 0 && sameInode(&h, &st) {
			return failed(i.unlink(), "unlink")
		}
	}
	_, f := t.aside(i, i.name)
	return f
}

// isElsewhere reports whether the directory g is where its handle says.
func (t *tree) isElsewhere(g gfid.GFID) bool {
	d, errno := t.dir(g)
	t.dirs.release(d)
	return errno == 0
}

// isKnown reports whether there is a handle of the directory g.
func (t *tree) isKnown(g gfid.GFID) bool {
	_, errno := t.readPlace(g)
	return errno == 0
}
