package fusefs

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// content logs size and a hash of what is in a file.
func (w *world) content(path string) {
	var st unix.Stat_t
	if unix.Stat(path, &st) == nil && st.Size > 1<<30 {
		w.logf("  %s: %d bytes, most of them a hole", path, st.Size)
		return
	}
	data, err := os.ReadFile(path)
	w.logf("  %s: %d bytes %x %s", path, len(data), sha256.Sum256(data), errno(err))
}

// holes logs where a file has data.
func (w *world) holes(fd int) {
	for off := int64(0); ; {
		data, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if err != nil {
			w.logf("  no data after %d: %s", off, errno(err))
			return
		}
		hole, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		w.logf("  data from %d to %d %s", data, hole, errno(err))
		off = hole
	}
}

var _ = compared("open-flags", func(w *world) {
	w.kind("file", "f")
	w.kind("dir", "d")
	w.kind("link", "l")
	w.must("symlink", unix.Symlink("f", "to"))
	w.must("symlink", unix.Symlink("loop", "loop"))
	for _, path := range []string{"f", "d", "l", "to", "loop", "new", "f/x", "d/", "f/", "."} {
		for _, flags := range []int{
			unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR, 3, unix.O_RDONLY | unix.O_TRUNC, unix.O_RDONLY | unix.O_DIRECTORY,
			unix.O_RDONLY | unix.O_NOFOLLOW, unix.O_PATH | unix.O_NOFOLLOW, unix.O_RDWR | unix.O_CREAT, unix.O_RDWR | unix.O_CREAT | unix.O_EXCL,
			unix.O_RDONLY | unix.O_CREAT | unix.O_DIRECTORY, unix.O_RDWR | unix.O_DIRECT, unix.O_WRONLY | unix.O_APPEND | unix.O_SYNC, unix.O_RDONLY | unix.O_NOATIME,
			unix.O_RDWR | unix.O_DSYNC | unix.O_NONBLOCK, unix.O_TMPFILE, unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC | unix.O_NOFOLLOW,
		} {
			w.try(fmt.Sprintf("%s %x", path, flags), with(path, flags, 0o640, func(fd int) error {
				fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
				w.logf("  flags %x %s", fl, errno(err))
				w.fstat("open", fd)
				return nil
			}))
			w.stat(path)
			if path == "new" || path == "l" {
				unix.Unlink("new")
				unix.Unlink("target")
			}
		}
	}
})

var _ = compared("data", func(w *world) {
	pattern := make([]byte, 300_000)
	for i := range pattern {
		pattern[i] = byte(i * 7 >> 3)
	}
	for _, flags := range []int{0, unix.O_APPEND, unix.O_SYNC, unix.O_DSYNC, unix.O_DIRECT, unix.O_DIRECT | unix.O_APPEND} {
		path := fmt.Sprintf("f%x", flags)
		w.try("open "+path, with(path, unix.O_RDWR|unix.O_CREAT|flags, 0o644, func(fd int) error {
			n, err := unix.Write(fd, aligned(8192))
			w.logf("write %d %s", n, errno(err))
			n, err = unix.Pwrite(fd, aligned(4096), 65536)
			w.logf("pwrite %d %s", n, errno(err))
			if flags&unix.O_DIRECT == 0 { // which some file systems refuse, and so does passthrough
				n, err = unix.Pwrite(fd, pattern[:1000], 100)
				w.logf("small pwrite %d %s", n, errno(err))
			}
			n, err = unix.Writev(fd, [][]byte{aligned(4096), aligned(4096)})
			w.logf("writev %d %s", n, errno(err))
			off, err := unix.Seek(fd, 0, unix.SEEK_CUR)
			w.logf("at %d %s", off, errno(err))
			buf := aligned(16384)
			n, err = unix.Pread(fd, buf, 4096)
			w.logf("pread %d %x %s", n, sha256.Sum256(buf), errno(err))
			n, err = unix.Pread(fd, buf, 1<<30)
			w.logf("pread past the end %d %s", n, errno(err))
			w.fstat("f", fd)
			w.try("fsync", unix.Fsync(fd))
			w.try("fdatasync", unix.Fdatasync(fd))
			w.holes(fd)
			return nil
		}))
		w.content(path)
	}
	w.try("sparse", with("sparse", unix.O_RDWR|unix.O_CREAT, 0o644, func(fd int) error {
		for _, off := range []int64{0, 1 << 20, 1 << 40, 1<<43 - 4096} {
			n, err := unix.Pwrite(fd, []byte("here"), off)
			w.logf("pwrite at %d: %d %s", off, n, errno(err))
			w.fstat("sparse", fd)
		}
		w.holes(fd)
		for _, size := range []int64{-1, 1 << 50, 1 << 62, 1 << 30, 5, 0} {
			w.try(fmt.Sprintf("ftruncate %d", size), unix.Ftruncate(fd, size))
			w.try(fmt.Sprintf("truncate %d", size), unix.Truncate("sparse", size))
			w.fstat("sparse", fd)
		}
		for _, off := range []int64{-1, 1 << 50, 1<<63 - 10} {
			n, err := unix.Pwrite(fd, []byte("there"), off)
			w.logf("pwrite at %d: %d %s", off, n, errno(err))
		}
		for _, whence := range []int{unix.SEEK_DATA, unix.SEEK_HOLE, unix.SEEK_END, 9} {
			for _, off := range []int64{-1, 0, 10, 1 << 40} {
				at, err := unix.Seek(fd, off, whence)
				w.logf("seek %d %d: %d %s", off, whence, at, errno(err))
			}
		}
		return nil
	}))
	w.try("write to a reader", with("f0", unix.O_RDONLY, 0, func(fd int) error { return write(fd, "x") }))
	w.try("read of a writer", with("f0", unix.O_WRONLY, 0, func(fd int) error { _, err := unix.Read(fd, make([]byte, 1)); return err }))
	w.try("truncate of a reader", with("f0", unix.O_RDONLY, 0, func(fd int) error { return unix.Ftruncate(fd, 1) }))
	w.try("fallocate of a reader", with("f0", unix.O_RDONLY, 0, func(fd int) error { return unix.Fallocate(fd, 0, 0, 1) }))
	w.try("fallocate of a directory", with(".", unix.O_RDONLY, 0, func(fd int) error { return unix.Fallocate(fd, 0, 0, 1) }))
	w.try("read of a directory", with(".", unix.O_RDONLY, 0, func(fd int) error { _, err := unix.Read(fd, make([]byte, 1)); return err }))
	w.try("truncate of a directory", unix.Truncate(".", 0))
	w.try("fsync of a directory", with(".", unix.O_RDONLY, 0, unix.Fsync))
	w.try("fdatasync of a directory", with(".", unix.O_RDONLY, 0, unix.Fdatasync))
	w.try("syncfs", with(".", unix.O_RDONLY, 0, unix.Syncfs))
	w.try("fsync of a reader", with("f0", unix.O_RDONLY, 0, unix.Fsync))
})

var _ = compared("fallocate", func(w *world) {
	const keep, punch, zero = unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE
	// Collapse, insert and unshare range are beyond any FUSE.
	for _, mode := range []uint32{0, keep, punch, punch | keep, zero, zero | keep} {
		for _, r := range [][2]int64{{0, 4096}, {4096, 8192}, {100, 5000}, {60000, 20000}, {200000, 4096}, {0, 0}, {-1, 10}, {0, -1}, {1 << 62, 1 << 62}, {1 << 45, 4096}} {
			w.must("write", os.WriteFile("f", bytes.Repeat([]byte("0123456789abcdef"), 4096), 0o644))
			w.try(fmt.Sprintf("fallocate %x %d", mode, r), with("f", unix.O_RDWR, 0, func(fd int) error {
				w.must("fsync", unix.Fsync(fd)) // where data is depends on what is on disk
				err := unix.Fallocate(fd, mode, r[0], r[1])
				w.fstat("f", fd)
				w.must("fsync", unix.Fsync(fd))
				w.holes(fd)
				return err
			}))
			w.content("f")
		}
	}
})

var _ = compared("copies", func(w *world) {
	w.must("write", os.WriteFile("src", bytes.Repeat([]byte("0123456789abcdef"), 20000), 0o644))
	for _, c := range [][3]int64{{0, 0, 320000}, {10, 5, 100000}, {0, 4096, 4096}, {319990, 0, 100}, {400000, 0, 10}, {0, 1 << 30, 4096}, {0, 0, 0}} {
		w.must("truncate", os.WriteFile("dst", []byte("something that was there before"), 0o644))
		err := with("src", unix.O_RDONLY, 0, func(in int) error {
			return with("dst", unix.O_RDWR, 0, func(out int) error {
				from, to, done := c[0], c[1], 0
				for done < int(c[2]) {
					n, err := unix.CopyFileRange(in, &from, out, &to, int(c[2])-done, 0)
					if err != nil || n == 0 {
						w.logf("copied %d, then %d %s", done, n, errno(err))
						break
					}
					done += n
				}
				w.logf("from %d to %d", from, to)
				w.fstat("dst", out)
				return nil
			})
		})
		w.try(fmt.Sprintf("copy %v", c), err)
		if c[1] < 1<<20 {
			w.content("dst")
		}
	}
	w.try("within a file", with("src", unix.O_RDWR, 0, func(fd int) error {
		from, to := int64(0), int64(4096)
		n, err := unix.CopyFileRange(fd, &from, fd, &to, 4096, 0)
		w.logf("apart: %d %s", n, errno(err))
		from, to = 0, 100
		_, err = unix.CopyFileRange(fd, &from, fd, &to, 4096, 0)
		return err
	}))
	w.content("src")
	w.try("with flags", with("src", unix.O_RDWR, 0, func(fd int) error { _, err := unix.CopyFileRange(fd, nil, fd, nil, 1, 1); return err }))
	w.try("into a reader", with("src", unix.O_RDONLY, 0, func(fd int) error { _, err := unix.CopyFileRange(fd, nil, fd, nil, 1, 0); return err }))
	w.try("to one that appends", with("src", unix.O_RDONLY, 0, func(in int) error {
		return with("dst", unix.O_RDWR|unix.O_APPEND, 0, func(out int) error { _, err := unix.CopyFileRange(in, nil, out, nil, 1, 0); return err })
	}))
	err := with("src", unix.O_RDONLY, 0, func(in int) error {
		return with("clone", unix.O_RDWR|unix.O_CREAT, 0o644, func(out int) error { return unix.IoctlFileClone(out, in) })
	})
	if err == nil {
		err = unix.EOPNOTSUPP // which it is on any FUSE: FICLONE between two files never reaches one
	}
	w.try("clone", err)
	for _, how := range []string{"auto", "never"} {
		w.tool("cp", "--reflink="+how, "--sparse=always", "src", "copy-"+how)
		w.content("copy-" + how)
	}
	w.try("sendfile", with("src", unix.O_RDONLY, 0, func(in int) error {
		return with("sent", unix.O_RDWR|unix.O_CREAT, 0o644, func(out int) error {
			n, err := unix.Sendfile(out, in, nil, 100000)
			w.logf("sent %d", n)
			return err
		})
	}))
	w.content("sent")
	w.try("splice", with("src", unix.O_RDONLY, 0, func(in int) error {
		return with("spliced", unix.O_RDWR|unix.O_CREAT, 0o644, func(out int) error {
			var p [2]int
			w.must("pipe", unix.Pipe(p[:]))
			defer unix.Close(p[0])
			defer unix.Close(p[1])
			for range 10 {
				n, err := unix.Splice(in, nil, p[1], nil, 20000, 0)
				w.must("splice in", err)
				for n > 0 {
					m, err := unix.Splice(p[0], nil, out, nil, int(n), 0)
					if err != nil {
						return err
					}
					n -= int64(m)
				}
			}
			return nil
		})
	}))
	w.content("spliced")
})

// Many append at once; nothing is lost or torn.
var _ = compared("appends", func(w *world) {
	done := make(chan error)
	for i := range 4 {
		go func() {
			done <- with("f", unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT, 0o644, func(fd int) error {
				for range 200 {
					if err := write(fd, fmt.Sprintf("%099d\n", i)); err != nil {
						return err
					}
				}
				return nil
			})
		}()
	}
	for range 4 {
		w.try("appender", <-done)
	}
	data, err := os.ReadFile("f")
	w.must("read", err)
	count := map[string]int{}
	for line := range bytes.Lines(data) {
		count[string(line)]++
	}
	w.logf("%d bytes, %v", len(data), count)
})

// What is stored through a mapping is seen by read, and the other way around; the
// size that stat shows is right all along, and the times move.
var _ = compared("mappings", func(w *world) {
	w.must("write", os.WriteFile("f", make([]byte, 16384), 0o644))
	w.try("map", with("f", unix.O_RDWR, 0, func(fd int) error {
		mem, err := unix.Mmap(fd, 0, 32768, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		before := w.times("f")
		copy(mem[4096:], "stored")
		buf := make([]byte, 6)
		n, err := unix.Pread(fd, buf, 4096)
		w.logf("read %q %d %s", buf, n, errno(err))
		w.must("msync", unix.Msync(mem, unix.MS_SYNC))
		w.moved("store and msync", before, "f")
		w.fstat("f", fd)
		n, err = unix.Pwrite(fd, []byte("written"), 8192)
		w.logf("write %d %s, mapped %q", n, errno(err), mem[8192:8199])
		w.must("ftruncate", unix.Ftruncate(fd, 20000))
		copy(mem[19990:], "at the end")
		n, err = unix.Pread(fd, buf, 19990)
		w.logf("read %q %d %s", buf, n, errno(err))
		w.fstat("f", fd)
		before = w.times("f")
		copy(mem[0:], "last")
		w.must("munmap", unix.Munmap(mem))
		w.must("fsync", unix.Fsync(fd))
		w.moved("store, munmap and fsync", before, "f")
		return nil
	}))
	w.content("f")
	w.stat("f")
	w.try("private map of a reader", with("f", unix.O_RDONLY, 0, func(fd int) error {
		mem, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
		if err != nil {
			return err
		}
		mem[0] = 'X'
		return unix.Munmap(mem)
	}))
	w.content("f")
	w.try("shared map of a reader", with("f", unix.O_RDONLY, 0, func(fd int) error {
		_, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		return err
	}))
	w.try("map of a writer", with("f", unix.O_WRONLY, 0, func(fd int) error {
		_, err := unix.Mmap(fd, 0, 4096, unix.PROT_WRITE, unix.MAP_SHARED)
		return err
	}))
	// A mapping that outlives its descriptor.
	fd, err := unix.Open("f", unix.O_RDWR, 0)
	w.must("open", err)
	mem, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	w.must("mmap", err)
	unix.Close(fd)
	copy(mem, "outlives")
	w.content("f")
	w.try("second open", with("f", unix.O_RDWR, 0, func(fd int) error {
		_, err := unix.Pwrite(fd, []byte("OUT"), 0)
		w.logf("mapped %q", mem[:8])
		return err
	}))
	w.must("munmap", unix.Munmap(mem))
	w.content("f")
	w.tool("sh", "-c", "cp /bin/true ./true && ./true && echo ran")
})
