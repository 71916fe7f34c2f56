package replicator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
	"github.com/georep/georep/replicator/slave"
)

// VerifyOptions say what Verify compares. A zero field means its default.
type VerifyOptions struct {
	Brick  *brick.Brick
	Client *slave.Client
	// Found is called with each difference, in no order, by one goroutine at a time.
	Found func(Difference)
	// Progress is called now and then with how much was compared.
	Progress func(Compared)
	// Settle is how long a difference may take to vanish while a session runs
	// beside: it is looked at again until then. 0: it is looked at once.
	Settle time.Duration
}

// Difference is something that is not on the slave as it is on the master.
type Difference struct {
	GFID gfid.GFID
	Name changelog.Name // of it or where it should be; zero if it has none
	Path string         // below the root, as far as can be told
	What string         // what differs: "content", "mode 0644, want 0600"
}

// Compared is how far a Verify is.
type Compared struct {
	Dirs, Names, Files, Bytes int64
}

// verifier compares two trees by GFID.
type verifier struct {
	o    VerifyOptions
	m    *master
	c    *slave.Client
	done Compared
	// linked are files with several names that were compared already.
	linked set
	found  []Difference
}

// verifyBatch is how many objects are compared together.
const verifyBatch = 512

// Verify compares the slave with the master brick: names, GFIDs, types, owners,
// permissions, times, sizes, holes, symlink targets, device numbers, xattrs, ACLs,
// hard links and the BLAKE3 hash of contents, where each side reads its own. It
// returns the differences.
func Verify(ctx context.Context, o VerifyOptions) ([]Difference, Compared, error) {
	v := &verifier{o: o, m: newMaster(o.Brick), c: o.Client, linked: make(set)}
	defer v.m.close()
	if err := v.walk(ctx); err != nil {
		return nil, v.done, err
	}
	err := v.settle(ctx)
	for i := range v.found {
		d := &v.found[i]
		d.Path = v.m.path(Failure{GFID: d.GFID, Name: d.Name})
		if o.Found != nil {
			o.Found(*d)
		}
	}
	return v.found, v.done, err
}

// walk compares everything once.
func (v *verifier) walk(ctx context.Context) error {
	if err := v.objects(ctx, []gfid.GFID{gfid.Root}); err != nil {
		return err
	}
	queue := []gfid.GFID{gfid.Root}
	for len(queue) > 0 {
		g := queue[0]
		queue = queue[1:]
		more, err := v.directory(ctx, g)
		if err != nil {
			return err
		}
		queue = append(queue, more...)
		v.done.Dirs++
		v.progress()
	}
	return nil
}

func (v *verifier) progress() {
	if v.o.Progress != nil {
		v.o.Progress(v.done)
	}
}

func (v *verifier) differ(g gfid.GFID, n changelog.Name, format string, args ...any) {
	v.found = append(v.found, Difference{GFID: g, Name: n, What: fmt.Sprintf(format, args...)})
}

// directory compares the names in g, and the objects that are not directories.
func (v *verifier) directory(ctx context.Context, g gfid.GFID) ([]gfid.GFID, error) {
	fd, errno := v.m.openDir(g)
	if errno == syscall.ENOENT {
		return nil, nil // gone since
	}
	if errno != 0 {
		return nil, fmt.Errorf("replicator: verify: directory %v: %w", g, errno)
	}
	dir := os.NewFile(uintptr(fd), g.String())
	defer dir.Close()
	there := make(map[string]slave.Entry)
	err := v.c.List(ctx, g, true, func(entries []slave.Entry) error {
		for _, e := range entries {
			there[e.Base] = e
		}
		return nil
	})
	if err != nil && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ENOTDIR) {
		return nil, err
	}
	var queue, check []gfid.GFID
	for {
		bases, err := dir.Readdirnames(verifyBatch)
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("replicator: verify: directory %v: %w", g, err)
		}
		for _, base := range bases {
			o, errno := v.m.lookupAt(fd, base)
			n := changelog.Name{Parent: g, Base: base}
			e, ok := there[base]
			delete(there, base)
			switch {
			case g == gfid.Root && base == brick.Dir, errno == syscall.ENOENT:
				continue
			case errno == syscall.ENODATA:
				v.differ(o.GFID, n, "has no GFID on the master: it was made beside the mount")
				continue
			case errno != 0:
				return nil, fmt.Errorf("replicator: verify: %q in %v: %w", base, g, errno)
			case !ok:
				v.differ(o.GFID, n, "missing")
				continue
			case e.GFID != o.GFID:
				v.differ(o.GFID, n, "is %v, want %v", e.GFID, o.GFID)
				continue
			}
			v.done.Names++
			if o.isDir() {
				queue = append(queue, o.GFID)
			} else if o.Stat.Nlink > 2 {
				if v.linked.has(o.GFID) {
					continue
				}
				v.linked.add(o.GFID)
			}
			check = append(check, o.GFID)
		}
		if len(check) >= verifyBatch || err == io.EOF {
			if err := v.objects(ctx, check); err != nil {
				return nil, err
			}
			check = check[:0]
		}
		if err == io.EOF {
			break
		}
	}
	for base, e := range there {
		v.differ(e.GFID, changelog.Name{Parent: g, Base: base}, "should not be there")
	}
	return queue, nil
}

// objects compares objects, and the contents of those that are files.
func (v *verifier) objects(ctx context.Context, gfids []gfid.GFID) error {
	if len(gfids) == 0 {
		return nil
	}
	theirs, err := v.c.Stat(ctx, gfids, slave.WantXattrs)
	if err != nil {
		return err
	}
	var files []gfid.GFID
	for i, g := range gfids {
		o, errno := v.m.stat(g)
		if errno != 0 {
			continue // gone since
		}
		if v.object(&o, &theirs[i]) && o.isRegular() && o.Size() > 0 {
			files = append(files, g)
		}
	}
	return v.contents(ctx, files)
}

// object compares what two sides say of an object but its content. It reports
// whether that is to be compared too.
func (v *verifier) object(o *object, t *slave.Object) bool {
	g := o.GFID
	if t.Errno != 0 {
		v.differ(g, changelog.Name{}, "on the slave: %v", t.Errno)
		return false
	}
	meta, errno := v.m.meta(o)
	if errno != 0 {
		return false // gone since
	}
	a := &t.Attr
	v.compare(g, "mode", "%o", a.Mode, meta.Mode)
	v.compare(g, "owner", "%d", a.UID, meta.UID)
	v.compare(g, "group", "%d", a.GID, meta.GID)
	v.compare(g, "mtime", "%d", a.Mtime, meta.Mtime)
	if !o.isDir() {
		v.compare(g, "number of names", "%d", a.Nlink, o.Stat.Nlink-1)
	}
	v.xattrs(g, t.Xattrs, meta.Xattrs)
	switch o.mode() & unix.S_IFMT {
	case unix.S_IFLNK:
		if target, _, _, errno := v.m.special(o); errno == 0 {
			v.compare(g, "target", "%q", t.Target, target)
		}
	case unix.S_IFBLK, unix.S_IFCHR:
		v.compare(g, "device", "%v", a.Rdev, slave.Rdev{Major: o.Stat.Rdev_major, Minor: o.Stat.Rdev_minor})
	case unix.S_IFREG:
		if t.Busy {
			v.differ(g, changelog.Name{}, "content is still coming")
			return false
		}
		v.compare(g, "size", "%d", a.Size, o.Size())
		// File systems store the same data in more or fewer blocks; only room
		// taken for whole holes counts.
		if room, want := a.Blocks*512, int64(o.Stat.Blocks)*512; want < o.Size()-1<<20 && room > want+want/4+1<<20 {
			v.differ(g, changelog.Name{}, "holes are filled: takes %d bytes, want about %d", room, want)
		}
		return a.Size == o.Size()
	}
	return false
}

func (v *verifier) compare(g gfid.GFID, what, format string, got, want any) {
	if got != want {
		v.differ(g, changelog.Name{}, "%s "+format+", want "+format, what, got, want)
	}
}

func (v *verifier) xattrs(g gfid.GFID, got, want []slave.Xattr) {
	order := func(a, b slave.Xattr) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(got, order)
	slices.SortFunc(want, order)
	same := slices.EqualFunc(got, want, func(a, b slave.Xattr) bool {
		return a.Name == b.Name && slices.Equal(a.Value, b.Value)
	})
	if !same {
		names := func(l []slave.Xattr) (out []string) {
			for _, x := range l {
				out = append(out, fmt.Sprintf("%s (%d bytes)", x.Name, len(x.Value)))
			}
			return out
		}
		v.differ(g, changelog.Name{}, "xattrs %q, want %q, or their values differ", names(got), names(want))
	}
}

// contents compares the hashes of files, which both sides compute at once.
func (v *verifier) contents(ctx context.Context, files []gfid.GFID) error {
	if len(files) == 0 {
		return nil
	}
	ours, theirs := make([]slave.Hash, len(files)), make([]slave.Hash, len(files))
	eg, ctx := errgroup.WithContext(ctx)
	eg.Go(func() error {
		return v.c.Hash(ctx, files, func(i int, h slave.Hash) error {
			theirs[i] = h
			return nil
		})
	})
	eg.Go(func() error {
		for i, g := range files {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			ours[i] = v.m.hash(g)
		}
		return nil
	})
	if err := eg.Wait(); err != nil {
		return err
	}
	for i, g := range files {
		switch a, b := &ours[i], &theirs[i]; {
		case a.Errno == syscall.ENOENT: // gone since
		case a.Errno != 0:
			v.differ(g, changelog.Name{}, "content on the master: %v", a.Errno)
		case b.Errno != 0:
			v.differ(g, changelog.Name{}, "content on the slave: %v", b.Errno)
		case a.Sum != b.Sum:
			v.differ(g, changelog.Name{}, "content")
		}
		v.done.Files++
		v.done.Bytes += ours[i].Size
	}
	v.progress()
	return nil
}

// hash is the hash of g's content on the master.
func (m *master) hash(g gfid.GFID) slave.Hash {
	fd, errno := m.open(&object{GFID: g})
	if errno != 0 {
		return slave.Hash{Errno: errno}
	}
	defer brick.Close(fd)
	return slave.HashFile(fd)
}

// settle looks at what differs again: the master changes while it is compared,
// and a session beside brings the slave into step with it.
func (v *verifier) settle(ctx context.Context) error {
	deadline := time.Now().Add(v.o.Settle)
	for len(v.found) > 0 && time.Now().Before(deadline) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(time.Second, time.Until(deadline))):
		}
		before := v.found
		v.found = nil
		if err := v.again(ctx, before); err != nil {
			return err
		}
	}
	return nil
}

// again compares what differed.
func (v *verifier) again(ctx context.Context, before []Difference) error {
	var gfids []gfid.GFID
	seen := make(set)
	var names []slave.Name
	for _, d := range before {
		if d.Name != (changelog.Name{}) {
			names = append(names, slave.Name(d.Name))
			continue
		}
		if !seen.has(d.GFID) {
			seen.add(d.GFID)
			gfids = append(gfids, d.GFID)
		}
	}
	entries, err := v.c.Lookup(ctx, names)
	if err != nil {
		return err
	}
	for i, n := range names {
		n := changelog.Name(n)
		o, errno := v.m.lookup(n)
		e := &entries[i]
		switch {
		case errno == 0 && (e.Errno != 0 || e.GFID != o.GFID):
			v.differ(o.GFID, n, "is %v, want %v", e.GFID, o.GFID)
		case errno == syscall.ENODATA:
			v.differ(o.GFID, n, "has no GFID on the master: it was made beside the mount")
		case errno == syscall.ENOENT && !e.Free() && e.Errno != syscall.ESTALE:
			v.differ(e.GFID, n, "should not be there")
		case errno == 0:
			gfids = append(gfids, o.GFID)
		}
	}
	return v.objects(ctx, gfids)
}
