package bench

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteTable writes the report for a terminal.
func (r *Report) WriteTable(w io.Writer) error {
	tw := &textWriter{w: w}
	tw.printf("%s\n", r.where())
	for _, s := range r.sections() {
		tw.printf("\n%s\n%s\n", s.Title, s.Note)
		tw.table(s.Rows)
	}
	for _, f := range r.Failures() {
		tw.printf("\nFAILED %s\n", f)
	}
	for _, n := range r.Notes {
		tw.printf("\nNote: %s\n", n)
	}
	return tw.err
}

// section is a table with a title, and how to read it.
type section struct {
	Title, Note string
	Rows        [][]string
}

// sections are all tables of a report.
func (r *Report) sections() []section {
	if r.Kind == replicateKind {
		return r.replicateSections()
	}
	var out []section
	for i := range r.Tables {
		t := &r.Tables[i]
		out = append(out,
			section{t.Title, "Speed, 1 is that of the bare directory in the same round: median (least–most). First what the bare directory does in a second.", t.speedTable()},
			section{t.Title + ": CPU time of an operation", "User and system time of those who work and of the mount’s process, until all is flushed and sealed.", t.cpuTable()})
		if len(t.Memory) > 0 {
			out = append(out, section{t.Title + ": memory of the mount", "Resident at the peak.", t.memoryTable()})
		}
	}
	if logs := r.logTable(); len(logs) > 1 {
		out = append(out, section{"Bytes of changelog for an operation", "What its records take, headers left out.", logs})
	}
	return out
}

// where is the machine and the circumstances, for a person to read.
func (r *Report) where() string {
	m := &r.Machine
	var v []string
	for _, name := range []string{"georep", "go", "go-fuse", "git", "rsync"} {
		if m.Versions[name] != "" {
			v = append(v, name+" "+m.Versions[name])
		}
	}
	return fmt.Sprintf("%s, %s\n%d × %s, %s; %s; %s\nbricks on %s\n%s\n%d rounds in %v; others used %.0f %% of the machine meanwhile, load before %s",
		r.Began.Format("2006-01-02 15:04 MST"), strings.Join(r.Command, " "),
		m.CPUs, m.CPU, formatBytes(float64(m.Memory)), m.Kernel, m.System, m.FS, strings.Join(v, ", "),
		r.Rounds, r.Took.Round(time.Second), 100*r.Others, m.Load)
}

// textWriter remembers the first error.
type textWriter struct {
	w   io.Writer
	err error
}

func (t *textWriter) printf(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.w, format, args...)
	}
}

func (t *textWriter) table(rows [][]string) {
	tw := tabwriter.NewWriter(t.w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		// Into tw's own buffer: an error shows at Flush.
		_, _ = fmt.Fprintln(tw, "  "+strings.Join(row, "\t"))
	}
	if err := tw.Flush(); t.err == nil {
		t.err = err
	}
}

// speedTable has a head, and for each row its name, what the bare directory does,
// and the speed of each other target.
func (t *Table) speedTable() [][]string {
	base := t.Targets[0]
	out := [][]string{append([]string{"", base}, t.Targets[1:]...)}
	for _, row := range t.Rows {
		line := []string{row.Name(), row.rate(base)}
		for _, name := range t.Targets[1:] {
			line = append(line, row.speed(base, name))
		}
		out = append(out, line)
	}
	return out
}

// rate is what a target does in a second.
func (r *Row) rate(target string) string {
	secs := r.figures(target, (*Sample).perOp)
	if secs == nil {
		return r.none(target)
	}
	if s := r.Cells[target].Samples[0]; s.Bytes > 0 && s.Bytes/int64(s.Ops) > page {
		bytes := r.figures(target, func(s *Sample) float64 { return float64(s.Bytes) / s.Wall.Seconds() })
		return formatBytes(spreadOf(bytes).Median) + "/s"
	}
	return formatCount(1/spreadOf(secs).Median) + "/s"
}

// speed is that of target, 1 being base's.
func (r *Row) speed(base, target string) string {
	ratios := r.ratios(base, target, (*Sample).perOp)
	if ratios == nil {
		return r.none(target)
	}
	s := spreadOf(ratios)
	return fmt.Sprintf("%s (%s–%s)", formatRatio(s.Median), formatRatio(s.Min), formatRatio(s.Max))
}

// none says why a cell is empty.
func (r *Row) none(target string) string {
	if c := r.Cells[target]; c != nil && c.Failed != "" {
		return "FAILED"
	}
	return "-"
}

// cpuTable is the CPU time of an operation in each target.
func (t *Table) cpuTable() [][]string {
	out := [][]string{append([]string{""}, t.Targets...)}
	for _, row := range t.Rows {
		line := []string{row.Name()}
		for _, name := range t.Targets {
			if cpu := row.figures(name, (*Sample).cpuPerOp); cpu != nil {
				line = append(line, formatSeconds(spreadOf(cpu).Median))
			} else {
				line = append(line, row.none(name))
			}
		}
		out = append(out, line)
	}
	return out
}

// memoryTable is what each mount had resident at its peak.
func (t *Table) memoryTable() [][]string {
	out := [][]string{nil, nil}
	for _, name := range t.Targets {
		if n := t.Memory[name]; n > 0 {
			out[0], out[1] = append(out[0], name), append(out[1], fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)))
		}
	}
	return out
}

// logTable is what an operation takes in a changelog, in the targets that record.
func (r *Report) logTable() [][]string {
	var names []string
	for _, t := range r.Targets {
		if t.Mount != nil && t.Name != "mount" {
			names = append(names, t.Name)
		}
	}
	out := [][]string{append([]string{""}, names...)}
	for _, t := range r.Tables {
		for _, row := range t.Rows {
			line, some := []string{row.Name()}, false
			for _, name := range names {
				b := row.figures(name, func(s *Sample) float64 { return float64(s.RecordBytes) / float64(s.Ops) })
				if b == nil {
					line = append(line, row.none(name))
					continue
				}
				some = some || spreadOf(b).Max > 0
				line = append(line, strconv.FormatFloat(spreadOf(b).Median, 'f', 1, 64))
			}
			if some {
				out = append(out, line)
			}
		}
	}
	return out
}

// formatRatio writes a ratio with two decimals, more for very small ones.
func formatRatio(v float64) string {
	if v < 0.095 {
		return strconv.FormatFloat(v, 'f', 3, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// formatCount writes a number with three digits: 48.8k.
func formatCount(v float64) string {
	for _, u := range []struct {
		unit string
		size float64
	}{{"M", 1e6}, {"k", 1e3}} {
		if v >= u.size {
			return strconv.FormatFloat(v/u.size, 'g', 3, 64) + u.unit
		}
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// formatSeconds writes a short time with three digits: 14.2µs.
func formatSeconds(s float64) string {
	for _, u := range []struct {
		unit string
		size float64
	}{{"s", 1}, {"ms", 1e-3}, {"µs", 1e-6}} {
		if s >= u.size {
			return strconv.FormatFloat(s/u.size, 'g', 3, 64) + u.unit
		}
	}
	return strconv.FormatFloat(s/1e-9, 'g', 3, 64) + "ns"
}
