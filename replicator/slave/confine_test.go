package slave

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

// confineRoot in the environment makes this binary confine itself to its value
// and become a shell with the arguments.
const confineRoot = "GEOREP_TEST_CONFINE_ROOT"

func confineChild(root string) {
	runtime.LockOSThread()
	confined, err := Confine(root)
	if err == nil && !confined {
		err = fmt.Errorf("this kernel has no Landlock of version 2 or newer")
	}
	if err == nil {
		err = os.Chdir(root)
	}
	if err == nil {
		err = syscall.Exec("/bin/sh", append([]string{"sh", "-c"}, os.Args[1:]...), os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// runConfined runs a script confined to root and returns what it prints.
func runConfined(t *testing.T, root, script string, args ...string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, append([]string{script, "sh"}, args...)...)
	cmd.Env = append(os.Environ(), confineRoot+"="+root)
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("confined shell: %v", err)
	}
	return string(out)
}
