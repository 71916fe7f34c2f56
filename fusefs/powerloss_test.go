package fusefs

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

// disk is a file system in an image, which can lose power.
type disk struct {
	t         *testing.T
	image, at string
	options   string
	mounted   bool
}

// newDisk makes and mounts a file system of some MiB with mkfs.
func newDisk(t *testing.T, size int64, options string, mkfs ...string) *disk {
	t.Helper()
	// In memory: an image on a busy disk takes seconds to sync.
	dir, err := os.MkdirTemp("/dev/shm", "georep-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &disk{t: t, image: filepath.Join(dir, "image"), at: t.TempDir(), options: options}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.image, size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs[0], append(mkfs[1:], d.image)...).CombinedOutput(); err != nil {
		t.Fatalf("%v (Debian packages e2fsprogs and xfsprogs): %v: %s", mkfs, err, out)
	}
	d.mount()
	t.Cleanup(d.unmount)
	return d
}

func newExt4(t *testing.T, size int64) *disk {
	return newDisk(t, size, "loop", "mkfs.ext4", "-q", "-m", "0")
}

func newXFS(t *testing.T) *disk {
	return newDisk(t, 320<<20, "loop", "mkfs.xfs", "-q")
}

func (d *disk) mount() {
	d.t.Helper()
	if out, err := exec.Command("mount", "-o", d.options, d.image, d.at).CombinedOutput(); err != nil {
		d.t.Fatalf("mount of %s: %v: %s", d.image, err, out)
	}
	d.mounted = true
}

// unmount waits for the last of a process that was killed.
func (d *disk) unmount() {
	d.t.Helper()
	if !d.mounted {
		return
	}
	err := error(unix.EBUSY)
	for began := time.Now(); err == unix.EBUSY && time.Since(began) < 10*time.Second; {
		if err = unix.Unmount(d.at, 0); err == unix.EBUSY {
			time.Sleep(time.Millisecond) // there is no event to wait for
		}
	}
	if err != nil {
		d.t.Fatalf("unmount %s: %v", d.at, err)
	}
	d.mounted = false
}

// How a file system goes down.
const (
	logFlushed = 1 // what its log has in memory is written first
	logLost    = 2
)

// shutdown takes the power away: nothing is written any more.
func (d *disk) shutdown(how uint32) {
	const goingDown = 0x8004587d // FS_IOC_SHUTDOWN
	fd, err := unix.Open(d.at, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		d.t.Error(err)
		return
	}
	defer unix.Close(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), goingDown, uintptr(unsafe.Pointer(&how))); errno != 0 {
		d.t.Errorf("shutdown of the file system: %v", errno)
	}
}

// Power lost under load, at any moment: what the file system kept is recorded in
// the history from before, or a new one has begun and an xtime leads to it; what
// it did not keep although it is recorded has such an xtime too.
func TestPowerLoss(t *testing.T) {
	seed := uint64(envInt(t, seedEnv, int(time.Now().UnixNano()&0xffffff)))
	t.Logf("seed %d", seed)
	rounds := envInt(t, killsEnv, 4)
	for name, make := range map[string]func(t *testing.T) *disk{
		"ext4": func(t *testing.T) *disk { return newExt4(t, 128<<20) },
		"xfs":  newXFS,
	} {
		t.Run(name, func(t *testing.T) {
			d := make(t)
			s := newServer(t, d.at)
			s.start()
			rec := newRecords(s.brick)
			for round := range rounds {
				l := &loss{t: t, d: d, s: s, rec: rec, round: round, r: rand.New(rand.NewPCG(seed, uint64(round)))}
				l.run()
				if t.Failed() {
					t.Fatalf("round %d of seed %d", round, seed)
				}
			}
			s.end()
		})
	}
}

// loss is one loss of power.
type loss struct {
	t     *testing.T
	d     *disk
	s     *server
	rec   *records
	round int
	r     *rand.Rand
}

func (l *loss) run() {
	t := l.t
	// What the slave has at least: all until now.
	l.s.roll()
	l.rec.read(t)
	before, since, spans := readTree(t, l.s.brick), l.rec.last, l.rec.spans
	l.load()
	if answer := l.s.tell("roll"); answer[:min(4, len(answer))] == "died" {
		t.Fatalf("the server did not outlive its disk: %s", answer)
	}
	l.s.kill()
	l.d.unmount()
	l.d.mount()
	l.garble()

	l.rec.read(t)
	old := l.rec.last // the end of the history from before
	recorded := l.rec.since(since)
	l.s.start()
	lookAtAll(t, l.s.dir)
	l.s.roll()
	l.rec.read(t)
	now := readTree(t, l.s.brick)
	if l.rec.spans != spans+1 {
		t.Errorf("%d HTIME files, want %d", l.rec.spans, spans+1)
	}
	l.check(before, now, recorded, old)
	l.awaitReaped()
	checkBrick(t, l.s.brick)
}

// awaitReaped waits until the server has removed files that lost their names. It
// can't tell those of the second in which it began.
func (l *loss) awaitReaped() {
	for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
		if !hasNameless(l.t, l.s.brick) {
			return
		}
	}
}

func hasNameless(t *testing.T, path string) (found bool) {
	b, err := brick.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	_, err = b.Check(t.Context(), brick.CheckOptions{Found: func(f brick.Finding) {
		found = found || f.Problem == brick.NoName
	}})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// load runs users until the file system below them is gone.
func (l *loss) load() {
	how := uint32(logLost)
	if l.r.IntN(2) == 0 {
		how = logFlushed
	}
	ld := &load{dir: l.s.dir, killAt: 50 + int64(l.r.IntN(800)), anyError: true}
	ld.kill = func() { l.d.shutdown(how) }
	stop := make(chan struct{})
	var users, others sync.WaitGroup
	for i := range 3 {
		w := &worker{l: ld, r: rand.New(rand.NewPCG(l.r.Uint64(), 0)), id: fmt.Sprintf("r%d.%d", l.round, i), noMap: true}
		users.Go(func() { w.run(stop) })
	}
	others.Go(func() { removeOld(l.s.dir, l.round, ld) })
	others.Go(func() { l.syncNowAndThen(stop, l.r.Uint64()) })
	users.Wait()
	close(stop)
	others.Wait()
	for _, h := range ld.held {
		h.close()
	}
}

// syncNowAndThen seals changelogs, and makes the file system keep this and that.
func (l *loss) syncNowAndThen(stop <-chan struct{}, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	fd, err := unix.Open(l.s.brick, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		l.t.Error(err)
		return
	}
	defer unix.Close(fd)
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(r.IntN(30)) * time.Millisecond):
		}
		switch r.IntN(3) {
		case 0:
			l.s.tell("roll")
		case 1:
			unix.Syncfs(fd) // fails once the power is gone
		case 2:
			unix.Fsync(fd)
		}
	}
}

// garble does to the mount's shared memory what a loss of power may do.
func (l *loss) garble() {
	for _, name := range []string{"intents", "writers", "nameless"} {
		p := filepath.Join(l.s.brick, brick.Dir, "georep", name)
		st, err := os.Stat(p)
		if err != nil {
			continue // it was not kept
		}
		var b []byte
		switch l.r.IntN(4) {
		case 0:
			continue
		case 1: // allocated and never written
			b = make([]byte, st.Size())
		case 2: // cut off
			b = make([]byte, l.r.Int64N(st.Size()+1))
		case 3: // something else's
			b = make([]byte, st.Size())
			for i := range b {
				b[i] = byte(l.r.Uint32())
			}
		}
		if err := os.WriteFile(p, b, 0o600); err != nil {
			l.t.Fatal(err)
		}
	}
}

// recent is what changelogs sealed since some moment are about.
type recent struct {
	gfids map[gfid.GFID]bool
	names map[changelog.Name]bool
}

func (r *records) since(stamp int64) recent {
	rs := recent{map[gfid.GFID]bool{}, map[changelog.Name]bool{}}
	late := func(s int64) bool { return s > stamp }
	for _, m := range []map[gfid.GFID][]int64{r.data, r.meta} {
		for g, stamps := range m {
			if slices.ContainsFunc(stamps, late) {
				rs.gfids[g] = true
			}
		}
	}
	for n, stamps := range r.names {
		if slices.ContainsFunc(stamps, late) {
			rs.names[n] = true
		}
	}
	return rs
}

// check finds differences that neither a changelog of the old history nor an
// xtime later than its end leads to.
func (l *loss) check(before, now *tree, recorded recent, old int64) {
	t := l.t
	t.Helper()
	newer := func(g gfid.GFID) bool {
		o, there := now.objects[g]
		// The root is above all others; a directory that is gone is missed in its own.
		return !there || int64(o.xtime.Sec) >= old
	}
	d := now.diff(before)
	for _, n := range d.names {
		if !recorded.names[n] && !newer(n.Parent) {
			t.Errorf("name %v/%q differs, is not recorded, and its directory's xtime %v is older than %d", n.Parent, n.Base, now.objects[n.Parent].xtime, old)
		}
	}
	for _, o := range slices.Concat(d.data, d.meta) {
		if !recorded.gfids[o.g] && !newer(o.g) {
			t.Errorf("%v, %s, differs, is not recorded, and its xtime %v is older than %d", o.g, o.path, o.xtime, old)
		}
	}
	for g := range recorded.gfids {
		if _, there := now.objects[g]; there && !newer(g) {
			t.Errorf("%v, %s, is recorded, may have been lost, and its xtime %v is older than %d", g, now.objects[g].path, now.objects[g].xtime, old)
		}
	}
	for n := range recorded.names {
		if _, there := now.objects[n.Parent]; there && !newer(n.Parent) {
			t.Errorf("name %v/%q is recorded, may have been lost, and its directory's xtime %v is older than %d", n.Parent, n.Base, now.objects[n.Parent].xtime, old)
		}
	}
	for n, g := range now.names {
		if o := now.objects[g]; n.Parent != gfid.Root && o.mode&unix.S_IFMT == unix.S_IFDIR && (now.objects[n.Parent].xtime.Sec < o.xtime.Sec) {
			t.Errorf("directory %v is older than %s in it", n.Parent, o.path)
		}
	}
}
