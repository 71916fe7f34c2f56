package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/georep/georep/replicator/session"
	"github.com/georep/georep/replicator/transport"
)

// destinationSetup makes passwordless SSH with a host: it pins its key, logs in by
// a way that works already, and installs a key of ours that may do nothing but
// replicate.
type destinationSetup struct {
	identities  []string // files of keys that work already
	fingerprint string   // of the host's key; "" asks
	authorized  string   // authorized_keys there; "" is ~/.ssh/authorized_keys
	remote      string   // georep there; "" looks for it, and copies it if it is missing
	say         func(format string, args ...any)
}

func (s *destinationSetup) addFlags(f *pflag.FlagSet) {
	f.StringArrayVar(&s.identities, "identity", nil, "file of a private key that works already (default ~/.ssh/id_ed25519, an ssh-agent, a password)")
	f.StringVar(&s.fingerprint, "fingerprint", "", "the host key's, SHA256:…, in place of a question")
	f.StringVar(&s.authorized, "authorized-keys", "", "file there to install our key in (default ~/.ssh/authorized_keys)")
	f.StringVar(&s.remote, "remote-georep", "", "path of georep there; it is copied to it if it is missing (default where it is found, or /usr/local/bin/georep)")
}

// login pins the host's key in knownHosts, after it was confirmed, and logs in. It
// returns the key's fingerprint too.
func (s *destinationSetup) login(ctx context.Context, a transport.Address, knownHosts string) (*transport.Conn, string, error) {
	o := (&connectOptions{identities: s.identities, knownHosts: knownHosts, accept: s.fingerprint})
	to, err := o.transport()
	if err != nil {
		return nil, "", err
	}
	if term.IsTerminal(int(os.Stdin.Fd())) {
		to.Password = func() (string, error) {
			fmt.Fprintf(os.Stderr, "Password of %s at %s: ", a.User, a.Host)
			p, err := term.ReadPassword(int(os.Stdin.Fd()))
			fmt.Fprintln(os.Stderr)
			return string(p), err
		}
	}
	// A first look, before any login, tells the key: the file knows no host yet.
	fingerprint := s.fingerprint
	var unknown *transport.UnknownHostError
	probe := to
	probe.AcceptHostKey = ""
	if len(probe.Identities) == 0 && probe.AgentSocket == "" && probe.Password == nil {
		probe.Password = func() (string, error) { return "", errors.New("there is no terminal to ask at") }
		to.Password = probe.Password
	}
	c, err := transport.Dial(ctx, a, probe)
	if errors.As(err, &unknown) {
		switch {
		case fingerprint == "" && !askHostKey(unknown):
			return nil, "", &exitError{code: exitPrecondition, err: err, hint: "if that is its key: --fingerprint " + unknown.Fingerprint}
		case fingerprint != "" && fingerprint != unknown.Fingerprint:
			return nil, "", &exitError{code: exitPrecondition, err: fmt.Errorf("host %s: its %s key is %s, not %s", a.Host, unknown.KeyType, unknown.Fingerprint, fingerprint)}
		}
		fingerprint = unknown.Fingerprint
		to.AcceptHostKey = fingerprint
		c, err = transport.Dial(ctx, a, to)
	}
	if err != nil {
		return nil, "", &exitError{code: exitFailed, err: err, hint: "name a key that works with --identity, add one to your ssh-agent, or run this at a terminal to give a password"}
	}
	s.say("host key %s", fingerprint)
	return c, fingerprint, nil
}

// remoteFacts is a shell script that tells what is there.
const remoteFacts = `echo "arch $(uname -s -m)"
echo "uid $(id -u)"
echo "georep $(test -n %[1]s && { test -x %[1]s && echo %[1]s; true; } || command -v georep)"
echo "rsync $(command -v rsync)"
`

// prepare makes sure that georep, rsync and the directory for slaves are there. It
// returns the path of georep.
func (s *destinationSetup) prepare(c *transport.Conn, dir string) (string, error) {
	out, err := c.Run("sh -s", strings.NewReader(fmt.Sprintf(remoteFacts, shellWord(s.remote))))
	if err != nil {
		return "", err
	}
	facts := map[string]string{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), " ")
		facts[key] = strings.TrimSpace(value)
	}
	if facts["uid"] != "0" {
		return "", &exitError{code: exitPrecondition, err: fmt.Errorf("the user there has id %s: only root can keep the xattrs of a slave", facts["uid"])}
	}
	if facts["rsync"] == "" {
		return "", &exitError{code: exitPrecondition, err: errors.New("there is no rsync on the host"), hint: "install rsync 3.1.3 or newer there: apt-get install rsync"}
	}
	georep := facts["georep"]
	if georep == "" {
		if georep = s.remote; georep == "" {
			georep = "/usr/local/bin/georep"
		}
		if err := s.copyGeorep(c, georep, facts["arch"]); err != nil {
			return "", err
		}
		s.say("copied georep to %s", georep)
	} else {
		s.say("georep is at %s", georep)
	}
	s.say("rsync is at %s", facts["rsync"])
	_, err = c.Run("mkdir -p "+transport.Quote(dir), nil)
	return georep, err
}

// shellWord is s as a word of a script, also if it is empty.
func shellWord(s string) string {
	if s == "" {
		return "''"
	}
	return transport.Quote(s)
}

// copyGeorep copies this program to the host.
func (s *destinationSetup) copyGeorep(c *transport.Conn, to, arch string) error {
	here, err := uname()
	if err != nil {
		return err
	}
	if here != arch {
		return &exitError{code: exitPrecondition, err: fmt.Errorf("there is no georep on the host, and this one is for %s, not for %s", here, arch), hint: "install georep there"}
	}
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer f.Close()
	p := transport.Quote(to)
	_, err = c.Run(fmt.Sprintf("umask 022; mkdir -p %s && cat >%s.new && chmod 755 %s.new && mv %s.new %s", transport.Quote(filepath.Dir(to)), p, p, p, p), f)
	return err
}

// installScript puts a line in authorized_keys, once. Lines for the same name, of
// keys before, are taken out.
const installScript = `set -e
umask 077
file=%[1]s
test -n "$file" || file=$HOME/.ssh/authorized_keys
mkdir -p "$(dirname "$file")"
touch "$file"
grep -v -F -e %[3]s "$file" >"$file.georep" || true
test -z %[2]s || printf '%%s\n' %[2]s >>"$file.georep"
cat "$file.georep" >"$file"
rm "$file.georep"
`

// install installs a key that may do nothing but replicate to what is in dir.
// public is as transport.NewIdentity returns it; "" takes the key of that name out.
func (s *destinationSetup) install(c *transport.Conn, georep, dir, public, comment string) error {
	line := ""
	if public != "" {
		command := transport.Quote(georep) + " agent --below " + transport.Quote(dir)
		line = fmt.Sprintf(`restrict,command="%s" %s`, strings.ReplaceAll(command, `"`, `\"`), public)
	}
	_, err := c.Run("sh -s", strings.NewReader(fmt.Sprintf(installScript, shellWord(s.authorized), shellWord(line), shellWord(" "+comment))))
	return err
}

// keyComment ends the line of a destination's key, so that it can be found.
func keyComment(name string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "master"
	}
	return "georep:" + name + "@" + host
}

// keysDir is where the keys of a destination are.
func keysDir(state, name string) string { return filepath.Join(state, "keys", name) }

// establish does all of it for a new destination. What it made is taken away again
// by undo, on this host.
func (s *destinationSetup) establish(ctx context.Context, d *session.Destination, state string) (undo func(), err error) {
	dir := keysDir(state, d.Name)
	// What is there is of an attempt that was killed: the daemon knows no such
	// destination.
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	undo = func() { _ = os.RemoveAll(dir) }
	defer func() {
		if err != nil {
			undo()
		}
	}()
	d.Identity, d.KnownHosts = filepath.Join(dir, "id_ed25519"), filepath.Join(dir, "known_hosts")
	c, fingerprint, err := s.login(ctx, destinationAddress(d), d.KnownHosts)
	if err != nil {
		return undo, err
	}
	defer c.Close()
	d.Fingerprint = fingerprint
	return undo, s.installKey(ctx, c, d)
}

// installKey makes d.Identity if it is missing, installs it over c, and tries it.
func (s *destinationSetup) installKey(ctx context.Context, c *transport.Conn, d *session.Destination) error {
	georep, err := s.prepare(c, d.Dir)
	if err != nil {
		return err
	}
	var public string
	text, err := os.ReadFile(d.Identity + ".pub")
	switch {
	case err == nil:
		public = strings.TrimSpace(string(text))
	case errors.Is(err, fs.ErrNotExist):
		public, err = transport.NewIdentity(d.Identity, keyComment(d.Name))
	}
	if err != nil {
		return err
	}
	if err := s.install(c, georep, d.Dir, public, keyComment(d.Name)); err != nil {
		return err
	}
	s.say("installed our key, for georep below %s alone", d.Dir)
	p := &destinationProbe{d: d}
	if p.login(ctx) == session.Reachable {
		p.conn.Close()
		return nil
	}
	last := p.steps[len(p.steps)-1]
	// The key does not work: it is not left there.
	err = s.install(c, georep, d.Dir, "", keyComment(d.Name))
	return errors.Join(&exitError{code: exitFailed, err: fmt.Errorf("the key that was installed does not work: %s: %s", last.Name, last.Detail)}, err)
}
