package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/replicator"
	"github.com/georep/georep/replicator/slave"
	"github.com/georep/georep/replicator/transport"
)

// replicateOptions are the options of georep replicate as given.
type replicateOptions struct {
	brick, slave string

	once    bool
	jobs    int
	method  string
	bwlimit int64
	rsync   string
	json    bool
	verbose bool
	control bool // by a daemon that started it
	connect connectOptions
}

func newReplicateCommand() *cobra.Command {
	o := &replicateOptions{}
	c := &cobra.Command{
		Use:   "replicate [options] BRICK SLAVE",
		Short: "Bring a slave into step with a brick, and keep it so",
		Long: `SLAVE is a directory, here or on a host reached by SSH: /dir, [user@]host:/dir,
ssh://[user@]host[:port]/dir. It must be empty or this brick's slave already. The
brick may be mounted or not. SIGTERM ends the command within seconds; started
again it goes on where it was.

Exit status: 0 ended as asked, 1 failed or some items could not be replicated,
2 usage, 3 no such directory, 4 no brick, or a slave that is not this brick's.`,
		Example: `    $ georep replicate /bricks/b backup:/srv/vol`,
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			o.brick, o.slave = args[0], args[1]
			return o.run(c.Context(), c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.BoolVar(&o.once, "once", false, "end when all that is recorded by now is on the slave")
	f.IntVar(&o.jobs, "sync-jobs", 3, "large files, or runs of rsync, at once")
	f.StringVar(&o.method, "sync-method", string(replicator.Auto), "auto, rsync or stream: how contents are sent")
	f.Int64Var(&o.bwlimit, "bwlimit", 0, "most KiB/s for contents of large files (default no limit)")
	f.StringVar(&o.rsync, "rsync-path", "rsync", "rsync on this host")
	f.BoolVar(&o.json, "json", false, "print the status as a JSON object a line, every second")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log what is done")
	f.BoolVar(&o.control, "control", false, "take orders from standard input; the slave is paired already")
	_ = f.MarkHidden("control") // it is there
	o.connect.addFlags(f)
	return c
}

func (o *replicateOptions) run(ctx context.Context, out io.Writer) error {
	method, err := replicator.ParseMethod(o.method)
	if err != nil {
		return usagef("replicate: %w", err)
	}
	b, err := brick.Open(o.brick)
	if err != nil {
		return err
	}
	defer b.Close()
	level := slog.LevelWarn
	if o.verbose {
		level = slog.LevelInfo
	}
	show := newReplicateView(out, o.json)
	show.count = func(expect func(int64)) (stop func()) { return expectNames(ctx, b, expect) }
	log := slog.New(slog.NewTextHandler(show, &slog.HandlerOptions{Level: level}))
	o.connect.create, o.connect.logger = !o.control, log
	rc := &replicateControl{}
	dial := func(ctx context.Context) (*slave.Client, error) {
		c, err := connectSlave(ctx, b, o.slave, o.connect)
		return c, permanently(err)
	}
	if o.control {
		dial = rc.dial(dial)
	}
	w, err := replicator.New(replicator.Options{
		Brick: b, Once: o.once, Jobs: o.jobs, Method: method, Rsync: o.rsync, BWLimit: o.bwlimit, Logger: log, Dial: dial,
	})
	if err != nil {
		return err
	}
	watched := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(watched)
		if o.control {
			rc.watch(show, w, done)
		} else {
			show.watch(w, done)
		}
	}()
	if o.control {
		ctx = rc.follow(ctx, os.Stdin, w, log)
	}
	err = w.Run(ctx)
	close(done)
	<-watched
	// Who could not begin has no sum to tell of.
	if last := rc.status(w.Status()); o.json || err == nil || last.Done != (replicator.Counts{}) {
		show.end(last)
	}
	return replicateError(err)
}

// permanently makes err one that is not tried again if only a person can mend it.
func permanently(err error) error {
	var said *exitError // it says what to do
	var identity *transport.IdentityError
	if errors.As(err, &said) || errors.As(err, &identity) {
		return &replicator.PermanentError{Err: err}
	}
	return err
}

// replicateError is err with the exit code and the hint that go with it.
func replicateError(err error) error {
	var said *exitError
	var permanent *replicator.PermanentError
	var unfit *replicator.UnfitError
	switch {
	case errors.As(err, &said) || !errors.As(err, &permanent):
		return err
	case errors.As(err, &unfit):
		return &exitError{code: exitPrecondition, err: err, hint: unfit.Mend()}
	}
	return &exitError{code: exitPrecondition, err: err}
}

// replicateView shows a Worker's status: a line that is kept up to date on a
// terminal, elsewhere a line when something changes.
type replicateView struct {
	out      io.Writer
	json     bool
	terminal bool
	last     string
	// count counts the brick's names, beside, for bar.
	count func(expect func(int64)) (stop func())
	bar   *progress // of a crawl of the brick, on a terminal; nil while none runs
	stop  func()    // stops count
}

func newReplicateView(out io.Writer, json bool) *replicateView {
	return &replicateView{out: out, json: json, terminal: !json && term.IsTerminal(int(os.Stderr.Fd()))}
}

// Write is for the logger: whole lines, with the status line out of the way.
func (v *replicateView) Write(p []byte) (int, error) {
	if v.terminal {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
	return os.Stderr.Write(p)
}

// watch shows the status until done is closed.
func (v *replicateView) watch(w *replicator.Worker, done <-chan struct{}) {
	every := 10 * time.Second
	switch {
	case v.json:
		every = time.Second
	case v.terminal:
		every = 200 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			v.show(w.Status())
		}
	}
}

func (v *replicateView) show(s replicator.Status) {
	switch {
	case v.json:
		v.encode(s)
	case v.terminal && s.Crawl == replicator.HybridCrawl && s.State == replicator.Active:
		if v.bar == nil {
			v.bar = newProgress(os.Stderr, "copy", "names")
			v.stop = v.count(v.bar.expect)
		}
		v.bar.set(s.Found.Names, "")
	case v.terminal:
		v.closeBar()
		fmt.Fprintf(os.Stderr, "\r\x1b[K%s", statusLine(&s))
	default:
		if line := statusLine(&s); line != v.last {
			v.last = line
			fmt.Fprintf(os.Stderr, "georep: %s\n", line)
		}
	}
}

// end shows the last status.
func (v *replicateView) end(s replicator.Status) {
	if v.json {
		v.encode(s)
		return
	}
	v.closeBar()
	if v.terminal {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
	fmt.Fprintf(v.out, "%d entries, %d files (%s) and %d attributes replicated; %s\n", s.Done.Entries, s.Done.Files,
		humanize.IBytes(uint64(s.Done.Bytes)), s.Done.Attrs, waitingText(&s))
}

func (v *replicateView) closeBar() {
	if v.bar != nil {
		v.stop()
		v.bar.close()
		v.bar = nil
	}
}

func (v *replicateView) encode(s replicator.Status) {
	// A reader that is gone ends us by SIGPIPE, as it should.
	_ = json.NewEncoder(v.out).Encode(&s)
}

func waitingText(s *replicator.Status) string {
	if s.Waiting == 0 {
		return "nothing waits"
	}
	return fmt.Sprintf("%d items wait in quarantine", s.Waiting)
}

// statusLine says in one line what a Worker is at.
func statusLine(s *replicator.Status) string {
	line := string(s.State)
	if s.Crawl != "" && (s.State == replicator.Active || s.State == replicator.Degraded) {
		line += ", " + string(s.Crawl) + " crawl"
	}
	switch {
	case s.Crawl == replicator.HybridCrawl:
		line += fmt.Sprintf(": %d directories, %d names looked at, %d files sent (%s)", s.Found.Dirs, s.Found.Names,
			s.Done.Files, humanize.IBytes(uint64(s.Done.Bytes)))
	case s.Current:
		line += ": in step"
	case s.State == replicator.Active:
		line += fmt.Sprintf(": %d s behind", int(s.Lag.Seconds()))
	}
	if s.Waiting > 0 {
		line += fmt.Sprintf(", %d items wait", s.Waiting)
	}
	if s.Reason != "" {
		line += ": " + s.Reason
	}
	return line
}
