package fusefs

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// The bits and capabilities that a change of contents clears, whoever makes it and
// however: what a user who is not in a setgid file's group may keep included. A
// store to a mapping is not among them: it clears nothing on a bare directory, but
// what the kernel writes back for us can't be told from a write, and clears.
var _ = compared("privileges", func(w *world) {
	changes := []struct {
		name   string
		change func() error
	}{
		{"write", func() error {
			return with("f", unix.O_WRONLY, 0, func(fd int) error { _, err := unix.Write(fd, []byte("new")); return err })
		}},
		{"write and look", func() error {
			return with("f", unix.O_RDWR, 0, func(fd int) error {
				_, err := unix.Write(fd, []byte("new"))
				w.stat("f")
				w.fstat("open", fd)
				return err
			})
		}},
		{"write of nothing", func() error {
			return with("f", unix.O_WRONLY, 0, func(fd int) error { _, err := unix.Write(fd, nil); return err })
		}},
		{"direct write", func() error {
			return with("f", unix.O_WRONLY|unix.O_DIRECT, 0, func(fd int) error {
				_, err := unix.Pwrite(fd, aligned(4096), 0)
				return err
			})
		}},
		{"open to write", func() error { return with("f", unix.O_RDWR, 0, func(int) error { return nil }) }},
		{"open truncating", func() error { return with("f", unix.O_WRONLY|unix.O_TRUNC, 0, func(int) error { return nil }) }},
		{"truncate", func() error { return unix.Truncate("f", 2) }},
		{"truncate to the same size", func() error { return unix.Truncate("f", 4) }},
		{"ftruncate", func() error { return with("f", unix.O_WRONLY, 0, func(fd int) error { return unix.Ftruncate(fd, 2) }) }},
		{"fallocate", func() error {
			return with("f", unix.O_WRONLY, 0, func(fd int) error { return unix.Fallocate(fd, 0, 0, 8192) })
		}},
		{"fallocate keeping the size", func() error {
			return with("f", unix.O_WRONLY, 0, func(fd int) error { return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, 8192) })
		}},
		{"punch", func() error {
			return with("f", unix.O_WRONLY, 0, func(fd int) error {
				return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE, 0, 4)
			})
		}},
		{"zero range", func() error {
			return with("f", unix.O_WRONLY, 0, func(fd int) error { return unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, 0, 4) })
		}},
		{"copy_file_range", func() error {
			return with("source", unix.O_RDONLY, 0, func(in int) error {
				return with("f", unix.O_WRONLY, 0, func(fd int) error {
					_, err := unix.CopyFileRange(in, nil, fd, nil, 3, 0)
					return err
				})
			})
		}},
		{"sendfile", func() error {
			return with("source", unix.O_RDONLY, 0, func(in int) error {
				return with("f", unix.O_WRONLY, 0, func(fd int) error { _, err := unix.Sendfile(fd, in, nil, 3); return err })
			})
		}},
		{"times", func() error {
			return unix.UtimesNanoAt(unix.AT_FDCWD, "f", []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}, 0)
		}},
		{"xattr", func() error { return unix.Setxattr("f", "user.x", []byte("v"), 0) }},
		{"link", func() error { return unix.Link("f", "g") }},
	}
	w.file("source", 0, 0, 0o644, "source")
	w.must("chmod", unix.Chmod(".", 0o777))
	for _, c := range changes {
		for _, mode := range []uint32{0o4777, 0o2777, 0o6777, 0o2767, 0o6767, 0o2666, 0o777} {
			for _, gid := range []int{2001, 3001} {
				for _, who := range []struct {
					name string
					user user
				}{{"root", root}, {"alice", alice}, {"bob", bob}} {
					w.file("f", 1001, gid, mode, "data")
					w.capability("f", mode)
					w.as(who.user, func() { w.try(fmt.Sprintf("%s: %s to %o of :%d", who.name, c.name, mode, gid), c.change()) })
					w.stat("f")
					w.hasCapability("f")
					unix.Unlink("f")
					unix.Unlink("g")
				}
			}
		}
	}
})

// A set-uid bit that a file gets while it is open for writing goes at the next
// write, for whoever looks, and through whatever name or descriptor.
var _ = compared("setuid-while-open", func(w *world) {
	w.must("chmod", unix.Chmod(".", 0o777))
	for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR, unix.O_RDWR | unix.O_APPEND} {
		for _, mode := range []uint32{0o4755, 0o2755, 0o6755, 0o2745} {
			for _, who := range []struct {
				name string
				user user
			}{{"alice", alice}, {"root", root}} {
				w.file("f", 1001, 2001, 0o644, "data")
				w.as(who.user, func() {
					w.logf("%s, flags %x, %o", who.name, flags, mode)
					w.must("open", with("f", flags, 0, func(fd int) error {
						w.try("write", write(fd, "1"))
						w.try("chmod", unix.Chmod("f", mode))
						w.stat("f")
						w.try("write", write(fd, "2"))
						w.stat("f")
						w.fstat("open", fd)
						w.try("fchmod", unix.Fchmod(fd, mode))
						w.fstat("open", fd)
						w.stat("f")
						w.try("write", write(fd, "3"))
						w.fstat("open", fd)
						w.try("second open", with("f", unix.O_RDONLY, 0, func(other int) error {
							w.fstat("second", other)
							w.try("chmod", unix.Chmod("f", mode))
							w.try("write", write(fd, "4"))
							w.fstat("second", other)
							return nil
						}))
						w.try("chmod", unix.Chmod("f", mode))
						w.try("second writer", with("f", unix.O_WRONLY, 0, func(other int) error {
							w.fstat("second", other)
							w.try("write", write(other, "5"))
							w.stat("f")
							return nil
						}))
						w.try("chmod", unix.Chmod("f", mode))
						w.try("write", write(fd, "6"))
						return nil
					}))
				})
				w.stat("f")
				w.must("unlink", unix.Unlink("f"))
			}
		}
	}
})

func write(fd int, s string) error {
	_, err := unix.Write(fd, []byte(s))
	return err
}

// aligned is a buffer for O_DIRECT.
func aligned(n int) []byte {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		panic(err)
	}
	for i := range b {
		b[i] = byte(i)
	}
	return b
}
