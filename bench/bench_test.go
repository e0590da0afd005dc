package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// runTiny runs scenarios once, too small to measure anything, and gives what was saved in out, and what was printed.
func runTiny(t *testing.T, scenarios []string, out string, more ...string) (res result, printed string) {
	t.Helper()
	args := append([]string{"-scenario", strings.Join(scenarios, ","), "-scale", "TINY", "-runs", "1", "-out", out, "-dir", memoryDir(t)}, more...)
	var stdout, stderr bytes.Buffer
	if err := run(t.Context(), args, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	data, err := os.ReadFile(filepath.Join(out, "bench.json"))
	if err == nil {
		err = json.Unmarshal(data, &res)
	}
	if err != nil {
		t.Fatal(err)
	}
	return res, stdout.String()
}

// TestScenarios runs every scenario once in which programs run in turn, with clusters that are too small to measure anything.
// For the others see structure_test.go.
func TestScenarios(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	var plain []string
	for _, s := range allScenarios() {
		if s.special == nil {
			plain = append(plain, s.name)
		}
	}
	res, printed := runTiny(t, plain, t.TempDir(), "-jobs", "2")
	if got, want := len(res.Scenarios), len(plain)-1; got != want {
		t.Fatalf("%d scenarios in bench.json, want %d", got, want)
	}
	if len(res.Codecs) < 10 || !strings.Contains(printed, "\n| zstd | ") {
		t.Errorf("codecs: %+v", res.Codecs)
	}
	for _, c := range res.Codecs {
		if c.MBs.Median <= 0 || c.BareMBs != nil && c.BareMBs.Median <= 0 {
			t.Errorf("codec %s: %+v", c.Name, c)
		}
	}
	for _, s := range res.Scenarios {
		if !strings.Contains(printed, "| "+s.Name+" |") {
			t.Errorf("%s is not in the printed report:\n%s", s.Name, printed)
		}
		if (!s.DryRun || s.Archive != "") && !s.Compared {
			t.Errorf("%s: results were not compared", s.Name)
		}
		stock, ours := s.Contenders[0], s.Contenders[1]
		for _, c := range s.Contenders {
			if c.Wall.Median <= 0 || c.CPU.Median <= 0 || c.MaxRSS.Median < 1<<20 {
				t.Errorf("%s, %s: wall %v s, CPU %v s, memory %v", s.Name, c.Name, c.Wall, c.CPU, c.MaxRSS)
			}
			for _, name := range []string{phaseStart, phaseScan, phaseListing, phaseCopy} {
				if _, ok := c.Phases[name]; !ok {
					t.Errorf("%s, %s: no phase %q in %v", s.Name, c.Name, name, c.Phases)
				}
			}
			if s.Source.live() && c.SourceCPU.Median <= 0 {
				t.Errorf("%s, %s: source used no processor", s.Name, c.Name)
			}
		}
		if s.Archive != "" && (s.Missing < 4 || ours.Counts.Scanned < int64(s.Missing)<<20 || ours.Phases[phaseArchive].Median <= 0) {
			t.Errorf("%s: %d missing segments, %d bytes of WAL scanned, phases %v", s.Name, s.Missing, ours.Counts.Scanned, ours.Phases)
		}
		sc := scenarioNamed(s.Name)
		if s.Archive == "" && !sc.fixture.littleWAL && ours.Counts.Scanned < res.Scale.WALBytes {
			t.Errorf("%s: %d bytes of WAL scanned, less than were written", s.Name, ours.Counts.Scanned)
		}
		for _, c := range s.Contenders {
			for _, m := range c.Samples {
				if (m.RoundTrips > 5) != (sc.link != nil) {
					t.Errorf("%s, %s: %d round trips", s.Name, c.Name, m.RoundTrips)
				}
				if (m.Cold != nil) != sc.cold || sc.cold && (m.Cold.share() < coldEnough || m.Cold.Bytes < res.Scale.DataBytes) {
					t.Errorf("%s, %s: cold: %+v", s.Name, c.Name, m.Cold)
				}
			}
		}
		if kept := int64(float64(8<<30) * res.Scale.partOfFull()); sc.before > 0 && s.Goal != 1 && (stock.Counts.PlannedMB<<20 < kept*8/10 || ours.Counts.Copied > kept*8/10) {
			t.Errorf("%s: pg_rewind planned %d MB, fastrewind copied %d bytes, of which %d should be kept WAL for pg_rewind only",
				s.Name, stock.Counts.PlannedMB, ours.Counts.Copied, kept)
		}
		if !s.DryRun && (ours.Counts.Copied == 0 || stock.Counts.PlannedMB == 0) {
			t.Errorf("%s: nothing copied: %+v, %+v", s.Name, stock.Counts, ours.Counts)
		}
		for _, f := range s.Floors {
			if f.Bytes <= 0 || len(f.Seconds) != 1 || f.Seconds[0] <= 0 {
				t.Errorf("%s: floor %s: %d bytes in %v s", s.Name, f.Name, f.Bytes, f.Seconds)
			}
		}
	}
}

func scenarioNamed(name string) scenario {
	all := allScenarios()
	return all[slices.IndexFunc(all, func(s scenario) bool { return s.name == name })]
}

// TestTable: there is a default set, and each fixture's scenarios follow one another.
func TestTable(t *testing.T) {
	list, err := chooseScenarios("default")
	if err != nil || len(list) < 8 || slices.ContainsFunc(list, func(s scenario) bool { return s.extra }) {
		t.Errorf("%d scenarios: %v", len(list), err)
	}
	all := allScenarios()
	seen, names := map[*fixture]bool{}, map[string]bool{}
	for i, s := range all {
		if names[s.name] {
			t.Errorf("two scenarios are called %s", s.name)
		}
		names[s.name] = true
		if s.fixture != nil && seen[s.fixture] && all[i-1].fixture != s.fixture {
			t.Errorf("%s: the clusters %q are made twice", s.name, s.fixture.name)
		}
		seen[s.fixture] = true
		if s.link != nil && s.source != tcp {
			t.Errorf("%s has a link to a source that is not on the network", s.name)
		}
	}
}

// TestFilesAt: about as many files as asked for.
func TestFilesAt(t *testing.T) {
	for _, want := range []int{50_000, 200_000} {
		for _, s := range scales {
			f, n := filesAt(want, s), int(float64(want)*s.partOfFull())
			got := f.databases * (2*f.tables + catalogFiles)
			if off := got - n; n > 2000 && (off > n/10 || off < -n/5) || f.tables < 50 || f.databases < 2 {
				t.Errorf("scale %s: %+v are %d files, want %d", s.Name, f, got, n)
			}
		}
	}
}

// TestChill warms a file and wants it cold.
func TestChill(t *testing.T) {
	parent, err := chooseColdDir("", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(parent, "bench")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	const size = 1<<20 + 12_345
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "empty"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, err := resident(f, size); err != nil || n != size {
		t.Errorf("%d of %d bytes just written are in memory: %v", n, size, err)
	}
	if err := settle(dir); err != nil {
		t.Fatal(err)
	}
	c, err := chill(dir)
	if err != nil || c.Bytes != size || c.share() < coldEnough {
		t.Errorf("got %+v, %v", c, err)
	}
}

// TestColdDir: nothing in memory is taken for a disk.
func TestColdDir(t *testing.T) {
	const memory = "/dev/shm"
	if ok, err := onDisk(memory); err != nil || ok {
		t.Fatalf("%s is said to be on a disk: %v", memory, err)
	}
	if dir, err := chooseColdDir(memory, ""); err == nil || !strings.Contains(err.Error(), "-colddir") {
		t.Errorf("got %q, %v", dir, err)
	}
	if dir, err := chooseColdDir("", memory); err == nil && (dir == memory || dir == "") {
		t.Errorf("got %q", dir)
	}
	t.Setenv("PGTEST_DIR", memory)
	if dir, err := chooseColdDir("", ""); err == nil && (dir == memory || dir == "") {
		t.Errorf("got %q", dir)
	}
	if _, err := chooseColdDir("/nonexistent", ""); err == nil {
		t.Error("a directory that is not there was accepted")
	}
}

// memoryDir is a file system in memory, if there is one with room, so that nothing waits for a disk.
func memoryDir(t *testing.T) string {
	const dir, room = "/dev/shm", 2 << 30
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil && st.Bavail*uint64(st.Bsize) > room {
		return dir
	}
	t.Logf("no room in %s: using the disk", dir)
	return ""
}

// TestMirror changes a copy in every way a rewind could, and wants it back as it was.
func TestMirror(t *testing.T) {
	pristine, work := t.TempDir(), filepath.Join(t.TempDir(), "work")
	write := func(dir, name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(pristine, "base/1"), 0o700))
	must(os.Mkdir(filepath.Join(pristine, "empty"), 0o700))
	must(os.Symlink("elsewhere", filepath.Join(pristine, "link")))
	for _, name := range []string{"same", "changed", "touched", "removed", "replaced", "mode", "base/1/deep", "isdir"} {
		write(pristine, name, "what "+name+" holds")
	}
	m, err := newMirror(pristine, work)
	if err == nil {
		t.Fatal("a mirror of nothing")
	}
	must(m.restore()) // from nothing
	m, err = newMirror(pristine, work)
	must(err)
	before, err := os.Stat(filepath.Join(work, "same"))
	must(err)

	info, err := os.Stat(filepath.Join(work, "touched"))
	must(err)
	write(work, "changed", "other contents")
	write(work, "touched", "wHat touched holds") // the same size, and the old time
	must(os.Chtimes(filepath.Join(work, "touched"), info.ModTime(), info.ModTime()))
	must(os.Remove(filepath.Join(work, "removed")))
	must(os.Rename(filepath.Join(work, "changed"), filepath.Join(work, "replaced")))
	must(os.Chmod(filepath.Join(work, "mode"), 0o644))
	must(os.RemoveAll(filepath.Join(work, "base")))
	must(os.Remove(filepath.Join(work, "isdir")))
	must(os.MkdirAll(filepath.Join(work, "isdir/below"), 0o755))
	must(os.RemoveAll(filepath.Join(work, "link")))
	must(os.Chmod(filepath.Join(work, "empty"), 0o755))
	write(work, "empty/new", "new")

	must(m.restore())
	differences, _, err := pgtest.CompareTrees(work, pristine)
	must(err)
	for _, d := range differences {
		t.Error(d)
	}
	after, err := os.Stat(filepath.Join(work, "same"))
	must(err)
	if before.Sys().(*syscall.Stat_t).Ino != after.Sys().(*syscall.Stat_t).Ino {
		t.Error("a file that nobody had touched was copied again")
	}
}

// TestReadStock reads the phases from what stock printed.
func TestReadStock(t *testing.T) {
	p, c := readStock([]stampedLine{
		{0.1, "pg_rewind: servers diverged at WAL location 0/3000000 on timeline 1"},
		{0.5, "pg_rewind: rewinding from last common checkpoint at 0/2000060 on timeline 1"},
		{0.5, "pg_rewind: reading source file list"},
		{0.75, "pg_rewind: reading target file list"},
		{1, "pg_rewind: reading WAL in target"},
		{2, "pg_rewind: need to copy 52 MB (total source directory size is 67 MB)"},
		{3, "53345/53345 kB (100%) copied"},
		{4, "pg_rewind: creating backup label and updating control file"},
		{4, "pg_rewind: syncing target data directory"},
		{5, "pg_rewind: Done!"},
	}, 5.5)
	want := phases{phaseStart: 0.1, phaseScan: 1.4, phaseListing: 0.5, phaseCopy: 2, phaseSync: 1}
	for name, seconds := range want {
		if got := p[name]; got < seconds-1e-9 || got > seconds+1e-9 {
			t.Errorf("%s: %v s, want %v", name, got, seconds)
		}
	}
	if len(p) != len(want) || c.PlannedMB != 52 || c.SourceSize != 67 {
		t.Errorf("got %v, %+v", p, c)
	}
}

func TestParse(t *testing.T) {
	for _, bad := range [][]string{
		{"-scale", "3"}, {"-scale", "0/0"}, {"-scale", "x/1"}, {"-runs", "0"}, {"-jobs", "0"}, {"-jobs", "1,x"}, {"-scenario", "none"}, {"more"},
	} {
		if _, _, err := parse(bad, new(bytes.Buffer)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	cfg, _, err := parse([]string{"-scale", "2/0.5", "-jobs", "1,4", "-scenario", "dir,wal-fpi"}, new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.scale.DataBytes != 2<<30 || cfg.scale.WALBytes != 512<<20 || len(cfg.jobs) != 2 || len(cfg.scenarios) != 2 || cfg.scenarios[0].name != "wal-fpi" {
		t.Errorf("got %+v", cfg)
	}
}

func TestSpread(t *testing.T) {
	if got := spreadOf([]float64{3, 1, 2, 10}); got != (spread{2.5, 1, 10}) {
		t.Errorf("got %+v", got)
	}
	if got := ratio([]float64{4, 9, 8}, []float64{2, 3, 4}); got != (spread{8.0 / 3, 2, 3}) {
		t.Errorf("got %+v", got)
	}
	if got := spreadOf(nil); got != (spread{}) {
		t.Errorf("got %+v", got)
	}
}
