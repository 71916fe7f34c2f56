package bench

import (
	"fmt"
	"math"
	"slices"
)

// picture is a drawing with the name of its file.
type picture struct {
	name string
	svg  string
}

// pictures are those of a report: what can be seen better than read.
func (r *Report) pictures() []picture {
	if r.Kind == replicateKind {
		return r.replicatePictures()
	}
	var out []picture
	add := func(name, svg string) {
		if svg != "" {
			out = append(out, picture{name, svg})
		}
	}
	add("overview", r.overview())
	add("cpu", r.cpuPicture())
	add("write-by-size", r.curve("write-files", "size", "Writing whole files: speed by size of the file"))
	add("read-by-size", r.curve("read-files", "size", "Reading whole files: speed by size of the file"))
	for _, step := range []string{"create", "read", "rename", "chmod"} {
		add(step+"-by-threads", r.curve(step, "threads", fmt.Sprintf("%s of small files: speed by threads", step)))
	}
	add("by-depth", r.curve("create-deep", "depth", "create: speed by depth of the directory"))
	return out
}

// color is a target's, the same in all pictures.
func (r *Report) color(target string) int {
	return slices.IndexFunc(r.Targets, func(t Target) bool { return t.Name == target }) % paletteSize
}

// isOnes says that a row is what most want to know: one thread.
func isOnes(row *Row) bool {
	n, ok := row.param("threads")
	return !ok || n == 1
}

// speedAxis is for ratios, from the least of them up.
func speedAxis(least, most float64, kind scaleKind) axis {
	a := axis{label: "speed, 1 is the bare directory’s", kind: kind}
	if kind == logarithmic {
		a.min, a.max = 0.01, math.Max(1.5, math.Min(most, 4))
		for a.min*2 < least && a.min < 0.1 {
			a.min *= 2
		}
		for _, v := range []float64{0.02, 0.05, 0.1, 0.2, 0.5, 1, 2} {
			if v >= a.min && v <= a.max {
				a.ticks = append(a.ticks, tick{v, fmt.Sprintf("%g", v)})
			}
		}
		return a
	}
	step := 0.05
	for step*6 < math.Min(most, 1.5) {
		step *= 2
	}
	for v := 0.0; ; v += step {
		a.ticks = append(a.ticks, tick{v, fmt.Sprintf("%.2g", v)})
		if a.max = v; v >= math.Min(most, 1.5) {
			return a
		}
	}
}

// overview has all rows that are not part of a curve, at one thread.
func (r *Report) overview() string {
	type line struct {
		t   *Table
		row *Row
	}
	var lines []line
	var labels []string
	for i := range r.Tables {
		for _, row := range r.Tables[i].Rows {
			if slices.Contains([]string{"write-files", "read-files", "create-deep", "overwrite-steadily"}, row.Step) || !isOnes(row) {
				continue
			}
			lines = append(lines, line{&r.Tables[i], row})
			labels = append(labels, shortName(row))
		}
	}
	if len(lines) == 0 {
		return ""
	}
	least, most := math.Inf(1), 0.0
	var ss []series
	for _, t := range r.Targets[1:] {
		s := series{name: t.Name, color: r.color(t.Name)}
		for _, l := range lines {
			p := point{y: Spread{math.NaN(), math.NaN(), math.NaN()}}
			if ratios := l.row.ratios(l.t.Targets[0], t.Name, (*Sample).perOp); ratios != nil {
				p.y = spreadOf(ratios)
				least, most = math.Min(least, p.y.Min), math.Max(most, p.y.Max)
			}
			s.points = append(s.points, p)
		}
		ss = append(ss, s)
	}
	return ranges("What a mount costs", "median of rounds, line from least to most", labels, speedAxis(least, most, logarithmic), ss)
}

// shortName is the row without what all of them have in common.
func shortName(r *Row) string {
	short := Row{Step: r.Step}
	for _, p := range r.Params {
		if p.Key != "threads" && p.Key != "files" {
			short.Params = append(short.Params, p)
		}
	}
	return short.Name()
}

// curve has the rows of a step over one of its parameters; "" if there are fewer
// than two.
func (r *Report) curve(step, key, title string) string {
	type at struct {
		v   int64
		row *Row
	}
	for i := range r.Tables {
		t := &r.Tables[i]
		var rows []at
		for _, row := range t.Rows {
			if v, ok := row.param(key); ok && row.Step == step {
				rows = append(rows, at{v, row})
			}
		}
		if len(rows) < 2 {
			continue
		}
		x := axis{label: key, kind: logarithmic, min: float64(rows[0].v), max: float64(rows[len(rows)-1].v)}
		for _, a := range rows {
			label := fmt.Sprint(a.v)
			if key == "size" {
				label = formatBytes(float64(a.v))
			}
			x.ticks = append(x.ticks, tick{float64(a.v), label})
		}
		x.ticks = thinned(x.ticks, 8)
		most := 0.0
		var ss []series
		for _, name := range t.Targets[1:] {
			s := series{name: name, color: r.color(name)}
			for _, a := range rows {
				if ratios := a.row.ratios(t.Targets[0], name, (*Sample).perOp); ratios != nil {
					p := point{float64(a.v), spreadOf(ratios)}
					s.points = append(s.points, p)
					most = math.Max(most, p.y.Max)
				}
			}
			if len(s.points) > 0 {
				ss = append(ss, s)
			}
		}
		if len(ss) == 0 {
			return ""
		}
		return curves(title, "", x, speedAxis(0, most, linear), ss)
	}
	return ""
}

// thinned leaves every second tick out until there are at most so many.
func thinned(ts []tick, most int) []tick {
	for len(ts) > most {
		var out []tick
		for i := 0; i < len(ts); i += 2 {
			out = append(out, ts[i])
		}
		ts = out
	}
	return ts
}

// cpuPicture is the CPU time of an operation on small files.
func (r *Report) cpuPicture() string {
	var labels []string
	var rows []*Row
	for i := range r.Tables {
		for _, row := range r.Tables[i].Rows {
			if _, ok := row.param("threads"); ok && isOnes(row) {
				rows, labels = append(rows, row), append(labels, shortName(row))
			}
		}
	}
	if len(rows) == 0 {
		return ""
	}
	x := axis{label: "CPU time of an operation, the mount’s included", kind: logarithmic, min: 0.2e-6, max: 1e-3, format: formatSeconds}
	for _, v := range []float64{1e-6, 10e-6, 100e-6, 1e-3} {
		x.ticks = append(x.ticks, tick{v, formatSeconds(v)})
	}
	var ss []series
	for _, t := range r.Targets {
		s := series{name: t.Name, color: r.color(t.Name)}
		for _, row := range rows {
			p := point{y: Spread{math.NaN(), math.NaN(), math.NaN()}}
			if cpu := row.figures(t.Name, (*Sample).cpuPerOp); cpu != nil {
				p.y = spreadOf(cpu)
			}
			s.points = append(s.points, p)
		}
		ss = append(ss, s)
	}
	return ranges("CPU time of an operation", "", labels, x, ss)
}
