package gfid

import (
	"crypto/rand"
	"sync"
)

// clusterSize is how many GFIDs in a row share their first two bytes, and so
// the directory their handles are linked into. A link into a warm directory
// costs about a quarter of one into a cold directory.
const clusterSize = 4096

// Source makes new GFIDs: valid version 4 UUIDs, random but for the first two
// bytes, which stay the same for a few thousand GFIDs and then move on to
// another random pair. Over time all 65,536 handle directories fill evenly.
//
// The zero Source is ready. It is safe for concurrent use.
type Source struct {
	mu     sync.Mutex
	prefix [2]byte
	left   int
	// buf holds random bytes not yet used; its tail from n on is fresh.
	buf [1024]byte
	n   int
}

// Next returns a GFID that no file has yet.
func (s *Source) Next() GFID {
	var g GFID
	s.mu.Lock()
	if s.left == 0 {
		s.draw(s.prefix[:])
		s.left = clusterSize
	}
	s.left--
	s.draw(g[2:])
	copy(g[:], s.prefix[:])
	s.mu.Unlock()
	g[6] = g[6]&0x0f | 0x40 // version 4
	g[8] = g[8]&0x3f | 0x80 // RFC 4122
	return g
}

// draw fills p with random bytes, read ahead in blocks so that one system call
// serves many GFIDs. The caller holds mu.
func (s *Source) draw(p []byte) {
	if s.n == 0 || s.n+len(p) > len(s.buf) {
		rand.Read(s.buf[:]) // never fails: crypto/rand aborts the process instead
		s.n = 0
	}
	s.n += copy(p, s.buf[s.n:])
}
