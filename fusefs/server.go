package fusefs

import (
	"context"
	"errors"
	"log/slog"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/georep/georep/translator"
)

// Options of a mount.
type Options struct {
	// Mountpoint is an existing directory.
	Mountpoint string
	// FSName is shown as the source of the mount: the brick's path.
	FSName string
	// Flags are mount options for the kernel, such as ro, noatime, nodev.
	Flags []string
	// AllowOther lets other users than root in.
	AllowOther bool
	// NoPermissions leaves permission checks out: for a mount that only root
	// reaches. It saves a request per change of a directory.
	NoPermissions bool
	// NoPassthrough has reads and writes come to us.
	NoPassthrough bool
	// NoIOURing has requests come by /dev/fuse even where the kernel has FUSE over
	// io_uring.
	NoIOURing bool
	// CacheTime is how long the kernel may keep names and attributes. Default
	// one day.
	CacheTime time.Duration
	// Debug prints each message of the kernel.
	Debug bool
	// Logger; nil discards.
	Logger *slog.Logger
}

// transport carries messages between the kernel and the file system. The classic
// loop over /dev/fuse is go-fuse's Server.
type transport interface {
	// Serve answers requests until the file system is unmounted.
	Serve()
	// WaitMount returns once requests are answered.
	WaitMount() error
	Unmount() error
	InodeNotify(node uint64, off, length int64) fuse.Status
	RegisterBackingFd(*fuse.BackingMap) (int32, syscall.Errno)
	UnregisterBackingFd(int32) syscall.Errno
}

// Server serves one mount.
type Server struct {
	fs   *fileSystem
	tr   transport
	opts Options
}

// Mount mounts a file system whose fops a Translator will carry out. New makes
// the Translator from what the mount offers it: a Backing, nil without
// passthrough, and a function to invalidate attributes. It is called before any
// request is answered, and its error undoes the mount.
func Mount(opts Options, New func(translator.Backing, func(id uint64)) (*translator.Translator, error)) (*Server, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.CacheTime == 0 {
		opts.CacheTime = 24 * time.Hour
	}
	f := &fileSystem{RawFileSystem: fuse.NewDefaultRawFileSystem(), keep: opts.CacheTime}
	s := &Server{fs: f, opts: opts}
	var backing translator.Backing
	if !opts.NoPassthrough {
		backing = s
	}
	// Before the mount: a brick that can't be served is not mounted over.
	t, err := New(backing, s.invalidate)
	if err != nil {
		return nil, err
	}
	f.t = t
	if err := s.mount(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return s, nil
}

// mount mounts, and goes over to io_uring if the kernel offers it.
func (s *Server) mount() error {
	restore := func() {}
	if !s.opts.NoIOURing {
		restore = offerURing()
	}
	c, err := mountClassic(s.fs, &s.opts)
	restore()
	if err != nil {
		return err
	}
	s.tr = c
	if s.opts.NoIOURing || c.KernelSettings().Flags64()&fuse.CAP_OVER_IO_URING == 0 {
		return nil
	}
	u, err := newURing(c, s.fs, &s.opts)
	if err != nil {
		// The kernel waits for queues by now, so there is no way back.
		return errors.Join(err, c.detach())
	}
	s.tr = u
	return nil
}

func (o *Options) mountOptions() *fuse.MountOptions {
	m := &fuse.MountOptions{
		Name:                 "georep",
		MaxWrite:             1 << 20,
		MaxReadAhead:         1 << 20,
		MaxBackground:        64,
		EnableAcl:            true,
		EnableSymlinkCaching: true,
		MaxStackDepth:        1,
		Debug:                o.Debug,
		Logger:               slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn),
		ExtraCapabilities: fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_DONT_MASK | fuse.CAP_ATOMIC_O_TRUNC |
			fuse.CAP_SETXATTR_EXT | fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_EXPORT_SUPPORT | fuse.CAP_IOCTL_DIR |
			fuse.CAP_ASYNC_DIO,
	}
	if !o.NoIOURing {
		m.ExtraCapabilities |= fuse.CAP_OVER_IO_URING
	}
	return m
}

// Serve answers requests until the file system is unmounted, and then closes the
// Translator.
func (s *Server) Serve() error {
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.fs.t.Run(ctx) }()
	s.tr.Serve()
	stop()
	// Who mounts the brick again right away waits for the rest.
	err := s.fs.t.Ending()
	return errors.Join(err, <-ran, s.fs.close())
}

// WaitMount returns once the mount can be used. Serve must be running.
func (s *Server) WaitMount() error { return s.tr.WaitMount() }

// Unmount ends the mount. EBUSY: somebody uses it.
func (s *Server) Unmount() error { return s.tr.Unmount() }

// Translator carries out the mount's fops.
func (s *Server) Translator() *translator.Translator { return s.fs.t }

// Register makes the file behind fd a backing file, for passthrough.
func (s *Server) Register(fd int) (int32, syscall.Errno) {
	return s.tr.RegisterBackingFd(&fuse.BackingMap{Fd: int32(fd)})
}

// Unregister undoes Register.
func (s *Server) Unregister(id int32) {
	// It fails when the mount is gone, and the id with it.
	s.tr.UnregisterBackingFd(id)
}

// invalidate makes the kernel ask for the attributes of a node again.
func (s *Server) invalidate(id uint64) {
	if s.tr != nil {
		// ENOENT: the kernel does not know the node any more.
		s.tr.InodeNotify(id, -1, 0)
	}
}
