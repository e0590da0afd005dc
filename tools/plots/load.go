package main

import (
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// load is pairs of bars: transactions per second on the source before and during a rewind.
func load(res *result) ([]picture, error) {
	var list []picture
	for _, s := range res.Scenarios {
		if s.Load == nil || len(s.Load.Variants) == 0 {
			continue
		}
		var before, during plotter.Values
		var names []string
		for _, v := range s.Load.Variants {
			before, during = append(before, v.Before.Median), append(during, v.During.Median)
			names = append(names, v.Name)
		}
		thick := vg.Points(28)
		quiet, err := plotter.NewBarChart(before, thick)
		if err != nil {
			return nil, err
		}
		busy, err := plotter.NewBarChart(during, thick)
		if err != nil {
			return nil, err
		}
		quiet.Color, quiet.Offset, quiet.LineStyle.Width = colorStock, -thick/2, 0
		busy.Color, busy.Offset, busy.LineStyle.Width = colorOurs, thick/2, 0
		p := newPlot("pgbench on the source, two clients", "", "transactions per second")
		p.Add(quiet, busy)
		p.Legend.Add("before the rewind", quiet)
		p.Legend.Add("during the rewind", busy)
		p.Legend.Left = false
		p.NominalX(names...)
		p.X.Min, p.X.Max = -0.6, float64(len(names))-0.4
		p.Y.Min, p.Y.Max = 0, p.Y.Max*1.25 // room for the legend
		list = append(list, picture{s.Name, 10 * vg.Centimeter, p})
	}
	return list, nil
}
