package fusefs

import (
	"os"
	"path/filepath"
	"testing"
)

// The directories of all names of a file are raised even when the kernel has
// forgotten the file between the change and the flush.
func TestXtimeOfForgottenHardLink(t *testing.T) {
	m := mount(t, setup{})
	for _, d := range []string{"a", "b", "c"} {
		if err := os.Mkdir(filepath.Join(m.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	name := func(d string) string { return filepath.Join(m.dir, d, "f") }
	if err := os.WriteFile(name("a"), []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"b", "c"} {
		if err := os.Link(name("a"), name(d)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.srv.Translator().Marker().Flush(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name("b"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Names and inodes, of all file systems: the kernel has no other way.
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
		t.Fatal(err)
	}
	// unmount checks that no directory is older than what is in it.
}
