package main

import (
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the test binary be georep when a script calls it by that name,
// so that scripts run the real main in a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"georep": main})
}

// TestScripts runs testdata/*.txtar: commands, what they print, files.
func TestScripts(t *testing.T) {
	const dir = "testdata"
	if files, err := filepath.Glob(filepath.Join(dir, "*.txtar")); err != nil || len(files) == 0 {
		t.Fatalf("no scripts in %s: %v", dir, err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}
