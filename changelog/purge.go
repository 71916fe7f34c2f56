package changelog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"
)

// Usage is what sealed changelogs take on disk.
type Usage struct {
	Files int
	Bytes int64
}

// purgeDirAge is how old a day must be before its empty directory goes: one that a
// writer may be about to use stays.
const purgeDirAge = 48 * time.Hour

// Purge removes the sealed changelogs in dir, BRICK/.glusterfs/changelogs, with
// stamps before the given one, unix seconds, oldest first; it may be stopped at any
// point and the brick may be mounted. The newest slice always stays.
//
// The index stays true: an HTIME file that is not the active one goes with the
// last changelog it lists. The active one goes on listing slices that were
// removed, which every reader takes for the gap that it is: a [Follower] or
// [Consumer] that needed them is told so.
func Purge(dir string, before int64) (removed Usage, err error) {
	fail := func(err error) (Usage, error) { return removed, fmt.Errorf("changelog: purge: %w", err) }
	stamps, err := sealedAfter(dir, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return removed, nil
	}
	if err != nil {
		return fail(err)
	}
	active, _, err := activeName(dir)
	if err != nil {
		return fail(err)
	}
	days := map[string]bool{}
	for i, stamp := range stamps {
		if stamp >= before || i == len(stamps)-1 {
			break
		}
		for _, name := range []string{sealedName(stamp), sealedPrefix + fmt.Sprint(stamp)} {
			file := filepath.Join(dir, name)
			st, err := os.Lstat(file)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = os.Remove(file)
			}
			if err != nil {
				return fail(err)
			}
			removed.Files++
			removed.Bytes += st.Size()
		}
		days[dayDir(stamp)] = true
	}
	for day := range days {
		t, err := time.Parse("2006/01/02", day)
		if err != nil || time.Since(t) < purgeDirAge {
			continue
		}
		// Not empty: there are later ones. Then its parents stay too.
		for d := day; d != "." && os.Remove(filepath.Join(dir, d)) == nil; d = path.Dir(d) {
		}
	}
	if err := purgeSpans(dir, active, before); err != nil {
		return fail(err)
	}
	return removed, nil
}

// purgeSpans removes the indexes that end before the stamp, but for the active one.
func purgeSpans(dir, active string, before int64) error {
	h, err := OpenHistory(dir)
	if err != nil {
		return err
	}
	for i, s := range h.spans {
		if s.Name == active || s.End >= before || i == len(h.spans)-1 {
			continue
		}
		if err := os.Remove(filepath.Join(dir, htimeDir, s.Name)); err != nil {
			return err
		}
	}
	return nil
}

// DiskUsage is what the sealed changelogs in dir take.
func DiskUsage(dir string) (Usage, error) {
	var u Usage
	stamps, err := sealedAfter(dir, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return u, nil
	}
	if err != nil {
		return u, fmt.Errorf("changelog: disk usage: %w", err)
	}
	for _, stamp := range stamps {
		st, err := os.Lstat(filepath.Join(dir, sealedName(stamp)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return u, fmt.Errorf("changelog: disk usage: %w", err)
		}
		u.Files++
		u.Bytes += st.Size()
	}
	return u, nil
}
