package brick

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// markFile has the time of the last reset of the volume's xtimes as its mtime,
// like GlusterFS's marker.tstamp; it is empty.
const markFile = "georep/marker.tstamp"

// VolumeMark tells since when the brick's xtimes are complete. Retval is 1 when
// they never were.
func (b *Brick) VolumeMark() (VolumeMark, error) {
	m := VolumeMark{Volume: b.volume}
	st, err := os.Stat(filepath.Join(b.path, Dir, markFile))
	if errors.Is(err, fs.ErrNotExist) {
		m.Retval = 1
		return m, nil
	}
	if err != nil {
		return m, fmt.Errorf("brick: volume mark: %w", err)
	}
	m.Reset = StampOf(st.ModTime())
	return m, nil
}

// InitVolumeMark starts the marker's time now, unless it has started before.
func (b *Brick) InitVolumeMark() error {
	f, err := os.OpenFile(filepath.Join(b.path, Dir, markFile), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("brick: volume mark: %w", err)
	}
	return f.Close()
}

// ResetVolumeMark declares all xtimes before now void: who replicates by them
// must crawl anew.
func (b *Brick) ResetVolumeMark() error {
	if err := b.InitVolumeMark(); err != nil {
		return err
	}
	now := time.Now()
	if err := os.Chtimes(filepath.Join(b.path, Dir, markFile), now, now); err != nil {
		return fmt.Errorf("brick: volume mark: %w", err)
	}
	return nil
}
