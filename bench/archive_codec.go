package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// codecResult is how fast one codec decodes a segment of 16 MB in memory, with one goroutine, and how fast its library, or
// the cipher's primitive, does by itself.
type codecResult struct {
	Name      string  `json:"name"`
	MBs       spread  `json:"mb_s"`
	BareMBs   *spread `json:"bare_mb_s,omitempty"` // nil: nothing to compare with
	Allocated int64   `json:"allocated"`           // bytes for each segment
}

// measureCodecs runs the benchmarks of the package that decodes. They are Go's own: the package is internal to the program,
// and a benchmark of processes would measure reading, too.
func measureCodecs(tb pgtest.TB, cfg *config) []codecResult {
	benchtime := "500ms"
	if cfg.scale.Name == scales[0].Name {
		benchtime = "1x"
	}
	//nolint:gosec // fixed arguments
	cmd := exec.CommandContext(tb.Context(), goProgram(), "test", "-run", "^$", "-bench", "^BenchmarkDecode$", "-benchtime", benchtime,
		"-count", strconv.Itoa(cfg.runs), "-cpu", "1", "github.com/fastrewind/fastrewind/archive/codec")
	out, err := cmd.CombinedOutput()
	if err != nil {
		tb.Fatalf("bench: scenario codec: %v\n%s", err, out)
	}
	list := readBenchmarks(out)
	if len(list) == 0 {
		tb.Fatalf("bench: scenario codec: no benchmark in\n%s", out)
	}
	return list
}

// goProgram is the Go that has built this program, if it is still there.
func goProgram() string {
	if path := filepath.Join(runtime.GOROOT(), "bin", "go"); runtime.GOROOT() != "" { //nolint:staticcheck // "go run" sets it
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	return "go"
}

// benchmarkLine is what Go prints: BenchmarkDecode/zstd/bare 10 123456 ns/op 135.90 MB/s 4608 B/op 12 allocs/op.
var benchmarkLine = regexp.MustCompile(`^BenchmarkDecode/(\S+?)(/bare)?(?:-\d+)?\s+\d+\s+\S+ ns/op\s+(\S+) MB/s\s+(\d+) B/op`)

// readBenchmarks puts the runs of each codec together, in the order in which they were first printed.
func readBenchmarks(out []byte) []codecResult {
	type runs struct {
		mbs, bare []float64
		allocated int64
	}
	all := map[string]*runs{}
	var order []string
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		m := benchmarkLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		r := all[m[1]]
		if r == nil {
			r = &runs{}
			all[m[1]], order = r, append(order, m[1])
		}
		mbs, _ := strconv.ParseFloat(m[3], 64) // Go prints numbers
		if m[2] != "" {
			r.bare = append(r.bare, mbs)
			continue
		}
		r.mbs = append(r.mbs, mbs)
		r.allocated, _ = strconv.ParseInt(m[4], 10, 64) // digits
	}
	var list []codecResult
	for _, name := range order {
		r := all[name]
		c := codecResult{Name: name, MBs: spreadOf(r.mbs), Allocated: r.allocated}
		if len(r.bare) > 0 {
			s := spreadOf(r.bare)
			c.BareMBs = &s
		}
		list = append(list, c)
	}
	return list
}

// writeArchives tells of the scenarios with archives, and of the codecs.
func (r *result) writeArchives(b *strings.Builder) {
	var lines []string
	for _, s := range r.Scenarios {
		if s.Archive != "" {
			lines = append(lines, fmt.Sprintf("* %s: %d segments of 1 MB missing; %s.", s.Name, s.Missing, s.Archive))
		}
	}
	if len(lines) > 0 {
		b.WriteString("### WAL from archives\n\nWall time is that of a dry run, which has to fetch all of it.\n\n" + strings.Join(lines, "\n") + "\n\n")
	}
	if len(r.Codecs) == 0 {
		return
	}
	rows := [][]string{{"codec", "MB/s decoded, one core", "of the library's own, or the cipher's", "allocated for a segment, kB"}}
	for _, c := range r.Codecs {
		row := []string{c.Name, fmt.Sprintf("%.0f (%.0f–%.0f)", c.MBs.Median, c.MBs.Min, c.MBs.Max), "", strconv.FormatInt(c.Allocated>>10, 10)}
		if c.BareMBs != nil {
			row[2] = percent(quotient(c.MBs.Median, c.BareMBs.Median))
		}
		rows = append(rows, row)
	}
	b.WriteString("### Decoding of segments of 16 MB, in memory\n\n")
	table(b, rows)
}
