package main

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// structuralScenarios are those that ask how cost grows: with the diverged WAL, with the cluster, with the cores, and what a
// rewind costs the source.
func structuralScenarios() []scenario {
	return []scenario{
		{
			name: "cores", about: "dry run: the scan of wal-fpi on one processor and on two",
			fixture: randomUpdates, source: directory, dryRun: true, goal: 1.8, special: measureCores,
		},
		{
			name: "load", about: "what pgbench on the source does during a rewind from it over TCP",
			fixture: randomUpdates, source: tcp, special: measureLoad,
		},
		{
			name: "growth-wal", about: "rewind from a directory, more and more diverged WAL",
			fixture: growingWAL, source: directory, extra: true, special: measureGrowingWAL,
		},
		{
			name: "growth-cluster", about: "rewind from a directory, the same divergence in larger and larger clusters, whose bulk are 1 GB segments that nobody changed",
			fixture: growingCluster, source: directory, extra: true, special: measureGrowingCluster,
		},
		{name: "plan-10tb", about: "block map and plan of a simulated cluster of 10 TB, 1% of its blocks changed", special: measurePlans},
	}
}

// growthResult is how the cost of a rewind grows with something.
type growthResult struct {
	Axis   string        `json:"axis"` // what x is; in bytes
	Points []growthPoint `json:"points"`
	Fits   []growthFit   `json:"fits"` // for each contender
	// Linear: with the divergence, and no faster. Otherwise the goal is that it does not grow.
	Linear bool `json:"linear"`
}

// growthPoint is one measurement of all contenders.
type growthPoint struct {
	X          int64             `json:"x"`
	Files      int               `json:"files"` // of the target
	Compared   bool              `json:"compared"`
	Contenders []contenderResult `json:"contenders"`
}

// growthFit are lines through the points of one contender: x in GB, y the medians in seconds.
type growthFit struct {
	Name string `json:"name"`
	Wall line   `json:"wall"`
	// Rest is wall time less the listing of files.
	Rest line `json:"rest"`
}

// The limits of what is called linear and flat: a point is no farther from the line than linearOff of the largest
// value, and the largest cluster takes no more than flatGrowth more than the smallest, the listing apart.
const (
	linearOff  = 0.15
	flatGrowth = 0.2
)

// longestSeries is how often each point is measured at most: the points support one another.
const longestSeries = 3

// newGrowth measures the points that next makes ready, one after the other, until it says that there are no more.
func newGrowth(
	tb pgtest.TB, cfg *config, res *result, p *pair, s scenario, ours pgtest.Binaries, next func(i int) (x func(growthPoint) int64, more bool),
) *growthResult {
	once := *cfg
	once.runs = min(cfg.runs, longestSeries)
	plain := s
	plain.special = nil
	g := &growthResult{}
	for i := 0; ; i++ {
		x, more := next(i)
		if !more {
			break
		}
		sr := measureScenario(tb, &once, p, plain, contenders(p.env, ours, cfg.jobs))
		res.Clusters = res.Clusters[:len(res.Clusters)-1] // they have grown
		res.describe(tb, p, ours)
		point := growthPoint{Files: res.Clusters[len(res.Clusters)-1].TargetFiles, Compared: sr.Compared, Contenders: sr.Contenders}
		point.X = x(point)
		g.Points = append(g.Points, point)
	}
	return g
}

// finish fits the lines and makes the scenario's result, whose contenders are those of the last point.
func (g *growthResult) finish(s scenario) scenarioResult {
	last := g.Points[len(g.Points)-1]
	for c := range last.Contenders {
		var x, wall, rest []float64
		for _, point := range g.Points {
			m := point.Contenders[c]
			x = append(x, float64(point.X)/1e9)
			wall = append(wall, m.Wall.Median)
			rest = append(rest, max(0, m.Wall.Median-m.Phases[phaseListing].Median))
		}
		g.Fits = append(g.Fits, growthFit{Name: last.Contenders[c].Name, Wall: fitLine(x, wall), Rest: fitLine(x, rest)})
	}
	sr := scenarioResult{Name: s.name, About: s.about, Source: s.source, Growth: g, Compared: true, Contenders: last.Contenders}
	for _, point := range g.Points {
		sr.Compared = sr.Compared && point.Compared
	}
	return sr
}

// reached says whether fastrewind's cost grows as it should, and in words how it grows. Two points are always on a line, and
// prove nothing.
func (g *growthResult) reached() (words string, ok bool) {
	n := len(g.Fits) - 1
	fit, first, last := g.Fits[n], g.Points[0].Contenders[n], g.Points[len(g.Points)-1].Contenders[n]
	if g.Linear {
		return fmt.Sprintf("%.2f s + %.3f s/GB, off by at most %s", fit.Wall.Intercept, fit.Wall.Slope, percent(fit.Wall.Off)),
			len(g.Points) > 2 && fit.Wall.Slope > 0 && fit.Wall.Off <= linearOff
	}
	rest := func(c contenderResult) float64 { return c.Wall.Median - c.Phases[phaseListing].Median }
	grown := quotient(rest(last)-rest(first), first.Wall.Median)
	return fmt.Sprintf("%+.4f s/GB; without listing %+.0f%% from %s to %s", fit.Wall.Slope, 100*grown,
		size(g.Points[0].X), size(g.Points[len(g.Points)-1].X)), grown <= flatGrowth
}

// The cluster of growth-wal: every page of its table has four rows and room for the next version of one.
const (
	rowsOfPage  = 4
	pageOnDisk  = 8 << 10
	pageInWAL   = 6 << 10 // about: a full-page image without the free space, and what is logged later
	walRounds   = 8       // how often a page is logged whole, once after each checkpoint
	mostWAL     = 8 << 30 // at full scale
	smallestWAL = mostWAL / 32
)

// growingWAL is a table of which one page in two changes, in a region that grows with the WAL: the blocks to copy grow with
// the WAL, too, and are an eighth of it.
var growingWAL = &fixture{
	name: "growing WAL",
	load: func(p *pgtest.Cluster, s scale) {
		fillTable(p, grownPages(s))
	},
	diverge: func(_, promoted *pgtest.Cluster, s scale) {
		promoted.SQL("postgres", fmt.Sprintf("UPDATE grown SET n = n + 1 WHERE id %% 1000 = 1 AND id < %d", rowsOfPage*grownPages(s)))
	},
}

// fillTable makes a table of so many pages.
func fillTable(p *pgtest.Cluster, pages int64) {
	p.SQL("postgres", fmt.Sprintf(`
CREATE TABLE grown (id int, n int, pad text) WITH (fillfactor = 75);
INSERT INTO grown SELECT g, 0, repeat(md5(g::text), 41) FROM generate_series(0, %d) g;
ALTER TABLE grown ADD PRIMARY KEY (id);
VACUUM (FREEZE, ANALYZE) grown`, rowsOfPage*pages-1))
}

// partOfFull is how much smaller than at full scale everything is.
func (s scale) partOfFull() float64 {
	return float64(s.WALBytes) / float64(scales[len(scales)-1].WALBytes)
}

func grownPages(s scale) int64 {
	return max(1000, int64(s.partOfFull()*mostWAL)/walRounds/pageInWAL*2)
}

// walPoints are the amounts of WAL, ascending, of which there is room for the last.
func walPoints(s scale, room int64) []int64 {
	var points []int64
	step := int64(2)
	if s.Name == scales[0].Name {
		step = 8 // enough to see that it works
	}
	for n := int64(smallestWAL); n <= mostWAL; n *= step {
		wal := int64(float64(n) * s.partOfFull())
		// The target, its copy, and what pg_rewind made of it.
		if len(points) > 0 && 3*wal > room*8/10 {
			break
		}
		points = append(points, wal)
	}
	return points
}

// roomIn is how many bytes the file system of a directory has free.
func roomIn(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return 0
	}
	return int64(st.Bavail) * st.Bsize
}

func measureGrowingWAL(tb pgtest.TB, cfg *config, res *result, p *pair, s scenario, ours pgtest.Binaries) scenarioResult {
	points := walPoints(cfg.scale, roomIn(p.env.Root))
	w := &walGrower{pages: grownPages(cfg.scale)}
	g := newGrowth(tb, cfg, res, p, s, ours, func(i int) (func(growthPoint) int64, bool) {
		if i == len(points) {
			return nil, false
		}
		cfg.logf("%s: %s of WAL", s.name, size(points[i]))
		p.old.Start()
		w.growTo(p.old, points[i])
		p.old.Stop(pgtest.Fast)
		p.work.Remove()
		p.work = p.old.Copy("work")
		var err error
		if p.mirror, err = newMirror(p.old.DataDir(), p.work.DataDir()); err != nil {
			tb.Fatalf("bench: %v", err)
		}
		return func(m growthPoint) int64 { return m.Contenders[len(m.Contenders)-1].Counts.Scanned }, true
	})
	g.Axis, g.Linear = "diverged WAL", true
	return g.finish(s)
}

// walGrower writes WAL on a server, a stretch after the other.
type walGrower struct {
	pages int64  // of the table
	start string // LSN
	next  int64  // page
}

// growTo updates pages that were not updated before until so much WAL was written since the first call.
func (w *walGrower) growTo(c *pgtest.Cluster, total int64) {
	if w.start == "" {
		w.start = c.LSN()
	}
	for {
		missing := total - walSince(c, w.start)
		if missing < total/50 {
			return
		}
		// One page in two of the region. What is logged of a page is a guess, so the last stretch is made of smaller ones.
		region := max(16, 2*missing/walRounds/pageInWAL)
		if w.next+region > w.pages {
			w.next = 0 // the guess was too small by far: begin again, with pages that are to be copied already
			region = min(region, w.pages)
		}
		for range walRounds {
			c.SQL("postgres", fmt.Sprintf("UPDATE grown SET n = n + 1 WHERE id >= %d AND id < %d AND id %% %d = 0; CHECKPOINT",
				w.next*rowsOfPage, (w.next+region)*rowsOfPage, 2*rowsOfPage))
		}
		w.next += region
	}
}

// writeGrowth tells of the series.
func (r *result) writeGrowth(b *strings.Builder) {
	for _, s := range r.Scenarios {
		g := s.Growth
		if g == nil {
			continue
		}
		fmt.Fprintf(b, "### %s: %s\n\n", s.Name, s.About)
		rows := [][]string{{g.Axis, "files", "program", "wall s", "times faster", "listing s", "scan s", "copy s", "sync s", "copied", "peak memory MB"}}
		for _, point := range g.Points {
			for i, c := range point.Contenders {
				row := []string{size(point.X), fmt.Sprint(point.Files), c.Name, seconds(c.Wall), ""}
				if i > 0 {
					row[4] = times(c.WallRatio)
				}
				for _, name := range []string{phaseListing, phaseScan, phaseCopy, phaseSync} {
					row = append(row, fmt.Sprintf("%.3f", c.Phases[name].Median))
				}
				copied := size(c.Counts.Copied)
				if i == 0 {
					copied = fmt.Sprintf("%d MB planned", c.Counts.PlannedMB)
				}
				rows = append(rows, append(row, copied, memory(c)))
			}
		}
		table(b, rows)
		rows = [][]string{{"program", "s for each GB", "s at 0", "farthest point off by", "s for each GB without listing"}}
		for _, f := range g.Fits {
			rows = append(rows, []string{
				f.Name, fmt.Sprintf("%.4f", f.Wall.Slope), fmt.Sprintf("%.2f", f.Wall.Intercept), percent(f.Wall.Off), fmt.Sprintf("%.4f", f.Rest.Slope),
			})
		}
		table(b, rows)
	}
}
