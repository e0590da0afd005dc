package copier

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

const (
	benchBytes = 1 << 30
	benchFile  = 64 << 20
)

// The settings are variables of the environment's choice so that one can look for better ones:
//
//	BENCH_CHUNK=262144 go test -bench . -run '^$' ./copier
//
// Each case copies 1 GiB from one directory to another, with everything durable at the end, against the floor: one thread
// that reads and writes the same bytes one after the other, and one fsync for each file.
func benchOptions(jobs int) Options {
	var o Options
	o.Jobs = jobs
	o.FileMode, o.DirMode = 0o600, 0o700
	number := func(name string) (n int64) {
		_, _ = fmt.Sscan(os.Getenv(name), &n)
		return n
	}
	o.ChunkBytes = number("BENCH_CHUNK")
	o.BatchBytes = number("BENCH_BATCH")
	o.Sync = SyncMethod(number("BENCH_SYNC"))
	return o
}

// benchTrees makes a source and, if exists, a target of files full of other bytes.
func benchTrees(b *testing.B, files int, size int64, exists bool) (source, target string) {
	b.Helper()
	source, target = b.TempDir(), b.TempDir()
	fill := func(dir string, seed byte) {
		data := make([]byte, 1<<20)
		for i := range data {
			data[i] = byte(i)*7 + seed
		}
		for i := range files {
			f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
			if err != nil {
				b.Fatal(err)
			}
			for left := size; left > 0; left -= int64(len(data)) {
				if _, err := f.Write(data[:min(left, int64(len(data)))]); err != nil {
					b.Fatal(err)
				}
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
			f.Close()
		}
	}
	fill(source, 1)
	if exists {
		fill(target, 2)
	}
	syscall.Sync()
	return source, target
}

type benchCase struct {
	name   string
	files  int
	size   int64
	exists bool
	action func(name string, size int64) plan.Action
}

func benchCases() []benchCase {
	whole := func(name string, size int64) plan.Action {
		return plan.Action{Path: name, Kind: plan.Copy, Type: pg.RegularFile, SourceSize: size}
	}
	every := func(gap int64) func(string, int64) plan.Action {
		return func(name string, size int64) plan.Action {
			a := plan.Action{Path: name, Kind: plan.None, Type: pg.RegularFile, SourceSize: size, TargetSize: size}
			for off := int64(0); off < size; off += gap {
				a.Blocks = append(a.Blocks, plan.Span{Offset: off, Length: 8192})
			}
			return a
		}
	}
	return []benchCase{
		{"blocks", 2 * benchBytes / benchFile, benchFile, true, every(2 * 8192)},
		{"overwrite", benchBytes / benchFile, benchFile, true, whole},
		{"new", benchBytes / benchFile, benchFile, false, whole},
		{"small", 5000, 16 << 10, true, whole},
	}
}

func BenchmarkCopy(b *testing.B) {
	for _, bc := range benchCases() {
		b.Run(bc.name, func(b *testing.B) {
			var actions []plan.Action
			var total int64
			for i := range bc.files {
				a := bc.action(fmt.Sprint(i), bc.size)
				for _, s := range a.CopySpans() {
					total += s.Length
				}
				actions = append(actions, a)
			}
			source, target := benchTrees(b, bc.files, bc.size, bc.exists)
			run := func(name string, copy func(b *testing.B, source, target string)) {
				b.Run(name, func(b *testing.B) {
					b.SetBytes(total)
					for b.Loop() {
						b.StopTimer()
						if !bc.exists {
							for i := range bc.files {
								os.Remove(filepath.Join(target, fmt.Sprint(i)))
							}
						}
						syscall.Sync()
						b.StartTimer()
						copy(b, source, target)
					}
				})
			}
			run("floor", func(b *testing.B, source, target string) { copyPlainly(b, source, target, actions) })
			for _, jobs := range []int{1, 2} {
				run(fmt.Sprintf("jobs=%d", jobs), func(b *testing.B, source, target string) {
					fs, err := fsx.OpenTarget(target)
					if err != nil {
						b.Fatal(err)
					}
					defer fs.Close()
					c := New(fs, benchOptions(jobs))
					p := &plan.Plan{Actions: actions}
					if err := c.Run(b.Context(), &dirSource{dir: source}, p); err != nil {
						b.Fatal(err)
					}
					if err := c.Sync(b.Context()); err != nil {
						b.Fatal(err)
					}
					b.ReportMetric(c.Stats().DrainTime.Seconds(), "drain-s")
				})
			}
		})
	}
}

// copyPlainly is the floor.
func copyPlainly(b *testing.B, source, target string, actions []plan.Action) {
	buf := make([]byte, 256<<10)
	must := func(err error) {
		if err != nil && err != io.EOF {
			b.Fatal(err)
		}
	}
	for i := range actions {
		a := &actions[i]
		in, err := os.Open(filepath.Join(source, a.Path))
		must(err)
		out, err := os.OpenFile(filepath.Join(target, a.Path), os.O_WRONLY|os.O_CREATE, 0o600)
		must(err)
		for _, s := range a.CopySpans() {
			for s.Length > 0 {
				n, err := in.ReadAt(buf[:min(s.Length, int64(len(buf)))], s.Offset)
				must(err)
				_, err = out.WriteAt(buf[:n], s.Offset)
				must(err)
				s.Offset += int64(n)
				s.Length -= int64(n)
			}
		}
		must(out.Sync())
		must(out.Close())
		must(in.Close())
	}
}
