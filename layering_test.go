// Package georep_test holds what is true of the tree as a whole: who imports
// whom, and what no package below cmd does.
package georep_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/georep/georep"

// arrows says which of our packages each package may import. A new arrow is a
// design change: it is drawn here, and in ARCHITECTURE.md, before it is used. A
// row whose package does not exist yet holds its place.
var arrows = map[string][]string{
	"brick/gfid":           {},
	"brick":                {"brick/gfid"},
	"changelog":            {"brick/gfid"},
	"marker":               {"brick/gfid"},
	"translator":           {"brick", "changelog", "marker", "brick/gfid"},
	"fusefs":               {"translator"},
	"replicator/slave":     {"brick", "brick/gfid"},
	"replicator/transport": {},
	"replicator/session":   {},
	"replicator/daemon":    {"replicator/session"},
	"replicator/console":   {"replicator/daemon"},
	"replicator":           {"changelog", "brick", "brick/gfid", "replicator/slave", "replicator/session"},
	"bench":                {"*"},
	"cmd/*":                {"*"},
}

// testArrows are the arrows that only tests add: theirs need the real parts that
// the package itself reaches through the brick, a pipe or an interface.
var testArrows = map[string][]string{
	"fusefs":               {"brick", "brick/gfid", "changelog", "marker"}, // what a mount left on its brick
	"replicator":           {"*"},                                          // a real mount and a real connection between real sides
	"replicator/slave":     {"replicator/transport"},
	"replicator/transport": {"replicator/slave", "brick", "brick/gfid"}, // an agent behind a real sshd, and its master
	"replicator/daemon":    {"*"},
	"replicator/console":   {"*"},
}

// owners says who alone imports a module of others, or a package tree in it, in
// tests too. Go's import path is a prefix here.
var owners = map[string][]string{
	"github.com/hanwen/go-fuse":    {"fusefs"},
	"golang.org/x/crypto/ssh":      {"replicator/transport"},
	"github.com/skeema/knownhosts": {"replicator/transport"}, // its API is x/crypto/ssh's
	"github.com/spf13":             {"cmd/*"},
	"github.com/schollz":           {"cmd/*", "bench"},
	"modernc.org/sqlite":           {"replicator/session"},
	"flag":                         {"cmd/*", "bench"},
	"log":                          {"cmd/*", "bench"}, // log/slog is for all
}

// testOwners are the packages whose tests, only, import a module of others.
var testOwners = map[string][]string{
	// The database and the programs that users run are put to work in a mount.
	"modernc.org/sqlite": {"fusefs"},
	// go test adds flags of its own, such as a seed to repeat.
	"flag": {"*"},
}

// banned are names that say nothing of what a package owns.
var banned = []string{"util", "utils", "common", "helper", "helpers", "types", "misc"}

// goPackage is what go list tells of one package.
type goPackage struct {
	Dir, ImportPath, Name              string
	GoFiles, TestGoFiles, XTestGoFiles []string
	Imports, TestImports, XTestImports []string
}

// rel is the package's path in this module.
func (p *goPackage) rel() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatal(err)
		}
		if p.ImportPath != module { // these tests
			all = append(all, p)
		}
	}
}

// row is the row of arrows that the package pkg stands in, "" if none does. Code
// generated from a wire definition (a package named …pb) stands in that of the
// package around it.
func row(pkg string) string {
	if strings.HasSuffix(pkg, "pb") {
		pkg = filepath.Dir(pkg)
	}
	if strings.HasPrefix(pkg, "cmd/") {
		return "cmd/*"
	}
	if _, ok := arrows[pkg]; ok {
		return pkg
	}
	return ""
}

func allowed(list []string, who string) bool {
	return slices.Contains(list, "*") || slices.Contains(list, who)
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		from := row(p.rel())
		if from == "" {
			t.Errorf("package %s stands in no row of the import table", p.rel())
			continue
		}
		check := func(imports []string, test bool) {
			for _, i := range imports {
				if pkg, ours := strings.CutPrefix(i, module+"/"); ours {
					checkArrow(t, p.rel(), from, pkg, test)
				} else {
					checkOwner(t, p.rel(), from, i, test)
				}
			}
		}
		check(p.Imports, false)
		check(p.TestImports, true)
		check(p.XTestImports, true)
	}
}

func checkArrow(t *testing.T, pkg, from, imported string, test bool) {
	to := row(imported)
	switch {
	case to == from: // its tests from outside, or its wire code
	case to == "bench" && from == "cmd/*": // the verb georep bench
	case to == "cmd/*", to == "bench":
		t.Errorf("%s imports %s, which nobody may", pkg, imported)
	case allowed(arrows[from], to), test && allowed(testArrows[from], to):
	default:
		t.Errorf("%s imports %s: no such arrow in the table (test: %v)", pkg, imported, test)
	}
}

func checkOwner(t *testing.T, pkg, from, imported string, test bool) {
	for prefix, owner := range owners {
		if imported != prefix && !strings.HasPrefix(imported, prefix+"/") || imported == "log/slog" {
			continue
		}
		if !allowed(owner, from) && !(test && allowed(testOwners[prefix], from)) {
			t.Errorf("%s imports %s, which only %v may (test: %v)", pkg, imported, owner, test)
		}
	}
}

func TestNames(t *testing.T) {
	for _, p := range packages(t) {
		if slices.Contains(banned, p.Name) {
			t.Errorf("package %s: ask which noun owns it", p.ImportPath)
		}
	}
}

// What only a command does: read its environment, print, exit.
var commandsOnly = map[string][]string{
	"os":  {"Args", "Exit", "Getenv", "LookupEnv", "Environ", "Stdin", "Stdout", "Stderr"},
	"fmt": {"Print", "Printf", "Println"},
}

// A test that skips where something is missing is green where nothing was tested.
var skips = []string{"Skip", "Skipf", "SkipNow", "Short"}

func TestCode(t *testing.T) {
	for _, p := range packages(t) {
		command := row(p.rel()) == "cmd/*" || row(p.rel()) == "bench"
		for _, name := range p.GoFiles {
			path := filepath.Join(p.Dir, name)
			file, fset := parse(t, path)
			if ast.IsGenerated(file) {
				continue
			}
			if lines := fset.File(file.FileStart).LineCount(); lines > 500 {
				t.Errorf("%s: %d lines: a file over 500 has two nouns", path, lines)
			}
			if !command {
				selectors(file, func(x, sel string, pos token.Pos) {
					if slices.Contains(commandsOnly[x], sel) {
						t.Errorf("%s: %s.%s is for commands", fset.Position(pos), x, sel)
					}
				})
			}
		}
		for _, name := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			file, fset := parse(t, filepath.Join(p.Dir, name))
			selectors(file, func(x, sel string, pos token.Pos) {
				if slices.Contains([]string{"t", "b", "f", "tb", "testing"}, x) && slices.Contains(skips, sel) {
					t.Errorf("%s: %s.%s: a test fails, saying what is missing", fset.Position(pos), x, sel)
				}
			})
		}
	}
}

func parse(t *testing.T, path string) (*ast.File, *token.FileSet) {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution|parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return file, fset
}

// selectors calls found for each x.sel in the file where x is a plain name.
func selectors(file *ast.File, found func(x, sel string, pos token.Pos)) {
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok {
				found(x.Name, s.Sel.Name, s.Pos())
			}
		}
		return true
	})
}
