package slave

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/georep/georep/brick/gfid"
)

// ServerOptions are what Serve needs to know.
type ServerOptions struct {
	Root    string // the slave's directory
	Version string // our georep's, told to the other side
	Rsync   string // the rsync program; default "rsync"
	// Confined: the kernel holds this process to Root, see Confine.
	Confined bool
	// Keepalive is how long the other side may be silent before it is asked for
	// a sign of life, and then how long that may take. Default 20 s.
	Keepalive time.Duration
	Logger    *slog.Logger // nil discards
}

// server answers one connection.
type server struct {
	UnimplementedWireServer
	o ServerOptions

	mu   sync.Mutex
	tree *tree // nil before Hello; guarded by mu until it is set
}

// Serve answers one client over stream until either side ends it or ctx is done.
// Operations under way are finished first. It owns stream.
func Serve(ctx context.Context, stream io.ReadWriteCloser, o ServerOptions) error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Keepalive == 0 {
		o.Keepalive = defaultKeepalive
	}
	if o.Rsync == "" {
		o.Rsync = "rsync"
	}
	s := &server{o: o}
	g := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(window),
		grpc.MaxConcurrentStreams(32), grpc.MaxHeaderListSize(16<<10),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: o.Keepalive, Timeout: o.Keepalive}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
	)
	RegisterWireServer(g, s)
	sc := newStreamConn(stream)
	defer sc.Close()
	end := context.AfterFunc(ctx, g.Stop)
	defer end()
	err := g.Serve(&oneConn{conn: sc})
	g.Stop()
	if s.tree != nil {
		err = errors.Join(err, s.tree.close())
	}
	return err
}

// oneConn is a listener that accepts one connection and ends with it.
type oneConn struct {
	conn *streamConn
	once sync.Once
}

func (l *oneConn) Accept() (conn net.Conn, err error) {
	l.once.Do(func() { conn = l.conn })
	if conn != nil {
		return conn, nil
	}
	<-l.conn.done
	return nil, grpc.ErrServerStopped
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return streamAddr{} }

// Hello lets a master in.
func (s *server) Hello(_ context.Context, w *WireHello) (*WireWelcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tree != nil {
		return nil, status.Error(codes.FailedPrecondition, "hello was said already")
	}
	if w.Protocol != protocol {
		return s.refuse(fmt.Errorf("%w: %d, here %d (georep %s, here %s)", ErrProtocol, w.Protocol, protocol, w.Version, s.o.Version)), nil
	}
	master, err := gfid.FromBytes(w.Master) // a volume id has the same form
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "volume id of the master: "+err.Error())
	}
	c := claim{master: [16]byte(master), boot: w.Boot, create: w.Create, readOnly: w.ReadOnly}
	for _, n := range w.Path {
		c.path = append(c.path, inodeN{n.Dev, n.Ino})
	}
	t, created, err := admit(s.o.Root, c, s.o.Logger)
	if err != nil {
		return s.refuse(err), nil
	}
	s.tree = t
	id := t.brick.Volume()
	namespaces, unset := t.namespaces()
	return &WireWelcome{
		Protocol: protocol, Version: s.o.Version, Slave: id[:], Path: []byte(t.brick.Path()), Created: created,
		Rsync: rsyncVersion(s.o.Rsync), Namespaces: namespaces, Unset: []byte(unset), Confined: s.o.Confined,
	}, nil
}

func (s *server) refuse(err error) *WireWelcome {
	w := &WireWelcome{Protocol: protocol, Version: s.o.Version, Refusal: uint32(len(refusals)), Why: []byte(err.Error())}
	for i, r := range refusals {
		if r != nil && errors.Is(err, r) {
			w.Refusal = uint32(i)
		}
	}
	s.o.Logger.Info("master refused", "err", err)
	return w
}

// opened is the tree, once Hello has let the master in.
func (s *server) opened() (*tree, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tree == nil {
		return nil, status.Error(codes.FailedPrecondition, "no hello yet")
	}
	return s.tree, nil
}

// written is opened for what changes the tree.
func (s *server) written() (*tree, error) {
	t, err := s.opened()
	if err == nil && t.readOnly {
		return nil, status.Error(codes.FailedPrecondition, "connection is for reading only")
	}
	return t, err
}

// tooMany refuses a message of more items than our side sends.
func tooMany(n int) error {
	if n > maxBatch {
		return status.Errorf(codes.InvalidArgument, "%d items in a message, at most %d", n, maxBatch)
	}
	return nil
}

func invalid(err error) error { return status.Error(codes.InvalidArgument, err.Error()) }

func (s *server) Lookup(ctx context.Context, w *WireLookup) (*WireEntries, error) {
	t, err := s.opened()
	if err == nil {
		err = tooMany(len(w.Names))
	}
	if err != nil {
		return nil, err
	}
	reply := &WireEntries{Entries: make([]*WireEntry, len(w.Names))}
	for i, n := range w.Names {
		name, err := nameOf(n)
		if err != nil {
			return nil, invalid(err)
		}
		e := t.lookup(name)
		reply.Entries[i] = wireEntry(&e)
	}
	return reply, nil
}

// replyBytes is how much of xattrs and names one reply of Stat takes before the
// rest is left for the next.
const replyBytes = 1 << 20

func (s *server) Stat(ctx context.Context, w *WireStat) (*WireObjects, error) {
	t, err := s.opened()
	if err == nil {
		err = tooMany(len(w.Gfids))
	}
	if err != nil {
		return nil, err
	}
	gfids, err := gfidsOf(w.Gfids)
	if err != nil {
		return nil, invalid(err)
	}
	reply := &WireObjects{Objects: make([]*WireObject, 0, len(gfids))}
	size := 0
	for _, g := range gfids {
		o := t.stat(g, Want(w.Want))
		reply.Objects = append(reply.Objects, wireObject(&o))
		for _, x := range o.Xattrs {
			size += len(x.Name) + len(x.Value)
		}
		for _, n := range o.Names {
			size += len(n.Base) + 32
		}
		if size += len(o.Target); size > replyBytes {
			break
		}
	}
	return reply, nil
}

func (s *server) List(w *WireList, stream grpc.ServerStreamingServer[WireEntries]) error {
	t, err := s.opened()
	if err != nil {
		return err
	}
	g, err := gfid.FromBytes(w.Dir)
	if err != nil {
		return invalid(err)
	}
	err = t.list(g, w.Attrs, func(entries []Entry) error {
		reply := &WireEntries{Entries: make([]*WireEntry, len(entries))}
		for i := range entries {
			reply.Entries[i] = wireEntry(&entries[i])
		}
		return stream.Send(reply)
	})
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return stream.Send(&WireEntries{Entries: []*WireEntry{{Errno: uint32(errno)}}})
	}
	return err
}

func (s *server) Apply(stream grpc.BidiStreamingServer[WireOps, WireResults]) error {
	t, err := s.written()
	if err != nil {
		return err
	}
	for {
		w, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = tooMany(len(w.Ops))
		}
		if err != nil {
			return err
		}
		reply := &WireResults{Results: make([]*WireResult, len(w.Ops))}
		for i, o := range w.Ops {
			var res Result
			if op, err := opOf(o); err != nil {
				res.Errno, res.Detail = syscall.EINVAL, err.Error()
			} else {
				res = t.apply(&op)
			}
			reply.Results[i] = wireResult(&res)
		}
		if err := stream.Send(reply); err != nil {
			return err
		}
	}
}

// apply does one operation.
func (t *tree) apply(op *Op) Result {
	var res Result
	f := t.do(op, &res)
	if f != nil {
		res.Errno, res.Detail = f.errno, f.detail
		// EAGAIN is not the end of a Destroy: what it let go is told.
		t.log.Debug("operation failed", "kind", op.Kind, "gfid", op.GFID, "err", f)
	}
	return res
}

func (t *tree) do(op *Op, res *Result) *fault {
	if op.GFID.IsZero() && op.Kind != Unlink {
		return failed(syscall.EINVAL, "no gfid")
	}
	if op.Meta != nil {
		if f := checkMeta(op.Meta); f != nil {
			return f
		}
	}
	switch op.Kind {
	case Make:
		return t.make(op, res)
	case Link:
		return t.link(op, res)
	case Rename:
		return t.rename(op, res)
	case Unlink:
		return t.unlink(op, res)
	case Destroy:
		return t.destroy(op, res)
	case Setattr:
		return t.setattr(op, res)
	case Put:
		return t.put(op, res)
	case Begin:
		return t.begin(op, res)
	case Write:
		return t.write(op, res)
	}
	return failed(syscall.ENOSYS, fmt.Sprintf("operation %d", op.Kind))
}

func (s *server) Hash(w *WireGFIDs, stream grpc.ServerStreamingServer[WireHash]) error {
	t, err := s.opened()
	if err == nil {
		err = tooMany(len(w.Gfids))
	}
	if err != nil {
		return err
	}
	gfids, err := gfidsOf(w.Gfids)
	if err != nil {
		return invalid(err)
	}
	var sending sync.Mutex
	g, ctx := errgroup.WithContext(stream.Context())
	g.SetLimit(2) // reading one and hashing another
	for i, id := range gfids {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			h := t.hash(id)
			sending.Lock()
			defer sending.Unlock()
			return stream.Send(&WireHash{
				Index: uint32(i), Errno: uint32(h.Errno), Sum: h.Sum[:], Size: h.Size,
				Mtime: wireTime(h.Mtime), Ctime: wireTime(h.Ctime),
			})
		})
	}
	return g.Wait()
}

func (s *server) Nameless(w *WireNameless, stream grpc.ServerStreamingServer[WireGFIDs]) error {
	t, err := s.opened()
	if err != nil {
		return err
	}
	look := t.nameless
	if w.Scan {
		look = t.scanNameless
	}
	return look(func(gfids []gfid.GFID) error {
		for part := range chunks(gfids, maxBatch) {
			if err := stream.Send(&WireGFIDs{Gfids: wireGFIDs(part)}); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *server) Conflicts(_ *WireEmpty, stream grpc.ServerStreamingServer[WireConflict]) error {
	t, err := s.opened()
	if err != nil {
		return err
	}
	return t.conflictList(func(c Conflict) error {
		return stream.Send(&WireConflict{Name: []byte(c.Name), Mode: c.Mode, Size: c.Size, Mtime: wireTime(c.Mtime)})
	})
}

func (s *server) Sync(context.Context, *WireEmpty) (*WireEmpty, error) {
	t, err := s.written()
	if err != nil {
		return nil, err
	}
	if errno := t.sync(); errno != 0 {
		return nil, status.Error(codes.DataLoss, "syncfs: "+errno.Error())
	}
	return &WireEmpty{}, nil
}

func (s *server) StatFS(context.Context, *WireEmpty) (*WireFS, error) {
	t, err := s.opened()
	if err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(t.brick.Root(), &st); err != nil {
		return nil, status.Error(codes.Internal, "statfs: "+err.Error())
	}
	block := uint64(st.Frsize)
	return &WireFS{
		Size: st.Blocks * block, Free: st.Bfree * block, Inodes: st.Files, InodesFree: st.Ffree,
		ReadOnly: st.Flags&unix.ST_RDONLY != 0,
	}, nil
}

func (s *server) Clock(context.Context, *WireEmpty) (*WireTime, error) {
	now := time.Now()
	return &WireTime{Sec: now.Unix(), Nsec: uint32(now.Nanosecond())}, nil
}
