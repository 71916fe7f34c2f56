package fusefs

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// dir makes a directory with exactly these owner and mode.
func (w *world) dir(path string, uid, gid int, mode uint32) {
	w.must("mkdir "+path, unix.Mkdir(path, 0o700))
	w.must("chown "+path, unix.Chown(path, uid, gid))
	w.must("chmod "+path, unix.Chmod(path, mode))
}

// file makes a file with exactly these owner, mode and contents.
func (w *world) file(path string, uid, gid int, mode uint32, data string) {
	w.must("create "+path, os.WriteFile(path, []byte(data), 0o600))
	w.must("chown "+path, unix.Chown(path, uid, gid))
	w.must("chmod "+path, unix.Chmod(path, mode))
}

// aclEntry is one of a POSIX ACL as its xattr has it.
type aclEntry struct {
	tag, perm uint16
	id        uint32
}

const (
	aclUserObj, aclUser, aclGroupObj, aclGroup, aclMask, aclOther = 1, 2, 4, 8, 16, 32

	noID = 0xffffffff
)

// acl is the value of such an xattr: version 2, then the entries.
func acl(entries ...aclEntry) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// wideACL lets bob and the group 2002 in.
var wideACL = acl(aclEntry{aclUserObj, 7, noID}, aclEntry{aclUser, 6, 1002}, aclEntry{aclGroupObj, 5, noID},
	aclEntry{aclGroup, 4, 2002}, aclEntry{aclMask, 7, noID}, aclEntry{aclOther, 1, noID})

const (
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"
)

// everything makes one of each kind in dir and shows them.
func (w *world) everything(dir string, modes ...uint32) {
	for _, mode := range modes {
		name := func(kind string) string { return fmt.Sprintf("%s/%s.%o", dir, kind, mode) }
		if w.try("create "+name("file"), with(name("file"), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, mode, func(int) error { return nil })) {
			w.stat(name("file"))
		}
		w.try("mkdir", unix.Mkdir(name("dir"), mode))
		w.stat(name("dir"))
		w.try("mkfifo", unix.Mknod(name("fifo"), unix.S_IFIFO|mode, 0))
		w.stat(name("fifo"))
		w.try("mknod of a file", unix.Mknod(name("reg"), unix.S_IFREG|mode, 0))
		w.stat(name("reg"))
		w.try("mknod of a device", unix.Mknod(name("chr"), unix.S_IFCHR|mode, int(unix.Mkdev(1, 3))))
		w.stat(name("chr"))
		w.try("tmpfile", with(dir, unix.O_TMPFILE|unix.O_RDWR, mode, func(fd int) error {
			w.fstat("without a name", fd)
			return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, name("tmp"), unix.AT_SYMLINK_FOLLOW)
		}))
		w.stat(name("tmp"))
		for _, kind := range []string{"file", "dir", "fifo", "reg", "tmp"} {
			w.xattrs(name(kind))
		}
	}
	w.try("symlink", unix.Symlink("to", dir+"/link"))
	w.stat(dir + "/link")
	w.try("socket", bindSocket(dir+"/sock"))
	w.stat(dir + "/sock")
}

var _ = compared("creation", func(w *world) {
	unix.Umask(0)
	w.dir("plain", 0, 0, 0o777)
	w.dir("sgid-member", 0, 2001, 0o2777)
	w.dir("sgid-other", 0, 3001, 0o2777)
	w.dir("sticky", 0, 0, 0o1777)
	w.dir("alices", 1001, 1001, 0o755)
	w.dir("acl", 0, 0, 0o777)
	w.must("default ACL", unix.Setxattr("acl", defaultACL, wideACL, 0))
	w.dir("acl-sgid", 0, 3001, 0o2777)
	w.must("default ACL", unix.Setxattr("acl-sgid", defaultACL, wideACL, 0))
	for _, dir := range []string{"plain", "sgid-member", "sgid-other", "sticky", "alices", "acl", "acl-sgid"} {
		for _, who := range []struct {
			name string
			user user
		}{{"root", root}, {"alice", alice}, {"bob", bob}} {
			for _, umask := range []int{0, 0o027, 0o777} {
				who.user.umask = umask
				w.as(who.user, func() {
					sub := fmt.Sprintf("%s/%s.%03o", dir, who.name, umask)
					w.logf("in %s, a directory of %s:", dir, sub)
					w.try("mkdir", unix.Mkdir(sub, 0o2775))
					w.stat(sub)
					w.xattrs(sub)
				})
				w.must("chmod", ignoreENOENT(unix.Chmod(fmt.Sprintf("%s/%s.%03o", dir, who.name, umask), 0o2777)))
				w.as(who.user, func() {
					w.everything(fmt.Sprintf("%s/%s.%03o", dir, who.name, umask), 0o666, 0o2755, 0o6777, 0o1000)
				})
			}
		}
	}
})

func ignoreENOENT(err error) error {
	if err == unix.ENOENT {
		return nil
	}
	return err
}

var _ = compared("ownership", func(w *world) {
	for _, mode := range []uint32{0o644, 0o6755, 0o6745, 0o2745, 0o2755, 0o4711} {
		for _, gid := range []int{1001, 2001, 3001} {
			for _, who := range []struct {
				name string
				user user
			}{{"root", root}, {"alice", alice}, {"bob", bob}} {
				for _, to := range [][2]int{{-1, -1}, {-1, 2001}, {-1, 1001}, {1001, -1}, {1002, 1002}, {-1, 4001}} {
					w.file("f", 1001, gid, mode, "data")
					w.capability("f", mode)
					w.as(who.user, func() {
						err := unix.Chown("f", to[0], to[1])
						if who.name == "bob" && to == [2]int{-1, -1} && err == nil {
							// EPERM if there is a bit to clear; on a mount the kernel asks
							// for this as it does before a write, which must not fail.
							err = unix.EPERM
						}
						w.try(fmt.Sprintf("%s: chown of %o of :%d to %d:%d", who.name, mode, gid, to[0], to[1]), err)
					})
					w.stat("f")
					w.hasCapability("f")
					w.must("unlink", unix.Unlink("f"))
				}
				w.file("f", 1001, gid, 0o644, "data")
				w.as(who.user, func() {
					w.try(fmt.Sprintf("%s: chmod %o of one of :%d", who.name, mode, gid), unix.Chmod("f", mode))
				})
				w.stat("f")
				w.as(who.user, func() {
					w.try("fchmod", with("f", unix.O_RDONLY, 0, func(fd int) error { return unix.Fchmod(fd, mode) }))
				})
				w.stat("f")
				w.must("unlink", unix.Unlink("f"))
			}
		}
	}
	w.dir("d", 1001, 3001, 0o2777)
	w.as(alice, func() { w.try("chown of a directory", unix.Chown("d", -1, 2001)) })
	w.stat("d")
	w.try("chown of a directory", unix.Chown("d", 1002, 1002))
	w.stat("d")
	w.must("symlink", unix.Symlink("nowhere", "l"))
	w.try("lchown", unix.Lchown("l", 1001, 2001))
	w.stat("l")
	w.try("chown through a dangling link", unix.Chown("l", 1, 1))
	w.try("chown of a missing one", unix.Chown("missing", 1, 1))
})

// capability gives a file a capability, as setcap(8) does, unless it has setuid or
// setgid: a change of a file that has both comes as a removal of the capability and
// an empty SETATTR, which is what chown(-1, -1) is too, so the bits go then as well.
func (w *world) capability(path string, mode uint32) {
	if mode&0o6000 != 0 {
		return
	}
	val := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	w.must("setcap", unix.Setxattr(path, "security.capability", val, 0))
}

func (w *world) hasCapability(path string) {
	_, err := unix.Getxattr(path, "security.capability", nil)
	w.logf("  %s capability: %s", path, errno(err))
}

var _ = compared("permissions", func(w *world) {
	w.dir("d", 1001, 2001, 0o750)
	w.file("d/f", 1001, 2001, 0o640, "secret")
	w.dir("closed", 0, 0, 0o700)
	w.file("closed/f", 1001, 1001, 0o666, "x")
	w.dir("readonly", 1001, 1001, 0o555)
	w.file("readonly/f", 1001, 1001, 0o644, "x")
	w.dir("noread", 1001, 1001, 0o311)
	w.file("noread/f", 1001, 1001, 0o644, "x")
	w.dir("sticky", 0, 0, 0o1777)
	w.file("sticky/alices", 1001, 1001, 0o666, "x")
	w.dir("sticky/alicesdir", 1001, 1001, 0o777)
	w.file("group", 0, 2001, 0o060, "x")
	w.file("owner", 1001, 2001, 0o060, "x") // the owner's class counts first
	w.file("acl", 0, 0, 0o600, "x")
	w.must("ACL", unix.Setxattr("acl", accessACL, wideACL, 0))
	w.file("exec", 0, 0, 0o111, "#!/bin/true\n")
	carol := user{uid: 1003, gid: 1003, groups: []int{2001, 2002}, umask: 0o022}
	for _, who := range []struct {
		name string
		user user
	}{{"root", root}, {"alice", alice}, {"bob", bob}, {"carol", carol}, {"root without capabilities", user{noCaps: true, umask: 0o022}}} {
		w.as(who.user, func() {
			for _, path := range []string{".", "d", "d/f", "closed", "closed/f", "readonly/f", "noread", "noread/f", "group", "owner", "acl", "exec", "sticky/alices"} {
				w.logf("%s at %s:", who.name, path)
				for what, flags := range []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR, unix.O_PATH, unix.O_RDONLY | unix.O_NOATIME, unix.O_WRONLY | unix.O_TRUNC | unix.O_APPEND} {
					if what == 5 && who.name == "root" {
						continue
					}
					w.try(fmt.Sprintf("  open %x", flags), with(path, flags, 0, func(int) error { return nil }))
				}
				for mode := range uint32(8) {
					w.try(fmt.Sprintf("  access %d", mode), unix.Faccessat(unix.AT_FDCWD, path, mode, unix.AT_EACCESS))
				}
				w.stat(path)
				_, err := os.ReadDir(path)
				w.try("  readdir", err)
				w.try("  chmod", unix.Chmod(path, 0o777&statMode(path)))
				w.try("  times now", unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}, 0))
				w.try("  times set", unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Sec: 1}, {Sec: 2}}, 0))
				w.try("  user xattr", unix.Setxattr(path, "user.x", []byte("v"), 0))
				w.try("  trusted xattr", unix.Setxattr(path, "trusted.x", []byte("v"), 0))
				w.try("  security xattr", unix.Setxattr(path, "security.x", []byte("v"), 0))
				w.try("  ACL", unix.Setxattr(path, accessACL, acl(aclEntry{aclUserObj, 6, noID}, aclEntry{aclGroupObj, 6, noID}, aclEntry{aclOther, 1, noID}), 0)) // none but modes
				w.xattrs(path)
				w.try("  truncate", unix.Truncate(path, 1))
				w.try("  link", unix.Link(path, "sticky/link-"+filepath.Base(path)))
				w.try("  unlink", unix.Unlink("sticky/link-"+filepath.Base(path)))
			}
			w.try("rename of another's", unix.Rename("sticky/alices", "sticky/taken"))
			w.try("and back", unix.Rename("sticky/taken", "sticky/alices"))
			w.try("rename of another's directory", unix.Rename("sticky/alicesdir", "d/taken"))
			w.try("and back", unix.Rename("d/taken", "sticky/alicesdir"))
			w.try("create where it is not allowed", with("readonly/new", unix.O_CREAT|unix.O_WRONLY, 0o644, func(int) error { return nil }))
			w.try("unlink", unix.Unlink("readonly/new"))
			w.try("mkdir", unix.Mkdir("closed/new", 0o755))
			w.try("rmdir", unix.Rmdir("closed/new"))
		})
	}
})

func statMode(path string) uint32 {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return 0
	}
	return st.Mode
}

// An ACL set by one who is not in the file's group takes setgid away.
var _ = compared("acl-setgid", func(w *world) {
	for _, who := range []struct {
		name string
		user user
	}{{"root", root}, {"alice", alice}} {
		for _, gid := range []int{1001, 2001, 3001} {
			for _, mode := range []uint32{0o2755, 0o2745, 0o6777} {
				for _, val := range [][]byte{wideACL, acl(aclEntry{aclUserObj, 7, noID}, aclEntry{aclGroupObj, 4, noID}, aclEntry{aclOther, 4, noID})} {
					w.file("f", 1001, gid, mode, "x")
					w.as(who.user, func() {
						w.try(fmt.Sprintf("%s: ACL of %d bytes on %o of :%d", who.name, len(val), mode, gid), unix.Setxattr("f", accessACL, val, 0))
					})
					w.stat("f")
					w.xattrs("f")
					w.as(who.user, func() { w.try("chmod", unix.Chmod("f", 0o2751)) })
					w.stat("f")
					w.xattrs("f")
					w.as(who.user, func() { w.try("no ACL", unix.Removexattr("f", accessACL)) })
					w.stat("f")
					w.must("unlink", unix.Unlink("f"))
				}
			}
		}
	}
	w.dir("d", 1001, 3001, 0o2755)
	w.as(alice, func() { w.try("ACL on a directory", unix.Setxattr("d", accessACL, wideACL, 0)) })
	w.stat("d")
	w.as(alice, func() { w.try("default ACL", unix.Setxattr("d", defaultACL, wideACL, 0)) })
	w.stat("d")
	w.xattrs("d")
	w.try("default ACL on a file", setxattrFile(w, defaultACL, wideACL))
	w.try("an ACL that is none", setxattrFile(w, accessACL, []byte("nonsense")))
	w.try("an ACL without a mask", setxattrFile(w, accessACL, acl(aclEntry{aclUserObj, 7, noID}, aclEntry{aclUser, 6, 1002}, aclEntry{aclGroupObj, 5, noID}, aclEntry{aclOther, 1, noID})))
	w.try("removal of what is not there", unix.Removexattr("d", accessACL))
	w.try("removal of the default ACL", unix.Removexattr("d", defaultACL))
	w.try("mkdir", unix.Mkdir("d/after", 0o777))
	w.stat("d/after")
	w.xattrs("d/after")
	w.as(bob, func() { w.try("ACL by another", unix.Setxattr("d", accessACL, wideACL, 0)) })
})

func setxattrFile(w *world, attr string, val []byte) error {
	w.file("plain", 0, 0, 0o644, "x")
	defer unix.Unlink("plain")
	return unix.Setxattr("plain", attr, val, 0)
}
