package fusefs

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// classic is the transport over /dev/fuse. It mounts and unmounts itself, since
// go-fuse's own mount leaves the descriptor to children of this process, which
// then keep the connection alive, and knows no flags such as ro and noatime.
type classic struct {
	*fuse.Server
	mountpoint string
	fd         int // of /dev/fuse; owned by the Server
}

// mountFlags are the options that the kernel wants as bits: to set, or to clear.
var mountFlags = map[string]struct {
	bit   uintptr
	clear bool
}{
	"ro": {bit: unix.MS_RDONLY}, "rw": {unix.MS_RDONLY, true},
	"nodev": {bit: unix.MS_NODEV}, "dev": {unix.MS_NODEV, true},
	"nosuid": {bit: unix.MS_NOSUID}, "suid": {unix.MS_NOSUID, true},
	"noexec": {bit: unix.MS_NOEXEC}, "exec": {unix.MS_NOEXEC, true},
	"sync": {bit: unix.MS_SYNCHRONOUS}, "async": {unix.MS_SYNCHRONOUS, true},
	"dirsync": {bit: unix.MS_DIRSYNC},
	"noatime": {bit: unix.MS_NOATIME}, "atime": {unix.MS_NOATIME, true},
	"nodiratime": {bit: unix.MS_NODIRATIME}, "diratime": {unix.MS_NODIRATIME, true},
	"relatime": {bit: unix.MS_RELATIME}, "norelatime": {unix.MS_RELATIME, true},
	"strictatime": {bit: unix.MS_STRICTATIME}, "nostrictatime": {unix.MS_STRICTATIME, true},
}

// mountClassic mounts over opts.Mountpoint and returns the transport that serves
// f there.
func mountClassic(f fuse.RawFileSystem, opts *Options) (*classic, error) {
	fail := func(err error) (*classic, error) {
		return nil, fmt.Errorf("fusefs: mount %q: %w", opts.Mountpoint, err)
	}
	mountpoint, err := filepath.Abs(opts.Mountpoint)
	if err != nil {
		return fail(err)
	}
	m := opts.mountOptions()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(fmt.Errorf("/dev/fuse: %w", err))
	}
	data := []string{
		fmt.Sprintf("fd=%d", fd), fmt.Sprintf("rootmode=%o", unix.S_IFDIR), "user_id=0", "group_id=0",
		fmt.Sprintf("max_read=%d", m.MaxWrite),
	}
	if opts.AllowOther {
		data = append(data, "allow_other")
	}
	if !opts.NoPermissions {
		data = append(data, "default_permissions")
	}
	var flags uintptr
	for _, o := range opts.Flags {
		b, ok := mountFlags[o]
		switch {
		case !ok:
			data = append(data, o) // the kernel says what it thinks of it
		case b.clear:
			flags &^= b.bit
		default:
			flags |= b.bit
		}
	}
	if err := unix.Mount(opts.FSName, mountpoint, "fuse.georep", flags, strings.Join(data, ",")); err != nil {
		unix.Close(fd)
		return fail(err)
	}
	// go-fuse serves a descriptor that it is given by this name, and owns it.
	srv, err := fuse.NewServer(f, fmt.Sprintf("/dev/fd/%d", fd), m)
	if err != nil {
		// Detached: whoever was quick enough to be in it gets errors.
		unix.Unmount(mountpoint, unix.MNT_DETACH)
		return fail(err)
	}
	return &classic{srv, mountpoint, fd}, nil
}

// Unmount unmounts and waits until the last request is answered.
func (c *classic) Unmount() error {
	if err := c.detach(); err != nil {
		return err
	}
	c.Wait()
	return nil
}

// detach unmounts.
func (c *classic) detach() error {
	var err error
	for delay := 5 * time.Millisecond; delay < 200*time.Millisecond; delay *= 2 {
		// The kernel puts off the end of files that are closed already.
		if err = unix.Unmount(c.mountpoint, unix.UMOUNT_NOFOLLOW); err != unix.EBUSY {
			break
		}
		time.Sleep(delay)
	}
	if err != nil {
		return fmt.Errorf("fusefs: unmount %q: %w", c.mountpoint, err)
	}
	return nil
}
