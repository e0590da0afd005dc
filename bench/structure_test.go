package main

import (
	"bytes"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestStructure runs the scenarios that are more than programs in turn, too small to measure anything, and draws the plots.
func TestStructure(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	out := t.TempDir()
	var names []string
	for _, s := range structuralScenarios() {
		names = append(names, s.name)
	}
	res, printed := runTiny(t, names, out)
	if len(res.Scenarios) != len(names) {
		t.Fatalf("%d scenarios, want %d", len(res.Scenarios), len(names))
	}
	for _, s := range res.Scenarios {
		if !strings.Contains(printed, "| "+s.Name+",") {
			t.Errorf("%s is not in the summary:\n%s", s.Name, printed)
		}
		switch {
		case s.Growth != nil:
			checkGrowth(t, s)
		case s.Cores != nil:
			if len(s.Contenders) != 3 || s.Cores.Bytes < res.Scale.WALBytes || s.Cores.Ratio.Median <= 0 || s.Cores.FloorRatio.Median <= 0 {
				t.Errorf("%s: %+v", s.Name, s.Cores)
			}
		case s.Load != nil:
			l := s.Load
			if len(l.Variants) != 3 || l.Limit < 1<<20 || l.Achieved.Median <= 0 || l.Achieved.Median > 2*float64(l.Limit) {
				t.Errorf("%s: %+v", s.Name, l)
			}
			for _, v := range l.Variants {
				if v.Before.Median <= 0 || v.During.Median <= 0 || !v.Started {
					t.Errorf("%s: %+v", s.Name, v)
				}
			}
		case len(s.Plans) == 2:
			for _, p := range s.Plans {
				if p.Metrics["spans"] <= 0 || p.Metrics["plan-s"] <= 0 || p.MaxRSS.Max < 1<<20 {
					t.Errorf("%s: %+v", s.Name, p)
				}
			}
		default:
			t.Errorf("%s: nothing measured: %+v", s.Name, s)
		}
	}

	//nolint:gosec // our own program
	cmd := exec.CommandContext(t.Context(), goProgram(), "run", "-C", filepath.Join("..", "tools", "plots"), ".", "-in", filepath.Join(out, "bench.json"))
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("plots: %v\n%s", err, text)
	}
	for _, name := range []string{"ratios", "growth-wal", "growth-cluster", "load"} {
		svg, err := os.ReadFile(filepath.Join(out, name+".svg"))
		if err != nil || !bytes.Contains(svg, []byte("</svg>")) {
			t.Errorf("%s.svg: %d bytes, %v", name, len(svg), err)
		}
	}
}

// checkGrowth wants points that ascend, and what should grow with them.
func checkGrowth(t *testing.T, s scenarioResult) {
	t.Helper()
	g := s.Growth
	if len(g.Points) < 2 || len(g.Fits) != 2 || !s.Compared {
		t.Fatalf("%s: %d points, %d lines, compared: %v", s.Name, len(g.Points), len(g.Fits), s.Compared)
	}
	for i, p := range g.Points[1:] {
		before := g.Points[i]
		ours, oursBefore := p.Contenders[1].Counts, before.Contenders[1].Counts
		if p.X <= before.X || g.Linear != (ours.Scanned > oursBefore.Scanned) || g.Linear != (ours.Copied > oursBefore.Copied) {
			t.Errorf("%s: %d after %d, %+v after %+v", s.Name, p.X, before.X, ours, oursBefore)
		}
	}
}

func TestFitLine(t *testing.T) {
	l := fitLine([]float64{1, 2, 4}, []float64{3, 5, 9})
	if math.Abs(l.Slope-2) > 1e-9 || math.Abs(l.Intercept-1) > 1e-9 || l.Off > 1e-9 {
		t.Errorf("got %+v", l)
	}
	if l := fitLine([]float64{0, 1, 2}, []float64{0, 10, 0}); math.Abs(l.Off-2.0/3) > 1e-9 {
		t.Errorf("got %+v", l)
	}
	if l := fitLine([]float64{3, 3}, []float64{1, 2}); l.Slope != 0 || l.Intercept != 1.5 {
		t.Errorf("got %+v", l)
	}
}

// TestReached holds what counts as linear and as flat.
func TestReached(t *testing.T) {
	series := func(linear bool, listing float64, walls ...float64) *growthResult {
		g := &growthResult{Linear: linear}
		for i, wall := range walls {
			c := contenderResult{Wall: spread{Median: wall}, Phases: map[string]spread{phaseListing: {Median: listing * float64(i)}}}
			g.Points = append(g.Points, growthPoint{X: int64(i+1) * 1e9, Contenders: []contenderResult{c, c}})
		}
		return g.finish(scenario{}).Growth
	}
	for _, c := range []struct {
		g    *growthResult
		want bool
	}{
		{series(true, 0, 1, 2, 3.1, 4), true},
		{series(true, 0, 1, 1, 1, 5), false},
		{series(true, 0, 4, 3, 2, 1), false},
		{series(true, 0, 1, 2), false},
		{series(false, 0, 1, 1.1, 1.05), true},
		{series(false, 0, 1, 1.5, 2), false},
		{series(false, 0.5, 1, 1.5, 2), true},
	} {
		if words, ok := c.g.reached(); ok != c.want {
			t.Errorf("%+v: %v (%s)", c.g.Points, ok, words)
		}
	}
}

// TestSummary holds the marks of README's table.
func TestSummary(t *testing.T) {
	one := func(ratio, goal, floor float64, peak float64, dry bool) string {
		of := func(median float64) spread { return spread{median, median, median} }
		phases := map[string]spread{phaseScan: of(10 / ratio)}
		s := scenarioResult{Name: "x", DryRun: dry, Goal: goal, Contenders: []contenderResult{
			{Name: "pg_rewind", Wall: of(10), Phases: map[string]spread{phaseScan: of(10)}},
			{Name: "fastrewind", Wall: of(10 / ratio), WallRatio: of(ratio), ScanRatio: of(ratio), MaxRSS: of(peak), Phases: phases},
		}}
		if floor > 0 {
			s.Floors = []floorResult{{Name: "read+crc x1", Seconds: []float64{2 * floor}}, {Name: "read+crc x2", Seconds: []float64{floor}}}
		}
		rows := s.summary()
		return rows[0][len(rows[0])-1]
	}
	no := yes(false)
	for i, c := range []struct{ got, want string }{
		{one(4, 4, 0, 100e6, false), "yes"},
		{one(3.9, 4, 0, 100e6, false), no},
		{one(5, 4, 0, 300e6, false), no},
		{one(5, 0, 0, 100e6, false), ""},
		{one(5, 4, 1.7, 100e6, true), "yes"},
		{one(5, 4, 1.5, 100e6, true), no}, // below 80% of the floor
		{one(5, 4, 1.5, 100e6, false), "yes"},
	} {
		if c.got != c.want {
			t.Errorf("case %d: %q, want %q", i, c.got, c.want)
		}
	}
	s := scenarioResult{Floors: []floorResult{
		{Name: "raw COPY x1", Seconds: []float64{4}}, {Name: "raw COPY x2", Seconds: []float64{2}}, {Name: "read+write+fsync", Seconds: []float64{3}},
	}}
	if got := s.floor(); got != 3 {
		t.Errorf("floor %v: the copy takes 3 s however the server sends", got)
	}
}

// TestTransactions reads a log of pgbench.
func TestTransactions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.1")
	if err := os.WriteFile(path, []byte("0 0 2231 0 1700000000 500000\n1 0 1000 0 1700000001 250000 7\n0 1 900 0 1700000003 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var all transactions
	if err := all.read(path); err != nil {
		t.Fatal(err)
	}
	from := time.Unix(1700000000, 0)
	if got := all.rate(from, from.Add(2*time.Second)); got != 1 {
		t.Errorf("%v per second, want 1", got)
	}
	if err := os.WriteFile(path, []byte("0 0 2231 0 x 500000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := all.read(path); err == nil {
		t.Error("a line that is none was read")
	}
}
