package daemon

import "sync"

// broker wakes those who follow events. The events are in the store.
type broker struct {
	mu   sync.Mutex
	more chan struct{} // closed at the next event; guarded by mu
}

func newBroker() *broker { return &broker{more: make(chan struct{})} }

// next is closed when an event came after this call.
func (b *broker) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.more
}

func (b *broker) publish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.more)
	b.more = make(chan struct{})
}
