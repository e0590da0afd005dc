package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// The scenarios of archives: WAL that the target's pg_wal does not have any more. They are dry runs of targets with little
// to scan, so that what is measured is how WAL comes. Segments have 1 MB: the time to start a command for each, and to wait
// for it, is what users suffer from, and that does not depend on the size.

// archiving is what an archive scenario needs besides clusters.
type archiving struct {
	// missing is how many segments are gone from the target's pg_wal, the newest but one, at full scale.
	missing int
	// open makes the archive, and says how each program is to reach it. The segments are named oldest first.
	open func(tb pgtest.TB, p *pair, segments []string) access
}

// access is how the programs reach an archive.
type access struct {
	about    string   // for the report
	missing  []string // names of segments
	command  string   // the target's restore_command
	stock    []string // more arguments for pg_rewind
	ours     []string // more arguments for fastrewind
	env      []string
	original string // the directory that has what is missing
}

// missingAt is how many segments are missing at a scale: sleeping commands take their time however small the clusters are.
func (a *archiving) missingAt(s scale) int {
	if s.Name == scales[0].Name {
		return max(4, a.missing/16)
	}
	return a.missing
}

// mostMissing is the largest number of missing segments in any scenario.
const mostMissing = 256

// manySegments is a target with many segments of 1 MB behind the divergence, in which there is little to do.
var manySegments = &fixture{
	name: "many segments",
	init: pgtest.InitOptions{SegSizeMB: 1},
	load: func(p *pgtest.Cluster, _ scale) { p.Pgbench("-i", "-q", "-s", "2") },
	diverge: func(old, promoted *pgtest.Cluster, s scale) {
		most := (&archiving{missing: mostMissing}).missingAt(s)
		s.DataBytes = 32 << 20
		updateRows(old, s, int64(most+2)<<20)
		promoted.Pgbench("-n", "-c", "2", "-t", "100")
	},
}

// openArchive makes the scenario's archive for a pair of clusters.
func (s *scenario) openArchive(tb pgtest.TB, cfg *config, p *pair) *access {
	if s.archive == nil {
		return nil
	}
	n := s.archive.missingAt(cfg.scale)
	// One more than that, the newest of which stays: the checkpoint at the shutdown is in it.
	list, err := lastSegments(p.old, int64(n+1)<<20)
	if err != nil {
		tb.Fatalf("bench: %v", err)
	}
	var names []string
	for _, path := range slices.Backward(list[1:]) {
		names = append(names, filepath.Base(path))
	}
	if len(names) != n {
		tb.Fatalf("bench: scenario %s: the target has %d segments, %d are wanted", s.name, len(names), n)
	}
	a := s.archive.open(tb, p, names)
	a.missing, a.original = names, p.old.Path("pg_wal")
	return &a
}

// prepare takes the segments from the working copy, which is pristine, and sets its restore_command.
func (a *access) prepare(tb pgtest.TB, p *pair) {
	for _, name := range a.missing {
		if err := os.Remove(p.work.Path("pg_wal", name)); err != nil {
			tb.Fatalf("bench: %v", err)
		}
	}
	conf := p.work.Path("postgresql.auto.conf")
	data, err := os.ReadFile(conf)
	if err != nil {
		tb.Fatalf("bench: %v", err)
	}
	data = fmt.Appendf(data, "restore_command = '%s'\n", strings.ReplaceAll(a.command, "'", "''"))
	p.env.WriteFile(conf, data, 0o600)
}

// args are the additional arguments of a program; the first contender is stock.
func (a *access) args(c contender) []string {
	if c.stock {
		return a.stock
	}
	return a.ours
}

// withMoreJobs adds fastrewind with twice as many segments at a time as it takes by default: where each costs the same wait,
// nothing else counts.
func withMoreJobs(list []contender) []contender {
	more := list[len(list)-1]
	more.name += " --archive-jobs 16"
	more.args = append([]string{"--archive-jobs=16"}, more.args...)
	return append(slices.Clone(list), more)
}

// allow accepts that only one of the programs has kept a segment that it fetched, if it is that segment.
func (a *access) allow() pgtest.Allow {
	return pgtest.Allow{Reason: "fetched WAL that one of the two keeps", Match: func(d pgtest.Difference) (bool, error) {
		name, ok := strings.CutPrefix(d.Path, "pg_wal/")
		if !ok || !slices.Contains(a.missing, name) || d.Kind != pgtest.OnlyInA && d.Kind != pgtest.OnlyInB {
			return false, nil
		}
		path := d.PathA
		if d.Kind == pgtest.OnlyInB {
			path = d.PathB
		}
		got, err := os.ReadFile(path)
		if err != nil {
			return false, err
		}
		want, err := os.ReadFile(filepath.Join(a.original, name))
		return bytes.Equal(got, want), err
	}}
}

// compareArchived rewinds with every contender, unmeasured, and compares the results: the measured runs are dry.
func compareArchived(tb pgtest.TB, p *pair, s scenario, list []contender) []string {
	s.dryRun = false
	var allowed []string
	var stock saved
	for i, c := range list {
		rest(tb, p)
		runOnce(tb, p, c, s)
		if i == 0 {
			stock = saveResult(tb, p)
			continue
		}
		allowed = append(allowed, stock.compare(tb, p, s)...)
	}
	stock.remove(tb)
	slices.Sort(allowed)
	return slices.Compact(allowed)
}

// sleepingCommand is a restore_command that takes 100 ms, as one that goes over a network does.
func sleepingCommand(missing int) *archiving {
	return &archiving{missing: missing, open: func(tb pgtest.TB, p *pair, segments []string) access {
		dir, err := os.MkdirTemp(p.env.Root, "archive")
		if err == nil {
			err = os.Chmod(dir, 0o755) //nolint:gosec // the servers' user reads it
		}
		if err != nil {
			tb.Fatalf("bench: %v", err)
		}
		for _, name := range segments {
			data, err := os.ReadFile(p.old.Path("pg_wal", name))
			if err != nil {
				tb.Fatalf("bench: %v", err)
			}
			p.env.WriteFile(filepath.Join(dir, name), data, 0o600)
		}
		a := access{command: fmt.Sprintf(`sleep 0.1; cp "%s/%%f" "%%p"`, dir), stock: []string{"-c"}, ours: []string{"-c"}}
		a.about = fmt.Sprintf("both -c with restore_command = '%s'", strings.ReplaceAll(a.command, dir, "ARCHIVE"))
		return a
	}}
}
