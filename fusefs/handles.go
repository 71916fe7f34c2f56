package fusefs

import "sync"

// handles gives each open file or directory a number for the kernel. It is safe
// for concurrent use.
type handles[T any] struct {
	mu   sync.RWMutex
	open []T      // guarded by mu
	free []uint64 // guarded by mu
}

// add returns the number of v, from 1 on.
func (h *handles[T]) add(v T) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.free); n > 0 {
		fh := h.free[n-1]
		h.free = h.free[:n-1]
		h.open[fh-1] = v
		return fh
	}
	h.open = append(h.open, v)
	return uint64(len(h.open))
}

// get returns what fh stands for, the zero value if nothing.
func (h *handles[T]) get(fh uint64) (v T) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if fh == 0 || fh > uint64(len(h.open)) {
		return v
	}
	return h.open[fh-1]
}

// remove returns what fh stood for and frees the number.
func (h *handles[T]) remove(fh uint64) (v T) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if fh == 0 || fh > uint64(len(h.open)) {
		return v
	}
	var none T
	v, h.open[fh-1] = h.open[fh-1], none
	h.free = append(h.free, fh)
	return v
}
