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

	here place
	// durable is when, in unix seconds, the changelogs were last known to be
	// durable; see durableStamp.
	durable int64
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

func beginLife(b *brick.Brick) error {
	here, err := placeOf(b)
	if err != nil {
		return err
	}
	return writeLife(b, life{Boot: here.boot, Mount: here.mount, Began: time.Now().Unix()})
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

func writeLife(b *brick.Brick, l life) error {
	data, err := json.Marshal(l)
	if err == nil {
		err = renameio.WriteFile(lifePath(b), append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("translator: %w", err)
	}
	return nil
}

func placeOf(b *brick.Brick) (p place, err error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return p, fmt.Errorf("translator: %w", err)
	}
	p.boot = strings.TrimSpace(string(boot))
	var st unix.Statx_t
	if err := unix.Statx(b.Root(), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID_UNIQUE, &st); err != nil {
		return p, fmt.Errorf("translator: statx %q: %w", b.Path(), err)
	}
	// An id that is used again would hide that the brick was mounted anew.
	if st.Mask&unix.STATX_MNT_ID_UNIQUE != 0 {
		p.mount = st.Mnt_id
	}
	return p, nil
}
