package replicator

import (
	"errors"
	"testing"
)

// A slave to which rsync moves nothing, though it says that all went well, is
// refused at the first connection, and at each until that is mended, but for
// those who do not need rsync.
func TestUnfitSlaveIsRefused(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.create("f", "1")
	p.opt.Rsync = scriptedRsync(t, `test "$1" = --version && exec rsync --version; cat >/dev/null; exit 0`)
	for range 2 {
		_, err := p.tryOnce()
		var unfit *UnfitError
		var permanent *PermanentError
		if !errors.As(err, &unfit) || !errors.As(err, &permanent) {
			t.Fatalf("error %v, want an *UnfitError in a *PermanentError", err)
		}
		if len(unfit.Findings) != 1 || unfit.Mend() == "" {
			t.Errorf("findings %+v, want one with what to do", unfit.Findings)
		}
	}
	p.opt.Method = Stream
	p.same()
	p.opt.Method, p.opt.Rsync = Auto, ""
	p.same()
}
