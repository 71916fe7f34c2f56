package translator

import (
	"sync"
	"sync/atomic"
	"time"
)

// debt says whether changes may have neither a record nor an xtime on the brick:
// while the log is in a gap, or an xtime could not be written. Who finds the
// brick so after a crash looks for them by ctime.
type debt struct {
	mu   sync.Mutex
	owed atomic.Bool // written under mu
}

// owe notes that changes from now on may have neither.
func (t *Translator) owe() {
	t.debt.mu.Lock()
	defer t.debt.mu.Unlock()
	t.debt.owed.Store(true)
	if t.intents != nil && t.intents.owing() == 0 {
		t.intents.setOwing(time.Now().Unix())
	}
}

// settle flushes xtimes once records are kept again, and then nothing is owed.
func (t *Translator) settle() {
	if !t.debt.owed.Load() || t.full != nil && t.full.Gap() != nil {
		return
	}
	t.debt.mu.Lock()
	t.debt.owed.Store(false)
	t.debt.mu.Unlock()
	if t.marker != nil && t.marker.Flush() != nil {
		t.owe()
	}
	t.clearOwing()
}

// clearOwing takes the note off the brick unless something is owed.
func (t *Translator) clearOwing() {
	t.debt.mu.Lock()
	defer t.debt.mu.Unlock()
	if !t.debt.owed.Load() {
		t.intents.setOwing(0)
	}
}
