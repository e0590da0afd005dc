package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// planResult is one simulated cluster of 10 TB: block map and plan, no server and no file.
type planResult struct {
	Name    string             `json:"name"`    // how the changed blocks lie
	Wall    spread             `json:"wall_s"`  // of the whole process
	MaxRSS  spread             `json:"max_rss"` // in bytes
	Metrics map[string]float64 `json:"metrics"` // of the last run, by their units
}

// The goals of plan-10tb.
const (
	planSeconds = 30
	planBytes   = 512e6
)

// measurePlans runs the simulation, which is a Go benchmark beside the code it measures: the packages are internal to the
// program, and this one does not look inside. Each case is a process of its own, for its peak memory.
func measurePlans(tb pgtest.TB, cfg *config, res *result, _ *pair, s scenario, _ pgtest.Binaries) scenarioResult {
	if res.Machine.CPU == "" {
		res.Machine = describeMachine(os.TempDir())
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		tb.Fatalf("bench: %v", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // it holds one program
	program := filepath.Join(dir, "plan.test")
	//nolint:gosec // fixed arguments
	build := exec.CommandContext(tb.Context(), goProgram(), "test", "-c", "-o", program, "github.com/fastrewind/fastrewind/internal/plan")
	if out, err := build.CombinedOutput(); err != nil {
		tb.Fatalf("bench: scenario %s: %v\n%s", s.name, err, out)
	}
	env := os.Environ()
	if cfg.scale.Name == scales[0].Name {
		env = append(env, "PLAN_SEGMENTS=102")
	}
	sr := scenarioResult{Name: s.name, About: s.about}
	for _, name := range []string{"random", "clustered"} {
		r := planResult{Name: name}
		var walls, peaks []float64
		for round := range min(cfg.runs, longestSeries) {
			shrink()
			//nolint:gosec // fixed arguments
			cmd := exec.CommandContext(tb.Context(), program, "-test.run", "^$", "-test.benchtime", "1x", "-test.bench", "^BenchmarkTenTerabytes$/^"+name+"$")
			cmd.Env = env
			start := time.Now()
			out, err := cmd.CombinedOutput()
			wall := time.Since(start).Seconds()
			if err != nil {
				tb.Fatalf("bench: scenario %s: %v\n%s", s.name, err, out)
			}
			if r.Metrics = readMetrics(out); r.Metrics["blocks"] == 0 {
				tb.Fatalf("bench: scenario %s: no benchmark in\n%s", s.name, out)
			}
			var peak int64
			if ru, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
				peak = ru.Maxrss << 10 // Linux counts in kilobytes
			}
			walls, peaks = append(walls, wall), append(peaks, float64(peak))
			cfg.logf("%s, round %d of %d: %s: %.2f s, %d MB", s.name, round+1, cfg.runs, name, wall, peak/1e6)
		}
		r.Wall, r.MaxRSS = spreadOf(walls), spreadOf(peaks)
		sr.Plans = append(sr.Plans, r)
	}
	return sr
}

// metric is one of the numbers behind the name of a benchmark that has run, with its unit.
var metric = regexp.MustCompile(`\t\s*([0-9.e+]+) (\S+)`)

// readMetrics reads what a single benchmark reported.
func readMetrics(out []byte) map[string]float64 {
	metrics := map[string]float64{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		if !strings.HasPrefix(lines.Text(), "Benchmark") {
			continue
		}
		for _, m := range metric.FindAllStringSubmatch(lines.Text(), -1) {
			metrics[m[2]], _ = strconv.ParseFloat(m[1], 64) // Go prints numbers
		}
	}
	return metrics
}

// reached reports whether a simulation stayed within both goals, every time.
func (p *planResult) reached() bool { return p.Wall.Max <= planSeconds && p.MaxRSS.Max <= planBytes }

// writePlans tells of the simulated clusters.
func (r *result) writePlans(b *strings.Builder) {
	for _, s := range r.Scenarios {
		if len(s.Plans) == 0 {
			continue
		}
		fmt.Fprintf(b, "### Block map and plan of a simulated cluster of 10 TB\n\n10,240 relation segments of 1 GiB and some 33,000 small files, 1%% of the blocks "+
			"changed, each for itself or 64 at a time; one goroutine. Goals: %d s, %.0f MB.\n\n", planSeconds, planBytes/1e6)
		rows := [][]string{{"blocks changed", "blocks", "spans to copy", "files", "process s", "block map s", "plan s", "peak memory MB", "of it block map MB", "reached"}}
		for _, p := range s.Plans {
			m := p.Metrics
			rows = append(rows, []string{
				p.Name, fmt.Sprintf("%.0f", m["blocks"]), fmt.Sprintf("%.0f", m["spans"]), fmt.Sprintf("%.0f", m["files"]), seconds(p.Wall),
				fmt.Sprintf("%.2f", m["map-s"]), fmt.Sprintf("%.2f", m["plan-s"]), fmt.Sprintf("%.0f", p.MaxRSS.Max/1e6),
				fmt.Sprintf("%.0f", m["map-MB"]), yes(p.reached()),
			})
		}
		table(b, rows)
	}
}

// yes is a verdict, the way it stands in tables.
func yes(ok bool) string {
	if ok {
		return "yes"
	}
	return "**not reached**"
}
