package main

import (
	"fmt"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// bar is one scenario: how many times faster, with the least and the most of the rounds, and the goal.
type bar struct {
	name  string
	ratio spread
	goal  float64 // 0: none
}

func ratios(res *result) ([]picture, error) {
	var list bars
	for _, s := range res.Scenarios {
		switch {
		case s.Cores != nil:
			list = append(list, bar{s.Name + " (second core)", s.Cores.Ratio, s.Goal})
		case s.Growth != nil, s.Load != nil, len(s.Contenders) < 2:
		case s.DryRun && s.Archive == "" && len(s.Floors) > 0:
			list = append(list, bar{s.Name + " (scan)", s.ours().ScanRatio, s.Goal})
		default:
			list = append(list, bar{s.Name, s.ours().WallRatio, s.Goal})
		}
	}
	list = slices.DeleteFunc(list, func(b bar) bool { return b.ratio.Min <= 0 })
	if len(list) == 0 {
		return nil, nil
	}
	slices.Reverse(list) // the first at the top
	p := newPlot("fastrewind against pg_rewind: times faster", "times faster (line: least to most of the rounds; black mark: goal)", "")
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, ratioTicks
	p.Add(list)
	names := make([]string, len(list))
	for i, b := range list {
		names[i] = b.name
	}
	p.NominalY(names...)
	p.Y.Tick.Label.Font.Size = vg.Points(9)
	return []picture{{"ratios", vg.Length(len(list))*0.75*vg.Centimeter + 3*vg.Centimeter, p}}, nil
}

// ratioTicks are the numbers of a logarithmic axis that one would say.
var ratioTicks = plot.TickerFunc(func(least, most float64) []plot.Tick {
	var ticks []plot.Tick
	for _, x := range []float64{0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500} {
		if x >= least && x <= most {
			ticks = append(ticks, plot.Tick{Value: x, Label: fmt.Sprint(x)})
		}
	}
	return ticks
})

// bars are horizontal, from 1, which is as fast as pg_rewind, to the ratio, on a logarithmic scale.
type bars []bar

// Plot implements plot.Plotter.
func (list bars) Plot(c draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&c)
	thick := 2.4 * vg.Millimeter
	label := text.Style{Color: color.Black, Font: p.X.Tick.Label.Font, Handler: p.X.Tick.Label.Handler, YAlign: draw.YCenter}
	label.Font.Size = vg.Points(8)
	for i, b := range list {
		y := toY(float64(i))
		fill := colorOurs
		if b.goal > 0 && b.ratio.Median < b.goal {
			fill = colorMissed
		}
		from, to := toX(1), toX(b.ratio.Median)
		c.FillPolygon(fill, []vg.Point{{X: from, Y: y - thick}, {X: to, Y: y - thick}, {X: to, Y: y + thick}, {X: from, Y: y + thick}})
		c.StrokeLine2(draw.LineStyle{Color: color.Gray{0x55}, Width: vg.Points(1)}, toX(b.ratio.Min), y, toX(b.ratio.Max), y)
		if b.goal > 0 {
			at := toX(b.goal)
			c.StrokeLine2(draw.LineStyle{Color: color.Black, Width: vg.Points(2)}, at, y-1.4*thick, at, y+1.4*thick)
		}
		end := max(to, toX(b.ratio.Max), toX(max(b.goal, 1)))
		c.FillText(label, vg.Point{X: end + vg.Millimeter, Y: y}, fmt.Sprintf("%.1f", b.ratio.Median))
	}
	one := toX(1)
	c.StrokeLine2(draw.LineStyle{Color: color.Black, Width: vg.Points(0.5)}, one, c.Min.Y, one, c.Max.Y)
}

// DataRange implements plot.DataRanger.
func (list bars) DataRange() (xmin, xmax, ymin, ymax float64) {
	xmin, xmax = 0.9, 2
	for _, b := range list {
		xmin, xmax = min(xmin, b.ratio.Min*0.95), max(xmax, b.ratio.Max*1.3, b.goal*1.3) // room for the number
	}
	return xmin, xmax, -0.6, float64(len(list)) - 0.4
}
