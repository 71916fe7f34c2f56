package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/changelog"
	"github.com/georep/georep/fusefs"
	"github.com/georep/georep/translator"
)

// mountOptions are the options of georep mount as given.
type mountOptions struct {
	brick, mountpoint string

	foreground bool
	debug      bool
	volume     string
	logFile    string
	optionFile string
	fuse       []string // -o, not yet split
	recording  recordingOptions
	fixed      recordingFlags // which of recording the command line sets
	cpuProfile string         // where to write one; "" not at all
}

// readyFD is the descriptor on which a mount in the background tells its parent
// that it can be used: "ok", or why not.
const readyFD = 3

// readyEnv says that readyFD is there.
const readyEnv = "GEOREP_MOUNT_READY_FD"

func newMountCommand() *cobra.Command {
	o := &mountOptions{recording: defaultRecording()}
	c := &cobra.Command{
		Use:   "mount [options] BRICK MOUNTPOINT",
		Short: "Mount a brick: what changes below MOUNTPOINT is recorded on it",
		Long: `BRICK is a directory on a local file system with xattrs (ext4, XFS, Btrfs); it is
made a brick if it is none, and what is in it stays. The command returns when the
mount can be used. fusermount3 -u, umount and SIGTERM end the mount; SIGHUP reads
the file of options again, BRICK/.glusterfs/georep/mount.conf, which holds lines
such as "encoding = binary"; SIGUSR1 seals the current changelog at once. As
mount.georep it works from /etc/fstab:

    /bricks/b  /srv/vol  georep  rollover-time=15s,noatime,nofail  0 0

Exit status: 0 mounted, 1 failed, 2 usage, 3 no such directory, 4 mounted already.`,
		Example: `    $ georep mount /bricks/b /srv/vol`,
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			o.brick, o.mountpoint = args[0], args[1]
			o.fixed = flagsGiven(c)
			return o.run(c.Context())
		},
	}
	f := c.Flags()
	f.BoolVar(&o.foreground, "foreground", false, "stay in the foreground, log to stderr")
	f.BoolVar(&o.debug, "debug", false, "print every message of the kernel")
	f.StringVar(&o.volume, "volume", "", "name of the volume, shown by df (default BRICK)")
	f.StringVar(&o.logFile, "log-file", "", "where to log in the background (default BRICK/.glusterfs/georep/mount.log)")
	f.StringVar(&o.optionFile, "option-file", "", "file that SIGHUP reads again (default BRICK/.glusterfs/georep/mount.conf)")
	f.StringArrayVarP(&o.fuse, "options", "o", nil, "mount options, and the options above, separated by commas")
	f.StringVar(&o.cpuProfile, "cpuprofile", "", "write a CPU profile of the mount to this file (with --foreground)")
	_ = f.MarkHidden("cpuprofile") // it is there
	o.recording.addFlags(f)
	return c
}

func (o *mountOptions) run(ctx context.Context) error {
	kernel, err := o.splitOptions()
	if err != nil {
		return err
	}
	if err := o.checkPaths(); err != nil {
		return err
	}
	if !o.foreground {
		return o.inBackground()
	}
	return o.serve(ctx, kernel)
}

// kernelFlags are the -o options that the kernel understands for a FUSE mount.
var kernelFlags = []string{"ro", "rw", "dev", "nodev", "suid", "nosuid", "exec", "noexec", "atime", "noatime",
	"diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime", "sync", "async", "dirsync"}

// fstabOptions are for mount(8) and systemd, not for a file system.
var fstabOptions = []string{"defaults", "auto", "noauto", "user", "nouser", "users", "nofail", "_netdev", "owner", "group"}

// fuseOptions are what -o asked of the FUSE layer.
type fuseOptions struct {
	flags         []string
	allowRootOnly bool
	noPermissions bool
	noPassthrough bool
	noIOURing     bool
}

// splitOptions takes -o apart: what is an option of georep mount is set as if it
// had been given as one, unless it was.
func (o *mountOptions) splitOptions() (fuseOptions, error) {
	var k fuseOptions
	for _, list := range o.fuse {
		for opt := range strings.SplitSeq(list, ",") {
			key, value, hasValue := strings.Cut(opt, "=")
			switch {
			case opt == "" || slices.Contains(fstabOptions, key) || strings.HasPrefix(key, "x-") || strings.HasPrefix(key, "comment"):
			case slices.Contains(kernelFlags, opt):
				k.flags = append(k.flags, opt)
			case opt == "allow_other":
			case opt == "root_only":
				k.allowRootOnly = true
			case opt == "no_default_permissions":
				k.noPermissions = true
			case opt == "no_passthrough":
				k.noPassthrough = true
			case opt == "no_io_uring":
				k.noIOURing = true
			case key == "volume" && hasValue:
				o.volume = value
			case key == "log-file" && hasValue:
				o.logFile = value
			default:
				if err := o.recording.set(key, value, hasValue); err != nil {
					return k, usagef("mount: -o %s: %w", opt, err)
				}
				o.fixed[key] = true
			}
		}
	}
	if k.noPermissions && !k.allowRootOnly {
		return k, usagef("mount: -o no_default_permissions leaves all checks out, so it needs root_only with it")
	}
	return k, nil
}

func (o *mountOptions) checkPaths() error {
	if err := o.clearMountpoint(); err != nil {
		return err
	}
	for what, p := range map[string]*string{"brick": &o.brick, "mountpoint": &o.mountpoint} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return fmt.Errorf("mount: %w", err)
		}
		*p = abs
		st, err := os.Stat(abs)
		if err != nil {
			return fmt.Errorf("mount: %s: %w", what, err)
		}
		if !st.IsDir() {
			return &exitError{code: exitPrecondition, err: fmt.Errorf("mount: %s %q is not a directory", what, abs)}
		}
	}
	if os.Geteuid() != 0 {
		return &exitError{code: exitPrecondition, err: errors.New("mount: only root can keep the xattrs of a brick"), hint: "run it with sudo"}
	}
	b, m := o.brick+"/", o.mountpoint+"/"
	if strings.HasPrefix(m, b) && m != b || strings.HasPrefix(b, m) && m != b {
		return &exitError{code: exitPrecondition, err: fmt.Errorf("mount: %q and %q lie inside one another", o.brick, o.mountpoint)}
	}
	if o.logFile == "" {
		o.logFile = filepath.Join(o.brick, brick.Dir, "georep", "mount.log")
	}
	if o.optionFile == "" {
		o.optionFile = filepath.Join(o.brick, brick.Dir, "georep", "mount.conf")
	}
	return nil
}

// clearMountpoint unmounts what a killed mount has left at the mountpoint, which
// nobody can use any more, and refuses one that is in use.
func (o *mountOptions) clearMountpoint() error {
	path, err := filepath.Abs(o.mountpoint)
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 5 || unescapeMount.Replace(f[4]) != path || !strings.Contains(line, " - fuse.georep ") {
			continue
		}
		// The kernel may still know the attributes of a dead mount's root; this
		// it has to ask for.
		var st unix.Statfs_t
		switch err := unix.Statfs(path, &st); err {
		case unix.ENOTCONN, unix.ECONNABORTED:
			if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
				return fmt.Errorf("mount: a killed mount is in the way at %q: unmount: %w", path, err)
			}
		default:
			return &exitError{code: exitPrecondition, err: fmt.Errorf("mount: a brick is mounted at %q already", path)}
		}
	}
	return nil
}

// unescapeMount undoes the quoting of paths in /proc/self/mountinfo.
var unescapeMount = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// inBackground starts the mount as a process of its own and returns once it can
// be used, or with the error it ended with.
func (o *mountOptions) inBackground() error {
	// The log's directory is the brick's, which must be one first.
	b, err := brick.Create(o.brick)
	if err != nil {
		return err
	}
	b.Close()
	log, err := os.OpenFile(o.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	defer log.Close()
	ready, tell, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	defer ready.Close()
	args := append([]string{"mount", "--foreground"}, o.again()...)
	c := exec.Command("/proc/self/exe", args...)
	c.Args[0] = "georep"
	c.Env = append(os.Environ(), readyEnv+"=1")
	c.Stdout, c.Stderr = log, log
	c.ExtraFiles = []*os.File{tell}
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = c.Start()
	tell.Close()
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	answer, err := bufio.NewReader(ready).ReadString('\n')
	if answer == "ok\n" {
		return nil
	}
	if answer == "" {
		answer = fmt.Sprintf("the mount ended before it could be used (%v); see %s", err, o.logFile)
	}
	code := exitFailed
	if err := c.Wait(); err != nil {
		code = c.ProcessState.ExitCode()
	}
	return &exitError{code: code, err: errors.New(strings.TrimSpace(answer))}
}

// again is the command line of the process in the background.
func (o *mountOptions) again() []string {
	args := []string{"--volume", o.volume, "--log-file", o.logFile, "--option-file", o.optionFile}
	if o.debug {
		args = append(args, "--debug")
	}
	for _, list := range o.fuse {
		args = append(args, "-o", list)
	}
	for key := range o.fixed {
		args = append(args, "--"+key+"="+o.recording.get(key))
	}
	return append(args, "--", o.brick, o.mountpoint)
}

// serve mounts and answers requests until the mount ends.
func (o *mountOptions) serve(ctx context.Context, k fuseOptions) (err error) {
	if err := dropResource(); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	tell := io.WriteCloser(nil)
	if os.Getenv(readyEnv) != "" {
		tell = os.NewFile(readyFD, "ready")
		unix.CloseOnExec(readyFD)
		os.Unsetenv(readyEnv)
		defer func() {
			if err != nil && tell != nil {
				fmt.Fprintln(tell, strings.ReplaceAll(err.Error(), "\n", "; "))
			}
		}()
	}
	// More Ps than cores: one stuck in a short system call is only taken back by
	// the runtime's monitor, after milliseconds.
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(4, 2*runtime.NumCPU()))
	}
	unix.Umask(0)
	raiseFileLimit()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("brick", o.brick)
	if o.cpuProfile != "" {
		stop, err := profileCPU(o.cpuProfile)
		if err != nil {
			return err
		}
		defer stop()
	}

	b, err := brick.Create(o.brick)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.Lock(); err != nil {
		return err
	}
	rec, err := o.effective()
	if err != nil {
		return err
	}
	srv, err := o.mount(b, rec, k, log)
	if err != nil {
		return err
	}
	return o.answer(ctx, srv, log, &tell)
}

func (o *mountOptions) mount(b *brick.Brick, rec recordingOptions, k fuseOptions, log *slog.Logger) (*fusefs.Server, error) {
	name := o.volume
	if name == "" {
		name = b.Path()
	}
	var cl *changelog.Options
	if rec.changelog {
		cl = &changelog.Options{Encoding: rec.encoding, RolloverTime: rec.rollover, FsyncInterval: rec.fsync}
	}
	return fusefs.Mount(fusefs.Options{
		Mountpoint: o.mountpoint, FSName: name, Flags: k.flags, AllowOther: !k.allowRootOnly,
		NoPermissions: k.noPermissions, NoPassthrough: k.noPassthrough, NoIOURing: k.noIOURing, Debug: o.debug, Logger: log,
	}, func(back translator.Backing, invalidate func(uint64)) (*translator.Translator, error) {
		return translator.Open(translator.Options{
			NoAtime: slices.Contains(k.flags, "noatime"),
			Brick:   b, Changelog: cl, Marker: rec.marker, CaptureDelPath: rec.delPath,
			Backing: back, Invalidate: invalidate, Logger: log,
		})
	})
}

// answer serves the mount, tells when it can be used, and ends it on a signal.
func (o *mountOptions) answer(ctx context.Context, srv *fusefs.Server, log *slog.Logger, tell *io.WriteCloser) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	roll := make(chan os.Signal, 1)
	signal.Notify(roll, syscall.SIGUSR1)
	defer signal.Stop(roll)

	served := make(chan error, 1)
	go func() { served <- srv.Serve() }()
	if err := srv.WaitMount(); err != nil {
		return errors.Join(fmt.Errorf("mount: %w", err), srv.Unmount())
	}
	log.Info("mounted", "mountpoint", o.mountpoint)
	if *tell != nil {
		fmt.Fprintln(*tell, "ok")
		(*tell).Close()
		*tell = nil
	}
	// Without systemd there is no socket to tell, which is no error.
	daemon.SdNotify(false, daemon.SdNotifyReady)
	for {
		select {
		case err := <-served:
			daemon.SdNotify(false, daemon.SdNotifyStopping)
			log.Info("unmounted", "err", err)
			return err
		case <-hup:
			o.reload(srv, log)
		case <-roll:
			rollover(srv, log)
		case <-ctx.Done():
			o.end(srv, log)
			ctx = context.Background() // once
		}
	}
}

// end unmounts; a mount in use is detached, and goes on for those who use it
// until they are done.
func (o *mountOptions) end(srv *fusefs.Server, log *slog.Logger) {
	err := srv.Unmount()
	if err == nil {
		return
	}
	log.Warn("mount is in use, detaching it: it ends when its last user does", "err", err)
	if err := unix.Unmount(o.mountpoint, unix.MNT_DETACH); err != nil {
		log.Error("not unmounted", "err", err)
	}
}

// reload reads the file of options again and applies what can change while
// mounted.
func (o *mountOptions) reload(srv *fusefs.Server, log *slog.Logger) {
	rec, err := o.effective()
	if err != nil {
		log.Error("options not changed", "err", err)
		return
	}
	t := srv.Translator()
	t.SetCaptureDelPath(rec.delPath)
	if l := t.Log(); l != nil {
		if err := l.SetOptions(rec.encoding, rec.rollover, rec.fsync); err != nil {
			log.Error("options not changed", "err", err)
			return
		}
	}
	log.Info("options read again", "encoding", rec.encoding, "rollover-time", rec.rollover, "fsync-interval", rec.fsync, "capture-del-path", rec.delPath)
}

// rollover seals the current changelog, for a snapshot or a measurement that
// wants what follows in a slice of its own.
func rollover(srv *fusefs.Server, log *slog.Logger) {
	if l := srv.Translator().Log(); l != nil {
		if err := l.Rollover(); err != nil {
			log.Error("changelog rollover failed", "err", err)
		}
	}
}

// profileCPU writes a CPU profile of this process to path until stop is called.
func profileCPU(path string) (stop func(), err error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("mount: cpu profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("mount: cpu profile: %w", err), f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close() // a profile cut short tells so itself
	}, nil
}

// dropResource gives up CAP_SYS_RESOURCE for good, by running this program anew:
// who has it is under no quota, and we write for users who are.
func dropResource() error {
	const sysResource = 24
	has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, sysResource, 0, 0, 0)
	if err != nil || has == 0 {
		return err
	}
	runtime.LockOSThread() // what is dropped is this thread's, and it is the one that runs on
	if err := unix.Prctl(unix.PR_CAPBSET_DROP, sysResource, 0, 0, 0); err != nil {
		return fmt.Errorf("give up CAP_SYS_RESOURCE: %w", err)
	}
	return os.NewSyscallError("exec", syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
}

// raiseFileLimit asks for as many descriptors as the hard limit allows.
func raiseFileLimit() {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) == nil && l.Cur < l.Max {
		l.Cur = l.Max
		// With the limit as it was the caches of descriptors just press harder.
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
	}
}

// mountHelperArgs turns the arguments of mount.georep, as mount(8) calls it, into
// those of georep: SOURCE TARGET [-sfnv] [-o OPTIONS].
func mountHelperArgs(args []string) []string {
	out := []string{"mount"}
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-o" && i+1 < len(args):
			i++
			out = append(out, "-o", args[i])
		case len(a) > 1 && a[0] == '-' && strings.Trim(a[1:], "sfnv") == "":
			// Sloppy, fake, no mtab, verbose: nothing here.
		case a == "-t" && i+1 < len(args):
			i++
		default:
			out = append(out, a)
		}
	}
	return out
}
