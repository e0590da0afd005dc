package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

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
	// link, if set, is the network to the source, which is one over TCP.
	link  *link
	proxy *proxy // made by open for one run of the scenario
	// cold: nothing of source and target is in memory when a program starts.
	cold bool
	// before is the major from which on pg_rewind does what makes the difference, too: there the goal is not to be slower.
	before int
	// extra: not in the default set, which is to take some ten minutes with three runs and have one of each kind of cost.
	extra bool
	// codecs: no program is run, the codecs' benchmarks are.
	codecs bool
	// special, if set, measures what is more than programs in turn on one pair of clusters. p is nil without a fixture.
	special func(tb pgtest.TB, cfg *config, res *result, p *pair, s scenario, ours pgtest.Binaries) scenarioResult
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
	list := []scenario{
		{
			name: "wal-small", about: "dry run: scan of WAL made of small records only",
			fixture: smallRecords, source: directory, dryRun: true,
			floors: []floor{scan1, scan2}, goal: 4,
		},
		{
			name: "wal-fpi", about: "dry run: scan of WAL rich in full-page images",
			fixture: randomUpdates, source: directory, dryRun: true,
			floors: []floor{scan1, scan2}, goal: 4,
		},
		{
			name: "dir", about: "rewind from a directory, scattered 8 kB blocks",
			fixture: randomUpdates, source: directory,
			floors: []floor{copyFloor(), blocksFloor(2)}, goal: 3.5,
		},
		{
			name: "server-unix", about: "rewind from a server over a Unix socket, scattered 8 kB blocks",
			fixture: randomUpdates, source: unixSocket,
			floors: []floor{copyFloor(), serverFloor(2), serverBlocksFloor(2)}, goal: 3, extra: true,
		},
		{
			name: "server-tcp", about: "rewind from a server over TCP on the loopback, scattered 8 kB blocks",
			fixture: randomUpdates, source: tcp,
			floors: []floor{copyFloor(), serverFloor(2), serverBlocksFloor(2)}, goal: 3,
		},
		overLink("latency-1", time.Millisecond, 3),
		overLink("latency-5", 5*time.Millisecond, 4),
		overLink("latency-20", 20*time.Millisecond, 6),
		{
			name: "bandwidth-1g", about: "rewind from a server over TCP and a link of 1 Gbit/s, scattered 8 kB blocks",
			fixture: randomUpdates, source: tcp, link: &link{rate: gigabit},
			floors: []floor{serverFloor(2)}, goal: 1, extra: true, // the link is the floor
		},
		{
			name: "cold-dir", about: "rewind from a directory, scattered 8 kB blocks, all files cold",
			fixture: randomUpdates, source: directory, cold: true,
			floors: []floor{copyFloor()}, goal: 3,
		},
		{
			name: "cold-server", about: "rewind from a server over TCP on the loopback, scattered 8 kB blocks, all files cold",
			fixture: randomUpdates, source: tcp, cold: true,
			floors: []floor{copyFloor()}, goal: 3, extra: true,
		},
		{
			name: "dir-clustered", about: "rewind from a directory, changed blocks in long runs",
			fixture: clusteredUpdates, source: directory,
			floors: []floor{copyFloor()}, goal: 3.5, extra: true,
		},
		{
			name: "server-clustered", about: "rewind from a server over TCP on the loopback, changed blocks in long runs",
			fixture: clusteredUpdates, source: tcp,
			floors: []floor{copyFloor(), serverFloor(1), serverFloor(2)}, goal: 3, extra: true,
		},
		{
			name: "files-50k", about: "rewind from a directory, 50,000 files at full scale, 1% of them changed",
			fixture: files50k, source: directory,
			floors: []floor{copyFloor()}, goal: 5,
		},
		{
			name: "files-200k", about: "rewind from a directory, 200,000 files at full scale, 1% of them changed",
			fixture: files200k, source: directory,
			floors: []floor{copyFloor()}, goal: 5, extra: true,
		},
		{
			name: "kept-wal", about: "rewind from a directory, both sides keep 8 GB, at full scale, of WAL from before the divergence; pg_rewind before 19 copies it",
			fixture: keptWAL, source: directory, before: 19,
			floors: []floor{copyFloor()}, goal: 10, extra: true,
		},
		{
			name: "restore-64", about: "dry run: 64 missing WAL segments, restore_command takes 100 ms",
			fixture: manySegments, source: directory, dryRun: true, archive: sleepingCommand(64), goal: 10,
		},
		{
			name: "restore-256", about: "dry run: 256 missing WAL segments, restore_command takes 100 ms",
			fixture: manySegments, source: directory, dryRun: true, archive: sleepingCommand(mostMissing), goal: 10, extra: true,
		},
		{
			name: "s3-zstd", about: "dry run: 64 missing WAL segments in S3, zstd; pg_rewind with aws s3 cp",
			fixture: manySegments, source: directory, dryRun: true, archive: s3Direct(64, "zstd", ".zst"), goal: 10, extra: true,
		},
		{
			name: "s3-lz4", about: "dry run: 64 missing WAL segments in S3, lz4; pg_rewind with aws s3 cp",
			fixture: manySegments, source: directory, dryRun: true, archive: s3Direct(64, "lz4", ".lz4"), goal: 10, extra: true,
		},
		{name: "codec", about: "decoding of archived segments, in memory", codecs: true},
	}
	return byFixture(append(list, structuralScenarios()...))
}

// Fixtures of several scenarios, and fixtures of a size.
var (
	files50k  = manyFiles(50_000)
	files200k = manyFiles(200_000)
)

// gigabit is what a link of 1 Gbit/s carries, bytes per second.
const gigabit = 125e6

// overLink is server-tcp over a long link.
func overLink(name string, rtt time.Duration, goal float64) scenario {
	return scenario{
		name:    name,
		about:   fmt.Sprintf("rewind from a server over TCP and a link with %s of round trip, scattered 8 kB blocks", rtt),
		fixture: randomUpdates, source: tcp, link: &link{rtt: rtt},
		floors: []floor{serverFloor(2)}, goal: goal, extra: name != "latency-5",
	}
}

// byFixture brings scenarios with one fixture together, in the order in which the fixtures come. Of these come last those that
// may have another place for their clusters, and then those that may leave the source changed.
func byFixture(list []scenario) []scenario {
	first := map[*fixture]int{}
	for i, s := range list {
		if _, ok := first[s.fixture]; !ok && s.fixture != nil {
			first[s.fixture] = i
		}
	}
	first[nil] = len(list)
	rank := func(s scenario) int {
		switch {
		case s.special != nil:
			return 2
		case s.cold:
			return 1
		default:
			return 0
		}
	}
	slices.SortStableFunc(list, func(a, b scenario) int {
		return cmp.Or(cmp.Compare(first[a.fixture], first[b.fixture]), cmp.Compare(rank(a), rank(b)))
	})
	return list
}

func describeScenarios() string {
	var b strings.Builder
	for _, s := range allScenarios() {
		mark := " "
		if s.extra {
			mark = "*"
		}
		fmt.Fprintf(&b, " %s %-16s %s\n", mark, s.name, s.about)
	}
	return b.String()
}

// chooseScenarios finds scenarios by name, in the order of the table.
func chooseScenarios(names string) ([]scenario, error) {
	all := allScenarios()
	switch names {
	case "all":
		return all, nil
	case "default":
		return slices.DeleteFunc(all, func(s scenario) bool { return s.extra }), nil
	}
	wanted := strings.Split(names, ",")
	for _, name := range wanted {
		if !slices.ContainsFunc(all, func(s scenario) bool { return s.name == name }) {
			return nil, fmt.Errorf("there is no scenario %q; there are\n%s", name, describeScenarios())
		}
	}
	return slices.DeleteFunc(all, func(s scenario) bool { return !slices.Contains(wanted, s.name) }), nil
}
