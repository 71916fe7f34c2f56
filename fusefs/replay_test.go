package fusefs

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// golden is one operation of testdata/golden/ops.jsonl. Paths, names and data
// are percent-encoded bytes; modes are octal.
type golden struct {
	N        int
	Phase    string
	Op, Cmd  string
	P, P2, H string
	Mode     string
	Umask    string
	UID, GID *int
	U, G     int
	Data     string
	Name     string
	Value    string
	Target   string
	Flags    string
	Off, Len int64
	Times    int
	FMode    uint32 `json:"fmode"`
	Major    uint32
	Minor    uint32
	AtimeNS  int64 `json:"atime_ns"`
	MtimeNS  int64 `json:"mtime_ns"`
	Excl     bool
	Trunc    bool
	NoFollow bool
}

func init() { programs["golden"] = replay }

// replay carries out the golden operations below the directory of its first
// argument, with the semantics of the program that made GlusterFS carry them out.
// Where the brick has to do something it prints the operation and waits for a
// line. It prints the errnos of the others.
func replay(w *world) {
	f, err := os.Open(w.args[1])
	w.must("open", err)
	defer f.Close()
	r := replayer{root: w.args[0], open: map[string]int{}}
	answers := bufio.NewScanner(os.Stdin)
	for ops := json.NewDecoder(f); ops.More(); {
		var o golden
		w.must("parse", ops.Decode(&o))
		switch o.Op {
		case "sync", "ctl", "sleep":
			if o.Cmd == "trigger" {
				w.must("trigger", unix.Setxattr(r.path("final"), "glusterfs.geo-rep.trigger-sync", []byte("1"), 0))
				w.must("trigger", unix.Setxattr(r.path("sticky"), "glusterfs.geo-rep.trigger-sync", []byte("1"), 0))
				continue
			}
			fmt.Printf("%d %d\n", o.N, len(r.open))
			if !answers.Scan() {
				panic("the test has gone")
			}
			continue
		}
		u := user{umask: 0o022}
		if o.Umask != "" {
			u.umask = int(octal(o.Umask))
		}
		if o.UID != nil {
			u.uid = *o.UID
		}
		if o.GID != nil {
			u.gid = *o.GID
		}
		w.as(u, func() { err = r.do(&o) })
		fmt.Printf("= %d %s\n", o.N, errno(err))
	}
}

// replayer is a program that goes through the operations.
type replayer struct {
	root string
	open map[string]int // descriptors by the name of the handle
}

func unquote(s string) string {
	b, err := url.PathUnescape(s)
	if err != nil {
		panic(err)
	}
	return b
}

func octal(s string) uint32 {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil {
		panic(err)
	}
	return uint32(n)
}

func (r *replayer) path(p string) string { return r.root + "/" + unquote(p) }

// with opens a file for the time of f.
func with(path string, flags int, mode uint32, f func(fd int) error) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, mode)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

func (o *golden) mode(otherwise uint32) uint32 {
	if o.Mode == "" {
		return otherwise
	}
	return octal(o.Mode)
}

func (r *replayer) do(o *golden) error {
	p, p2 := r.path(o.P), r.path(o.P2)
	data := []byte(unquote(o.Data))
	atFlags := 0
	if o.NoFollow {
		atFlags = unix.AT_SYMLINK_NOFOLLOW
	}
	pwrite := func(fd int) error {
		_, err := unix.Pwrite(fd, []byte(strings.Repeat(string(data), max(o.Times, 1))), o.Off)
		return err
	}
	switch o.Op {
	case "mkdir":
		return unix.Mkdir(p, o.mode(0o755))
	case "create":
		flags := unix.O_CREAT | unix.O_WRONLY
		if o.Excl {
			flags |= unix.O_EXCL
		}
		if o.Trunc {
			flags |= unix.O_TRUNC
		}
		return with(p, flags, o.mode(0o644), func(fd int) error {
			if len(data) == 0 {
				return nil
			}
			_, err := unix.Write(fd, data)
			return err
		})
	case "mknod":
		return unix.Mknod(p, octal(o.Mode), int(unix.Mkdev(o.Major, o.Minor)))
	case "socket":
		return bindSocket(p)
	case "symlink":
		return unix.Symlink(unquote(o.Target), p)
	case "link":
		return unix.Link(p, p2)
	case "rename":
		return unix.Rename(p, p2)
	case "unlink":
		return unix.Unlink(p)
	case "rmdir":
		return unix.Rmdir(p)
	case "write":
		return with(p, unix.O_WRONLY, 0, pwrite)
	case "append":
		return with(p, unix.O_WRONLY|unix.O_APPEND, 0, func(fd int) error {
			_, err := unix.Write(fd, data)
			return err
		})
	case "truncate":
		return unix.Truncate(p, o.Len)
	case "ftruncate":
		return with(p, unix.O_WRONLY, 0, func(fd int) error { return unix.Ftruncate(fd, o.Len) })
	case "mmapwrite":
		return with(p, unix.O_RDWR, 0, func(fd int) error { return storeMapped(fd, o.Off, data) })
	case "fallocate":
		return with(p, unix.O_WRONLY, 0, func(fd int) error { return unix.Fallocate(fd, o.FMode, o.Off, o.Len) })
	case "copyrange":
		return with(p, unix.O_RDONLY, 0, func(in int) error {
			return with(p2, unix.O_WRONLY, 0, func(out int) error {
				_, err := unix.CopyFileRange(in, nil, out, nil, int(o.Len), 0)
				return err
			})
		})
	case "chmod":
		return unix.Chmod(p, octal(o.Mode))
	case "fchmod":
		return with(p, unix.O_RDWR, 0, func(fd int) error { return unix.Fchmod(fd, octal(o.Mode)) })
	case "chown":
		return unix.Fchownat(unix.AT_FDCWD, p, o.U, o.G, atFlags)
	case "utimes":
		ts := []unix.Timespec{unix.NsecToTimespec(o.AtimeNS), unix.NsecToTimespec(o.MtimeNS)}
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, atFlags)
	case "setxattr":
		return unix.Setxattr(p, o.Name, []byte(unquote(o.Value)), 0)
	case "removexattr":
		return unix.Removexattr(p, o.Name)
	case "fsetxattr":
		return with(p, unix.O_RDWR, 0, func(fd int) error { return unix.Fsetxattr(fd, o.Name, []byte(unquote(o.Value)), 0) })
	case "fremovexattr":
		return with(p, unix.O_RDWR, 0, func(fd int) error { return unix.Fremovexattr(fd, o.Name) })
	case "open":
		flags := map[string]int{"O_CREAT": unix.O_CREAT, "O_RDWR": unix.O_RDWR, "O_WRONLY": unix.O_WRONLY, "O_TRUNC": unix.O_TRUNC}
		all := 0
		for f := range strings.SplitSeq(o.Flags, "|") {
			n, ok := flags[f]
			if !ok {
				panic("flag " + f)
			}
			all |= n
		}
		fd, err := unix.Open(p, all|unix.O_CLOEXEC, o.mode(0o644))
		if err == nil {
			r.open[o.H] = fd
		}
		return err
	case "hwrite":
		if err := pwrite(r.open[o.H]); err != nil {
			return err
		}
		return unix.Fsync(r.open[o.H])
	case "hfchmod":
		return unix.Fchmod(r.open[o.H], octal(o.Mode))
	case "hclose":
		fd := r.open[o.H]
		delete(r.open, o.H)
		return unix.Close(fd)
	case "stat":
		var st unix.Stat_t
		return unix.Lstat(p, &st)
	case "read":
		_, err := os.ReadFile(p)
		return err
	case "readdir":
		_, err := os.ReadDir(p)
		return err
	}
	panic("operation " + o.Op)
}

// bindSocket makes a socket, whose name may be longer than an address.
func bindSocket(path string) error {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	return with(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0, func(fd int) error {
		return unix.Bind(s, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", fd, filepath.Base(path))})
	})
}

// storeMapped stores data at off through a shared mapping of fd.
func storeMapped(fd int, off int64, data []byte) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	mem, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(mem[off:], data)
	if err := unix.Msync(mem, unix.MS_SYNC); err != nil {
		return err
	}
	return unix.Munmap(mem)
}

// within is how long a test waits for what must happen soon.
const within = 20 * time.Second
