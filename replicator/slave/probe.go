package slave

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
)

// Finding is something a person should know before a session begins.
type Finding struct {
	Fatal bool   // replication can't work, or would lose something it must keep
	Rsync bool   // it is about rsync alone, which those who stream all do without
	What  string // what is missing
	Mend  string // what to do about it
}

// ProbeOptions are what Probe needs to know.
type ProbeOptions struct {
	Rsync string // the rsync program here; default "rsync"
}

// maxSkew is how far clocks may be apart before it is told. Nothing depends on
// it but a person's reading of logs and names of conflicts.
const maxSkew = time.Minute

// Probe looks whether the two sides can work together: versions, xattrs, room,
// clocks, exact times, and a file that goes through the real rsync and is read
// back. The error is about the connection alone.
func (c *Client) Probe(ctx context.Context, o ProbeOptions) ([]Finding, error) {
	if o.Rsync == "" {
		o.Rsync = "rsync"
	}
	p := &probe{c: c, o: o}
	p.versions()
	p.xattrs()
	for _, step := range []func(context.Context) error{p.room, p.clock, p.carry} {
		if err := step(ctx); err != nil {
			return p.found, err
		}
	}
	return p.found, nil
}

// probe gathers findings.
type probe struct {
	c     *Client
	o     ProbeOptions
	found []Finding
}

func (p *probe) add(fatal bool, what, mend string) {
	p.found = append(p.found, Finding{Fatal: fatal, What: what, Mend: mend})
}

// addRsync adds that rsync can't be used.
func (p *probe) addRsync(what, mend string) {
	p.found = append(p.found, Finding{Fatal: true, Rsync: true, What: what, Mend: mend})
}

func (p *probe) versions() {
	i := p.c.info
	if !i.Confined && p.c.shell != nil {
		p.add(false, "the slave's kernel can't hold the agent to its directory", "Linux 5.19 or newer with Landlock; it works without")
	}
	for _, side := range []struct{ where, version string }{{"here", rsyncVersion(p.o.Rsync)}, {"on the slave's host", i.Rsync}} {
		switch {
		case side.version == "":
			p.addRsync("no rsync "+side.where, "install rsync 3.1.3 or newer")
		case olderThan(side.version, 3, 1, 3):
			p.addRsync("rsync "+side.version+" "+side.where+" can't keep holes in files changed in place", "install rsync 3.1.3 or newer")
		}
	}
}

// olderThan compares a version such as "3.2.7pre1" with three numbers.
func olderThan(version string, than ...int) bool {
	parts := strings.Split(version, ".")
	for i, want := range than {
		n := 0
		if i < len(parts) {
			part := parts[i]
			if end := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
				part = part[:end]
			}
			var err error
			if n, err = strconv.Atoi(part); err != nil {
				return false // a form we do not know
			}
		}
		if n != want {
			return n < want
		}
	}
	return false
}

func (p *probe) xattrs() {
	for _, n := range namespaceTests {
		if !slices.Contains(p.c.info.Namespaces, n.name) {
			p.add(n.name == "trusted", "the slave's file system does not keep xattrs of "+n.name+" ("+p.c.info.Unset+")",
				"another file system, such as ext4 or XFS, or other mount options; objects that have such xattrs will not be in step")
		}
	}
}

// room compares what the master's file system holds with what the slave's has.
func (p *probe) room(ctx context.Context) error {
	fs, err := p.c.StatFS(ctx)
	if err != nil {
		return err
	}
	var m unix.Statfs_t
	if err := unix.Fstatfs(p.c.master.Root(), &m); err != nil {
		return fmt.Errorf("slave: probe: master: %w", err)
	}
	if fs.ReadOnly {
		p.add(true, "the slave's file system is mounted read-only", "mount it for writing")
	}
	if !p.c.info.Created {
		return nil // what is there already has its room
	}
	if used := (m.Blocks - m.Bfree) * uint64(m.Frsize); used > fs.Free {
		p.add(false, fmt.Sprintf("the master's file system holds %d MiB, the slave's has %d MiB free", used>>20, fs.Free>>20), "a larger file system")
	}
	if used := m.Files - m.Ffree; fs.Inodes > 0 && used > fs.InodesFree {
		p.add(false, fmt.Sprintf("the master's file system holds %d inodes, the slave's has %d free", used, fs.InodesFree), "a file system with more inodes")
	}
	return nil
}

func (p *probe) clock(ctx context.Context) error {
	ahead, err := p.c.Clock(ctx)
	if err == nil && ahead.Abs() > maxSkew {
		p.add(false, fmt.Sprintf("the slave's clock is %v ahead of ours", ahead.Round(time.Second)), "a time service on both hosts")
	}
	return err
}

// carry sends a file through rsync and reads it back, for an rsync that ends well
// and has moved nothing has been seen.
func (p *probe) carry(ctx context.Context) error {
	if slices.ContainsFunc(p.found, func(f Finding) bool { return f.Rsync }) {
		return nil
	}
	var src gfid.Source
	g := src.Next()
	// On the brick, where the next probe finds what one that was killed has left.
	dir := filepath.Join(p.c.master.Path(), brick.Dir, "georep", "probe-"+p.c.info.Slave.String())
	sum, err := probeFile(dir, g)
	defer os.RemoveAll(dir)
	if err != nil {
		return fmt.Errorf("slave: probe: %w", err)
	}
	meta := &Meta{Mode: unix.S_IFREG | 0o600, Mtime: Time{1_000_000_000, 123_456_789}}
	res, err := p.c.Apply(ctx, []Op{{Kind: Make, GFID: g, Meta: meta}, {Kind: Begin, GFID: g}})
	if err != nil {
		return err
	}
	defer p.c.Apply(context.WithoutCancel(ctx), []Op{{Kind: Destroy, GFID: g}})
	for _, r := range res {
		if r.Errno != 0 {
			p.add(true, "a file can't be made on the slave: "+r.Detail+": "+r.Errno.Error(), "see what keeps root from writing there")
			return nil
		}
	}
	cmd := exec.CommandContext(ctx, p.o.Rsync, p.c.RsyncArgs(RsyncOptions{Timeout: 30 * time.Second})...)
	cmd.Dir, cmd.ExtraFiles = dir, p.c.RsyncFiles()
	cmd.Stdin = strings.NewReader(brick.HandlePath(g) + "\x00")
	said, err := cmd.CombinedOutput()
	if err != nil {
		p.addRsync(fmt.Sprintf("rsync to the slave: %v: %s", err, bytes.TrimSpace(said)), "run rsync over ssh by hand to see what stands in its way")
		return ctx.Err()
	}
	return p.readBack(ctx, g, meta, sum)
}

// probeFile makes a file of random content as g's handle in dir, which it makes
// anew.
func probeFile(dir string, g gfid.GFID) (sum Hash, err error) {
	if err := os.RemoveAll(dir); err != nil {
		return sum, err
	}
	content := make([]byte, 100_000)
	rand.Read(content) // never fails: crypto/rand aborts the process instead
	path := filepath.Join(dir, brick.HandlePath(g))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return sum, err
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return sum, err
	}
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	if sum = HashFile(int(f.Fd())); sum.Errno != 0 {
		return sum, sum.Errno
	}
	return sum, nil
}

// readBack compares the file g with what was sent.
func (p *probe) readBack(ctx context.Context, g gfid.GFID, meta *Meta, want Hash) error {
	if _, err := p.c.Apply(ctx, []Op{{Kind: Setattr, GFID: g, Meta: meta, End: true}}); err != nil {
		return err
	}
	var got Hash
	if err := p.c.Hash(ctx, []gfid.GFID{g}, func(_ int, h Hash) error { got = h; return nil }); err != nil {
		return err
	}
	if got.Errno != 0 || got.Sum != want.Sum || got.Size != want.Size {
		p.addRsync(fmt.Sprintf("rsync ended well, but the slave has %d of %d bytes that are not what was sent", got.Size, want.Size),
			"compare the versions of rsync on both hosts; look for a wrapper in its place")
	}
	if got.Errno == 0 && got.Mtime != meta.Mtime {
		p.add(false, fmt.Sprintf("the slave's file system keeps the time %v as %v", meta.Mtime, got.Mtime), "a file system with nanoseconds, or times will not be in step")
	}
	return nil
}
