package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/google/renameio/v2"
)

// reportFormat is the version of Report as JSON.
const reportFormat = 1

// Report is what a run of the benchmark found.
type Report struct {
	Format  int      `json:"format"`
	Kind    string   `json:"kind"` // "overhead" or "replicate"
	Command []string `json:"command"`
	// Began is when it began, Took how long it took, in nanoseconds.
	Began time.Time     `json:"began"`
	Took  time.Duration `json:"took_ns"`
	// Rounds are those measured, after one that was not.
	Rounds  int      `json:"rounds"`
	Machine Machine  `json:"machine"`
	Targets []Target `json:"targets"`
	// Others is the part of the machine's CPU time that other processes used
	// meanwhile: 0 is a quiet machine, 1 one that had none left for us.
	Others float64 `json:"others_cpu"`
	Tables []Table `json:"tables"`
	// Notes are what a reader must know: what was left out, and why.
	Notes []string `json:"notes,omitempty"`
}

// Table has the rows that the same targets ran.
type Table struct {
	Title   string   `json:"title"`
	Targets []string `json:"targets"` // the first is what ratios are to
	Rows    []*Row   `json:"rows"`
	// Memory is the most that each target's mount had resident, in bytes.
	Memory map[string]int64 `json:"memory_bytes,omitempty"`
}

// Row is a step with its parameters.
type Row struct {
	Step   string  `json:"step"`
	Params []Param `json:"params,omitempty"`
	// Cells are the results by target.
	Cells map[string]*Cell `json:"cells"`
}

// Cell is what one target did in one row.
type Cell struct {
	Samples []Sample `json:"samples,omitempty"`
	// Failed says why there is no figure: the work or its records were wrong.
	Failed string `json:"failed,omitempty"`
}

// Sample is one round of a cell. Times are in nanoseconds.
type Sample struct {
	Round int           `json:"round"`
	Wall  time.Duration `json:"wall_ns"`
	// Work is the CPU time of those who work, Serve that of the mount's process
	// until all is flushed.
	Work  time.Duration `json:"work_cpu_ns"`
	Serve time.Duration `json:"serve_cpu_ns"`
	Ops   int           `json:"ops"`
	Bytes int64         `json:"bytes,omitempty"`
	// Records left, and the bytes that they take in a changelog.
	Records     int   `json:"records,omitempty"`
	RecordBytes int64 `json:"record_bytes,omitempty"`
	// Wire is the bytes that went over the network both ways, Memory what all
	// processes of both sides had resident at most.
	Wire   int64 `json:"wire_bytes,omitempty"`
	Memory int64 `json:"memory_bytes,omitempty"`
	// Lags are some of the files of a steady stream; Wall is the median of all.
	Lags    []Lag         `json:"lags,omitempty"`
	LateP99 time.Duration `json:"late_p99_ns,omitempty"`
	LateMax time.Duration `json:"late_max_ns,omitempty"`
}

// Name is the row as a person writes it: "create size=4KiB threads=1".
func (r *Row) Name() string { return (&step{name: r.Step, params: r.Params}).key() }

// param is the value of a parameter of the row.
func (r *Row) param(key string) (int64, bool) {
	i := slices.IndexFunc(r.Params, func(p Param) bool { return p.Key == key })
	if i < 0 {
		return 0, false
	}
	return r.Params[i].Value, true
}

// perOp is wall seconds for an operation.
func (s *Sample) perOp() float64 { return s.Wall.Seconds() / float64(s.Ops) }

// cpuPerOp is CPU seconds of all who take part, for an operation.
func (s *Sample) cpuPerOp() float64 { return (s.Work + s.Serve).Seconds() / float64(s.Ops) }

// figures are what each round of a target gives, nil when it failed.
func (r *Row) figures(target string, f func(*Sample) float64) []float64 {
	c := r.Cells[target]
	if c == nil || c.Failed != "" {
		return nil
	}
	var out []float64
	for i := range c.Samples {
		out = append(out, f(&c.Samples[i]))
	}
	return out
}

// ratios are base's figure divided by target's, for each round that both have: with
// perOp the speed of target, 1 being that of base.
func (r *Row) ratios(base, target string, f func(*Sample) float64) []float64 {
	b, c := r.Cells[base], r.Cells[target]
	if b == nil || c == nil || b.Failed != "" || c.Failed != "" {
		return nil
	}
	var out []float64
	for i := range c.Samples {
		s := &c.Samples[i]
		j := slices.IndexFunc(b.Samples, func(o Sample) bool { return o.Round == s.Round })
		if j >= 0 && f(s) > 0 {
			out = append(out, f(&b.Samples[j])/f(s))
		}
	}
	return out
}

// Failures are the cells without a figure, for a person to read.
func (r *Report) Failures() []string {
	var out []string
	for _, t := range r.Tables {
		for _, row := range t.Rows {
			for _, name := range t.Targets {
				if c := row.Cells[name]; c != nil && c.Failed != "" {
					out = append(out, fmt.Sprintf("%s, %s: %s", row.Name(), name, c.Failed))
				}
			}
		}
	}
	return out
}

// Write writes the report to path as JSON, whole or not at all.
func (r *Report) Write(path string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("bench: report: %w", err)
	}
	if err := renameio.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("bench: report: %w", err)
	}
	return nil
}

// ReadReport reads what Write wrote.
func ReadReport(path string) (*Report, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("bench: report: %w", err)
	}
	r := new(Report)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("bench: report: %q: %w", path, err)
	}
	if r.Format != reportFormat {
		return nil, fmt.Errorf("bench: report: %q has format %d, want %d", path, r.Format, reportFormat)
	}
	return r, nil
}
