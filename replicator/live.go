package replicator

import (
	"sync"
	"syscall"
	"time"

	"github.com/georep/georep/brick"
	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/changelog"
)

const (
	// lookFirst and lookLast bound how long after it was recorded, or found
	// changed, a file is looked at again while its slice grows.
	lookFirst = time.Second
	lookLast  = 8 * time.Second
	// hotShare bounds how much of the time goes into sending a large file that
	// keeps changing: after it was sent twice in a row it rests as long as that
	// took, after each further time once more as long, up to hotShare times as
	// long, at most hotRest. A change of a file that has rested comes at once.
	hotShare = 5
	hotRest  = 5 * time.Minute
	// maxWatched bounds the files looked at in a slice; beyond that they are
	// looked at when it is sealed.
	maxWatched = 50000
)

// live is what is remembered while a slice grows: its changes were sent as they
// were recorded, and are recorded once.
type live struct {
	sent *sentMarks
	hot  *hot
	// data and meta are the GFIDs with such records in this slice.
	data, meta set
	// looks are the files to be looked at again, and when.
	looks map[gfid.GFID]*nextLook
	// closing are the GFIDs of slices that ended and are about to be done.
	closing []gfid.GFID
}

type nextLook struct {
	at   time.Time
	wait time.Duration
}

func newLive(sent *sentMarks) *live {
	return &live{sent: sent, hot: newHot(), data: make(set), meta: make(set), looks: make(map[gfid.GFID]*nextLook)}
}

// record takes in a record of the growing changelog.
func (l *live) record(r *changelog.Record, now time.Time) {
	switch {
	case r.Type == changelog.Data, r.Type == changelog.Entry && (r.Fop == changelog.FopCreate || r.Fop == changelog.FopMknod):
		l.data.add(r.GFID)
	case r.Type == changelog.Meta:
		l.meta.add(r.GFID)
	default:
		return
	}
	if l.looks[r.GFID] == nil && len(l.looks) < maxWatched {
		l.looks[r.GFID] = &nextLook{at: now.Add(lookFirst), wait: lookFirst}
	}
}

// seal adds to b what is to be looked at once more as the slice has ended.
func (l *live) seal(b *batch) {
	for g := range l.data {
		b.data.add(g)
		l.closing = append(l.closing, g)
	}
	for g := range l.meta {
		b.meta.add(g)
		l.closing = append(l.closing, g)
	}
	clear(l.data)
	clear(l.meta)
	clear(l.looks)
}

// sealed is called when what seal added is done: marks of files that the present
// slice has no record of are needed no more.
func (l *live) sealed() {
	for _, g := range l.closing {
		if l.looks[g] == nil {
			l.sent.forget(g)
		}
	}
	l.closing = l.closing[:0]
}

// due adds to b the files whose time to be looked at has come and that changed
// since they were sent, and large ones that have rested.
func (l *live) due(now time.Time, m *master, b *batch) bool {
	for g, n := range l.looks {
		if n.at.After(now) {
			continue
		}
		o, errno := m.stat(g)
		mark, ok := l.sent.get(g)
		switch {
		case errno == syscall.ENOENT:
			delete(l.looks, g)
			continue
		case errno == 0 && ok && mark.sameAs(&o.Stat):
			n.wait = min(n.wait*2, lookLast)
		default:
			n.wait = lookFirst
			if l.data.has(g) {
				b.data.add(g)
			}
			if l.meta.has(g) {
				b.meta.add(g)
			}
		}
		n.at = now.Add(n.wait)
	}
	l.hot.due(now, b)
	return !b.empty()
}

// waiting reports whether a change is known that was not sent yet.
func (l *live) waiting() bool { return l.hot.len() > 0 }

// hot makes large files that keep changing rest between two times they are sent.
// It is safe for concurrent use.
type hot struct {
	mu    sync.Mutex
	files map[gfid.GFID]*hotFile
}

type hotFile struct {
	rest  time.Time // not sent before
	cool  time.Time // what is sent after this is sent for the first time again
	times int       // sent in a row
	held  bool      // it changed and waits
	bound brick.Stamp
}

func newHot() *hot { return &hot{files: make(map[gfid.GFID]*hotFile)} }

// admit reports whether g may be sent now. If not it is held, and stime may not
// pass bound until it is sent.
func (h *hot) admit(g gfid.GFID, bound brick.Stamp, now time.Time) bool {
	if h == nil {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.files[g]
	if f == nil {
		return true
	}
	if !f.rest.After(now) {
		f.held = false
		return true
	}
	if !f.held {
		f.held, f.bound = true, bound
	}
	return false
}

// sent notes that sending g took so long.
func (h *hot) sent(g gfid.GFID, took time.Duration, now time.Time) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.files[g]
	if f == nil || f.cool.Before(now) {
		f = &hotFile{}
		h.files[g] = f
	}
	f.rest = now.Add(min(time.Duration(min(f.times, hotShare))*took, hotRest))
	f.cool = now.Add(min(hotShare*took, hotRest)).Add(time.Second)
	f.times++
}

// due adds files that were held and have rested to b, and forgets those that
// cooled down.
func (h *hot) due(now time.Time, b *batch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for g, f := range h.files {
		switch {
		case f.rest.After(now):
		case f.held:
			b.data.add(g)
		case !f.cool.After(now):
			delete(h.files, g)
		}
	}
}

// bound is what stime may not pass: the least of all held files'.
func (h *hot) bound() (least brick.Stamp, ok bool) {
	if h == nil {
		return least, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.files {
		if f.held && (!ok || f.bound.Compare(least) < 0) {
			least, ok = f.bound, true
		}
	}
	return least, ok
}

func (h *hot) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, f := range h.files {
		if f.held {
			n++
		}
	}
	return n
}
