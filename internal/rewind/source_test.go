package rewind

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

func TestConnections(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		jobs, most int
		trip       time.Duration
		want       int
	}{
		{2, MostJobs, 0, 4},
		{2, MostJobs, 1999 * time.Microsecond, 4}, // a busy server is not far away
		{2, MostJobs, 2 * ms, 6},
		{2, MostJobs, 20 * ms, MostJobs},
		{8, MostJobs, 0, MostJobs},
		{3, 3, 0, 3}, // -j
		{1, 1, time.Hour, 1},
		{100, 100, 20 * ms, 100},
	} {
		if got := connections(c.jobs, c.most, c.trip); got != c.want {
			t.Errorf("%d jobs of at most %d, %v away: %d, want %d", c.jobs, c.most, c.trip, got, c.want)
		}
	}
}

func TestMostBatchBytes(t *testing.T) {
	for trip, want := range map[time.Duration]int64{
		0: 4, 999 * time.Microsecond: 4, time.Millisecond: 8, 5 * time.Millisecond: 24, 20 * time.Millisecond: 64, time.Hour: 64,
	} {
		if got := mostBatchBytes(trip); got != want<<20 {
			t.Errorf("%v away: %d bytes, want %d MB", trip, got, want)
		}
	}
}

// Who names a number of jobs gets no more; who does not gets what the processors suggest, within bounds.
func TestDecideJobs(t *testing.T) {
	for _, c := range []struct{ processors, jobs, want, most int }{
		{1, 0, 2, MostJobs},
		{4, 0, 4, MostJobs},
		{64, 0, MostJobs, MostJobs},
		{4, 1, 1, 1},
		{4, 100, 100, 100},
	} {
		t.Run(fmt.Sprintf("%d processors, -j %d", c.processors, c.jobs), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(c.processors))
			cfg := Config{Jobs: c.jobs}
			if most := cfg.decideJobs(); cfg.Jobs != c.want || most != c.most {
				t.Errorf("%d jobs of at most %d, want %d of %d", cfg.Jobs, most, c.want, c.most)
			}
		})
	}
}
