package main

import (
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// coresResult is how the scan of WAL gets faster with a second processor.
type coresResult struct {
	Scan  []spread `json:"scan_s"`  // on 1, on 2
	Ratio spread   `json:"ratio"`   // by medians; the spread is that of the rounds
	Floor []spread `json:"floor_s"` // the same WAL read and checksummed by this program, with 1 and 2 goroutines
	// FloorRatio is how much faster the floor gets: what the machine itself has to give.
	FloorRatio spread `json:"floor_ratio"`
	Bytes      int64  `json:"bytes"`
}

// measureCores scans with fastrewind on one processor and on two. Only the child is pinned.
func measureCores(tb pgtest.TB, cfg *config, _ *result, p *pair, s scenario, ours pgtest.Binaries) scenarioResult {
	p.be(s.source)
	list := contenders(p.env, ours, nil)
	pinned := func(n int, c contender) contender {
		c.name = fmt.Sprintf("%s, %d CPU", c.name, n)
		return c
	}
	race := []contender{pinned(1, list[0]), pinned(1, list[len(list)-1]), pinned(2, list[len(list)-1])}
	cpus := []int{1, 1, 2}
	samples := make([][]sample, len(race))
	var floors [2][]float64
	for round := range cfg.runs {
		for i, c := range race {
			rest(tb, p)
			onCPUs(tb, cpus[i], func() { samples[i] = append(samples[i], runOnce(tb, p, c, s)) })
			m := samples[i][round]
			cfg.logf("%s, round %d of %d: %s: %.2f s, CPU %.2f s%s", s.name, round+1, cfg.runs, c.name, m.Wall, m.cpu(), m.Phases)
		}
		bytes := samples[2][round].Counts.Scanned
		for i := range floors {
			floors[i] = append(floors[i], scanFloor(i+1).run(tb, p, s, bytes))
		}
	}
	sr := scenarioResult{Name: s.name, About: s.about, Source: s.source, DryRun: true, Goal: s.goal}
	for i, c := range race {
		sr.Contenders = append(sr.Contenders, summarize(c, samples[i], samples[0]))
	}
	scan := func(m sample) float64 { return m.Phases[phaseScan] }
	sr.Cores = &coresResult{
		Scan:       []spread{spreadBy(samples[1], scan), spreadBy(samples[2], scan)},
		Ratio:      ratioBy(samples[1], samples[2], scan),
		Floor:      []spread{spreadOf(floors[0]), spreadOf(floors[1])},
		FloorRatio: ratio(floors[0], floors[1]),
		Bytes:      samples[2][0].Counts.Scanned,
	}
	return sr
}

// onCPUs calls f with a thread that may only use the first n of the processors that this program may use. A child of that
// thread inherits this; the program's other threads go on as before.
func onCPUs(tb pgtest.TB, n int, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, some unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		tb.Fatalf("bench: sched_getaffinity: %v", err)
	}
	if all.Count() < n {
		tb.Fatalf("bench: %d processors are wanted, and there are %d", n, all.Count())
	}
	for cpu := 0; some.Count() < n; cpu++ {
		if all.IsSet(cpu) {
			some.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &some); err != nil {
		tb.Fatalf("bench: sched_setaffinity: %v", err)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &all) }() // it was allowed before
	f()
}

// writeCores tells of the second processor.
func (r *result) writeCores(b *strings.Builder) {
	for _, s := range r.Scenarios {
		c := s.Cores
		if c == nil {
			continue
		}
		b.WriteString("### The scan of WAL on one processor and on two\n\n")
		table(b, [][]string{
			{"", "1 CPU, s", "2 CPUs, s", "times faster", "goal"},
			{"fastrewind, " + size(c.Bytes), seconds(c.Scan[0]), seconds(c.Scan[1]), times(c.Ratio), fmt.Sprintf("%.1f", s.Goal)},
			{"read+crc, 1 and 2 goroutines", seconds(c.Floor[0]), seconds(c.Floor[1]), times(c.FloorRatio), ""},
		})
	}
}
