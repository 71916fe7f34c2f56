package translator

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Caller is on whose behalf a fop is carried out.
type Caller struct {
	UID, GID uint32
	// PID is the thread that asked; 0 when it is in a place that we can't see.
	PID uint32
	// Umask is applied unless the directory has a default ACL.
	Umask uint32

	status []byte // see remembered
}

// remembered is c with what may be asked of it later, when its thread is gone.
func (c Caller) remembered() Caller {
	c.status = c.readStatus()
	return c
}

// readStatus reads what the kernel tells of the caller's thread, which waits for
// us and so is there, unless it was killed meanwhile or is none of ours to see.
func (c Caller) readStatus() []byte {
	if c.status != nil || c.PID == 0 {
		return c.status
	}
	// An error is as good as knowing nothing, which is what nil says.
	status, _ := os.ReadFile("/proc/" + strconv.FormatUint(uint64(c.PID), 10) + "/status")
	return status
}

// statusField returns a field of the caller's status, if it is known.
func (c Caller) statusField(name string) ([]byte, bool) {
	for line := range bytes.Lines(c.readStatus()) {
		if key, value, ok := bytes.Cut(line, []byte(":")); ok && string(key) == name {
			return bytes.TrimSpace(value), true
		}
	}
	return nil, false
}

// capable reports whether the caller has the capability with that number. It is
// for what the kernel leaves to a FUSE server to check, all of it rare.
func (c Caller) capable(capability int) bool {
	if field, ok := c.statusField("CapEff"); ok {
		if set, err := strconv.ParseUint(string(field), 16, 64); err == nil {
			return set&(1<<capability) != 0
		}
	}
	return c.UID == 0
}

// inGroup reports whether gid is the caller's group, or one of its others.
func (c Caller) inGroup(gid uint32) bool {
	if c.GID == gid {
		return true
	}
	field, _ := c.statusField("Groups")
	for g := range bytes.FieldsSeq(field) {
		if n, err := strconv.ParseUint(string(g), 10, 32); err == nil && uint32(n) == gid {
			return true
		}
	}
	return false
}

// keepsSetgid reports whether setgid stays on a file that its group may not
// execute when the caller changes it.
//
// Source: Linux fs/attr.c, setattr_should_drop_sgid.
func (c Caller) keepsSetgid(st *Attr) bool {
	return c.inGroup(st.Gid) || c.capable(unix.CAP_FSETID)
}

// drops is the setuid and setgid bits of st that go when the caller changes the
// file's contents or owner.
//
// Source: Linux fs/inode.c, setattr_should_drop_suidgid.
func (c Caller) drops(st *Attr) uint32 {
	bits := uint32(st.Mode) & unix.S_ISUID
	if st.Mode&unix.S_ISGID != 0 && (st.Mode&unix.S_IXGRP != 0 || !c.keepsSetgid(st)) {
		bits |= unix.S_ISGID
	}
	return bits
}
