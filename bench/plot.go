package bench

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// scaleKind is how an axis turns values into places.
type scaleKind int

const (
	linear scaleKind = iota
	logarithmic
)

// axis is one side of a plot.
type axis struct {
	label    string
	kind     scaleKind
	min, max float64
	ticks    []tick
	// format writes a value of this axis; nil for a ratio.
	format func(float64) string
}

// tick is a labelled place on an axis.
type tick struct {
	at    float64
	label string
}

// place is where v lies between from and to.
func (a *axis) place(v, from, to float64) float64 {
	lo, hi := a.min, a.max
	v = math.Max(lo, math.Min(hi, v))
	if a.kind == logarithmic {
		v, lo, hi = math.Log(v), math.Log(lo), math.Log(hi)
	}
	return from + (v-lo)/(hi-lo)*(to-from)
}

// point is a value of a series with the spread of its rounds.
type point struct {
	x float64
	y Spread
}

// series is what one target did.
type series struct {
	name   string
	color  int // in the palette
	points []point
}

// The size of a plot, in the units of its drawing.
const (
	plotWidth  = 640
	plotHeight = 360
	plotLeft   = 64
	plotRight  = 20
	plotTop    = 44
	plotBottom = 54
)

// paletteSize is how many colours there are; plotStyle has them.
const paletteSize = 8

// plotStyle goes into each drawing, so that one can stand alone. The colours can be
// told apart by the colour-blind too (Okabe and Ito).
const plotStyle = `
.plot{font:13px system-ui,-apple-system,"Segoe UI",sans-serif;--ink:#1d2733;--faint:#66727f;--grid:#e3e8ee;--paper:#ffffff;
--c0:#3b4754;--c1:#0072b2;--c2:#009e73;--c3:#e69f00;--c4:#d55e00;--c5:#cc79a7;--c6:#56b4e9;--c7:#8c7a00}
@media (prefers-color-scheme:dark){.plot{--ink:#e6ebf0;--faint:#93a0ad;--grid:#2b3540;--paper:#161c23;
--c0:#b5c0cb;--c1:#4ea9e6;--c2:#2fc79b;--c3:#f2b63c;--c4:#f07c3e;--c5:#e39cc4;--c6:#8fd0f5;--c7:#d8c84a}}
.plot .paper{fill:var(--paper)}.plot text{fill:var(--ink)}.plot .title{font-size:15px;font-weight:600}
.plot .faint{fill:var(--faint);font-size:12px}.plot .grid{stroke:var(--grid);stroke-width:1}
.plot .one{stroke:var(--faint);stroke-width:1;stroke-dasharray:4 3}
.plot .line{fill:none;stroke-width:2.25;stroke-linejoin:round}.plot .band{opacity:.13;stroke:none}
.plot .range{stroke-width:2;opacity:.45;stroke-linecap:round}
.plot .reach{stroke:var(--ink);stroke-width:2}
` // and the colours, see colorStyle

// colorStyle makes classes of the palette: f1 fills with colour 1, s1 strokes with it.
func colorStyle() string {
	var b strings.Builder
	for i := range paletteSize {
		fmt.Fprintf(&b, ".plot .f%d{fill:var(--c%d)}.plot .s%d{stroke:var(--c%d)}\n", i, i, i, i)
	}
	return b.String()
}

// drawing is an SVG being written.
type drawing struct {
	b             strings.Builder
	width, height int
}

// newDrawing begins one, with a title; detail is a second line beneath it.
func newDrawing(width, height int, title, detail string) *drawing {
	d := &drawing{width: width, height: height}
	d.add(`<svg class="plot" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s">`, width, height, html.EscapeString(title))
	d.add(`<style>%s%s</style>`, plotStyle, colorStyle())
	d.add(`<rect class="paper" width="%d" height="%d" rx="8"/>`, width, height)
	d.text(16, 24, "title", "start", title)
	if detail != "" {
		d.text(float64(width)-16, 24, "faint", "end", detail)
	}
	return d
}

func (d *drawing) add(format string, args ...any) {
	fmt.Fprintf(&d.b, format, args...)
	d.b.WriteByte('\n')
}

func (d *drawing) text(x, y float64, class, anchor, s string) {
	d.add(`<text x="%s" y="%s" class="%s" text-anchor="%s">%s</text>`, coord(x), coord(y), class, anchor, html.EscapeString(s))
}

func (d *drawing) line(class string, x1, y1, x2, y2 float64) {
	d.add(`<line class="%s" x1="%s" y1="%s" x2="%s" y2="%s"/>`, class, coord(x1), coord(y1), coord(x2), coord(y2))
}

// dot is a circle that tells its value to a mouse.
func (d *drawing) dot(color int, x, y, r float64, says string) {
	d.add(`<circle class="f%d" cx="%s" cy="%s" r="%s"><title>%s</title></circle>`, color, coord(x), coord(y), coord(r), html.EscapeString(says))
}

// end finishes the drawing.
func (d *drawing) end() string {
	d.b.WriteString("</svg>\n")
	return d.b.String()
}

func coord(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }

// mostDots is how many points of a line are worth a dot each.
const mostDots = 40

// curves draws series over a common x axis: each as a line through the medians, with
// a band from the least to the most.
func curves(title, detail string, x, y axis, ss []series) string {
	legend := legendHeight(ss)
	d := newDrawing(plotWidth, plotHeight+legend, title, detail)
	left, right, top, bottom := float64(plotLeft), float64(plotWidth-plotRight), float64(plotTop), float64(plotHeight-plotBottom)
	for _, t := range y.ticks {
		at := y.place(t.at, bottom, top)
		d.line("grid", left, at, right, at)
		d.text(left-8, at+4, "faint", "end", t.label)
	}
	for _, t := range x.ticks {
		d.text(x.place(t.at, left, right), bottom+20, "faint", "middle", t.label)
	}
	d.text((left+right)/2, bottom+42, "faint", "middle", x.label)
	d.add(`<text class="faint" text-anchor="middle" transform="translate(18 %s) rotate(-90)">%s</text>`, coord((top+bottom)/2), html.EscapeString(y.label))
	if y.format == nil && y.min < 1 && y.max > 1 { // a ratio
		d.line("one", left, y.place(1, bottom, top), right, y.place(1, bottom, top))
	}
	for _, s := range ss {
		var line, up, down []string
		for _, p := range s.points {
			px := x.place(p.x, left, right)
			line = append(line, coord(px)+","+coord(y.place(p.y.Median, bottom, top)))
			up = append(up, coord(px)+","+coord(y.place(p.y.Max, bottom, top)))
			down = append([]string{coord(px) + "," + coord(y.place(p.y.Min, bottom, top))}, down...)
		}
		d.add(`<polygon class="band f%d" points="%s"/>`, s.color, strings.Join(append(up, down...), " "))
		d.add(`<polyline class="line s%d" points="%s"/>`, s.color, strings.Join(line, " "))
		if len(s.points) > mostDots {
			continue
		}
		for _, p := range s.points {
			d.dot(s.color, x.place(p.x, left, right), y.place(p.y.Median, bottom, top), 3.4, y.says(s.name, p.y))
		}
	}
	d.legend(ss, left, float64(plotHeight)-2)
	return d.end()
}

// says is a value on the axis in words.
func (a *axis) says(name string, v Spread) string {
	f := a.format
	if f == nil {
		f = formatRatio
	}
	return fmt.Sprintf("%s: %s (%s–%s)", name, f(v.Median), f(v.Min), f(v.Max))
}

// The legend's names are set in columns.
const (
	legendColumns = 3
	legendRow     = 20
)

func legendHeight(ss []series) int {
	return (len(ss)+legendColumns-1)/legendColumns*legendRow + 8
}

func (d *drawing) legend(ss []series, left, top float64) {
	for i, s := range ss {
		x := left + float64(i%legendColumns)*(float64(d.width)-left-plotRight)/legendColumns
		y := top + float64(i/legendColumns)*legendRow + 8
		d.add(`<rect class="f%d" x="%s" y="%s" width="14" height="4" rx="2"/>`, s.color, coord(x), coord(y-6))
		d.text(x+20, y, "faint", "start", s.name)
	}
}

// ranges draws a line for each label with a dot for each series, and its spread:
// point i of a series belongs to label i. A point whose median is NaN is left out.
func ranges(title, detail string, labels []string, x axis, ss []series) string {
	const (
		row   = 26
		names = 210
	)
	top, height := float64(plotTop)+8, len(labels)*row
	d := newDrawing(plotWidth, plotTop+8+height+plotBottom+legendHeight(ss), title, detail)
	left, right, bottom := float64(names), float64(plotWidth-plotRight), top+float64(height)
	for _, t := range x.ticks {
		at := x.place(t.at, left, right)
		d.line("grid", at, top, at, bottom)
		d.text(at, bottom+18, "faint", "middle", t.label)
	}
	if x.format == nil && x.min < 1 && x.max > 1 {
		d.line("one", x.place(1, left, right), top, x.place(1, left, right), bottom)
	}
	d.text((left+right)/2, bottom+38, "faint", "middle", x.label)
	for i, label := range labels {
		y := top + (float64(i)+0.5)*row
		d.text(left-12, y+4, "", "end", label)
		for j, s := range ss {
			p := s.points[i].y
			if math.IsNaN(p.Median) {
				continue
			}
			// Side by side, so that none hides another.
			at := y + (float64(j)-float64(len(ss)-1)/2)*min(5, 18/float64(len(ss)))
			d.line("range s"+strconv.Itoa(s.color), x.place(p.Min, left, right), at, x.place(p.Max, left, right), at)
			d.dot(s.color, x.place(p.Median, left, right), at, 3.2, label+", "+x.says(s.name, p))
		}
	}
	d.legend(ss, 24, bottom+float64(plotBottom)+4)
	return d.end()
}
