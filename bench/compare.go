package bench

import (
	"fmt"
	"io"
	"slices"
)

// Change is how a figure differs between two reports.
type Change struct {
	Row, Target string
	// Before and After are the figure in each: speed in proportion to the bare
	// directory's, or operations in a second of the bare directory itself.
	Before, After Spread
	// Factor is After's median in proportion to Before's.
	Factor float64
	// Chance is the probability of a difference like this from chance alone.
	Chance float64
}

// sure is how small Chance must be to speak of a change.
const sure = 0.05

// Real tells whether the spread of the rounds allows speaking of a change.
func (c *Change) Real() bool { return c.Chance < sure }

// Compare compares all figures that two reports share, in the order of a.
func Compare(a, b *Report) []Change {
	var out []Change
	for i := range a.Tables {
		ta := &a.Tables[i]
		for _, rowA := range ta.Rows {
			tb, rowB := b.row(rowA.Name())
			if rowB == nil {
				continue
			}
			for _, name := range ta.Targets {
				if !slices.Contains(tb.Targets, name) {
					continue
				}
				before, after := rowA.comparable(ta.Targets[0], name), rowB.comparable(tb.Targets[0], name)
				if before == nil || after == nil {
					continue
				}
				c := Change{Row: rowA.Name(), Target: name, Before: spreadOf(before), After: spreadOf(after), Chance: differs(before, after)}
				c.Factor = c.After.Median / c.Before.Median
				out = append(out, c)
			}
		}
	}
	return out
}

// row finds a row by its name.
func (r *Report) row(name string) (*Table, *Row) {
	for i := range r.Tables {
		for _, row := range r.Tables[i].Rows {
			if row.Name() == name {
				return &r.Tables[i], row
			}
		}
	}
	return nil, nil
}

// comparable are the figures of a target that can be compared with those of
// another report.
func (r *Row) comparable(base, target string) []float64 {
	if target == base {
		return r.figures(base, func(s *Sample) float64 { return 1 / s.perOp() })
	}
	return r.ratios(base, target, (*Sample).perOp)
}

// WriteComparison writes what changed from a to b, then how much of it is noise.
func WriteComparison(w io.Writer, a, b *Report) error {
	tw := &textWriter{w: w}
	if a.Machine.CPU != b.Machine.CPU || a.Machine.Kernel != b.Machine.Kernel || a.Machine.FS != b.Machine.FS {
		tw.printf("The machines differ: compare ratios only, and with care.\n  %s, %s, %s\n  %s, %s, %s\n\n",
			a.Machine.CPU, a.Machine.Kernel, a.Machine.FS, b.Machine.CPU, b.Machine.Kernel, b.Machine.FS)
	}
	changes := Compare(a, b)
	rows := [][]string{{"", "target", "before", "after", "factor", "chance", ""}}
	noise := 0
	for _, c := range changes {
		if !c.Real() {
			noise++
			continue
		}
		verdict := "faster"
		if c.Factor < 1 {
			verdict = "slower"
		}
		rows = append(rows, []string{c.Row, c.Target, c.figure(c.Before), c.figure(c.After), fmt.Sprintf("×%.2f", c.Factor), fmt.Sprintf("%.3f", c.Chance), verdict})
	}
	if len(rows) > 1 {
		tw.table(rows)
	}
	tw.printf("%d of %d figures changed; of the other %d the spread does not allow saying so.\n", len(rows)-1, len(changes), noise)
	if least := leastChance(a.Rounds, b.Rounds); least >= sure {
		tw.printf("With %d and %d rounds it never does: chance alone gives %.2f. Take at least 4 rounds in each.\n", a.Rounds, b.Rounds, least)
	}
	return tw.err
}

// leastChance is the smallest Chance that so many rounds can give.
func leastChance(n, m int) float64 {
	low, high := make([]float64, n), make([]float64, m)
	for i := range high {
		high[i] = 1
	}
	return differs(low, high)
}

func (c *Change) figure(s Spread) string {
	if c.Target == Bare {
		return fmt.Sprintf("%s/s (%s–%s)", formatCount(s.Median), formatCount(s.Min), formatCount(s.Max))
	}
	return fmt.Sprintf("%s (%s–%s)", formatRatio(s.Median), formatRatio(s.Min), formatRatio(s.Max))
}
