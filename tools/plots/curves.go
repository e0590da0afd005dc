package main

import (
	"cmp"
	"fmt"
	"image/color"
	"regexp"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// series is one program's medians, with the least and the most of the rounds.
type series []at

type at struct {
	x float64
	y spread
}

// Len, XY and YError implement plotter.XYer and plotter.YErrorer.
func (s series) Len() int                { return len(s) }
func (s series) XY(i int) (x, y float64) { return s[i].x, s[i].y.Median }
func (s series) YError(i int) (l, h float64) {
	return s[i].y.Median - s[i].y.Min, s[i].y.Max - s[i].y.Median
}

// addSeries draws a line with points and error bars.
func addSeries(p *plot.Plot, name string, c color.Color, s series) error {
	line, points, err := plotter.NewLinePoints(s)
	if err != nil {
		return err
	}
	errors, err := plotter.NewYErrorBars(s)
	if err != nil {
		return err
	}
	line.Color, line.Width = c, vg.Points(1.5)
	points.Color, points.Shape, points.Radius = c, draw.CircleGlyph{}, vg.Points(2.5)
	errors.Color = c
	p.Add(line, points, errors)
	p.Legend.Add(name, line, points)
	p.Y.Min, p.X.Min = 0, 0 // else a flat line looks steep
	return nil
}

// growth is a picture for each series of points.
func growth(res *result) ([]picture, error) {
	var list []picture
	for _, s := range res.Scenarios {
		if s.Growth == nil || len(s.Growth.Points) == 0 {
			continue
		}
		p := newPlot("a rewind, by the size of the "+s.Growth.Axis, s.Growth.Axis+", GB", "seconds")
		for i, c := range s.Growth.Points[0].Contenders {
			var points series
			for _, one := range s.Growth.Points {
				if i < len(one.Contenders) {
					points = append(points, at{one.X / 1e9, one.Contenders[i].Wall})
				}
			}
			if err := addSeries(p, c.Name, colorOf(i), points); err != nil {
				return nil, fmt.Errorf("%s: %w", s.Name, err)
			}
		}
		list = append(list, picture{s.Name, 10 * vg.Centimeter, p})
	}
	return list, nil
}

// latencyName is how the scenarios are called that differ in the round trip, in milliseconds.
var latencyName = regexp.MustCompile(`^latency-(\d+)$`)

// latency is seconds against the round trip to the source; on the loopback there is next to none.
func latency(res *result) ([]picture, error) {
	var stock, ours series
	for _, s := range res.Scenarios {
		ms := 0.0
		if m := latencyName.FindStringSubmatch(s.Name); m != nil {
			ms, _ = strconv.ParseFloat(m[1], 64) // digits
		} else if s.Name != "server-tcp" {
			continue
		}
		if len(s.Contenders) < 2 {
			continue
		}
		stock = append(stock, at{ms, s.Contenders[0].Wall})
		ours = append(ours, at{ms, s.ours().Wall})
	}
	if len(ours) < 2 {
		return nil, nil
	}
	byX := func(a, b at) int { return cmp.Compare(a.x, b.x) }
	slices.SortFunc(stock, byX)
	slices.SortFunc(ours, byX)
	p := newPlot("a rewind from a server, by the round trip to it", "round trip, ms", "seconds")
	if err := addSeries(p, "pg_rewind", colorStock, stock); err != nil {
		return nil, err
	}
	if err := addSeries(p, "fastrewind", colorOurs, ours); err != nil {
		return nil, err
	}
	return []picture{{"latency", 10 * vg.Centimeter, p}}, nil
}

// colorOf is the colour of a contender.
func colorOf(i int) color.Color {
	switch i {
	case 0:
		return colorStock
	case 1:
		return colorOurs
	default:
		return color.RGBA{0x1f, uint8(min(0x5f+0x30*i, 0xff)), 0xa8, 0xff}
	}
}
