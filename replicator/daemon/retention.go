package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/georep/georep/replicator/session"
)

// retainEvery is how often changelogs are looked at that may go.
const retainEvery = 10 * time.Minute

// retain removes changelogs that are not needed any more until ctx is done.
func (d *Daemon) retain(ctx context.Context) {
	tick := time.NewTicker(retainEvery)
	defer tick.Stop()
	for {
		if err := d.retainAll(time.Now()); err != nil {
			d.log.Error("changelogs not purged", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-d.purge:
		}
	}
}

// retainSoon has changelogs looked at now.
func (d *Daemon) retainSoon() {
	select {
	case d.purge <- struct{}{}:
	default: // it is about to be
	}
}

func (d *Daemon) retainAll(now time.Time) error {
	sessions, err := d.store.Sessions()
	if err != nil {
		return err
	}
	// A brick without sessions is not ours to clean.
	cuts := map[string]time.Time{}
	for _, s := range sessions {
		st, err := d.sessionStatus(s)
		if err != nil {
			return err
		}
		retention, err := d.store.Setting(s.Name, "changelog-retention")
		if err != nil {
			return err
		}
		hold, err := d.store.Setting(s.Name, "changelog-hold")
		if err != nil {
			return err
		}
		for i := range st.Workers {
			ws := &st.Workers[i]
			cut := now.Add(-retention.Duration())
			switch {
			case retention.Duration() == 0:
				cut = time.Time{} // never
			case s.Wanted != session.Started && now.Sub(s.Since) >= hold.Duration():
				// It has had its time: it will compare all when it is started.
			case ws.Stime.Before(cut):
				cut = ws.Stime // all of it is still needed if that is zero
			}
			if before, ok := cuts[ws.Brick]; !ok || cut.Before(before) {
				cuts[ws.Brick] = cut
			}
		}
	}
	for brick, cut := range cuts {
		if cut.IsZero() {
			continue
		}
		files, bytes, err := d.opt.Host.Purge(brick, cut)
		if err != nil {
			return err
		}
		if files > 0 {
			d.tell(session.Event{Kind: "changelog.purged", Brick: brick, Text: fmt.Sprintf("%s: %d changelogs (%d bytes) from before %s removed", brick, files, bytes, cut.Format(time.RFC3339))})
		}
	}
	return nil
}

// heldBack says until when changelogs are kept for a session that is not running,
// "" if none is that would go otherwise.
func (d *Daemon) heldBack(s *session.Session, stime time.Time) (string, error) {
	retention, err := d.store.Setting(s.Name, "changelog-retention")
	if err != nil {
		return "", err
	}
	hold, err := d.store.Setting(s.Name, "changelog-hold")
	if err != nil {
		return "", err
	}
	now := time.Now()
	if retention.Duration() == 0 || !stime.Before(now.Add(-retention.Duration())) {
		return "", nil
	}
	until := s.Since.Add(hold.Duration())
	if until.Before(now) {
		return "changelogs are not kept for it any more: started again it compares all", nil
	}
	return "changelogs since " + orNever(stime) + " are kept for it until " + until.Format(time.DateTime), nil
}

func orNever(t time.Time) string {
	if t.IsZero() {
		return "ever"
	}
	return t.Format(time.DateTime)
}
