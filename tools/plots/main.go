// Command plots draws what the benchmark has measured: bench.json in, SVG files out.
//
//	go run ./bench && go run -C tools/plots . -in .cache/bench/bench.json -out .cache/bench
//
//	main.go     the command line, and which picture is made of what
//	result.go   what it takes from bench.json
//	ratios.go   how many times faster, scenario by scenario, with the goals
//	curves.go   seconds against bytes, or against a round trip
//	load.go     transactions on the source
package main

import (
	"errors"
	"flag"
	"fmt"
	"image/color"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	_ "gonum.org/v1/plot/vg/vgsvg" // the format
)

// The two programs' colours, which do not depend on seeing red and green, and that of goals that were missed.
var (
	colorStock  = color.RGBA{0x88, 0x88, 0x88, 0xff}
	colorOurs   = color.RGBA{0x1f, 0x5f, 0xa8, 0xff}
	colorMissed = color.RGBA{0xe6, 0x9f, 0x00, 0xff}
)

const width = 18 * vg.Centimeter

func main() {
	in := flag.String("in", filepath.Join("..", "..", ".cache", "bench", "bench.json"), "what the benchmark saved; relative to this module")
	out := flag.String("out", "", "directory for the pictures (default: that of -in)")
	flag.Parse()
	if *out == "" {
		*out = filepath.Dir(*in)
	}
	if err := run(*in, *out); err != nil {
		fmt.Fprintln(os.Stderr, "plots: error:", err)
		os.Exit(1)
	}
}

// picture is one file, if there is something to draw in it.
type picture struct {
	name   string
	height vg.Length
	plot   *plot.Plot
}

// save draws with a margin: words at the edge are cut otherwise.
func (p picture) save(path string) error {
	const margin = 4 * vg.Millimeter
	canvas, err := draw.NewFormattedCanvas(width, p.height, "svg")
	if err != nil {
		return err
	}
	p.plot.Draw(draw.Crop(draw.New(canvas), margin, -margin, margin, -margin))
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = canvas.WriteTo(f)
	return errors.Join(err, f.Close())
}

func run(in, out string) error {
	res, err := read(in)
	if err != nil {
		return err
	}
	list := []func(*result) ([]picture, error){ratios, growth, latency, load}
	for _, draw := range list {
		pictures, err := draw(res)
		if err != nil {
			return err
		}
		for _, p := range pictures {
			path := filepath.Join(out, p.name+".svg")
			if err := p.save(path); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			fmt.Println(path)
		}
	}
	return nil
}

// newPlot is an empty picture with its words.
func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.Title.Padding = 3 * vg.Millimeter
	p.X.Label.Text, p.Y.Label.Text = x, y
	p.BackgroundColor = color.White // on dark pages, too
	p.Legend.Padding = vg.Millimeter
	p.Legend.Top, p.Legend.Left = true, true
	return p
}
