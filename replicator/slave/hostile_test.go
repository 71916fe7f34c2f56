package slave

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/georep/georep/brick/gfid"
)

// Whatever a peer asks for, nothing outside the root changes and nothing inside
// is followed; whatever it asks for next is answered.
func TestHostileOps(t *testing.T) {
	p := newPair(t)
	outside := t.TempDir()
	mustWrite(t, filepath.Join(outside, "canary"), "canary")
	before := dump(t, outside)
	var gfids []gfid.GFID
	for range 6 {
		gfids = append(gfids, p.src.Next())
	}
	gfids = append(gfids, gfid.Root, gfid.GFID{})
	up := strings.Repeat("../", 20)
	bases := []string{"a", "b", "c", "..", ".", ".glusterfs", "", "/", "a/b", up + outside + "/canary", outside + "/x", "\x00", "lost+found", "\xff", strings.Repeat("n", 300)}
	targets := []string{outside, outside + "/canary", up + outside, "a", "", strings.Repeat("t", 5000)}
	xattrs := []string{"user.a", "trusted.gfid", "trusted.georep.left", "trusted.glusterfs.volume-id", "trusted.gfid2path.0", "system.posix_acl_access", "", "security.x", "user." + strings.Repeat("x", 300)}
	rapid.Check(t, func(r *rapid.T) {
		name := rapid.Custom(func(r *rapid.T) Name {
			return Name{rapid.SampledFrom(gfids).Draw(r, "parent"), rapid.SampledFrom(bases).Draw(r, "base")}
		})
		op := rapid.Custom(func(r *rapid.T) Op {
			op := Op{
				Kind: Kind(rapid.IntRange(0, 11).Draw(r, "kind")), GFID: rapid.SampledFrom(gfids).Draw(r, "gfid"),
				Name: name.Draw(r, "name"), Old: name.Draw(r, "old"), Gone: rapid.Bool().Draw(r, "gone"), End: rapid.Bool().Draw(r, "end"),
				Target: rapid.SampledFrom(targets).Draw(r, "target"), Rdev: Rdev{rapid.Uint32().Draw(r, "major"), rapid.Uint32().Draw(r, "minor")},
			}
			if rapid.Bool().Draw(r, "meta") {
				kinds := []uint32{unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFIFO, unix.S_IFCHR, unix.S_IFSOCK, 0}
				op.Meta = &Meta{Mode: rapid.SampledFrom(kinds).Draw(r, "type") | rapid.Uint32Range(0, 0o7777).Draw(r, "mode"), Mtime: Time{rapid.Int64().Draw(r, "sec"), rapid.Uint32().Draw(r, "nsec")}}
				if rapid.Bool().Draw(r, "xattrs") {
					op.Meta.Xattrs = []Xattr{{rapid.SampledFrom(xattrs).Draw(r, "xattr"), []byte("value of an xattr")}}
				}
			}
			if rapid.Bool().Draw(r, "content") {
				op.Content = &Content{Size: rapid.Int64Range(-2, 1<<40).Draw(r, "size"), Extents: []Extent{{rapid.Int64Range(-2, 1<<41).Draw(r, "offset"), []byte("data")}}}
			}
			return op
		})
		ops := rapid.SliceOfN(op, 1, 40).Draw(r, "ops")
		if _, err := p.Apply(t.Context(), ops); err != nil {
			r.Fatal(err)
		}
		if _, err := p.Lookup(t.Context(), []Name{name.Draw(r, "name")}); err != nil {
			r.Fatal(err)
		}
		if _, err := p.Stat(t.Context(), gfids, 0xff); err != nil {
			r.Fatal(err)
		}
		for _, d := range gfids {
			if err := p.List(t.Context(), d, true, func([]Entry) error { return nil }); err != nil && !errors.Is(err, syscall.ENOENT) {
				r.Fatal(err)
			}
		}
	})
	if got := dump(t, outside); got != before {
		t.Errorf("outside changed, -was +is:\n%s", diffLines(before, got))
	}
	p.reopen()
	g := p.src.Next()
	p.do(file(g, inRoot("after"), "x"))
}

// dial is a raw connection to a server of root, past our client.
func dial(t *testing.T, root string) (WireClient, *Client) {
	t.Helper()
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		Serve(t.Context(), theirs, ServerOptions{Root: root})
	}()
	c, err := Connect(t.Context(), ours, oneMaster, Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); <-served })
	return c.wire, c
}

// Messages that our client never sends are refused one by one.
func TestHostileMessages(t *testing.T) {
	w, c := dial(t, t.TempDir())
	ctx := contextFor(t, patience)
	short := []byte{1, 2, 3}
	many := make([][]byte, maxBatch+1)
	manyNames := make([]*WireName, maxBatch+1)
	for i := range many {
		many[i], manyNames[i] = gfid.Root[:], &WireName{Parent: gfid.Root[:], Base: []byte("x")}
	}
	for what, err := range map[string]error{
		"second hello":   second(w.Hello(ctx, &WireHello{Protocol: protocol, Master: gfid.Root[:]})),
		"short gfid":     second(w.Stat(ctx, &WireStat{Gfids: [][]byte{short}})),
		"short parent":   second(w.Lookup(ctx, &WireLookup{Names: []*WireName{{Parent: short, Base: []byte("x")}}})),
		"no name":        second(w.Lookup(ctx, &WireLookup{Names: []*WireName{{}}})),
		"too many gfids": second(w.Stat(ctx, &WireStat{Gfids: many})),
		"too many names": second(w.Lookup(ctx, &WireLookup{Names: manyNames})),
	} {
		if code := status.Code(err); code != codes.InvalidArgument && code != codes.FailedPrecondition {
			t.Errorf("%s: %v, want it refused", what, err)
		}
	}
	s, err := w.Apply(ctx)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Send(&WireOps{Ops: []*WireOp{
		{}, {Kind: 1 << 20, Gfid: gfid.Root[:]}, {Kind: uint32(Make), Gfid: short},
		{Kind: uint32(Unlink), Name: &WireName{Parent: short}}, {Kind: uint32(Rename), Gfid: gfid.Root[:], Old: &WireName{}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Recv()
	if err != nil || len(r.Results) != 5 {
		t.Fatalf("%v, %v, want 5 results", r, err)
	}
	for i, r := range r.Results {
		if r.Errno == 0 {
			t.Errorf("operation %d was done", i)
		}
	}
	if _, err := c.Clock(ctx); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// Nothing but Hello is answered before Hello.
func TestHelloFirst(t *testing.T) {
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	served := make(chan struct{})
	go func() {
		defer close(served)
		Serve(t.Context(), theirs, ServerOptions{Root: root})
	}()
	// A hello in another protocol leaves the connection without a master.
	_, err = connectAs(t, ours, &WireHello{Protocol: 99, Master: gfid.Root[:]})
	if !errors.Is(err, ErrProtocol) {
		t.Errorf("hello: %v, want ErrProtocol", err)
	}
	<-served
	if names, _ := os.ReadDir(root); len(names) != 0 {
		t.Errorf("the root has %v", names)
	}
}

// connectAs says hello and then asks for everything, none of which may be
// answered; it returns what hello was refused with.
func connectAs(t *testing.T, stream io.ReadWriteCloser, hello *WireHello) (*WireWelcome, error) {
	t.Helper()
	c, err := newClient(newStreamConn(stream), oneMaster, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := contextFor(t, patience)
	r, err := c.wire.Hello(ctx, hello)
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"lookup": second(c.wire.Lookup(ctx, &WireLookup{})), "stat": second(c.wire.Stat(ctx, &WireStat{})),
		"sync": second(c.wire.Sync(ctx, &WireEmpty{})), "statfs": second(c.wire.StatFS(ctx, &WireEmpty{})),
	} {
		if status.Code(err) != codes.FailedPrecondition {
			t.Errorf("%s before hello: %v", what, err)
		}
	}
	return r, refusal(r)
}

// Bytes that are not the protocol end the connection, and nothing else.
func TestGarbage(t *testing.T) {
	root := t.TempDir()
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 20 {
		ours, theirs, err := socketPair()
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan struct{})
		go func() {
			defer close(served)
			Serve(t.Context(), theirs, ServerOptions{Root: root})
		}()
		if i%2 == 1 { // behind a proper beginning
			io.WriteString(ours, http2.ClientPreface)
			http2.NewFramer(ours, ours).WriteSettings()
		}
		b := make([]byte, 10_000)
		for j := range b {
			b[j] = byte(rnd.UintN(256))
		}
		ours.Write(b) // the other side may have had enough
		ours.(*net.UnixConn).CloseWrite()
		io.Copy(io.Discard, ours)
		ours.Close()
		<-served
	}
	if names, _ := os.ReadDir(root); len(names) != 0 {
		t.Errorf("the root has %v", names)
	}
}

// A peer that gives no sign of life is given up, so that the slave is free for
// the next connection.
func TestSilentPeer(t *testing.T) {
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	root := t.TempDir()
	served := make(chan struct{})
	go func() {
		defer close(served)
		Serve(t.Context(), theirs, ServerOptions{Root: root, Keepalive: time.Second})
	}()
	io.WriteString(ours, http2.ClientPreface)
	http2.NewFramer(ours, ours).WriteSettings()
	select {
	case <-served:
	case <-time.After(6 * patience):
		t.Fatal("a silent peer was not given up within a minute")
	}
}

// The kernel holds a confined process to its root: whatever a peer found to make
// it do, or its rsync.
func TestConfine(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	mustWrite(t, filepath.Join(root, "in", "f"), "x")
	mustWrite(t, filepath.Join(outside, "f"), "x")
	if err := os.MkdirAll(filepath.Join(root, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	before := dump(t, outside)
	out := runConfined(t, root, `
		echo y >in/f && mv in/f dir/g && ln dir/g in/h && rm dir/g && mkdir d && echo inside
		for c in "echo y >>$1/f" "rm $1/f" "mkdir $1/d" "mv in/h $1/h" "ln -s x $1/l" "truncate -s 0 $1/f" "mkfifo $1/p"; do
			eval "$c" 2>/dev/null && echo "outside: $c"
		done
		cat $1/f >/dev/null && echo reads`, outside)
	if out != "inside\nreads\n" {
		t.Errorf("a confined process says:\n%s", out)
	}
	if got := dump(t, outside); got != before {
		t.Errorf("outside changed, -was +is:\n%s", diffLines(before, got))
	}
}
