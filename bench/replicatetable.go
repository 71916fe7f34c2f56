package bench

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// replicateSections are the tables of a report on replication.
func (r *Report) replicateSections() []section {
	t := &r.Tables[0]
	out := []section{
		{"Time until all is on the slave", "Seconds from the last change; georep’s in proportion to rsync’s in the same round: median (least–most). Of lag, the median of all files.",
			t.compared(func(s *Sample) float64 { return s.Wall.Seconds() }, formatSeconds)},
	}
	if lags := t.lagTable(); len(lags) > 1 {
		out = append(out, section{"Lag of a new file at a steady rate", "From its creation until it is on the slave.", lags})
	}
	out = append(out, section{"CPU time of both sides", "User and system time of rsync or georep, and of ssh and sshd. The mount’s is not in it.",
		t.compared(func(s *Sample) float64 { return s.Work.Seconds() }, formatSeconds)})
	if wire := func(s *Sample) float64 { return float64(s.Wire) }; t.any(wire) {
		out = append(out, section{"Bytes on the wire", "Both ways, encrypted.", t.compared(wire, formatBytes)})
	}
	return append(out, section{"Memory of both sides", "Resident at the peak, all processes together; pages they share count for each.",
		t.compared(func(s *Sample) float64 { return float64(s.Memory) }, formatBytes)})
}

// any tells whether a row has a figure above zero.
func (t *Table) any(f func(*Sample) float64) bool {
	return slices.ContainsFunc(t.Rows, func(r *Row) bool { return r.any(f) })
}

func (r *Row) any(f func(*Sample) float64) bool {
	for _, c := range r.Cells {
		if slices.ContainsFunc(c.Samples, func(s Sample) bool { return f(&s) > 0 }) {
			return true
		}
	}
	return false
}

// compared has each target's figure and the second's in proportion to the first's.
func (t *Table) compared(f func(*Sample) float64, format func(float64) string) [][]string {
	base, other := t.Targets[0], t.Targets[1]
	out := [][]string{{"", base, other, other + " ÷ " + base}}
	for _, row := range t.Rows {
		if row.Step == idleStep && !row.any(f) {
			continue
		}
		line := []string{row.Name()}
		for _, name := range t.Targets {
			if v := row.figures(name, f); v != nil {
				line = append(line, format(spreadOf(v).Median))
			} else {
				line = append(line, row.none(name))
			}
		}
		ratio := row.none(other)
		if v := row.ratios(other, base, f); v != nil {
			s := spreadOf(v)
			ratio = fmt.Sprintf("%s (%s–%s)", formatRatio(s.Median), formatRatio(s.Min), formatRatio(s.Max))
		}
		out = append(out, append(line, ratio))
	}
	return out
}

// lagTable has the percentiles of the rows that have them.
func (t *Table) lagTable() [][]string {
	out := [][]string{{"", "target", "p50", "p99", "longest"}}
	for _, row := range t.Rows {
		for _, name := range t.Targets {
			c := row.Cells[name]
			if c == nil || len(c.Samples) == 0 || c.Samples[0].Lags == nil {
				continue
			}
			line := []string{row.Name(), name}
			for _, f := range []func(*Sample) time.Duration{
				func(s *Sample) time.Duration { return s.Wall },
				func(s *Sample) time.Duration { return s.LateP99 },
				func(s *Sample) time.Duration { return s.LateMax },
			} {
				line = append(line, formatSeconds(spreadOf(row.figures(name, func(s *Sample) float64 { return f(s).Seconds() })).Median))
			}
			out = append(out, line)
		}
	}
	return out
}

// replicatePictures are the drawings of a report on replication.
func (r *Report) replicatePictures() []picture {
	t := &r.Tables[0]
	var out []picture
	if svg := t.lagPicture(); svg != "" {
		out = append(out, picture{"lag", svg})
	}
	for _, c := range []struct{ step, key, title string }{
		{"change-some", "tree", "Some files changed among many: time by size of the tree"},
		{"rename-dir", "files", "A directory renamed: time by files in it"},
	} {
		if svg := t.timeCurve(c.step, c.key, c.title); svg != "" {
			out = append(out, picture{strings.ReplaceAll(c.step, "-", "") + "-by-" + c.key, svg})
		}
	}
	return out
}

// secondsAxis is for times up to most.
func secondsAxis(most float64) axis {
	a := axis{label: "seconds", format: formatSeconds}
	step := 0.001
	for _, f := range []float64{2, 2.5, 2, 2, 2.5, 2, 2, 2.5, 2, 2, 2.5, 2, 2, 2.5, 2} {
		if step*5 >= most {
			break
		}
		step *= f
	}
	for i := 0; ; i++ {
		v := float64(i) * step
		a.ticks = append(a.ticks, tick{v, fmt.Sprintf("%.4g", v)})
		if a.max = v; v >= most {
			return a
		}
	}
}

// lagPicture has the lag of georep over time, in each round.
func (t *Table) lagPicture() string {
	for _, row := range t.Rows {
		c := row.Cells[georepTarget]
		if c == nil || len(c.Samples) == 0 || c.Samples[0].Lags == nil {
			continue
		}
		x, most := axis{label: "seconds since the first file was made"}, 0.0
		var ss []series
		for i, s := range c.Samples {
			line := series{name: fmt.Sprintf("round %d", s.Round), color: (i + 1) % paletteSize}
			for _, l := range s.Lags {
				v := l.Late.Seconds()
				line.points = append(line.points, point{l.At.Seconds(), Spread{v, v, v}})
				most, x.max = max(most, v), max(x.max, l.At.Seconds())
			}
			ss = append(ss, line)
		}
		for i := range 6 {
			v := x.max * float64(i) / 5
			x.ticks = append(x.ticks, tick{v, fmt.Sprintf("%.3g", v)})
		}
		return curves("How late a new file is on the slave", row.Name(), x, secondsAxis(most), ss)
	}
	return ""
}

// timeCurve has the time of each target over a parameter.
func (t *Table) timeCurve(step, key, title string) string {
	x := axis{label: key, kind: logarithmic}
	byTarget := make([]series, len(t.Targets))
	most := 0.0
	for _, row := range t.Rows {
		v, ok := row.param(key)
		if !ok || row.Step != step {
			continue
		}
		x.ticks = append(x.ticks, tick{float64(v), formatCount(float64(v))})
		for i, name := range t.Targets {
			if secs := row.figures(name, func(s *Sample) float64 { return s.Wall.Seconds() }); secs != nil {
				byTarget[i].points = append(byTarget[i].points, point{float64(v), spreadOf(secs)})
				most = max(most, spreadOf(secs).Max)
			}
		}
	}
	if len(x.ticks) < 2 || most == 0 {
		return ""
	}
	x.min, x.max = x.ticks[0].at, x.ticks[len(x.ticks)-1].at
	for i, name := range t.Targets {
		byTarget[i].name, byTarget[i].color = name, 1+2*i
	}
	return curves(title, "", x, secondsAxis(most), byTarget)
}
