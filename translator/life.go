package translator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/georep/georep/brick"
)

// life is one span of serving a brick, from a start to its end, as kept in the
// file "life" for the next start to see how the last one ended.
type life struct {
	// Boot is the boot id of the kernel that served.
	Boot string `json:"boot"`
	// Mount is the id, unique in that boot, of the mount the brick lay on; 0 when
	// the kernel has no unique ids.
	Mount uint64 `json:"mount"`
	// Began is when it started, unix seconds.
	Began int64 `json:"began"`
	// Clean is set by a clean stop.
	Clean bool `json:"clean"`
	// Unrecorded says that no changelog was kept.
	Unrecorded bool `json:"unrecorded,omitempty"`
	// Pending, unix seconds, is set while changes since then may have neither a
	// record nor an xtime, from before the brick shows that there is a gap until
	// a sweep has found them.
	Pending int64 `json:"pending,omitempty"`
	// Turned, unix seconds, is how far back the clock was set while it lasted, 0
	// if it was not: no stamp and no ctime before that is to be relied on.
	Turned int64 `json:"turned,omitempty"`

	here place
}

// pendSince adds that changes since at may be lost.
func (l *life) pendSince(at int64) {
	if at = max(at, 1); l.Pending == 0 || at < l.Pending {
		l.Pending = at
	}
}

// place is where a brick is served now.
type place struct {
	boot  string
	mount uint64
}

const lifeFile = "life"

// lostPower reports whether the file system may have lost what was not yet
// durable: the last life did not end cleanly, and the kernel or the mount of the
// file system is another one since.
func (l life) lostPower() bool {
	return l.Boot != "" && !l.Clean && (l.Boot != l.here.boot || l.Mount != l.here.mount)
}

func lifePath(b *brick.Brick) string { return filepath.Join(b.Path(), brick.Dir, stateDir, lifeFile) }

// readLife reads how the last life ended; the zero life if there was none.
func readLife(b *brick.Brick) (l life, err error) {
	if l.here, err = placeOf(b); err != nil {
		return l, err
	}
	data, err := os.ReadFile(lifePath(b))
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, fmt.Errorf("translator: %w", err)
	}
	if err := json.Unmarshal(data, &l); err != nil {
		// Torn by a loss of power, the one thing it is to tell of.
		l.Boot, l.Clean = "unknown", false
	}
	return l, nil
}

// beginLife starts the life after last.
func (t *Translator) beginLife(last life) error {
	t.life = life{Boot: last.here.boot, Mount: last.here.mount, Began: time.Now().Unix(), Unrecorded: t.full == nil, Pending: last.Pending}
	t.clock.last = t.life.Began
	return writeLife(t.b, t.life)
}

// noteClock notes that the clock was set back, which makes changes look older
// than slices sealed before them.
func (t *Translator) noteClock() {
	now := time.Now().Unix()
	if now < t.clock.last-1 && (t.life.Turned == 0 || now < t.life.Turned) {
		t.life.Turned = now
		if err := writeLife(t.b, t.life); err != nil {
			t.opts.Logger.Error("clock set back, and not noted for the case of power loss", "err", err)
		}
	}
	t.clock.last = now
}

// endLife notes a clean stop. What it says must not be durable before all else
// is, so the file system is synced first.
func endLife(b *brick.Brick) error {
	if err := unix.Syncfs(b.Root()); err != nil {
		return fmt.Errorf("translator: syncfs: %w", err)
	}
	l, err := readLife(b)
	if err != nil {
		return err
	}
	l.Clean = true
	return writeLife(b, l)
}

// writeLife is durable when it returns: a life that a loss of power turns back
// into the clean one before it would hide that loss.
func writeLife(b *brick.Brick, l life) error {
	data, err := json.Marshal(l)
	if err == nil {
		err = renameio.WriteFile(lifePath(b), append(data, '\n'), 0o600)
	}
	if err == nil {
		err = syncDir(filepath.Dir(lifePath(b)))
	}
	if err != nil {
		return fmt.Errorf("translator: %w", err)
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func placeOf(b *brick.Brick) (p place, err error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return p, fmt.Errorf("translator: %w", err)
	}
	p.boot = strings.TrimSpace(string(boot))
	var st unix.Statx_t
	// By the path: the brick's own descriptors may be in a mount of their own.
	if err := unix.Statx(unix.AT_FDCWD, b.Path(), 0, unix.STATX_MNT_ID_UNIQUE, &st); err != nil {
		return p, fmt.Errorf("translator: statx %q: %w", b.Path(), err)
	}
	// An id that is used again would hide that the brick was mounted anew.
	if st.Mask&unix.STATX_MNT_ID_UNIQUE != 0 {
		p.mount = st.Mnt_id
	}
	return p, nil
}
