package slave

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
)

// ErrDisconnected is wrapped by the error of a call whose connection ended
// before the answer came: what was asked may have been done or not. All further
// calls of the Client fail the same way.
var ErrDisconnected = errors.New("connection to the slave lost")

// Options are what Connect and Local need to know besides the two sides.
type Options struct {
	// Create makes an empty directory a slave of the master. Without it only
	// one that is the master's slave already is accepted.
	Create bool
	// ReadOnly takes no lock, so that one can look beside another's connection;
	// Apply and Sync are refused.
	ReadOnly bool
	// Version is our georep's, told to the other side.
	Version string
	// Keepalive is how long the other side may be silent before it is asked for
	// a sign of life, and then how long that may take. Default 20 s.
	Keepalive time.Duration
	// Shell is how rsync gets to the slave's host; nil if it is this one.
	Shell *Shell
	// Logger gets what the server in this process says (Local). Nil discards.
	Logger *slog.Logger
}

// Info is what the slave said of itself when the connection was made.
type Info struct {
	Slave      uuid.UUID // the slave's identity, as in the key of stime
	Path       string    // of its root, on its host
	Created    bool      // it became the master's slave just now
	Version    string    // of its georep
	Rsync      string    // version of its rsync, "" if it has none
	Namespaces []string  // of xattrs that can be set there: "user", "trusted", "security", "posix_acl"
	Unset      string    // why the others can't
	Confined   bool      // the kernel holds the agent to its root (Landlock)
}

// FS is the room on the slave's file system.
type FS struct {
	Size, Free         uint64 // bytes; Free is what root may use
	Inodes, InodesFree uint64 // both 0 if the file system has no limit
	ReadOnly           bool
}

// Conflict is something others wrote on the slave that was in the way and is
// kept aside.
type Conflict struct {
	Name  string // below .glusterfs/georep/conflicts
	Mode  uint32 // st_mode
	Size  int64  // bytes
	Mtime Time
}

// Client asks one slave for operations. Its methods may be called by many at
// once. Slices come back as long as they went and in their order; they may have
// any length.
type Client struct {
	info      Info
	shell     *Shell
	master    *brick.Brick
	conn      *grpc.ClientConn
	stream    *streamConn
	wire      WireClient
	receivers *os.File      // of a slave on this host, see RsyncFiles; else nil; owned
	served    chan struct{} // closed when the server in this process has ended; nil if there is none
}

// Info is what the slave said of itself when the connection was made.
func (c *Client) Info() Info { return c.info }

// Done is closed when the connection has ended, by Close too.
func (c *Client) Done() <-chan struct{} { return c.stream.done }

// Close ends the connection, and waits for a server in this process.
func (c *Client) Close() error {
	err := c.conn.Close()
	c.stream.Close()
	if c.served != nil {
		<-c.served
	}
	if c.receivers != nil {
		err = errors.Join(err, c.receivers.Close())
	}
	return err
}

// Lookup says who holds each of names.
func (c *Client) Lookup(ctx context.Context, names []Name) ([]Entry, error) {
	entries := make([]Entry, 0, len(names))
	for part := range chunks(names, maxBatch) {
		reply, err := c.wire.Lookup(ctx, &WireLookup{Names: wireNames(part)})
		if err == nil && len(reply.Entries) != len(part) {
			err = errCount(len(reply.Entries), len(part))
		}
		if err != nil {
			return nil, c.fail("lookup", err)
		}
		for _, e := range reply.Entries {
			entries = append(entries, entryOf(e))
		}
	}
	return entries, nil
}

// Stat tells of each GFID its type and attributes, and what want asks for.
func (c *Client) Stat(ctx context.Context, gfids []gfid.GFID, want Want) ([]Object, error) {
	objects := make([]Object, 0, len(gfids))
	for len(gfids) > 0 {
		n := min(len(gfids), maxBatch)
		reply, err := c.wire.Stat(ctx, &WireStat{Gfids: wireGFIDs(gfids[:n]), Want: uint32(want)})
		// A server answers for as many as fit into a message.
		if err == nil && (len(reply.Objects) == 0 || len(reply.Objects) > n) {
			err = errCount(len(reply.Objects), n)
		}
		if err != nil {
			return nil, c.fail("stat", err)
		}
		for _, o := range reply.Objects {
			objects = append(objects, objectOf(o))
		}
		gfids = gfids[len(reply.Objects):]
	}
	return objects, nil
}

// List calls fn with the entries of the directory dir, some hundred at a time,
// in no order; with attrs their attributes are filled in, else only the type.
// Left out are .glusterfs, and in the root a lost+found that has no GFID. The
// error wraps ENOENT if the slave lacks dir, or is fn's.
func (c *Client) List(ctx context.Context, dir gfid.GFID, attrs bool, fn func([]Entry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.wire.List(ctx, &WireList{Dir: dir[:], Attrs: attrs})
	if err != nil {
		return c.fail("list", err)
	}
	return receive(s, func(reply *WireEntries) error {
		entries := make([]Entry, len(reply.Entries))
		for i, e := range reply.Entries {
			entries[i] = entryOf(e)
			if entries[i].Errno != 0 && entries[i].Base == "" {
				return fmt.Errorf("slave: list %v: %w", dir, entries[i].Errno)
			}
		}
		return fn(entries)
	}, func(err error) error { return c.fail("list "+dir.String(), err) })
}

// Apply does ops one after the other. What went wrong with one is in its Result
// and stops no other. Of batches in flight at once no two may name the same GFID
// or the same Name. The error is about the connection: then no result is known.
func (c *Client) Apply(ctx context.Context, ops []Op) ([]Result, error) {
	if len(ops) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.wire.Apply(ctx)
	if err != nil {
		return nil, c.fail("apply", err)
	}
	var g errgroup.Group
	g.Go(func() error {
		for part := range batches(ops) {
			if err := s.Send(&WireOps{Ops: wireOps(part)}); err != nil {
				return nil // the receiving side has the reason
			}
		}
		return s.CloseSend()
	})
	results := make([]Result, 0, len(ops))
	err = receive(s, func(reply *WireResults) error {
		for _, r := range reply.Results {
			results = append(results, resultOf(r))
		}
		return nil
	}, func(err error) error { return c.fail("apply", err) })
	cancel()
	if e := g.Wait(); err == nil && e != nil {
		err = c.fail("apply", e)
	}
	if err == nil && len(results) != len(ops) {
		err = c.fail("apply", errCount(len(results), len(ops)))
	}
	if err != nil {
		return nil, err
	}
	return results, nil
}

// Hash calls fn with the hash of the content of each GFID, as soon as it is
// known: i is the index in gfids. Hash.Errno says what can't be hashed.
func (c *Client) Hash(ctx context.Context, gfids []gfid.GFID, fn func(i int, h Hash) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	base := 0
	for part := range chunks(gfids, maxBatch) {
		s, err := c.wire.Hash(ctx, &WireGFIDs{Gfids: wireGFIDs(part)})
		if err != nil {
			return c.fail("hash", err)
		}
		err = receive(s, func(reply *WireHash) error {
			if int(reply.Index) >= len(part) {
				return c.fail("hash", errCount(int(reply.Index), len(part)))
			}
			return fn(base+int(reply.Index), hashOf(reply))
		}, func(err error) error { return c.fail("hash", err) })
		if err != nil {
			return err
		}
		base += len(part)
	}
	return nil
}

// Nameless calls fn with the GFIDs that operations have left without a name on
// the slave: orphaned directories, and files that live by their handles.
func (c *Client) Nameless(ctx context.Context, fn func([]gfid.GFID) error) error {
	return c.nameless(ctx, false, fn)
}

// ScanNameless is Nameless by reading every handle, which takes as long as a look
// at each object: it also finds what others have taken the last name of, and
// handles of directories that are nowhere.
func (c *Client) ScanNameless(ctx context.Context, fn func([]gfid.GFID) error) error {
	return c.nameless(ctx, true, fn)
}

func (c *Client) nameless(ctx context.Context, scan bool, fn func([]gfid.GFID) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.wire.Nameless(ctx, &WireNameless{Scan: scan})
	if err != nil {
		return c.fail("nameless", err)
	}
	return receive(s, func(reply *WireGFIDs) error {
		gfids, err := gfidsOf(reply.Gfids)
		if err != nil {
			return c.fail("nameless", err)
		}
		return fn(gfids)
	}, func(err error) error { return c.fail("nameless", err) })
}

// Conflicts lists what others wrote and is kept aside.
func (c *Client) Conflicts(ctx context.Context) ([]Conflict, error) {
	s, err := c.wire.Conflicts(ctx, &WireEmpty{})
	if err != nil {
		return nil, c.fail("conflicts", err)
	}
	var all []Conflict
	err = receive(s, func(r *WireConflict) error {
		all = append(all, Conflict{Name: string(r.Name), Mode: r.Mode, Size: r.Size, Mtime: timeOf(r.Mtime)})
		return nil
	}, func(err error) error { return c.fail("conflicts", err) })
	return all, err
}

// Sync returns when everything applied before it is durable, rsync's writes to
// the slave's file system too.
func (c *Client) Sync(ctx context.Context) error {
	_, err := c.wire.Sync(ctx, &WireEmpty{})
	return c.fail("sync", err)
}

// StatFS tells of the room on the slave.
func (c *Client) StatFS(ctx context.Context) (FS, error) {
	r, err := c.wire.StatFS(ctx, &WireEmpty{})
	if err != nil {
		return FS{}, c.fail("statfs", err)
	}
	return FS{Size: r.Size, Free: r.Free, Inodes: r.Inodes, InodesFree: r.InodesFree, ReadOnly: r.ReadOnly}, nil
}

// Clock is how far the slave's clock is ahead of ours, to about half the time
// that one question and its answer take.
func (c *Client) Clock(ctx context.Context) (ahead time.Duration, err error) {
	start := time.Now()
	r, err := c.wire.Clock(ctx, &WireEmpty{})
	if err != nil {
		return 0, c.fail("clock", err)
	}
	half := time.Since(start) / 2
	return time.Unix(r.Sec, int64(r.Nsec)).Sub(start.Add(half)), nil
}

// receive calls fn with each message of s until its end. An error of s goes
// through fail.
func receive[M any](s interface{ Recv() (*M, error) }, fn func(*M) error, fail func(error) error) error {
	for {
		m, err := s.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fail(err)
		}
		if err := fn(m); err != nil {
			return err
		}
	}
}

func errCount(got, want int) error {
	return fmt.Errorf("%w: %d answers, want %d", syscall.EPROTO, got, want)
}
