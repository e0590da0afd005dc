package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// sample is one measured run of one program.
type sample struct {
	Began  time.Time `json:"began"`
	Wall   float64   `json:"wall_s"`
	User   float64   `json:"user_s"`
	System float64   `json:"system_s"`
	// SourceCPU is what the source server's processes used meanwhile, user and system.
	SourceCPU float64 `json:"source_cpu_s,omitempty"`
	// MaxRSS is the program's peak memory in bytes. A child starts with its parent's pages, so anything up to RSSFloor, the
	// benchmark's own memory at that moment, means "not more than that".
	MaxRSS   int64 `json:"max_rss"`
	RSSFloor int64 `json:"rss_floor"`
	// RoundTrips is how many round trips the program's busiest connection had, if the scenario has a link.
	RoundTrips int `json:"round_trips,omitempty"`
	// Cold is how much was out of memory before the run, if that was wanted.
	Cold   *coldness `json:"cold,omitempty"`
	Load   float64   `json:"load"` // average over the last minute, before the run
	Phases phases    `json:"phases_s"`
	Counts counts    `json:"counts"`
}

func (s sample) cpu() float64 { return s.User + s.System }

// runOnce rewinds the working copy, or looks only, and measures that.
func runOnce(tb pgtest.TB, p *pair, c contender, s scenario) sample {
	flag, value := s.from(p)
	args := []string{"--target-pgdata", p.work.DataDir(), flag, value}
	if s.dryRun {
		args = append(args, "--dry-run")
	}
	var env []string
	if s.access != nil {
		s.access.prepare(tb, p)
		args, env = append(args, s.access.args(c)...), s.access.env
	}
	out := newTimeline()
	load := loadAverage()
	var cpu serverCPU
	if s.source.live() {
		cpu = watchServer(p.source.Pid())
	}
	floor := shrink()
	began := time.Now()
	res := p.env.Exec(pgtest.Cmd{Path: c.program, Args: append(args, c.args...), Env: env, Stdout: out, Stderr: out})
	if res.ExitCode != 0 {
		tb.Fatalf("bench: scenario %s: %s\n%s", s.name, res, out.text())
	}
	m := sample{
		Began:    began,
		Wall:     res.Wall.Seconds(),
		User:     res.User.Seconds(),
		System:   res.System.Seconds(),
		MaxRSS:   res.MaxRSS,
		RSSFloor: floor,
		Load:     load,
	}
	if s.source.live() {
		m.SourceCPU = cpu.used()
	}
	m.Phases, m.Counts = c.read(out.lines, m.Wall)
	return m
}

// shrink makes this process as small as it can be and returns its memory in bytes: a child inherits its parent's peak
// (setmax_mm_hiwater_rss in the kernel's exec_mmap), which would hide its own.
func shrink() int64 {
	debug.FreeOSMemory()
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // forget the peak; without it the floor is only higher
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(kb), " kB"), 10, 64) // a floor of 0 says nothing, and is what it is then
			return n << 10
		}
	}
	return 0
}

func loadAverage() float64 {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	var load float64
	_, _ = fmt.Sscan(string(data), &load) // for the record only
	return load
}

// serverCPU is the CPU time of a postmaster and its processes: those that have ended are in the postmaster's account.
type serverCPU struct {
	pid      int
	before   float64
	children int
}

func watchServer(pid int) serverCPU {
	w := serverCPU{pid: pid}
	w.before, w.children = w.now()
	return w
}

// used is the time since watchServer. It waits until the sessions that began since have ended, as far as that comes soon.
func (w serverCPU) used() float64 {
	for wait := range 200 {
		seconds, children := w.now()
		if children <= w.children || wait == 199 {
			return seconds - w.before
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 0
}

func (w serverCPU) now() (seconds float64, children int) {
	list, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(w.pid), "task", strconv.Itoa(w.pid), "children"))
	if err != nil {
		return 0, 0
	}
	pids := strings.Fields(string(list))
	seconds = cpuTime(strconv.Itoa(w.pid))
	for _, pid := range pids {
		seconds += cpuTime(pid)
	}
	return seconds, len(pids)
}

// cpuTime is the user and system time of a process and of the children it has waited for (proc(5), stat, fields 14 to
// 17), in seconds.
func cpuTime(pid string) float64 {
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return 0 // it has just ended
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after)
	const first, ticks = 11, 100 // of field 14 behind the name; USER_HZ, the same on all of Linux's common machines
	if len(fields) < first+4 {
		return 0
	}
	var sum float64
	for _, f := range fields[first : first+4] {
		n, _ := strconv.ParseFloat(f, 64) // the kernel writes numbers
		sum += n
	}
	return sum / ticks
}
