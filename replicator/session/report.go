package session

import "time"

// Report is what a worker says of itself: what georep replicate --json prints, a
// line each. What is not known here is passed over.
type Report struct {
	State   string // Initializing, Active, Degraded, Faulty, Stopped, HostKeyChanged
	Reason  string
	Crawl   string // Hybrid, History, Changelog; "" before the first
	Why     string // why that crawl
	Stime   Stamp
	Current bool          // nothing is waiting
	Lag     time.Duration // how old the oldest change is that the slave may lack
	Backlog int64         // records or names that are read and not done
	Done    Counts        // since the worker began
	Found   Found         // by the hybrid crawl
	Waiting int           // items in quarantine
	Items   []Item        // the oldest of them
	Active  time.Time     // when work was last done

	Pending Pending // by class
}

// Stamp is a time as stime is kept.
type Stamp struct{ Sec, Usec uint32 }

// Time is the stamp as a time, zero for the zero Stamp.
func (t Stamp) Time() time.Time {
	if t == (Stamp{}) {
		return time.Time{}
	}
	return time.Unix(int64(t.Sec), int64(t.Usec)*1000)
}

// Counts are operations that were applied.
type Counts struct {
	Entries   int64 `json:"entries"`
	Files     int64 `json:"files"`
	Bytes     int64 `json:"bytes"`
	Attrs     int64 `json:"attrs"`
	Conflicts int64 `json:"conflicts"`
}

// Ops is how many there are in all.
func (c *Counts) Ops() int64 { return c.Entries + c.Files + c.Attrs }

// Found is how far a hybrid crawl has looked.
type Found struct{ Dirs, Names int64 }

// Pending is what is waiting, by class.
type Pending struct{ Entries, Data, Meta int64 }
