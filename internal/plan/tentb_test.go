package plan_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
	"github.com/fastrewind/fastrewind/scan"
)

// bigCluster is a cluster of so many relation segments of 1 GiB, 32 to a relation, with all that a server of such a size has
// besides.
func bigCluster(segments int) []pg.Entry {
	var list []pg.Entry
	file := func(size int64, format string, args ...any) {
		list = append(list, pg.Entry{Path: fmt.Sprintf(format, args...), Type: pg.RegularFile, Size: size})
	}
	dir := func(format string, args ...any) {
		list = append(list, pg.Entry{Path: fmt.Sprintf(format, args...), Type: pg.Directory})
	}
	for _, name := range []string{"base", "global", "pg_wal", "pg_xact", "pg_tblspc", "base/5"} {
		dir("%s", name)
	}
	for i := range segments {
		rel, seg := 16384+i/segmentsOfRel, i%segmentsOfRel
		if seg > 0 {
			file(pg.RelSegBlocks*pg.BlockSize, "base/5/%d.%d", rel, seg)
			continue
		}
		file(pg.RelSegBlocks*pg.BlockSize, "base/5/%d", rel)
		file(8<<20, "base/5/%d_fsm", rel)
		file(1<<20, "base/5/%d_vm", rel)
	}
	for db := range 100 { // with the catalogs of each
		dir("base/%d", 16001+db)
		for rel := range 300 {
			file(int64(1+rel%8)*pg.BlockSize, "base/%d/%d", 16001+db, 1000+rel)
		}
	}
	for i := range 1024 {
		file(16<<20, "pg_wal/0000000100000A%02X000000%02X", i/256, i%256)
		file(256<<10, "pg_xact/%04X", i)
	}
	slices.SortFunc(list, func(a, b pg.Entry) int { return strings.Compare(a.Path, b.Path) })
	return list
}

const segmentsOfRel = 32

// changeBlocks notes 1% of the blocks of the segments, in runs of so many at random places.
func changeBlocks(m *scan.BlockMap, segments, run int) (references int) {
	in := m.NewInserter()
	rng := rand.New(rand.NewPCG(10, 1))
	total := int64(segments) * pg.RelSegBlocks
	const relBlocks = segmentsOfRel * pg.RelSegBlocks
	for int64(references) < total/100 {
		at := rng.Int64N(total/int64(run)) * int64(run)
		rel := pg.Rel{Tablespace: pg.DefaultTablespace, Database: 5, Number: pg.RelNumber(16384 + at/relBlocks)}
		for i := range int64(run) {
			in.Add(rel, pg.BlockNo((at+i)%relBlocks))
		}
		references += run
	}
	return references
}

// simulate is block map and plan of such a cluster, as a rewind makes them.
func simulate(tb testing.TB, segments, run int, report func(value float64, unit string)) {
	start := time.Now()
	m := scan.NewBlockMap(0)
	references := changeBlocks(m, segments, run)
	mapped := time.Now()
	target := bigCluster(segments)
	source := slices.Clone(target)
	for i := range source {
		if i%100 == 0 && source[i].Type == pg.RegularFile && source[i].Size < 1<<20 {
			source[i].Size += pg.BlockSize // it grew
		}
	}
	listed := time.Now()
	p, err := plan.Make(plan.Input{
		Source: source, Target: target, Blocks: m, SegSize: 16 << 20, FirstDivergedSeg: 0xA00 << 8, TablespaceDir: "PG_15_202209061",
	})
	if err != nil {
		tb.Fatal(err)
	}
	planned := time.Now()
	var spans int
	var blocks int64
	for i := range p.Actions {
		a := &p.Actions[i]
		if _, ok := pg.ParseRelFile(a.Path, "PG_15_202209061"); !ok {
			continue
		}
		spans += len(a.Blocks)
		for _, s := range a.Blocks {
			blocks += s.Length / pg.BlockSize
		}
	}
	if blocks != m.Len() || int64(references) < m.Len() || m.Len() < int64(references)*9/10 {
		tb.Fatalf("%d blocks in the plan, %d in the map, %d references", blocks, m.Len(), references)
	}
	report(mapped.Sub(start).Seconds(), "map-s")
	report(listed.Sub(mapped).Seconds(), "listing-s")
	report(planned.Sub(listed).Seconds(), "plan-s")
	report(float64(blocks), "blocks")
	report(float64(spans), "spans")
	report(float64(len(target)), "files")
	report(float64(m.MemoryBytes())/1e6, "map-MB")
}

// runs are how the changed blocks lie: each for itself, and 64 at a time.
var runs = map[string]int{"random": 1, "clustered": 64}

// BenchmarkTenTerabytes is 10 TiB: 10,240 segments, or as many as PLAN_SEGMENTS says. The peak memory of the process is what "go run ./bench -scenario
// plan-10tb" measures, one process for each case.
func BenchmarkTenTerabytes(b *testing.B) {
	segments := 10240
	if text := os.Getenv("PLAN_SEGMENTS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			b.Fatal(err)
		}
		segments = n
	}
	for _, name := range []string{"random", "clustered"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				simulate(b, segments, runs[name], b.ReportMetric)
			}
		})
	}
}

// TestTenTerabytes is the benchmark with a hundredth of the cluster: every changed block comes out of the plan once.
func TestTenTerabytes(t *testing.T) {
	for name, run := range runs {
		t.Run(name, func(t *testing.T) {
			simulate(t, 102, run, func(value float64, unit string) { t.Logf("%v %s", value, unit) })
		})
	}
}
