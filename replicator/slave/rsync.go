package slave

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
)

// Shell is how rsync gets to the slave's host: it runs Command with a host name
// and the remote command line as further arguments.
type Shell struct {
	Command string // rsync's -e, quoted as rsync wants it
	Agent   string // how georep agent is called there, quoted for its shell: "georep agent --root DIR"
}

// RsyncOptions are what a run of rsync may be told.
type RsyncOptions struct {
	BWLimit   int64         // KiB/s; 0 is no limit
	WholeFile bool          // send files whole instead of finding what changed
	Timeout   time.Duration // without progress, in whole seconds; 0 is none
}

// handlesToken stands for the slave's directory of handles in the command line
// that reaches the agent, which knows the path.
const handlesToken = "handles"

// RsyncArgs are the arguments of an rsync that carries content, and nothing but
// content, to files the slave has. It runs in the master's .glusterfs and reads
// the handles' paths, "aa/bb/<gfid>", from its standard input, a NUL behind each.
//
// --inplace keeps hard links, --ignore-times lets no change hide behind an equal
// size and time, --existing makes nothing that has no inode on the slave.
func (c *Client) RsyncArgs(o RsyncOptions) []string {
	args := []string{
		"--relative", "--from0", "--files-from=-", "--no-implied-dirs", "--inplace", "--sparse",
		"--ignore-times", "--existing", "--ignore-missing-args", "--stats",
	}
	if o.BWLimit > 0 {
		args = append(args, "--bwlimit="+strconv.FormatInt(o.BWLimit, 10))
	}
	if o.Timeout > 0 {
		args = append(args, "--timeout="+strconv.Itoa(max(1, int(o.Timeout/time.Second))))
	}
	if o.WholeFile {
		args = append(args, "--whole-file")
	} else {
		args = append(args, "--no-whole-file") // the default is whole if both ends are here
	}
	if c.shell == nil {
		return append(args, ".", handlesPath(c.info.Path))
	}
	return append(args, "--rsh="+c.shell.Command, "--rsync-path="+c.shell.Agent+" rsync", ".", "slave:"+handlesToken)
}

// RsyncFiles are what an rsync run with RsyncArgs must inherit (ExtraFiles of its
// exec.Cmd): by them a next session knows that it is alive still. The client owns
// them.
func (c *Client) RsyncFiles() []*os.File {
	if c.receivers == nil {
		return nil
	}
	return []*os.File{c.receivers}
}

// handlesPath is the directory rsync writes to: a path without symlinks, for it
// walks that itself, and with a slash at the end, so that it is one.
func handlesPath(root string) string { return filepath.Join(root, brick.Dir) + "/" }

// ErrRefused is wrapped when a command is not one that our side sends.
var ErrRefused = errors.New("command refused")

// The server command that rsync makes of RsyncArgs: a group of short options
// that ends in what the versions know, then long ones.
var (
	rsyncShort = regexp.MustCompile(`^-[IRSW]+e\.[A-Za-z]*$`)
	rsyncLong  = regexp.MustCompile(`^--(stats|existing|inplace|no-implied-dirs|no-W|(bwlimit|timeout)=[0-9]{1,9})$`)
)

// CheckRsync checks token by token that words, which begin with "rsync", are
// what an rsync run with RsyncArgs asks of the other side, and returns the
// arguments to run rsync with for the slave at root. The error wraps ErrRefused.
func CheckRsync(words []string, root string) ([]string, error) {
	refuse := func(what string) ([]string, error) {
		return nil, fmt.Errorf("slave: rsync: %w: %s in %q", ErrRefused, what, words)
	}
	n := len(words)
	if n < 5 || words[0] != "rsync" || words[1] != "--server" {
		return refuse("no server command")
	}
	if !rsyncShort.MatchString(words[2]) {
		return refuse("short options")
	}
	for _, o := range []byte("IRS") {
		if !strings.Contains(words[2][:strings.IndexByte(words[2], '.')], string(o)) {
			return refuse("lack of short option " + string(o))
		}
	}
	seen := map[string]bool{}
	for _, w := range words[3 : n-2] {
		if !rsyncLong.MatchString(w) {
			return refuse("option " + quote(w))
		}
		seen[w] = true
	}
	// Without these rsync could make names in the directory of handles.
	for _, w := range []string{"--existing", "--inplace", "--no-implied-dirs"} {
		if !seen[w] {
			return refuse("lack of option " + w)
		}
	}
	if words[n-2] != "." || words[n-1] != handlesToken {
		return refuse("destination")
	}
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, fmt.Errorf("slave: rsync: %w", err)
	}
	if _, err := readPairing(root); err != nil {
		return nil, err
	}
	args := append([]string{}, words[1:n-1]...)
	return append(args, handlesPath(root)), nil
}

// ExecRsync becomes, confined to the slave at root, the rsync server that words
// ask for if CheckRsync accepts them, with the environment env. It returns only an
// error.
func ExecRsync(words []string, root, program string, env []string) error {
	args, err := CheckRsync(words, root)
	if err != nil {
		return err
	}
	if program, err = exec.LookPath(program); err != nil {
		return fmt.Errorf("slave: rsync: %w", err)
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return fmt.Errorf("slave: rsync: %w", err)
	}
	lock, err := holdReceivers(root)
	if err != nil {
		return err
	}
	defer lock.Close()
	if _, err := unix.FcntlInt(lock.Fd(), unix.F_SETFD, 0); err != nil {
		return fmt.Errorf("slave: rsync: %w", err)
	}
	runtime.LockOSThread() // for good: exec follows
	if _, err := Confine(root); err != nil {
		return err
	}
	err = syscall.Exec(program, append([]string{"rsync"}, args...), env)
	return fmt.Errorf("slave: rsync: %s: %w", program, err)
}

var rsyncVersionLine = regexp.MustCompile(`^rsync +version +v?([0-9][0-9.a-z]*)`)

// rsyncVersion is the version the program says it has, "" if it can't be run.
func rsyncVersion(program string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	m := rsyncVersionLine.FindSubmatch(out)
	if err != nil || m == nil {
		return ""
	}
	return string(m[1])
}
