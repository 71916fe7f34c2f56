package bench

import (
	"math"
	"slices"
)

// Spread is the median of several rounds with the smallest and the largest.
type Spread struct{ Min, Median, Max float64 }

// spreadOf is that of vs, which is not empty.
func spreadOf(vs []float64) Spread {
	s := slices.Sorted(slices.Values(vs))
	n := len(s)
	return Spread{Min: s[0], Median: (s[(n-1)/2] + s[n/2]) / 2, Max: s[n-1]}
}

// differs is the probability that a and b come from the same distribution and
// differ in rank as much as they do by chance: the exact two-sided Mann-Whitney
// test. It asks nothing of the distribution, which has a long tail on a busy
// machine. With three rounds on each side it is never below 0.1.
func differs(a, b []float64) float64 {
	n, m := len(a), len(b)
	if n == 0 || m == 0 {
		return 1
	}
	// u counts the pairs in which a is the smaller one, ties by half.
	u := 0.0
	for _, x := range a {
		for _, y := range b {
			switch {
			case x < y:
				u++
			case x == y:
				u += 0.5
			}
		}
	}
	ways := rankWays(n, m)
	total, tail := 0.0, 0.0
	extreme := math.Min(u, float64(n*m)-u)
	for k, w := range ways {
		total += w
		if float64(k) <= extreme {
			tail += w
		}
	}
	return math.Min(1, 2*tail/total)
}

// rankWays is in how many ways n and m values can be ordered so that k of the n*m
// pairs have the first one smaller, for each k.
func rankWays(n, m int) []float64 {
	// ways[j][k], for i values on one side and j on the other, built up in i: the
	// largest of all i+j is of the first side, and larger than all j, or it is not.
	prev := make([][]float64, m+1)
	for j := range prev {
		prev[j] = make([]float64, n*m+1)
		prev[j][0] = 1
	}
	for range n {
		next := make([][]float64, m+1)
		next[0] = make([]float64, n*m+1)
		next[0][0] = 1
		for j := 1; j <= m; j++ {
			next[j] = make([]float64, n*m+1)
			for k := range next[j] {
				next[j][k] = next[j-1][k]
				if k >= j {
					next[j][k] += prev[j][k-j]
				}
			}
		}
		prev = next
	}
	return prev[m]
}
