package translator

import (
	"context"
	"time"
)

// The kernel tells of a last close a moment before it lets go of the file that it
// wrote past us, so the lease is often refused although no mapping is left. Such
// a file is looked at once more soon, and not only at the next scan, up to which
// it would count as written and be recorded again.
const (
	lingerTime  = 2 * time.Millisecond
	maxLingerer = 1024 // more wait for the next scan
)

// linger has in, whose watchFD was just set, looked at again soon.
func (t *Translator) linger(in *Inode) {
	select {
	case t.lingerers <- in:
	default:
	}
}

// letGo looks at lingerers until ctx is done.
func (t *Translator) letGo(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case in := <-t.lingerers:
			n := len(t.lingerers)
			time.Sleep(lingerTime) // all of these have waited for that long then
			t.scanIfLeft(in)
			for range n {
				t.scanIfLeft(<-t.lingerers)
			}
		}
	}
}

// scanIfLeft is scanOne for a file that nobody has open for writing any more.
func (t *Translator) scanIfLeft(in *Inode) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.isWritten() && in.open.writers == 0 {
		t.scanOne(in)
	}
}
