package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// ramDir is where images are kept: in memory, so that no disk is measured.
const ramDir = "/dev/shm"

// imageNote is added to what a report says of the file system.
const imageNote = ", on a loop device in memory"

// image is a file system of its own in a file in memory, mounted by loop device.
type image struct {
	file string
	dir  string // where it is mounted
}

// imageKinds are the file systems an image can have, with how they are made.
var imageKinds = map[string][]string{
	"xfs":  {"mkfs.xfs", "-q", "-i", "size=512"},
	"ext4": {"mkfs.ext4", "-q", "-F", "-I", "512", "-E", "lazy_itable_init=0,lazy_journal_init=0"},
}

// newImage makes a file system of this kind and size and mounts it at dir.
func newImage(kind string, size int64, dir string) (_ *image, err error) {
	mkfs := imageKinds[kind]
	if mkfs == nil {
		return nil, fmt.Errorf("bench: image %q, want xfs or ext4", kind)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("bench: image: %w", err)
	}
	f, err := os.CreateTemp(ramDir, "georep-bench-*.img")
	if err != nil {
		return nil, fmt.Errorf("bench: image: %w", err)
	}
	m := &image{file: f.Name(), dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(m.file))
		}
	}()
	err = f.Truncate(size)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("bench: image: %w", err)
	}
	if err := command(append(mkfs, m.file)...); err != nil {
		return nil, err
	}
	if err := command("mount", "-o", "loop", m.file, dir); err != nil {
		return nil, err
	}
	return m, nil
}

// close unmounts the image and gives its memory back.
func (m *image) close() error {
	return errors.Join(unmount(m.dir), os.Remove(m.file))
}

// command runs a program that says nothing unless it fails.
func command(args ...string) error {
	path, err := lookPath(args[0])
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	if out, err := exec.Command(path, args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("bench: %s: %w: %s", args[0], err, bytes.TrimSpace(out))
	}
	return nil
}

// lookPath finds a program also where root's are, which may not be in PATH.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p, nil
		}
	}
	return "", err
}
