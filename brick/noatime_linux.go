package brick

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// WithoutAtime has all that is read from now on through the descriptors of b leave
// access times alone, what the kernel reads of files opened by them included: they
// become those of a private clone of the brick's mount, on which noatime is set.
// Only root can do so. It is called before anything is opened.
func (b *Brick) WithoutAtime() error {
	fail := func(what string, err error) error {
		return fmt.Errorf("brick: %q without access times: %s: %w", b.path, what, err)
	}
	tree, err := unix.OpenTree(b.root, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fail("open_tree", err)
	}
	// The clone lives on with the descriptors in it.
	defer Close(tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOATIME, Attr_clr: unix.MOUNT_ATTR__ATIME}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fail("mount_setattr", err)
	}
	root, errno := Openat(tree, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errno != 0 {
		return fail("open", errno)
	}
	handles, errno := Openat(root, Dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errno != 0 {
		Close(root)
		return fail("open of "+Dir, errno)
	}
	Close(b.root)
	Close(b.handles)
	b.root, b.handles = root, handles
	return nil
}
