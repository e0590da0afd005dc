package undo

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// BenchmarkSave and BenchmarkApply are what --keep-undo costs, in bytes of the target that are saved: 1 MB pieces of
// whole files, and blocks scattered over files of 64 MB. The pages look like a table's: half of them compresses.
func BenchmarkSave(b *testing.B) {
	forPlans(b, func(b *testing.B, in Input, top string) {
		var stored, saved int64
		for i := range b.N {
			dir := filepath.Join(top, fmt.Sprint("undo", i))
			stats, err := Save(b.Context(), in, dir, Options{})
			must(b, err)
			stored, saved = stats.Stored, stats.Bytes
			b.StopTimer()
			must(b, os.RemoveAll(dir))
			b.StartTimer()
		}
		b.SetBytes(saved)
		b.ReportMetric(float64(stored)/float64(saved), "stored/saved")
	})
}

func BenchmarkApply(b *testing.B) {
	forPlans(b, func(b *testing.B, in Input, top string) {
		dir := filepath.Join(top, "undo")
		stats, err := Save(b.Context(), in, dir, Options{})
		must(b, err)
		b.SetBytes(stats.Bytes)
		b.ResetTimer()
		for b.Loop() {
			_, err := Apply(b.Context(), dir, in.TargetDir, ApplyOptions{})
			must(b, err)
		}
	})
}

func forPlans(b *testing.B, run func(b *testing.B, in Input, top string)) {
	const files, fileBytes = 4, 64 << 20
	top := b.TempDir()
	target := filepath.Join(top, "target")
	for _, d := range []string{"base/5", "global"} {
		must(b, os.MkdirAll(filepath.Join(target, d), 0o700))
	}
	r := rand.New(rand.NewPCG(1, 1))
	control := make([]byte, pg.ControlSize)
	must(b, os.WriteFile(filepath.Join(target, controlName), control, 0o600))
	whole, blocks := &plan.Plan{}, &plan.Plan{}
	data := make([]byte, fileBytes)
	for i := range data {
		if data[i] = byte(i >> 8); i%64 < 24 {
			data[i] = byte(r.Uint32())
		}
	}
	for i := range files {
		name := fmt.Sprintf("base/5/%d", 16384+i)
		must(b, os.WriteFile(filepath.Join(target, name), data, 0o600))
		whole.Actions = append(whole.Actions, plan.Action{Path: name, Kind: plan.Copy, Type: pg.RegularFile, SourceSize: fileBytes, TargetSize: fileBytes})
		var spans []plan.Span
		for off := int64(0); off < fileBytes; off += 4 * block {
			spans = append(spans, plan.Span{Offset: off, Length: block})
		}
		blocks.Actions = append(blocks.Actions, change(name, spans...))
	}
	for name, p := range map[string]*plan.Plan{"whole": whole, "blocks": blocks} {
		b.Run(name, func(b *testing.B) {
			run(b, Input{RunID: "run", TargetDir: target, Plan: p, Control: control, GuardControl: control[:512]}, b.TempDir())
		})
	}
}
