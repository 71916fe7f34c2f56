package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/georep/georep/replicator/session"
)

// metrics gathers what Prometheus asks for, at the moment it asks.
type metrics struct{ d *Daemon }

// desc is a metric's name, help and labels.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("georep_"+name, help, labels, nil)
}

var (
	descLag        = desc("lag_seconds", "Age of the oldest change that the slave may lack.", "session", "brick")
	descTarget     = desc("lag_target_seconds", "rpo-target of the session, 0 if it has none.", "session")
	descBacklog    = desc("backlog_records", "Records read and not applied.", "session", "brick")
	descPending    = desc("pending_operations", "Operations that wait, by class.", "session", "brick", "class")
	descApplied    = desc("applied_operations_total", "Operations applied since the worker's process began, by class.", "session", "brick", "class")
	descSent       = desc("applied_bytes_total", "Bytes of contents sent since the worker's process began.", "session", "brick")
	descState      = desc("worker_state", "1 for the state that the worker is in.", "session", "brick", "state")
	descProgress   = desc("worker_last_progress_timestamp_seconds", "When something was last seen to move.", "session", "brick")
	descRestarts   = desc("worker_restarts_total", "Times that the worker's process was started again.", "session", "brick")
	descStime      = desc("stime_timestamp_seconds", "Everything older is durable on the slave.", "session", "brick")
	descQuarantine = desc("quarantine_items", "Items that failed and are tried again.", "session", "brick")
	descConflicts  = desc("conflicts_total", "Objects of others kept aside on the slave since the worker's process began.", "session", "brick")
	descCheckpoint = desc("checkpoint_timestamp_seconds", "Time of the latest checkpoint.", "session")
	descCompleted  = desc("checkpoint_completed", "1 if the latest checkpoint is reached.", "session")
	descFiles      = desc("changelog_files", "Sealed changelogs on the brick.", "volume", "brick")
	descDisk       = desc("changelog_bytes", "Bytes that they take.", "volume", "brick")
	descMounted    = desc("brick_mounted", "1 if the brick of a started volume is mounted.", "volume", "brick")
)

// Describe tells nothing: which metrics there are depends on the sessions.
func (m metrics) Describe(chan<- *prometheus.Desc) {}

// Collect gathers all metrics.
func (m metrics) Collect(ch chan<- prometheus.Metric) {
	fail := func(err error) { ch <- prometheus.NewInvalidMetric(descLag, err) }
	sessions, err := m.d.store.Sessions()
	if err != nil {
		fail(err)
		return
	}
	for _, s := range sessions {
		if err := m.session(ch, s); err != nil {
			fail(err)
			return
		}
	}
	volumes, err := m.d.store.Volumes()
	if err != nil {
		fail(err)
		return
	}
	for _, v := range volumes {
		if err := m.volume(ch, v); err != nil {
			fail(err)
			return
		}
	}
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, value float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func counter(ch chan<- prometheus.Metric, d *prometheus.Desc, value float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, labels...)
}

func (m metrics) session(ch chan<- prometheus.Metric, s *session.Session) error {
	st, err := m.d.sessionStatus(s)
	if err != nil {
		return err
	}
	target, err := m.d.store.Setting(s.Name, "rpo-target")
	if err != nil {
		return err
	}
	gauge(ch, descTarget, target.Duration().Seconds(), s.Name)
	for i := range st.Workers {
		w := &st.Workers[i]
		gauge(ch, descLag, w.Lag.Seconds(), s.Name, w.Brick)
		gauge(ch, descBacklog, float64(w.Backlog), s.Name, w.Brick)
		for class, n := range map[string]int64{"entry": w.Entries, "data": w.Data, "meta": w.Meta} {
			gauge(ch, descPending, float64(n), s.Name, w.Brick, class)
		}
		for class, n := range map[string]int64{"entry": w.Done.Entries, "data": w.Done.Files, "meta": w.Done.Attrs} {
			counter(ch, descApplied, float64(n), s.Name, w.Brick, class)
		}
		counter(ch, descSent, float64(w.Done.Bytes), s.Name, w.Brick)
		counter(ch, descConflicts, float64(w.Done.Conflicts), s.Name, w.Brick)
		counter(ch, descRestarts, float64(w.Restarts), s.Name, w.Brick)
		gauge(ch, descQuarantine, float64(w.Failures), s.Name, w.Brick)
		for _, state := range append([]string{"Created", "Paused", "Stopped"}, worst...) {
			is := 0.0
			if state == w.Status {
				is = 1
			}
			gauge(ch, descState, is, s.Name, w.Brick, state)
		}
		if !w.Progress.IsZero() {
			gauge(ch, descProgress, seconds(w.Progress), s.Name, w.Brick)
		}
		if !w.Stime.IsZero() {
			gauge(ch, descStime, seconds(w.Stime), s.Name, w.Brick)
		}
		if p := w.Checkpoint; p != nil && i == 0 {
			done := 0.0
			if !p.Completed.IsZero() {
				done = 1
			}
			gauge(ch, descCheckpoint, seconds(p.Time), s.Name)
			gauge(ch, descCompleted, done, s.Name)
		}
	}
	return nil
}

func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

func (m metrics) volume(ch chan<- prometheus.Metric, v *session.Volume) error {
	for _, b := range m.d.volumeStatus(v).Status {
		if v.Started {
			mounted := 0.0
			if b.Mounted {
				mounted = 1
			}
			gauge(ch, descMounted, mounted, v.Name, b.Path)
		}
		files, bytes, err := m.d.opt.Host.ChangelogUsage(b.Path)
		if err != nil {
			return err
		}
		gauge(ch, descFiles, float64(files), v.Name, b.Path)
		gauge(ch, descDisk, float64(bytes), v.Name, b.Path)
	}
	return nil
}

// CheckMetricsAddress refuses an address for metrics that others could reach:
// there is no login to them.
func CheckMetricsAddress(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return session.Errorf(session.Usage, "metrics address %q: want 127.0.0.1:PORT or [::1]:PORT", address)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return session.Errorf(session.Usage, "metrics address %q: want one of the loopback, such as 127.0.0.1:9877", address).
			WithHint("a proxy that asks for a login can pass them on")
	}
	return nil
}

// serveMetrics answers Prometheus until ctx is done; the error is about listening.
func (d *Daemon) serveMetrics(ctx context.Context) (stopped <-chan struct{}, err error) {
	done := make(chan struct{})
	if d.opt.Metrics == "" {
		close(done)
		return done, nil
	}
	if err := CheckMetricsAddress(d.opt.Metrics); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", d.opt.Metrics)
	if err != nil {
		return nil, fmt.Errorf("daemon: metrics: %w", err)
	}
	reg := prometheus.NewRegistry()
	if err := reg.Register(metrics{d}); err != nil {
		l.Close()
		return nil, fmt.Errorf("daemon: metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelWarn)}))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelWarn)}
	d.log.Info("metrics", "address", l.Addr().String())
	go func() {
		defer close(done)
		stop := context.AfterFunc(ctx, func() { srv.Close() })
		defer stop()
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("metrics not served any more", "err", err)
		}
	}()
	return done, nil
}
