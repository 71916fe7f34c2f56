package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a file system keeps free for root, and a quota that it keeps for a user,
// hold through a mount: the mount writes as root, and must not as one who is above
// all limits. The kernel asks for the same capability in both cases, so reserved
// blocks stand for quotas, which not every kernel has.
func TestReservedBlocksHoldThroughMount(t *testing.T) {
	for _, c := range []struct{ name, options, resuid string }{
		// The reserve is another user's: only CAP_SYS_RESOURCE leads to it.
		{"capability", "allow_other", "4242"},
		{"capability, cached", "no_passthrough", "4242"},
		// The reserve is root's, who we are.
		{"root", "allow_other", "0"},
		{"root, cached", "no_passthrough", "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			brick, mnt := smallExt4(t, "resuid="+c.resuid), t.TempDir()
			run(t, "georep", "mount", "-o", c.options, brick, mnt)
			defer run(t, "umount", "--lazy", mnt)
			if err := os.Chmod(mnt, 0o777); err != nil {
				t.Fatal(err)
			}

			// By a descriptor: a test's directories are closed to other users.
			dir, err := os.Open(mnt)
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			dd := exec.Command("dd", "if=/dev/zero", "of=/proc/self/fd/3/full", "bs=64k")
			dd.ExtraFiles = []*os.File{dir}
			dd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1001, Gid: 1001}}
			out, err := dd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "No space left") {
				t.Fatalf("dd: %v: %s, want no space left", err, out)
			}
			var st unix.Statfs_t
			if err := unix.Statfs(brick, &st); err != nil {
				t.Fatal(err)
			}
			if reserved := st.Bfree - st.Bavail; st.Bfree < reserved*9/10 || reserved < 1000 {
				t.Errorf("a user left %d blocks, of %d kept free", st.Bfree, reserved)
			}
		})
	}
}

// smallExt4 mounts an ext4 of 32 MiB, a third of it reserved, and returns a
// directory on it that all may write to.
func smallExt4(t *testing.T, options string) string {
	t.Helper()
	image, at := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 32<<20)); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", "-m", "30", image)
	run(t, "mount", "-o", "loop,"+options, image, at)
	t.Cleanup(func() {
		err := error(unix.EBUSY) // until the process of the mount has ended
		for began := time.Now(); err == unix.EBUSY && time.Since(began) < 10*time.Second; time.Sleep(time.Millisecond) {
			err = unix.Unmount(at, 0)
		}
		if err != nil {
			t.Errorf("unmount %s: %v", at, err)
		}
	})
	brick := filepath.Join(at, "brick")
	if err := os.Mkdir(brick, 0o777); err != nil {
		t.Fatal(err)
	}
	return brick
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Errorf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}
