package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// TestLimits: what would not be read is not written.
func TestLimits(t *testing.T) {
	target := openTarget(t, t.TempDir())
	for name, change := range map[string]func(*Facts){
		"segment size":    func(f *Facts) { f.SegSize = 0 },
		"no control file": func(f *Facts) { f.Control = nil },
		"large history":   func(f *Facts) { f.History = make([]byte, pg.MaxHistoryBytes+1) },
	} {
		f := sampleFacts()
		change(f)
		if _, err := Create(target, Options{Mode: 0o600, Sync: true}, f, nil); err == nil {
			t.Errorf("%s: written", name)
		}
	}
	// The largest facts and session there can be.
	f := sampleFacts()
	f.Control, f.Label, f.History = make([]byte, maxControlBytes), make([]byte, maxLabelBytes), make([]byte, pg.MaxHistoryBytes)
	w, err := Create(target, Options{Mode: 0o600, Sync: true}, f, nil)
	must(t, err)
	if err := w.Touched([]File{{"a", 1}}); err == nil {
		t.Error("touched without a session")
	}
	if err := w.Done(1, []File{{"a", 1}}); err == nil {
		t.Error("done without a session")
	}
	if err := w.Mark(Mark{Phase: Copied}); err == nil {
		t.Error("a mark without a session")
	}
	long := Session{Source: Server, History: make(pg.History, maxSpans)}
	for i := range long.History {
		long.History[i] = pg.TimelineSpan{TLI: math.MaxUint32, Begin: math.MaxUint64, End: math.MaxUint64}
	}
	for range maxAllSpans / maxSpans {
		_, err = w.Session(long)
		must(t, err)
	}
	one := sampleSession(1)
	if _, err := w.Session(one); err == nil {
		t.Error("more histories than are read")
	}
	long.History = append(long.History, long.History[0])
	for _, s := range []Session{{}, {Source: Server}, {History: one.History}, {Source: 3, History: one.History}, long} {
		if _, err := w.Session(s); err == nil {
			t.Errorf("written: %d timelines of %v", len(s.History), s.Source)
		}
	}
	for _, file := range []File{{"", 0}, {"../x", 0}, {"/x", 0}, {"a//b", 0}, {"a\x00", 0}, {strings.Repeat("x", 4097), 0}, {"a", -2}, {"a", math.MaxInt64}} {
		if w.Touched([]File{file}) == nil || w.Done(1, []File{file}) == nil {
			t.Errorf("written: %+v", file)
		}
	}
	if err := w.Mark(Mark{}); err == nil {
		t.Error("written: phase 0")
	}
	longest := File{strings.Repeat("x", 4096), math.MaxInt64 - 1}
	must(t, w.Touched([]File{longest, {"a", 1}}))
	w.head -= MaxLogBytes - 1 // it seems to be nearly full
	if err := w.Touched([]File{longest}); err == nil || !strings.Contains(err.Error(), "has grown over 4096 MB") {
		t.Errorf("no bound: %v", err)
	}
	must(t, w.Close())
	s := loadDir(t, target)
	if !reflect.DeepEqual(&s.Facts, f) || len(s.Sessions) != maxAllSpans/maxSpans {
		t.Error("other facts or sessions")
	}
	if size, _ := s.Original(longest.Path); size != longest.Size {
		t.Error("the longest path is lost")
	}
}

func resume(t testing.TB, target fsx.FS, sync bool) (*State, *Writer) {
	t.Helper()
	s := loadDir(t, target)
	f, err := os.Open(target.Path(Name))
	must(t, err)
	defer f.Close()
	w, err := Resume(target, f, s, sync)
	must(t, err)
	return s, w
}

// TestResume goes on at every length a journal may have been cut at.
func TestResume(t *testing.T) {
	w := write(t, true, sampleBlocks(5), randomSteps(rand.New(rand.NewPCG(9, 2)), 20))
	dir := t.TempDir()
	target := quickTarget{openTarget(t, dir)}
	two := sampleSession(2)
	for n := w.ends[0]; n <= int64(len(w.bytes)); n++ {
		if testing.Short() && n%5 > 0 {
			continue
		}
		must(t, os.WriteFile(filepath.Join(dir, Name), append(bytes.Clone(w.bytes[:n]), "\xee\xee"[:n%3]...), 0o600))
		_, j := resume(t, target, n%2 == 0)
		want := w.models[w.at(n)].clone()
		number, err := j.Session(two)
		must(t, err)
		steps := []step{{touched: []File{{"base/0/1", Absent}}}, {done: []File{{"base/0/2", 5}}, bound: 7}}
		(&step{session: &two}).apply(want)
		for _, s := range steps {
			must(t, s.do(j))
			s.apply(want)
		}
		must(t, j.Close())
		s := loadDir(t, target)
		if got := modelOf(s); !got.equal(want) || number != len(want.Sessions) || s.Proven != s.Size {
			t.Fatalf("cut at %d: session %d, %+v\nwant %+v", n, number, got, want)
		}
	}
}

// TestResumeRefuses what is damaged or has changed; and a damaged journal's head can begin a new one.
func TestResumeRefuses(t *testing.T) {
	one := sampleSession(1)
	blocks := sampleBlocks(100)
	w := write(t, true, blocks, []step{
		{session: &one}, {touched: []File{{"a", 1}}}, {touched: []File{{"b", 1}}}, {touched: []File{{"c", 1}}},
	})
	dir := t.TempDir()
	target := openTarget(t, dir)
	put := func(b []byte) { must(t, os.WriteFile(filepath.Join(dir, Name), b, 0o600)) }

	bad := bytes.Clone(w.bytes)
	bad[w.ends[2]+30] ^= 1
	put(bad)
	s, err := loadBytes(bad)
	if err == nil {
		t.Fatal("no error")
	}
	if _, touched := s.Original("a"); !touched {
		t.Error("what was before the damage is lost")
	}
	if _, again := Resume(target, bytes.NewReader(bad), s, true); again != err {
		t.Errorf("resumed: %v", again)
	}
	if now, _ := os.ReadFile(filepath.Join(dir, Name)); !bytes.Equal(now, bad) {
		t.Error("the file was changed")
	}
	if _, err := Create(target, Options{Mode: 0o600, Sync: true}, &s.Facts, s.Blocks); !errors.Is(err, fs.ErrExist) {
		t.Errorf("replaced: %v", err)
	}
	j, err := Create(target, Options{Mode: 0o600, Sync: true, Replace: true}, &s.Facts, s.Blocks)
	must(t, err)
	must(t, j.Close())
	if s := loadDir(t, target); !sameBlocks(t, s.Blocks, blocks) || !reflect.DeepEqual(&s.Facts, sampleFacts()) {
		t.Error("facts or blocks are lost")
	}

	s, err = loadBytes(w.bytes)
	must(t, err)
	put(append(bytes.Clone(w.bytes), 0))
	if _, err := Resume(target, bytes.NewReader(w.bytes), s, true); err == nil || !strings.Contains(err.Error(), "has changed") {
		t.Errorf("resumed: %v", err)
	}
	must(t, os.Remove(filepath.Join(dir, Name)))
	if _, err := Resume(target, bytes.NewReader(w.bytes), s, true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("resumed: %v", err)
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	target := openTarget(t, dir)
	must(t, Remove(target, true)) // nothing there
	must(t, os.WriteFile(filepath.Join(dir, TempName), []byte("left behind"), 0o400))
	w, err := Create(target, Options{Mode: 0o640, Sync: true}, sampleFacts(), nil)
	must(t, err)
	if info, err := os.Stat(filepath.Join(dir, Name)); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
	must(t, w.Close())
	if err := w.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("closed twice: %v", err)
	}
	if err := w.Sync(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Sync after Close: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(dir, TempName), nil, 0o600))
	must(t, Remove(target, true))
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

// appendingTarget appends to the journal while it is being fsynced.
type appendingTarget struct {
	quickTarget
	w      **Writer
	during int // how many fsyncs have seen it
}

type appendingFile struct {
	fsx.File
	target *appendingTarget
}

func (a *appendingTarget) OpenFile(name string, how fsx.Open, mode fs.FileMode) (fsx.File, error) {
	f, err := a.Target.OpenFile(name, how, mode)
	return appendingFile{f, a}, err
}

func (f appendingFile) Sync() error {
	if w := *f.target.w; w != nil {
		f.target.during++
		return w.Done(1, []File{{"meanwhile", 1}})
	}
	return nil
}

// TestAppendDuringSync: an fsync says nothing of what was appended after it began.
func TestAppendDuringSync(t *testing.T) {
	var w *Writer
	target := &appendingTarget{quickTarget: quickTarget{openTarget(t, t.TempDir())}, w: &w}
	made, err := Create(target, Options{Mode: 0o600, Sync: true}, sampleFacts(), nil)
	must(t, err)
	_, err = made.Session(sampleSession(1))
	must(t, err)
	w = made
	before := made.end
	must(t, made.Touched([]File{{"a", 1}}))
	if made.synced <= before || made.synced >= made.end || target.during != 1 {
		t.Errorf("%d fsyncs, %d of %d bytes durable, %d before", target.during, made.synced, made.end, before)
	}
	must(t, made.Sync())
	if target.during != 2 {
		t.Errorf("Sync: %d fsyncs", target.during)
	}
	must(t, made.Close())
	if d, ok := loadDir(t, target).Done("meanwhile"); !ok || d.Size != 1 {
		t.Errorf("%+v, %v", d, ok)
	}
}

// TestConcurrent: callers share fsyncs, and nothing is lost.
func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	target := openTarget(t, dir)
	w, err := Create(target, Options{Mode: 0o600, Sync: true}, sampleFacts(), nil)
	must(t, err)
	_, err = w.Session(sampleSession(1))
	must(t, err)
	const callers, calls = 8, 40
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range calls {
				path := fmt.Sprintf("base/%d/%d", c, i)
				if err := w.Touched([]File{{path, int64(i)}}); err != nil {
					t.Error(err)
				}
				if err := w.Done(pg.LSN(i), []File{{path, int64(2 * i)}}); err != nil {
					t.Error(err)
				}
				if i%10 == 0 {
					if err := errors.Join(w.Sync(), w.Mark(Mark{Phase: Copied})); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	must(t, w.Close())
	s := loadDir(t, target)
	for c := range callers {
		for i := range calls {
			path := fmt.Sprintf("base/%d/%d", c, i)
			if size, touched := s.Original(path); !touched || size != int64(i) {
				t.Errorf("%s: %d, %v", path, size, touched)
			}
			if d, ok := s.Done(path); !ok || d != (Done{1, pg.LSN(i), int64(2 * i)}) {
				t.Errorf("%s: %+v, %v", path, d, ok)
			}
		}
	}
	if len(s.Marks) != callers*calls/10 {
		t.Errorf("%d marks", len(s.Marks))
	}
}
