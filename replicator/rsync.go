package replicator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/replicator/slave"
)

// ErrRsync is wrapped by errors of rsync that are not about a file: it can't be
// started, or it lost its connection.
var ErrRsync = errors.New("rsync failed")

// Exit codes of rsync that are about files and not about the run.
//
// Source: rsync errcode.h.
const (
	rsyncPartial  = 23 // some files could not be sent
	rsyncVanished = 24 // some were gone before they were sent
)

// rsyncStats are rsync's own figures for a run.
type rsyncStats struct {
	files   int64 // regular files transferred
	literal int64 // bytes that went over the line
	matched int64 // bytes that the slave had
}

// rsync sends files in one run. When rsync says that some could not be sent, or
// sent fewer than asked, each is sent again alone, to tell which. The error is
// one of the run: the connection, or rsync itself.
func (p *pass) rsync(ctx context.Context, files []*bulkFile) error {
	said, err := p.runRsync(ctx, files)
	if err != nil {
		return err
	}
	if said == "" {
		for _, f := range files {
			f.sent = true
		}
		return nil
	}
	for _, f := range files {
		if p.m.gone(f.obj.GFID) {
			continue
		}
		said, err := p.runRsync(ctx, []*bulkFile{f})
		if err != nil {
			return err
		}
		if f.sent = said == ""; !f.sent && !p.m.gone(f.obj.GFID) {
			p.fail(Failure{GFID: f.obj.GFID, Op: "rsync", Errno: syscall.EIO, Detail: said})
		}
	}
	return nil
}

// runRsync is one run. It returns "" if rsync sent all of files, else what was
// wrong.
func (p *pass) runRsync(ctx context.Context, files []*bulkFile) (said string, err error) {
	b := p.opt.bulk
	args := p.c.RsyncArgs(slave.RsyncOptions{BWLimit: b.kbps / int64(b.jobs)})
	cmd := exec.CommandContext(ctx, b.rsync, args...)
	cmd.Dir = filepath.Join(p.m.brick.Path(), brick.Dir)
	// rsync cleans up after SIGTERM; it gets a moment for that.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 3 * time.Second
	var names, stdout, stderr bytes.Buffer
	for _, f := range files {
		names.WriteString(brick.HandlePath(f.obj.GFID))
		names.WriteByte(0)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &names, &stdout, &limitedBuffer{buf: &stderr}
	err = runBound(cmd)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	var exit *exec.ExitError
	code := 0
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		return "", fmt.Errorf("replicator: %w: %w", ErrRsync, err)
	}
	stats := parseRsyncStats(stdout.String())
	p.mu.Lock()
	p.count.Literal += stats.literal
	p.count.Matched += stats.matched
	p.mu.Unlock()
	p.opt.log.Debug("rsync ended", "files", len(files), "sent", stats.files, "literal", stats.literal, "matched", stats.matched, "exit", code)
	switch code {
	case 0:
		// rsync is told to send every file it is given, so it counts them all.
		if stats.files != int64(len(files)) {
			return fmt.Sprintf("rsync sent %d files of %d, and says that all went well", stats.files, len(files)), nil
		}
		return "", nil
	case rsyncPartial, rsyncVanished:
		// As a rule one that was removed meanwhile; each is tried alone now.
		said = fmt.Sprintf("exit code %d: %s", code, lastLine(stderr.String()))
		p.opt.log.Info("rsync could not send all", "err", said)
		return said, nil
	}
	// The connection that rsync borrows may be what ended.
	select {
	case <-p.c.Done():
		return "", fmt.Errorf("replicator: rsync: %w", slave.ErrDisconnected)
	case <-time.After(time.Second):
	}
	return "", fmt.Errorf("replicator: %w: exit code %d: %s", ErrRsync, code, lastLine(stderr.String()))
}

// runBound runs cmd so that it dies with this process, however that dies: an rsync
// that lives on would write into files that the next session sends.
func runBound(cmd *exec.Cmd) error {
	done := make(chan error)
	go func() {
		// The signal comes when the thread ends that started the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		done <- cmd.Run()
	}()
	return <-done
}

var rsyncFigure = regexp.MustCompile(`(?m)^(Number of regular files transferred|Literal data|Matched data): ([0-9,.]+)`)

// parseRsyncStats reads the figures that --stats prints.
func parseRsyncStats(out string) (s rsyncStats) {
	for _, m := range rsyncFigure.FindAllStringSubmatch(out, -1) {
		n, err := strconv.ParseInt(strings.NewReplacer(",", "", ".", "").Replace(m[2]), 10, 64)
		if err != nil {
			continue
		}
		switch m[1][0] {
		case 'N':
			s.files = n
		case 'L':
			s.literal = n
		case 'M':
			s.matched = n
		}
	}
	return s
}

// lastLine is the last line of an output that says something.
func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// limitedBuffer keeps the first 64 KiB written to it.
type limitedBuffer struct{ buf *bytes.Buffer }

func (l *limitedBuffer) Write(p []byte) (int, error) {
	if room := 64<<10 - l.buf.Len(); room > 0 {
		l.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
