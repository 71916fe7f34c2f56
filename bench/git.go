package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/georep/georep/changelog"
)

// statusPasses is how often git looks for changes.
const statusPasses = 5

// gitTree clones a repository of n files and asks for its status. The repository
// is made once, at home.
func gitTree(n int) *workload {
	g := &gitRepo{files: n}
	return &workload{
		family: "git",
		title:  "git",
		setup:  func(r *run) error { return g.make(r.home) },
		steps: []*step{
			{name: "git-clone", params: []Param{{"files", int64(n)}}, ops: 1, work: g.clone, check: g.checkClone,
				leaves: func(*run) records {
					return records{entries: map[changelog.Fop]int{changelog.FopCreate: n}, data: n, atLeast: true}
				}},
			{name: "git-status", params: []Param{{"files", int64(n)}}, ops: statusPasses, before: g.checkClone, work: g.status,
				leaves: func(*run) records { return records{atLeast: true} }},
		},
	}
}

// gitRepo is a repository to clone.
type gitRepo struct {
	files int
	once  sync.Once
	err   error
	home  string // where it is
}

// git runs git in dir, unaffected by the user's configuration.
func (g *gitRepo) git(dir string, args ...string) ([]byte, error) {
	c := exec.Command("git", args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
		"GIT_AUTHOR_NAME=bench", "GIT_AUTHOR_EMAIL=bench@localhost", "GIT_COMMITTER_NAME=bench", "GIT_COMMITTER_EMAIL=bench@localhost")
	out, err := c.CombinedOutput()
	if err != nil {
		return out, fmt.Errorf("git %s: %w: %s", args[0], err, bytes.TrimSpace(out))
	}
	return out, nil
}

// make makes the repository in a directory of its own in dir, the first time.
func (g *gitRepo) make(dir string) error {
	g.once.Do(func() {
		if _, g.err = exec.LookPath("git"); g.err != nil {
			return
		}
		if g.home, g.err = os.MkdirTemp(dir, "origin-"); g.err == nil {
			g.err = g.fill(g.home)
		}
	})
	return g.err
}

func (g *gitRepo) fill(dir string) error {
	for i := range g.files {
		sub := filepath.Join(dir, fmt.Sprintf("src%02d", i/filesPerDir/10), fmt.Sprintf("pkg%03d", i/filesPerDir))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return err
		}
		size := 500 + i*7919%12000
		b := newContent(size).block(uint64(i))
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("file%05d", i)), b, 0o644); err != nil {
			return err
		}
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "-A"}, {"commit", "-q", "-m", "files"}, {"repack", "-q", "-a", "-d"}} {
		if _, err := g.git(dir, args...); err != nil {
			return err
		}
	}
	return nil
}

func (g *gitRepo) clone(r *run, _ int) (int, error) {
	// --no-local: what it does with a repository on another machine.
	_, err := g.git(r.home, "clone", "-q", "--no-local", g.home, filepath.Join(r.dir, "clone"))
	return 1, err
}

func (g *gitRepo) status(r *run, _ int) (int, error) {
	for i := range statusPasses {
		out, err := g.git(filepath.Join(r.dir, "clone"), "status", "--porcelain")
		if err != nil {
			return i, err
		}
		if len(out) > 0 {
			return i, fmt.Errorf("git status: the clone has changes: %s", out)
		}
	}
	return statusPasses, nil
}

// checkClone has git compare all files with what the commit says.
func (g *gitRepo) checkClone(r *run) error {
	out, err := g.git(filepath.Join(r.dir, "clone"), "ls-files")
	if err != nil {
		return err
	}
	if n := bytes.Count(out, []byte("\n")); n != g.files {
		return fmt.Errorf("the clone has %d files, want %d", n, g.files)
	}
	return g.sameFiles(filepath.Join(r.truth, "clone"))
}

// sameFiles compares a clone, beneath the mount, with the repository.
func (g *gitRepo) sameFiles(clone string) error {
	return filepath.WalkDir(g.home, func(p string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return filepath.SkipDir
		case d.IsDir():
			return nil
		}
		rel, err := filepath.Rel(g.home, p)
		if err != nil {
			return err
		}
		want, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		got, err := os.ReadFile(filepath.Join(clone, rel))
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%q: %w", filepath.Join(clone, rel), errContent)
		}
		return nil
	})
}
