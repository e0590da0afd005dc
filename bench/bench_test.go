package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// TestScenarios runs every scenario once, with clusters that are too small to measure anything.
func TestScenarios(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	out := t.TempDir()
	var stdout, stderr bytes.Buffer
	if err := run(t.Context(), []string{"-scale", "TINY", "-runs", "1", "-jobs", "2", "-out", out, "-dir", memoryDir(t)}, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	data, err := os.ReadFile(filepath.Join(out, "bench.json"))
	if err != nil {
		t.Fatal(err)
	}
	var res result
	if err := json.Unmarshal(data, &res); err != nil {
		t.Fatal(err)
	}
	if got, want := len(res.Scenarios), len(allScenarios())-1; got != want {
		t.Fatalf("%d scenarios in bench.json, want %d", got, want)
	}
	if len(res.Codecs) < 10 || !strings.Contains(stdout.String(), "\n| zstd | ") {
		t.Errorf("codecs: %+v", res.Codecs)
	}
	for _, c := range res.Codecs {
		if c.MBs.Median <= 0 || c.BareMBs != nil && c.BareMBs.Median <= 0 {
			t.Errorf("codec %s: %+v", c.Name, c)
		}
	}
	for _, s := range res.Scenarios {
		if !strings.Contains(stdout.String(), "| "+s.Name+" |") {
			t.Errorf("%s is not in the printed report:\n%s", s.Name, stdout.String())
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
		if s.Archive == "" && ours.Counts.Scanned < res.Scale.WALBytes {
			t.Errorf("%s: %d bytes of WAL scanned, less than were written", s.Name, ours.Counts.Scanned)
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
