package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The targets of a replication.
const (
	rsyncTarget  = "rsync"
	georepTarget = "georep"
)

// replica is a master that is changed and a slave that follows it, by either means.
type replica interface {
	// root is where changes are made.
	root() string
	// slave is the directory to look at for them.
	slave() string
	// copy is called when changes have been made. It returns when the means has
	// nothing more to do, or at once if it works by itself.
	copy(ctx context.Context) error
	// patience is how long changes may take to be on the slave after copy.
	patience() time.Duration
	// roughDirs says that it does not care for parts of a second of directories' times.
	roughDirs() bool
	// alive tells why the means no longer works; nil while it does.
	alive() error
	close() error
}

// rsyncReplica is a bare directory that rsync copies when told to.
type rsyncReplica struct {
	from, to string
	host     *sshHost // nil for a directory here
	group    *cgroup
}

func (r *rsyncReplica) root() string  { return r.from }
func (r *rsyncReplica) slave() string { return r.to }
func (r *rsyncReplica) alive() error  { return nil }
func (r *rsyncReplica) close() error  { return nil }

func (r *rsyncReplica) patience() time.Duration { return 0 }
func (r *rsyncReplica) roughDirs() bool         { return true }

func (r *rsyncReplica) copy(ctx context.Context) error {
	args, to := []string{"-aHAX", "--delete", "--numeric-ids"}, r.to+"/"
	if r.host != nil {
		args, to = append(args, "-e", r.host.shell()), "root@127.0.0.1:"+to
	}
	c := exec.CommandContext(ctx, "rsync", append(args, r.from+"/", to)...)
	r.group.put(c)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("rsync: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// georepReplica is a mounted brick whose changes georep replicate follows.
type georepReplica struct {
	place *place
	to    string
	proc  *exec.Cmd // nil before start
	gone  chan struct{}
	said  string
}

func (r *georepReplica) root() string  { return r.place.dir }
func (r *georepReplica) slave() string { return r.to }

// start starts georep replicate.
func (r *georepReplica) start(program string, host *sshHost, g *cgroup) error {
	args := []string{"replicate"}
	to := r.to
	if host != nil {
		args = append(args, "--identity", host.file("id"), "--known-hosts", host.file("known_hosts"), "--remote-georep", program)
		to = "ssh://root@127.0.0.1:" + strconv.Itoa(host.port) + r.to
	}
	c := exec.Command(program, append(args, r.place.truth, to)...)
	c.Args[0] = "georep"
	out, err := os.Create(r.said)
	if err != nil {
		return fmt.Errorf("bench: replicate: %w", err)
	}
	defer out.Close()
	c.Stdout, c.Stderr = out, out
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us
	g.put(c)
	if err := c.Start(); err != nil {
		return fmt.Errorf("bench: replicate: %w", err)
	}
	r.proc, r.gone = c, make(chan struct{})
	go func() {
		_ = c.Wait() // how it ended is in its ProcessState
		close(r.gone)
	}()
	return nil
}

func (r *georepReplica) patience() time.Duration { return 3 * time.Minute }
func (r *georepReplica) roughDirs() bool         { return false }

// copy has nothing to do: georep replicate learns of changes by itself.
func (r *georepReplica) copy(context.Context) error { return nil }

func (r *georepReplica) alive() error {
	select {
	case <-r.gone:
		out, err := os.ReadFile(r.said)
		return fmt.Errorf("georep replicate has ended: %v: %s", r.proc.ProcessState, errors.Join(err, errors.New(lastLine(out))))
	default:
		return nil
	}
}

func lastLine(b []byte) string {
	s := strings.TrimSpace(string(b))
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// close stops the replication and unmounts.
func (r *georepReplica) close() error {
	var errs []error
	if r.proc != nil {
		_ = r.proc.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-r.gone:
		case <-time.After(unmountTimeout):
			_ = r.proc.Process.Kill() // it may have ended
			<-r.gone
			errs = append(errs, fmt.Errorf("bench: georep replicate did not end within %v", unmountTimeout))
		}
	}
	return errors.Join(append(errs, r.place.close())...)
}

// arrived waits until a change is on the slave and returns when it was: each of its
// names there or not as on the master, with the same type, size, mode, owner and
// mtime, and each of its parts. All other contents are for sameTree, off the clock.
func arrived(ctx context.Context, r replica, c *change) (time.Time, error) {
	end := time.Now().Add(r.patience())
	for i, n := 0, len(c.names)+len(c.parts); ; {
		var err error
		for ; i < n && err == nil; i++ {
			if i < len(c.names) {
				err = sameStat(filepath.Join(r.root(), c.names[i]), filepath.Join(r.slave(), c.names[i]), r.roughDirs())
			} else {
				err = c.parts[i-len(c.names)].check(r.slave())
			}
		}
		if err == nil {
			return time.Now(), nil
		}
		i--
		if aerr := r.alive(); aerr != nil {
			return time.Time{}, aerr
		}
		if time.Now().After(end) {
			return time.Time{}, fmt.Errorf("not on the slave after %v, %d of %d are: %w", r.patience(), i, n, err)
		}
		select {
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		case <-time.After(pollEvery):
		}
	}
}
