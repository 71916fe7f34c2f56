package slave

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// serverCommand is what a real rsync run with RsyncArgs asks of the other side.
func serverCommand(t *testing.T, o RsyncOptions) []string {
	t.Helper()
	dir := t.TempDir()
	shell := filepath.Join(dir, "it is a shell")
	mustWrite(t, shell, "#!/bin/sh\nprintf '%s\\n' \"$@\" >'"+dir+"/args'\nexit 1\n")
	if err := os.Chmod(shell, 0o755); err != nil {
		t.Fatal(err)
	}
	c := &Client{shell: &Shell{Command: "'" + shell + "'", Agent: "georep agent --root /r"}}
	cmd := exec.Command("rsync", c.RsyncArgs(o)...)
	cmd.Stdin = strings.NewReader("")
	cmd.Run() // it fails: our shell does
	b, err := os.ReadFile(dir + "/args")
	if err != nil {
		t.Fatalf("rsync did not run its shell: %v", err)
	}
	words := strings.Split(strings.TrimSpace(string(b)), "\n")
	if words[0] != "slave" || words[1] != "georep agent --root /r rsync" {
		t.Fatalf("rsync's shell got %q", words)
	}
	return append([]string{"rsync"}, words[2:]...)
}

// What our rsync asks for is accepted, by the agent's own and as one line; with
// anything changed it is refused.
func TestCheckRsync(t *testing.T) {
	p := newPair(t)
	for _, o := range []RsyncOptions{{}, {BWLimit: 12345}, {WholeFile: true}, {Timeout: 90 * time.Second, BWLimit: 1}} {
		words := serverCommand(t, o)
		args, err := CheckRsync(words, p.root)
		if err != nil {
			t.Errorf("%+v: %v", o, err)
			continue
		}
		if args[0] != "--server" || args[len(args)-1] != p.root+"/.glusterfs/" {
			t.Errorf("%+v: arguments %q", o, args)
		}
		got, err := ParseRequest("georep agent --root "+p.root+" "+strings.Join(words, " "), p.root)
		if err != nil || !slices.Equal(got, words) {
			t.Errorf("as a line: %q, %v", got, err)
		}
	}
	good := serverCommand(t, RsyncOptions{})
	for _, evil := range []string{"--sender", "-s", "--remove-source-files", "--delete", "--daemon", "--config=/x", "--log-file=/x", "--temp-dir=/", "--backup-dir=/",
		"--partial-dir=/", "--copy-dest=/", "--files-from=/etc/shadow", "--rsync-path=x", "-e", "--server", "/", "..", "", "--bwlimit=1x", "--stats\n--x"} {
		for i := 1; i <= len(good); i++ {
			if _, err := CheckRsync(slices.Insert(slices.Clone(good), i, evil), p.root); !errors.Is(err, ErrRefused) {
				t.Errorf("%q at %d: %v, want it refused", evil, i, err)
			}
		}
	}
	for i := range good {
		words := slices.Delete(slices.Clone(good), i, i+1)
		_, err := CheckRsync(words, p.root)
		if dispensable := good[i] == "--stats" || good[i] == "--no-W"; (err == nil) != dispensable {
			t.Errorf("without %q: %v", good[i], err)
		}
	}
	if _, err := CheckRsync(good, t.TempDir()); err == nil {
		t.Error("accepted for a directory that is no slave")
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, s := range []string{
		"georep agent --root /r", "/usr/bin/georep agent --root '/r'", "georep agent --root /r rsync --server . handles",
		"georep agent --root /r; id", "georep agent --root $(id)", `georep agent --root \/r`, "georep agent --root '", "\\",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		words, err := ParseRequest(line, "/r")
		if err != nil {
			if !errors.Is(err, ErrRefused) {
				t.Errorf("%q: %v is no refusal", line, err)
			}
			return
		}
		// A shell must not see more in it than we do.
		out, err := exec.Command("/bin/sh", "-c", `set -- `+line+`; shift 4; for w; do printf '%s\0' "$w"; done`).Output()
		if err != nil {
			t.Fatalf("%q: sh: %v", line, err)
		}
		want := ""
		for _, w := range words {
			want += w + "\x00"
		}
		if string(out) != want {
			t.Errorf("%q: words %q, for a shell %q", line, words, out)
		}
	})
}
