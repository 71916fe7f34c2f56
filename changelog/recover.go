package changelog

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// tail is a changelog that a dead process left unsealed.
type tail struct {
	f    *os.File // owned
	size int64    // of its whole records, header included; 0 when it has no header
	cut  int64    // bytes behind them
	// damage is why the bytes behind are no torn record: something is lost.
	damage error
}

// recover brings the directory in order and leaves the Log with an index and an
// empty CHANGELOG. Each step leaves a state from which it can begin anew:
//
//   - CHANGELOG or CHANGELOG.new is always there once there was one, so that a
//     crash here is not taken for recording turned off;
//   - a new HTIME file is the active one before anything of the old is sealed into it;
//   - a sealed changelog that is not listed yet is listed first, by the next recover.
//     One whose stamp is below the last listed, GlusterFS's own last slices, stays
//     unlisted: the index is in order, and History finds it.
func (l *Log) recover() error {
	reason, err := l.mark.open()
	if err != nil {
		return err
	}
	if l.index, err = currentIndex(l.d); err != nil {
		return err
	}
	t, err := l.openTail()
	if err != nil {
		return err
	}
	if t != nil {
		defer t.f.Close() // synced when it was cut
	}
	if l.index != nil {
		if err := l.listMissing(reason == "" && !l.opts.NewHistory); err != nil {
			return err
		}
	}
	if why := l.newHistoryReason(reason, t); why != "" {
		if err := l.startHistory(why); err != nil {
			return err
		}
	}
	if t != nil {
		err = l.sealTail(t)
	} else {
		err = l.installFirst()
	}
	if err != nil || reason == "" {
		return err
	}
	return l.mark.clear()
}

// newHistoryReason says why a new HTIME file must begin, "" when none must.
func (l *Log) newHistoryReason(gap string, t *tail) string {
	switch {
	case l.index == nil:
		return "there is none"
	case l.opts.NewHistory:
		return "asked for"
	case gap != "":
		return "records were lost: " + gap
	case t == nil:
		return "recording was off"
	case !l.index.fits():
		return "the directory was moved"
	case t.damage != nil:
		return t.damage.Error()
	}
	return ""
}

// listMissing lists sealed changelogs that a crash kept from being listed. Those
// from before a gap are not trusted: they may have lost their end to power loss,
// or to the failure that made the gap.
func (l *Log) listMissing(trusted bool) error {
	l.setLast(l.index.last)
	missing, err := sealedAfter(l.opts.Dir, l.last)
	if err != nil || len(missing) == 0 {
		return err
	}
	l.setLast(missing[len(missing)-1])
	if !trusted || !l.index.fits() {
		return nil
	}
	l.log.Warn("sealed changelogs were not in the index", "dir", l.opts.Dir, "count", len(missing))
	for _, stamp := range missing {
		l.index.pending = append(l.index.pending, indexEntry{stamp: stamp})
	}
	return l.index.flush()
}

// startHistory begins a new HTIME file.
func (l *Log) startHistory(why string) error {
	start := l.opts.now().Unix()
	if l.index != nil {
		start = l.historyStart()
		_ = l.index.close() // synced
	}
	var err error
	if l.index, err = newIndex(l.d, start); err != nil {
		return err
	}
	l.setLast(max(l.last, l.index.start))
	l.log.Info("a new HTIME file begins", "dir", l.opts.Dir, "htime", l.index.name, "reason", why)
	return nil
}

// openTail opens and reads what was left unsealed; nil when there is nothing. A
// successor stands in for CHANGELOG only when a crash came between the two
// renames of a rollover; it has no record then.
func (l *Log) openTail() (*tail, error) {
	f, err := l.d.open(liveName, 0)
	if errors.Is(err, fs.ErrNotExist) {
		next, err := l.d.exists(nextName)
		if err != nil || !next {
			return nil, err
		}
		if err := l.d.renameNew(nextName, liveName); err != nil {
			return nil, err
		}
		return l.openTail()
	}
	if err != nil {
		return nil, err
	}
	t := &tail{f: f}
	if err := l.readTail(t); err != nil {
		_ = f.Close() // the first error counts
		return nil, err
	}
	return t, nil
}

// readTail finds the end of the last whole record.
func (l *Log) readTail(t *tail) error {
	st, err := t.f.Stat()
	if err != nil {
		return err
	}
	var bad *ParseError
	r, err := NewReader(t.f, t.f.Name())
	for err == nil {
		t.size = r.Offset()
		var rec *Record
		if rec, err = r.Next(); err == nil && l.opts.OnTail != nil {
			l.opts.OnTail(rec)
		}
	}
	switch {
	case errors.Is(err, io.EOF):
	case errors.As(err, &bad):
		t.cut = st.Size() - t.size
		if !errors.Is(err, ErrTorn) {
			t.damage = err
		}
		if t.cut > 0 {
			l.log.Warn("the last changelog is cut behind its last whole record",
				"dir", l.opts.Dir, "offset", t.size, "bytes", t.cut, "err", err)
		}
	default:
		return err
	}
	return nil
}

// sealTail cuts, seals and lists a tail, with an empty CHANGELOG in its place.
func (l *Log) sealTail(t *tail) error {
	if t.cut > 0 {
		if err := l.d.truncate(t.f, liveName, t.size); err != nil {
			return err
		}
	}
	e := indexEntry{stamp: l.nextStamp(), empty: t.size <= int64(headerLen)}
	if !e.empty {
		if err := l.d.sync(t.f, liveName); err != nil {
			return err
		}
		if err := l.d.mkdirs(dayDir(e.stamp)); err != nil {
			return err
		}
	}
	next, err := l.newChangelog(l.want)
	if err != nil {
		return err
	}
	for !e.empty {
		err := l.d.renameNew(liveName, sealedName(e.stamp))
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) {
			_ = next.f.Close() // the next Open removes it
			return err
		}
		e.stamp = l.nextStamp()
		if err := l.d.mkdirs(dayDir(e.stamp)); err != nil {
			_ = next.f.Close()
			return err
		}
	}
	if err := l.install(next); err != nil {
		return err
	}
	if !e.empty {
		if err := l.d.syncDir(dayDir(e.stamp)); err != nil {
			return err
		}
	}
	return l.index.add(e)
}

// installFirst makes a CHANGELOG where there is none.
func (l *Log) installFirst() error {
	next, err := l.newChangelog(l.want)
	if err != nil {
		return err
	}
	return l.install(next)
}

// install makes a new changelog CHANGELOG, replacing one without records.
func (l *Log) install(next *successor) error {
	if err := l.d.rename(nextName, liveName); err != nil {
		_ = next.f.Close() // the next Open removes it
		return err
	}
	l.use(next)
	return l.d.syncDir(".")
}
