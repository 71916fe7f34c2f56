package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
)

const (
	goFuseModule    = "github.com/hanwen/go-fuse/v2"
	loopbackPackage = goFuseModule + "/example/loopback"
)

// buildLoopback builds go-fuse's own example into dir, from the version that this
// program is built with: in this module's tree, and elsewhere from the module cache
// or the proxy.
func buildLoopback(dir string) (string, error) {
	gotool, err := exec.LookPath("go")
	if err != nil {
		return "", fmt.Errorf("bench: %s: %w", Loopback, err)
	}
	out := filepath.Join(dir, "loopback")
	here := exec.Command(gotool, "build", "-o", out, loopbackPackage)
	if herr := runQuietly(here); herr == nil {
		return out, nil
	} else {
		err = herr
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", fmt.Errorf("bench: %s: %w", Loopback, err)
	}
	for _, d := range info.Deps {
		if d.Path != goFuseModule {
			continue
		}
		install := exec.Command(gotool, "install", loopbackPackage+"@"+d.Version)
		install.Env = append(os.Environ(), "GOBIN="+dir)
		install.Dir = dir
		if ierr := runQuietly(install); ierr != nil {
			return "", fmt.Errorf("bench: %s: %w", Loopback, errors.Join(err, ierr))
		}
		return out, nil
	}
	return "", fmt.Errorf("bench: %s: %w", Loopback, err)
}

func runQuietly(c *exec.Cmd) error {
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", c.Args[0], err, bytes.TrimSpace(out))
	}
	return nil
}
