package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progressEvery is how often progress is told in lines, where no bar can be.
const progressEvery = 10 * time.Second

// progress shows how far a command is: a bar on a terminal, elsewhere a line now
// and then. Its methods may be called by many at once.
type progress struct {
	mu    sync.Mutex // guards all below, and keeps lines whole
	w     io.Writer
	verb  string
	unit  string
	bar   *progressbar.ProgressBar // nil: not a terminal
	total int64                    // 0: not known yet
	last  time.Time                // of the last line
}

// newProgress shows on f how far the verb is, in units such as "names".
func newProgress(f *os.File, verb, unit string) *progress {
	p := &progress{w: f, verb: verb, unit: unit, last: time.Now()}
	if term.IsTerminal(int(f.Fd())) {
		p.bar = progressbar.NewOptions64(-1,
			progressbar.OptionSetWriter(f),
			progressbar.OptionSetDescription(verb),
			progressbar.OptionSetItsString(unit),
			progressbar.OptionShowIts(),
			progressbar.OptionShowCount(),
			progressbar.OptionSetSpinnerChangeInterval(0), // no goroutine of its own
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionFullWidth(),
			progressbar.OptionClearOnFinish(),
		)
	}
	return p
}

// expect tells how many units there are in all.
func (p *progress) expect(total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total = total
	if p.bar != nil && total > 0 {
		p.bar.ChangeMax64(total)
	}
}

// set tells how many units are done. detail is added to a line.
func (p *progress) set(done int64, detail string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.bar != nil:
		// A total counted beforehand may be a little low, which is no error.
		if p.total > 0 && done > p.total {
			p.total = done
			p.bar.ChangeMax64(done)
		}
		p.bar.Set64(done)
	case time.Since(p.last) < progressEvery:
	case p.total > 0:
		p.last = time.Now()
		fmt.Fprintf(p.w, "georep: %s: %d of %d %s%s\n", p.verb, done, p.total, p.unit, detail)
	default:
		p.last = time.Now()
		fmt.Fprintf(p.w, "georep: %s: %d %s%s\n", p.verb, done, p.unit, detail)
	}
}

// print writes to w with the bar out of the way.
func (p *progress) print(w io.Writer, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		p.bar.Clear()
	}
	fmt.Fprintf(w, format, args...)
}

// close takes the bar away.
func (p *progress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		p.bar.Exit()
		p.bar.Clear()
		p.bar = nil
	}
}
