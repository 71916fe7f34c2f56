package bench

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"
)

//go:embed page.html
var pageSource string

var pageTemplate = template.Must(template.New("page").Parse(pageSource))

// webPage is what the template shows.
type webPage struct {
	Title, Lead string
	Facts       []fact
	Headlines   []headline
	Pictures    []template.HTML
	Sections    []section
	Failures    []string
	Notes       []string
	Command     string
}

// fact is a line about the machine or the run.
type fact struct{ Name, Value string }

// headline is a figure that most come for.
type headline struct{ Figure, What, More string }

// titles are those of a report of each kind.
var titles = map[string]string{"overhead": "What a mount costs", replicateKind: "What replication costs"}

// WriteHTML writes the report as a page that needs no other file.
func (r *Report) WriteHTML(w io.Writer) error {
	p := webPage{
		Title: titles[r.Kind], Lead: r.lead(),
		Facts: r.facts(), Headlines: r.headlines(), Sections: r.sections(), Failures: r.Failures(), Notes: r.Notes,
		Command: strings.Join(r.Command, " "),
	}
	for _, pic := range r.pictures() {
		p.Pictures = append(p.Pictures, template.HTML(pic.svg)) // ours, its texts are escaped
	}
	if err := pageTemplate.Execute(w, &p); err != nil {
		return fmt.Errorf("bench: page: %w", err)
	}
	return nil
}

func (r *Report) lead() string {
	var targets []string
	for _, t := range r.Targets {
		targets = append(targets, t.Name+": "+t.What)
	}
	return strings.Join(targets, ". ") + "."
}

func (r *Report) facts() []fact {
	m := &r.Machine
	var versions []string
	for name, v := range m.Versions {
		if v != "" {
			versions = append(versions, name+" "+v)
		}
	}
	slices.Sort(versions)
	return []fact{
		{"When", fmt.Sprintf("%s, %v", r.Began.Format("2 January 2006 15:04 MST"), r.Took.Round(time.Second))},
		{"Machine", fmt.Sprintf("%d × %s, %s of memory", m.CPUs, m.CPU, formatBytes(float64(m.Memory)))},
		{"System", m.System + ", " + m.Kernel},
		{"Bricks on", m.FS},
		{"Versions", strings.Join(versions, ", ")},
		{"Rounds", fmt.Sprintf("%d, targets by turns", r.Rounds)},
		{"Others", fmt.Sprintf("used %.0f %% of the machine meanwhile; load before %s", 100*r.Others, m.Load)},
	}
}

// headlines are the rows that tell most, for the mount as users have it.
func (r *Report) headlines() []headline {
	wanted := []struct{ step, key, what string }{
		{"seq-write", "", "large sequential writes"},
		{"seq-read", "", "large sequential reads"},
		{"random-write", "", "random 4 KiB writes"},
		{"create", "threads", "create, write 4 KiB, close"},
		{"read", "threads", "open, read, close"},
		{"git-clone", "", "git clone"},
	}
	if r.Kind == replicateKind {
		return nil
	}
	var out []headline
	for _, w := range wanted {
		for i := range r.Tables {
			j := slices.IndexFunc(r.Tables[i].Rows, func(row *Row) bool { return row.Step == w.step && isOnes(row) })
			if j < 0 {
				continue
			}
			if ratios := r.Tables[i].Rows[j].ratios(r.Tables[i].Targets[0], AllOn, (*Sample).perOp); ratios != nil {
				s := spreadOf(ratios)
				out = append(out, headline{"×" + formatRatio(s.Median), w.what, formatRatio(s.Min) + "–" + formatRatio(s.Max) + " over the rounds"})
			}
		}
	}
	return out
}
