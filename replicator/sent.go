package replicator

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick/gfid"
	"github.com/georep/georep/replicator/slave"
)

// clockStep is more than the clocks that stamp inodes and ours lie apart: the
// kernel's coarse clock ticks every 1 to 10 ms.
const clockStep = 20 * time.Millisecond

// sentMark is what a file of the master was when it was read. The zero mark is
// that of no file.
type sentMark struct {
	at    time.Time // when reading began
	size  int64
	mtime slave.Time
	ctime slave.Time
	sum   uint64 // of content and attributes; 0 if it was not read whole
}

func (m *sentMark) sameAs(st *unix.Statx_t) bool {
	return m.size == int64(st.Size) && m.mtime == timeOf(st.Mtime) && m.ctime == timeOf(st.Ctime)
}

func timeOf(t unix.StatxTimestamp) slave.Time { return slave.Time{Sec: t.Sec, Nsec: t.Nsec} }

const (
	// maxMarks bounds the marks kept; a file without one is sent once more.
	maxMarks = 200000
	// freshFor is how long after its last change a file that a crawl sends may
	// come up again in the changelog that is growing.
	freshFor = time.Minute
)

// sentMarks remembers what files were when they were sent, while their slice is
// not sealed: so that they are sent again only if they changed since. A nil
// sentMarks remembers nothing.
type sentMarks struct {
	mu    sync.Mutex
	marks map[gfid.GFID]sentMark
}

func newSentMarks() *sentMarks { return &sentMarks{marks: make(map[gfid.GFID]sentMark)} }

func (s *sentMarks) put(g gfid.GFID, m sentMark) {
	if s == nil || m == (sentMark{}) || m.at.Sub(time.Unix(m.ctime.Sec, 0)) > freshFor {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.marks) < maxMarks {
		s.marks[g] = m
	}
}

func (s *sentMarks) get(g gfid.GFID) (sentMark, bool) {
	if s == nil {
		return sentMark{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.marks[g]
	return m, ok
}

func (s *sentMarks) forget(g gfid.GFID) {
	if s == nil {
		return
	}
	s.mu.Lock()
	delete(s.marks, g)
	s.mu.Unlock()
}
