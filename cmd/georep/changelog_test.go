package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

// changelogBrick is a brick that is being recorded.
func changelogBrick(t *testing.T) (brick string, l *changelog.Log) {
	t.Helper()
	brick = t.TempDir()
	l, err := changelog.Open(changelog.Options{Dir: changelogsDir(brick)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // closed by some tests
	return brick, l
}

// recordCreate records that a file was made, and returns its PARSED line.
func recordCreate(t *testing.T, l *changelog.Log, name string) string {
	t.Helper()
	r := changelog.Record{
		Type: changelog.Entry, Fop: changelog.FopCreate, GFID: gfid.GFID{0: 0xab, 15: 7}, Mode: 0o100644,
		Entry: changelog.Name{Parent: gfid.Root, Base: name},
	}
	if _, err := l.Append(&r); err != nil {
		t.Fatal(err)
	}
	return r.String()
}

// runChangelog runs georep changelog with the arguments in this process, and
// returns what it printed on stderr, and its status.
func runChangelog(ctx context.Context, stdout *lines, args ...string) (stderr string, code int) {
	root := &cobra.Command{Use: "georep", SilenceErrors: true, SilenceUsage: true}
	root.SetFlagErrorFunc(usageError)
	root.AddCommand(newChangelogCommand())
	finish(root)
	var errout bytes.Buffer
	root.SetArgs(append([]string{"changelog"}, args...))
	root.SetOut(stdout)
	root.SetErr(&errout)
	err := root.ExecuteContext(ctx)
	if err != nil {
		printError(&errout, err)
	}
	return errout.String(), exitCode(err)
}

// lines is an output that tells of each line.
type lines struct {
	mu   sync.Mutex
	all  []string
	part string      // of a line
	each func(n int) // after the n-th line; may be nil
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(string(p)) {
		l.part += line
		if !strings.HasSuffix(line, "\n") {
			continue
		}
		l.all, l.part = append(l.all, strings.TrimSuffix(l.part, "\n")), ""
		if l.each != nil {
			l.each(len(l.all))
		}
	}
	return len(p), nil
}

// follow --state over restarts: stopped at any line, each line comes once, but
// for the one that was being written when the process died.
func TestFollowStateNeverMissesNorRepeats(t *testing.T) {
	brick, l := changelogBrick(t)
	state := filepath.Join(t.TempDir(), "state")
	// The first time, it begins now.
	recordCreate(t, l, "before")
	if err := l.Rollover(); err != nil {
		t.Fatal(err)
	}
	c, err := changelog.Register(brick, state, changelog.ConsumerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	var want []string
	for n := range 9 {
		want = append(want, recordCreate(t, l, fmt.Sprintf("f %d", n)))
		if n%3 == 2 {
			if err := l.Rollover(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got []string
	for len(got) < len(want) {
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
		out := &lines{each: func(n int) {
			if n == 2 || len(got)+n == len(want) {
				stop()
			}
		}}
		stderr, code := runChangelog(ctx, out, "follow", brick, "--state", state)
		if code != exitOK || stderr != "" || len(out.all) == 0 {
			t.Fatalf("status %d, %d lines, stderr %q", code, len(out.all), stderr)
		}
		got = append(got, out.all...)
		stop()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func TestFollowStateTellsOfGaps(t *testing.T) {
	brick, l := changelogBrick(t)
	state := t.TempDir()
	record := func(name string) {
		recordCreate(t, l, name)
		if err := l.Rollover(); err != nil {
			t.Fatal(err)
		}
	}
	h, err := changelog.OpenHistory(changelogsDir(brick))
	if err != nil {
		t.Fatal(err)
	}
	first := h.Spans()[0].Start
	record("a")
	if err := l.Break(errors.New("test")); err != nil {
		t.Fatal(err)
	}
	record("b")
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	out := &lines{each: func(n int) {
		if n == 3 {
			stop()
		}
	}}
	stderr, code := runChangelog(ctx, out, "follow", brick, "--json", "--state", state, "--since", fmt.Sprint(first))
	if code != exitOK || !strings.Contains(stderr, "may be unrecorded") {
		t.Errorf("status %d, stderr %q", code, stderr)
	}
	for i, want := range []string{`"base":"a"`, `{"gap":{"from":`, `"base":"b"`} {
		if len(out.all) <= i || !strings.Contains(out.all[i], want) {
			t.Errorf("lines %q, want %q in line %d", out.all, want, i+1)
		}
	}
}

func TestFollowLive(t *testing.T) {
	brick, l := changelogBrick(t)
	want := []string{recordCreate(t, l, "one")}
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	out := &lines{}
	out.each = func(n int) {
		switch n {
		case 1:
			want = append(want, recordCreate(t, l, "two"))
		case 2:
			if err := l.Rollover(); err != nil {
				t.Error(err)
			}
			want = append(want, recordCreate(t, l, "three"))
		case 3:
			stop()
		}
	}
	stderr, code := runChangelog(ctx, out, "follow", brick)
	if code != exitOK || stderr != "" {
		t.Errorf("status %d, stderr %q", code, stderr)
	}
	if diff := cmp.Diff(want, out.all); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

// golden is a directory of changelogs that GlusterFS wrote, as a brick's.
func goldenBrick(t *testing.T) string {
	t.Helper()
	brick := t.TempDir()
	from := os.DirFS(filepath.Join("..", "..", "testdata", "golden", "ascii", "changelogs"))
	if err := os.CopyFS(changelogsDir(brick), from); err != nil {
		t.Fatal(err)
	}
	return brick
}

func TestChangelogCommands(t *testing.T) {
	brick := goldenBrick(t)
	dir := changelogsDir(brick)
	file := func(stamp string) string { return filepath.Join(dir, "2026/11/21/CHANGELOG."+stamp) }
	torn := filepath.Join(t.TempDir(), "torn")
	whole, err := os.ReadFile(file("1795228808"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(torn, whole[:len(whole)-3], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file("1795228937")); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args   []string
		code   int
		stdout []string // in this order
		stderr string
	}{
		{
			[]string{"dump", file("1795228793")}, exitOK,
			[]string{"E ", " CREATE 33188 0 0 00000000-0000-0000-0000-000000000001/mm\n", "\nD "}, "",
		},
		{
			[]string{"dump", "--json", file("1795228793")}, exitOK,
			[]string{`{"type":"E","gfid":"`, `"fop":"CREATE","mode":33188,"uid":0,"gid":0,"name":{"parent":"00000000-0000-0000-0000-000000000001","base":"mm"}}`}, "",
		},
		{
			[]string{"dump", torn, file("1795228793")}, exitFailed,
			[]string{"D ", "E "}, "record 3 at byte 127: cut off at the end of the file after 38 bytes of it",
		},
		{[]string{"dump", "nowhere"}, exitNotFound, nil, "no such file"},
		{[]string{"dump", "nowhere", torn}, exitFailed, []string{"D "}, "no such file"},
		{[]string{"dump"}, exitUsage, nil, "requires at least 1 arg"},
		{
			[]string{"list", brick}, exitOK,
			[]string{
				"HTIME  ", "HTIME.1795228773  1795228778  2026-11-21T02:39:38Z  sealed     92     2026/11/21/CHANGELOG.1795228778\n",
				"1795228899  2026-11-21T02:41:39Z  unindexed", "HTIME.1795228912", "1795228937  2026-11-21T02:42:17Z  missing", "live ",
			}, "",
		},
		{
			[]string{"list", "--json", "--empty", brick}, exitOK,
			[]string{`{"htime":"HTIME.1795228773","stamp":1795228778,"state":"sealed","bytes":92,"path":"2026/11/21/CHANGELOG.1795228778"}`, `"state":"empty"`}, "",
		},
		{[]string{"list", "nowhere"}, exitNotFound, nil, "no such file"},
		{
			[]string{"history", brick, "--from", "1795228785", "--to", "1795228797"}, exitOK,
			[]string{"with%20space", "UNLINK"}, "",
		},
		{
			[]string{"history", brick, "--json", "--from", "2026-11-21T02:39:33Z", "--to", "1795229010"}, exitFailed,
			[]string{`{"end":1795228910,"partial":true}`}, "HTIME.1795228773 ends at 1795228910",
		},
		{
			[]string{"history", brick, "--from", "1795228930", "--to", "1795228938"}, exitFailed,
			[]string{"E "}, "CHANGELOG.1795228937: no such file",
		},
		{[]string{"history", brick, "--from", "1"}, exitNotFound, nil, "not covered by any HTIME file"},
		{[]string{"history", brick, "--from", "2", "--to", "1"}, exitUsage, nil, "later than --to"},
		{[]string{"history", brick, "--from", "noon"}, exitUsage, nil, `--from "noon"`},
		{[]string{"history", brick}, exitUsage, nil, "--from is missing"},
		{[]string{"follow", "nowhere"}, exitNotFound, nil, "no such file"},
		{[]string{"follow", "nowhere", "--state", filepath.Join(t.TempDir(), "s")}, exitNotFound, nil, "no such file"},
		{[]string{"follow", brick, "--since", "1"}, exitUsage, nil, "--since needs --state"},
	} {
		out := &lines{}
		stderr, code := runChangelog(t.Context(), out, test.args...)
		rest := strings.Join(out.all, "\n") + "\n"
		if code != test.code || !strings.Contains(stderr, test.stderr) || test.stderr == "" && stderr != "" {
			t.Errorf("%v: status %d, stderr %q; want %d, %q", test.args, code, stderr, test.code, test.stderr)
		}
		for _, want := range test.stdout {
			_, after, ok := strings.Cut(rest, want)
			if !ok {
				t.Errorf("%v: no %q in\n%s", test.args, want, rest)
				break
			}
			rest = after
		}
		if test.stdout == nil && len(out.all) > 0 {
			t.Errorf("%v: printed %q", test.args, out.all)
		}
	}
}
