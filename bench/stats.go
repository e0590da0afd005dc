package main

import (
	"math"
	"slices"
)

// spread is the middle and the ends of some measurements.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return spread{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Min: sorted[0], Max: sorted[n-1]}
}

// spreadBy is the spread of one number of each sample.
func spreadBy[T any](list []T, f func(T) float64) spread {
	values := make([]float64, len(list))
	for i := range list {
		values[i] = f(list[i])
	}
	return spreadOf(values)
}

// ratio is a divided by b, run by run for the spread, and median by median: the runs of one round met the same weather.
func ratio(a, b []float64) spread {
	var each []float64
	for i := range min(len(a), len(b)) {
		each = append(each, quotient(a[i], b[i]))
	}
	s := spreadOf(each)
	s.Median = quotient(spreadOf(a).Median, spreadOf(b).Median)
	return s
}

func quotient(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// line is the straight line that fits points best, by least squares.
type line struct {
	Slope     float64 `json:"slope"`
	Intercept float64 `json:"intercept"`
	// Off is how far the point that is farthest from the line is from it, as a share of the largest y.
	Off float64 `json:"off"`
}

// fitLine needs two different values of x; else the line is flat, at the mean.
func fitLine(x, y []float64) line {
	n := float64(len(x))
	var sx, sy, sxx, sxy, most, off float64
	for i := range x {
		sx, sy, sxx, sxy = sx+x[i], sy+y[i], sxx+x[i]*x[i], sxy+x[i]*y[i]
		most = max(most, y[i])
	}
	l := line{Slope: quotient(n*sxy-sx*sy, n*sxx-sx*sx)}
	l.Intercept = quotient(sy-l.Slope*sx, n)
	for i := range x {
		off = max(off, math.Abs(l.Intercept+l.Slope*x[i]-y[i]))
	}
	l.Off = quotient(off, most)
	return l
}
