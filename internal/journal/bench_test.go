package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/scan"
)

// heap runs f and gives the most memory that was in use meanwhile, over what was in use before, as seen at its end and
// whenever it calls look.
func heap(f func(look func()) any) (most uint64) {
	var before, m runtime.MemStats
	runtime.GC() // twice: what has a finalizer, or lies in a pool, goes at the second
	runtime.GC()
	runtime.ReadMemStats(&before)
	look := func() {
		runtime.GC()
		runtime.ReadMemStats(&m)
		most = max(most, m.HeapAlloc-min(before.HeapAlloc, m.HeapAlloc))
	}
	keep := f(look)
	look()
	runtime.KeepAlive(keep)
	return most
}

// looking calls look every so many reads.
type looking struct {
	*bytes.Reader
	look  func()
	reads int
}

func (l *looking) ReadAt(p []byte, at int64) (int, error) {
	if l.reads++; l.reads%4 == 0 {
		l.look()
	}
	return l.Reader.ReadAt(p, at)
}

// looker calls look at every write.
type looker struct {
	quickTarget
	look func()
}

type lookerFile struct {
	fsx.File
	look func()
}

func (l looker) OpenFile(name string, how fsx.Open, mode fs.FileMode) (fsx.File, error) {
	f, err := l.quickTarget.OpenFile(name, how, mode)
	return lookerFile{f, l.look}, err
}

func (f lookerFile) WriteAt(p []byte, at int64) (int, error) {
	f.look()
	return f.File.WriteAt(p, at)
}

func readFile(t testing.TB, target fsx.FS, into []byte) {
	t.Helper()
	f, err := os.Open(target.Path(Name))
	must(t, err)
	defer f.Close()
	_, err = io.ReadFull(f, into)
	must(t, err)
}

// largeMap is a map of the memory given: half of it large relations with blocks far apart, half small relations.
func largeMap(memory int64) *scan.BlockMap {
	m := scan.NewBlockMap(0)
	in := m.NewInserter()
	rng := rand.New(rand.NewPCG(1, 1))
	for i := pg.RelNumber(0); m.MemoryBytes() < memory; i++ {
		in.Add(pg.Rel{Tablespace: 1663, Database: 5, Number: pg.RelNumber(rng.IntN(20))}, pg.BlockNo(rng.IntN(32*pg.RelSegBlocks)))
		in.Add(pg.Rel{Tablespace: 1663, Database: 5, Number: 100 + i/20}, pg.BlockNo(rng.IntN(1280)))
	}
	return m
}

// TestMemory: writing a map takes hardly more than its list of files, reading it hardly more than the map.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("a large map")
	}
	var m *scan.BlockMap
	whole := heap(func(func()) any { m = largeMap(60 << 20); return m })
	files := 0
	for range m.Files() {
		files++
	}
	target := quickTarget{openTarget(t, t.TempDir())}
	var w *Writer
	most := heap(func(look func()) any {
		var err error
		w, err = Create(looker{target, look}, Options{Mode: 0o600, Sync: true}, sampleFacts(), m)
		must(t, err)
		return w
	})
	must(t, w.Close())
	if limit := uint64(16*files + 2<<20); most > limit {
		t.Errorf("writing a map of %d MB took %d kB more, expected at most %d", whole>>20, most>>10, limit>>10)
	}
	size := loadDir(t, target).Size
	blob := make([]byte, size)
	readFile(t, target, blob)
	most = heap(func(look func()) any {
		s, err := Load(&looking{Reader: bytes.NewReader(blob), look: look}, size)
		must(t, err)
		return s
	})
	runtime.KeepAlive(blob)
	if limit := whole*21/20 + 2<<20; most > limit {
		t.Errorf("reading a map of %d kB took %d kB, expected at most %d", whole>>10, most>>10, limit>>10)
	}
	runtime.KeepAlive(m)
	t.Logf("map %d kB, encoded %d kB, read with %d kB", whole>>10, size>>10, most>>10)
}

// TestMemoryBounded: files of a few bytes that would cost far more memory.
func TestMemoryBounded(t *testing.T) {
	prefix := strings.Repeat("x", MaxPath-4)
	var paths []forgery
	for batch := range 60 { // 4 bytes for each path of 4 kB
		payload := append(numbers(0, uint64(len(prefix)+2)), fmt.Sprintf("%s%02d", prefix, batch)...)
		payload = append(payload, 1)
		last := ""
		for i := range 10000 {
			next := fmt.Sprintf("%c%c", 1+i/100, 1+i%100)
			if next[0] == '/' || next[1] == '/' || next <= last {
				continue
			}
			payload = append(append(payload, numbers(uint64(len(prefix)+2), 2)...), next...)
			payload = append(payload, 1)
			last = next
		}
		paths = append(paths, forgery{kindTouched, payload[:min(len(payload), maxPayload)]})
	}
	for name, b := range map[string][]byte{"paths": forged(t, paths...)} {
		t.Run(name, func(t *testing.T) {
			most := heap(func(look func()) any {
				s, err := Load(&looking{Reader: bytes.NewReader(b), look: look}, int64(len(b)))
				var bad *DamagedError
				if !errors.As(err, &bad) || !strings.Contains(bad.Reason, "far more memory") {
					t.Errorf("%v", err)
				}
				return s
			})
			if limit := uint64(2*freeMemory + 2*pathFactor*len(b)); most > limit {
				t.Errorf("%d bytes took %d MB", len(b), most>>20)
			}
		})
	}
}

func manyFiles(n int) []File {
	files := make([]File, n)
	for i := range files {
		db := "base/16384"
		if i%2 == 0 {
			db = "pg_tblspc/24576/PG_15_202209061/16385"
		}
		files[i] = File{fmt.Sprintf("%s/%d", db, 1000000+7*i), int64(i) * 8192}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	rng.Shuffle(n, func(i, j int) { files[i], files[j] = files[j], files[i] })
	return files
}

// TestSize: 200,000 files, touched at once and done in random order, 64 at a time, take less than 20 MB.
func TestSize(t *testing.T) {
	target := quickTarget{openTarget(t, t.TempDir())}
	w, err := Create(target, Options{Mode: 0o600, Sync: true}, sampleFacts(), nil)
	must(t, err)
	_, err = w.Session(sampleSession(1))
	must(t, err)
	files := manyFiles(200000)
	must(t, w.Touched(files))
	touched := w.end
	for i := 0; i < len(files); i += 64 {
		must(t, w.Done(1, files[i:min(i+64, len(files))]))
	}
	if w.end > 20<<20 {
		t.Errorf("%d bytes", w.end)
	}
	t.Logf("%d files: touched %d bytes, done %d", len(files), touched, w.end-touched)
	must(t, w.Close())
	s := loadDir(t, target)
	for _, f := range files {
		if size, ok := s.Original(f.Path); !ok || size != f.Size {
			t.Fatal(f)
		}
		if d, ok := s.Done(f.Path); !ok || d.Size != f.Size {
			t.Fatal(f)
		}
	}
}

func BenchmarkFiles(b *testing.B) {
	files := manyFiles(200000)
	target := openTarget(b, b.TempDir())
	run := func(group int) *Writer {
		w, err := Create(target, Options{Mode: 0o600, Sync: true, Replace: true}, sampleFacts(), nil)
		must(b, err)
		_, err = w.Session(sampleSession(1))
		must(b, err)
		must(b, w.Touched(files))
		for i := 0; i < len(files); i += group {
			must(b, w.Done(1, files[i:min(i+group, len(files))]))
		}
		must(b, w.Sync())
		return w
	}
	for _, group := range []int{1, 64, 1000} {
		b.Run(fmt.Sprintf("write-%d", group), func(b *testing.B) {
			b.ReportAllocs()
			var w *Writer
			for b.Loop() {
				w = run(group)
				must(b, w.Close())
			}
			b.ReportMetric(float64(w.end)/1e6, "MB")
		})
	}
	w := run(64)
	must(b, w.Close())
	blob := make([]byte, w.end)
	readFile(b, target, blob)
	b.Run("load", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err := loadBytes(blob)
			must(b, err)
		}
	})
}

func BenchmarkMap(b *testing.B) {
	m := largeMap(100 << 20)
	target := openTarget(b, b.TempDir())
	var w *Writer
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var err error
			w, err = Create(target, Options{Mode: 0o600, Sync: true, Replace: true}, sampleFacts(), m)
			must(b, err)
			must(b, w.Close())
		}
		b.ReportMetric(float64(w.end)/1e6, "MB")
		b.ReportMetric(float64(m.Len()), "blocks")
	})
	blob := make([]byte, loadDir(b, target).Size)
	readFile(b, target, blob)
	b.Run("load", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err := loadBytes(blob)
			must(b, err)
		}
	})
}
