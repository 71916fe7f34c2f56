package bench

import (
	"math"
	"testing"
)

func TestDiffers(t *testing.T) {
	seq := func(from float64, n int) (out []float64) {
		for i := range n {
			out = append(out, from+float64(i))
		}
		return out
	}
	for _, c := range []struct {
		name string
		a, b []float64
		want float64
	}{
		// From the tables of the Mann-Whitney test: 2 over n+m choose n.
		{"3 and 3 apart", seq(0, 3), seq(10, 3), 0.1},
		{"4 and 4 apart", seq(0, 4), seq(10, 4), 2. / 70},
		{"5 and 5 apart", seq(10, 5), seq(0, 5), 2. / 252},
		{"the same", seq(0, 4), seq(0, 4), 1},
		{"one of many", []float64{5.5}, seq(0, 10), 10. / 11},
		{"none", nil, seq(0, 3), 1},
		// u is 2 of 25: 4 of 252 orders are as extreme on one side, 1+1+2.
		{"5 and 5, one swapped twice", []float64{0, 1, 2, 3, 6.5}, []float64{5, 6, 7, 8, 9}, 8. / 252},
	} {
		if got := differs(c.a, c.b); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if ab, ba := differs(c.a, c.b), differs(c.b, c.a); math.Abs(ab-ba) > 1e-9 {
			t.Errorf("%s: %v, turned round %v", c.name, ab, ba)
		}
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		vs   []float64
		want Spread
	}{
		{[]float64{3}, Spread{3, 3, 3}},
		{[]float64{3, 1, 2}, Spread{1, 2, 3}},
		{[]float64{4, 1, 2, 3}, Spread{1, 2.5, 4}},
	} {
		if got := spreadOf(c.vs); got != c.want {
			t.Errorf("%v: %v, want %v", c.vs, got, c.want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "4096": 4096, "4k": 4096, "4KiB": 4096, "1M": 1 << 20, "1GiB": 1 << 30, "2t": 2 << 40} {
		if got, err := ParseSize(s); got != want || err != nil {
			t.Errorf("%s: %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "k", "-1", "1.5k", "4KB", "9999999999T"} {
		if n, err := ParseSize(s); err == nil {
			t.Errorf("%q: %d, want an error", s, n)
		}
	}
}
