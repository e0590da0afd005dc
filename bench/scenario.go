package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// scenario is one thing that is measured.
type scenario struct {
	name  string
	about string
	// fixture makes the clusters. Scenarios with the same fixture share them.
	fixture *fixture
	source  sourceKind
	dryRun  bool
	// floors are measured in the same rounds as the programs.
	floors []floor
	// goal is how many times faster than stock fastrewind should be on two cores; of a dry run that is meant of the scan.
	goal float64
	// archive, if set, takes WAL from the target, and says where else it is.
	archive *archiving
	access  *access // made by archive for one pair of clusters
	// codecs: no program is run, the codecs' benchmarks are.
	codecs bool
}

// sourceKind is from where a rewind takes its data.
type sourceKind string

const (
	directory  sourceKind = "directory"
	unixSocket sourceKind = "unix"
	tcp        sourceKind = "tcp"
)

func (k sourceKind) live() bool { return k != directory }

// from is the source as pgtest's rewinds take it.
func (k sourceKind) from(c *pgtest.Cluster) (flag, value string) {
	switch k {
	case unixSocket:
		return "--source-server", c.SocketConnString()
	case tcp:
		return "--source-server", c.ConnString()
	default:
		return "--source-pgdata", c.DataDir()
	}
}

// allScenarios are in the order in which they are run: those with one fixture together, and among these the stopped
// source before the running one.
func allScenarios() []scenario {
	scan1, scan2 := scanFloor(1), scanFloor(2)
	return []scenario{
		{
			name: "wal-small", about: "dry run: scan of WAL made of small records only",
			fixture: smallRecords, source: directory, dryRun: true,
			floors: []floor{scan1, scan2}, goal: 3.5,
		},
		{
			name: "wal-fpi", about: "dry run: scan of WAL rich in full-page images",
			fixture: randomUpdates, source: directory, dryRun: true,
			floors: []floor{scan1, scan2}, goal: 3.5,
		},
		{
			name: "dir", about: "rewind from a directory, scattered 8 kB blocks",
			fixture: randomUpdates, source: directory,
			floors: []floor{copyFloor()}, goal: 3,
		},
		{
			name: "server-unix", about: "rewind from a server over a Unix socket, scattered 8 kB blocks",
			fixture: randomUpdates, source: unixSocket,
			floors: []floor{copyFloor(), serverFloor(1), serverFloor(2)}, goal: 2.5,
		},
		{
			name: "server-tcp", about: "rewind from a server over TCP on the loopback, scattered 8 kB blocks",
			fixture: randomUpdates, source: tcp,
			floors: []floor{copyFloor(), serverFloor(1), serverFloor(2)}, goal: 2.5,
		},
		{
			name: "restore-64", about: "dry run: 64 missing WAL segments, restore_command takes 100 ms",
			fixture: manySegments, source: directory, dryRun: true, archive: sleepingCommand(64), goal: 10,
		},
		{
			name: "restore-256", about: "dry run: 256 missing WAL segments, restore_command takes 100 ms",
			fixture: manySegments, source: directory, dryRun: true, archive: sleepingCommand(mostMissing), goal: 10,
		},
		{
			name: "s3-zstd", about: "dry run: 64 missing WAL segments in S3, zstd; pg_rewind with aws s3 cp",
			fixture: manySegments, source: directory, dryRun: true, archive: s3Direct(64, "zstd", ".zst"), goal: 10,
		},
		{
			name: "s3-lz4", about: "dry run: 64 missing WAL segments in S3, lz4; pg_rewind with aws s3 cp",
			fixture: manySegments, source: directory, dryRun: true, archive: s3Direct(64, "lz4", ".lz4"), goal: 10,
		},
		{name: "codec", about: "decoding of archived segments, in memory", codecs: true},
	}
}

func describeScenarios() string {
	var b strings.Builder
	for _, s := range allScenarios() {
		fmt.Fprintf(&b, "  %-12s %s\n", s.name, s.about)
	}
	return b.String()
}

// chooseScenarios finds scenarios by name, in the order of the table.
func chooseScenarios(names string) ([]scenario, error) {
	all := allScenarios()
	if names == "all" {
		return all, nil
	}
	wanted := strings.Split(names, ",")
	for _, name := range wanted {
		if !slices.ContainsFunc(all, func(s scenario) bool { return s.name == name }) {
			return nil, fmt.Errorf("there is no scenario %q; there are\n%s", name, describeScenarios())
		}
	}
	return slices.DeleteFunc(all, func(s scenario) bool { return !slices.Contains(wanted, s.name) }), nil
}
