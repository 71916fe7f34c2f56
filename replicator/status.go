package replicator

import (
	"time"

	"github.com/georep/georep/brick"
)

// State is what a Worker is at, in GlusterFS's words where it has one.
type State string

const (
	Initializing State = "Initializing" // connecting
	Active       State = "Active"       // working, or nothing to do
	Degraded     State = "Degraded"     // working, but some items wait in quarantine
	Faulty       State = "Faulty"       // stuck, see Reason; tried again
	Stopped      State = "Stopped"
)

// Crawl is a way of finding work.
type Crawl string

const (
	HybridCrawl    Crawl = "Hybrid"
	HistoryCrawl   Crawl = "History"
	ChangelogCrawl Crawl = "Changelog"
)

// Status is a Worker as it is now.
type Status struct {
	State  State
	Reason string // why it is Faulty or Degraded
	Crawl  Crawl  // "" before the first
	Why    string // why that crawl
	// Stime is up to when the slave is known to have all; zero before the first
	// copy is complete.
	Stime brick.Stamp
	// Current is set when nothing is known to be waiting: not a record read and
	// not done, nor one to be read.
	Current bool
	// Checked is when the changelogs were last looked at and read to their end.
	Checked time.Time
	// Lag is how old the oldest change is that the slave may lack, at most: since
	// the slice began that it is in, or the changelogs were last read to their end.
	// 0 if Current.
	Lag time.Duration
	// Backlog is the records, or names found, that are read and not done; the last
	// that are known while there is no connection.
	Backlog int64
	Pending Pending // of the batch being worked on
	Done    Counts  // since New
	Found   Found   // by the last hybrid crawl
	// Waiting is the number of items in quarantine; Items are the oldest of them.
	Waiting int
	Items   []Item
	// Active is when work was last done.
	Active time.Time
}

// Pending is what waits, by class.
type Pending struct {
	Entries int64 // names
	Data    int64 // objects with contents
	Meta    int64 // objects with attributes
}

// Found is how far a hybrid crawl has looked.
type Found struct {
	Dirs  int64 // directories compared
	Names int64 // names in them
}

// maxListed is how many items of the quarantine a Status lists.
const maxListed = 100

// Status is what the Worker is at. It may be called at any time.
func (w *Worker) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.status
	if !s.Current && !w.oldest.IsZero() {
		s.Lag = time.Since(w.oldest)
	}
	return s
}

func (w *Worker) setState(s State, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.State, w.status.Reason = s, reason
	if s != Active {
		if w.status.Current {
			w.oldest = w.status.Checked // what came after that is not known
		}
		w.status.Current = false
	}
}

func (w *Worker) setCrawl(c Crawl, why string) {
	w.log.Info("crawl begins", "crawl", c, "why", why)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.Crawl, w.status.Why = c, why
	if c == HybridCrawl {
		w.status.Found = Found{}
	}
}

func (w *Worker) setStime() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.Stime = w.prog.stime
}

// setItems takes the state of quarantine over into the status.
func (w *Worker) setItems() {
	n, items := w.items.len(), w.items.list(maxListed)
	for i := range items {
		items[i].Path = w.m.path(items[i].Failure)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.Waiting, w.status.Items = n, items
	switch {
	case n > 0:
		w.status.State, w.status.Reason = Degraded, items[0].Error()
	case w.status.State == Degraded:
		w.status.State, w.status.Reason = Active, ""
	}
}

// setPending notes the batch being worked on; nil: none is.
func (w *Worker) setPending(b *batch) {
	var p Pending
	var backlog int64
	if b != nil {
		p = Pending{int64(len(b.touches)), int64(len(b.data)), int64(len(b.meta))}
		backlog = int64(b.records)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.Pending, w.status.Backlog = p, backlog
}

func (w *Worker) addCounts(c Counts) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.Done.add(c)
	if c != (Counts{}) {
		w.status.Active = time.Now()
	}
}

func (w *Worker) found(dirs, names int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.Found.Dirs += dirs
	w.status.Found.Names += names
}

// setOldest notes that a change recorded at that time, or later, is about to be
// done. alone: what came before is done.
func (w *Worker) setOldest(at time.Time, alone bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.status.Current || alone || w.oldest.IsZero() || at.Before(w.oldest) {
		w.oldest = at
	}
	w.status.Current = false
}

// setCurrent notes whether all that was recorded before the given time is done.
func (w *Worker) setCurrent(current bool, checked time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.Current, w.status.Checked = current, checked
	if current {
		w.oldest = time.Time{}
	}
}
