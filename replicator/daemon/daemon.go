package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/georep/georep/replicator/session"
)

// Host is what the daemon asks for that has to do with bricks and slaves.
type Host interface {
	// PrepareBrick makes the directory path a brick with the volume id, or, if id
	// is zero, with the one it has or a new one. It returns the path without
	// symlinks and the id. A brick of another volume is a Precondition error.
	PrepareBrick(path string, id uuid.UUID) (string, uuid.UUID, error)
	// PrepareSlave makes sure that the slave can become that of the brick, and makes
	// it so. force leaves out checks of what might be meant so.
	PrepareSlave(ctx context.Context, brick string, slave Slave, force bool) error
	// ResetStime takes away what the brick knows of its slave's progress.
	ResetStime(ctx context.Context, brick string, slave Slave) error
	// Purge removes sealed changelogs of the brick from before a time, and says how
	// many files and bytes.
	Purge(brick string, before time.Time) (files int, bytes int64, err error)
	// ChangelogUsage is what the brick's sealed changelogs take.
	ChangelogUsage(brick string) (files int, bytes int64, err error)
	// Test looks at each thing that replication to a destination needs.
	Test(ctx context.Context, d *session.Destination) (session.DestinationState, []session.Step)
}

// Slave says where a slave is and how it is reached.
type Slave struct {
	Address    string // as georep replicate takes it
	Base       string // of its session; directories from here on may be made
	Identity   string // file of the private key; "" for this host
	KnownHosts string // file of the host's key; "" for this host
}

// Options of a Daemon. A zero field means its default; those without one are needed.
type Options struct {
	Store  *session.Store
	Host   Host
	Socket string // the API's unix socket
	State  string // directory of logs and keys
	Mounts string // directory where volumes are mounted that name no mountpoint
	Georep string // the program
	Node   string // name of this host
	// Env is the environment of mounts and workers.
	Env []string
	// Version of georep, as clients are told.
	Version string
	// Metrics is where Prometheus is answered, an address of the loopback; "" is
	// nowhere.
	Metrics string
	// Webhook is an http or https URL that each event is posted to; "" is none.
	Webhook string
	// Notify tells the service manager, in the form of sd_notify(3). Nil: nobody.
	Notify func(string)
	Logger *slog.Logger // nil discards
}

// Daemon supervises mounts and workers.
type Daemon struct {
	opt    Options
	log    *slog.Logger
	store  *session.Store
	events *broker
	began  time.Time

	// ops makes changes asked for over the API one after another. It is taken
	// before mu, and held while a worker or mount ends.
	ops sync.Mutex

	// purge asks for a round of retention now. Capacity 1.
	purge chan struct{}

	mu      sync.Mutex
	mounts  map[string]*mount    // by brick; guarded by mu
	workers map[workerID]*worker // guarded by mu
	wait    sync.WaitGroup
}

// New makes a Daemon. It changes nothing yet.
func New(o Options) (*Daemon, error) {
	if o.Store == nil || o.Host == nil || o.Socket == "" || o.State == "" || o.Mounts == "" || o.Georep == "" {
		return nil, errors.New("daemon: options: Store, Host, Socket, State, Mounts and Georep are needed")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Notify == nil {
		o.Notify = func(string) {}
	}
	return &Daemon{
		opt: o, log: o.Logger, store: o.Store, events: newBroker(), began: time.Now(), purge: make(chan struct{}, 1),
		mounts: make(map[string]*mount), workers: make(map[workerID]*worker),
	}, nil
}

// Run serves until ctx is done. Workers end before it returns; mounts stay.
func (d *Daemon) Run(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(d.opt.State, "log"), 0o700); err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	listen, err := d.listen()
	if err != nil {
		return err
	}
	defer listen.Close() // removes the socket
	measured, err := d.serveMetrics(ctx)
	if err != nil {
		return err
	}
	if err := d.resume(); err != nil {
		return err
	}
	serving, stop := context.WithCancel(context.Background())
	srv := &http.Server{
		Handler:           d.routes(),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(d.log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return serving },
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listen) }()
	d.log.Info("serving", "socket", d.opt.Socket)
	d.opt.Notify("READY=1")

	var beside sync.WaitGroup
	beside.Go(func() { d.retain(ctx) })
	beside.Go(func() { d.post(ctx) })
	beside.Go(func() { d.testAll(ctx) })
	d.watch(ctx)
	beside.Wait()
	<-measured

	d.opt.Notify("STOPPING=1")
	stop() // who follows events or waits is told now
	timed, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err = srv.Shutdown(timed)
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = e
	}
	d.endAll()
	return err
}

// listen opens the socket for root and its group. One that nobody answers at was
// left by a daemon that was killed; the store's lock says that none is alive.
func (d *Daemon) listen() (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(d.opt.Socket), 0o755); err != nil {
		return nil, fmt.Errorf("daemon: %w", err)
	}
	if c, err := net.Dial("unix", d.opt.Socket); err == nil {
		c.Close()
		return nil, fmt.Errorf("daemon: socket %q: %w", d.opt.Socket, unix.EADDRINUSE)
	}
	if err := os.Remove(d.opt.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("daemon: %w", err)
	}
	// Nobody gets in between Listen and Chmod.
	dir, err := os.MkdirTemp(filepath.Dir(d.opt.Socket), ".sock")
	if err != nil {
		return nil, fmt.Errorf("daemon: %w", err)
	}
	defer os.RemoveAll(dir)
	fresh := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("daemon: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(fresh, 0o660); err == nil {
		err = os.Rename(fresh, d.opt.Socket)
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("daemon: %w", err)
	}
	return &socket{l, d.opt.Socket}, nil
}

// socket removes its name when it is closed, once.
type socket struct {
	net.Listener
	path string
}

func (s *socket) Close() error {
	err := s.Listener.Close()
	if err == nil {
		err = os.Remove(s.path)
	}
	return err
}

// resume starts what is wanted according to the store.
func (d *Daemon) resume() error {
	volumes, err := d.store.Volumes()
	if err != nil {
		return err
	}
	for _, v := range volumes {
		if v.Started {
			d.keepMounted(v)
		}
	}
	sessions, err := d.store.Sessions()
	if err != nil {
		return err
	}
	for _, s := range sessions {
		if s.Wanted != session.Started {
			continue
		}
		if err := d.startWorkers(s); err != nil {
			return err
		}
	}
	return nil
}

// endAll ends all workers, at once, and stops watching mounts.
func (d *Daemon) endAll() {
	d.ops.Lock()
	defer d.ops.Unlock()
	d.mu.Lock()
	for _, w := range d.workers {
		w.cancel()
	}
	for _, m := range d.mounts {
		m.cancel()
	}
	d.mu.Unlock()
	d.wait.Wait()
}

// tell notes an event and gives it to those who follow.
func (d *Daemon) tell(e session.Event) {
	if err := d.store.AddEvent(&e); err != nil {
		d.log.Error("event not kept", "kind", e.Kind, "text", e.Text, "err", err)
		return
	}
	d.log.Info(e.Text, "event", e.Kind, "session", e.Session, "brick", e.Brick)
	d.events.publish()
}

// watchEvery is how often what is there is compared with what should be.
const watchEvery = time.Second

// watch looks after workers until ctx is done. Only a round that got through to
// the store feeds the service manager's watchdog.
func (d *Daemon) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		line, err := d.look()
		if err != nil {
			d.log.Error("round failed", "err", err)
			continue
		}
		d.opt.Notify("WATCHDOG=1\nSTATUS=" + line)
	}
}
