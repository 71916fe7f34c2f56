package replicator

import (
	"context"
	"strings"

	"github.com/georep/georep/replicator/slave"
)

// UnfitError says that a slave can't be used, as found out at the first connection.
type UnfitError struct{ Findings []slave.Finding }

func (e *UnfitError) Error() string {
	what := make([]string, len(e.Findings))
	for i, f := range e.Findings {
		what[i] = f.What
	}
	return "replicator: slave can't be used: " + strings.Join(what, "; ")
}

// Mend is what to do about it.
func (e *UnfitError) Mend() string {
	var mend []string
	for _, f := range e.Findings {
		mend = append(mend, f.Mend)
	}
	return strings.Join(mend, "; ")
}

// probe looks, until that was once so, whether the slave can be used.
func (w *Worker) probe(ctx context.Context) error {
	done, err := w.prog.probed()
	if done || err != nil {
		return err
	}
	found, err := w.c.Probe(ctx, slave.ProbeOptions{Rsync: w.opt.Rsync})
	if err != nil {
		return err
	}
	var unfit []slave.Finding
	for _, f := range found {
		if f.Fatal && !(f.Rsync && w.opt.Method == Stream) {
			unfit = append(unfit, f)
			continue
		}
		w.log.Warn("found at the first connection", "what", f.What, "mend", f.Mend)
	}
	if len(unfit) > 0 {
		return &PermanentError{&UnfitError{unfit}}
	}
	if w.opt.Method == Stream {
		return nil // rsync was not asked for; it may be the next time
	}
	return w.prog.setProbed()
}
