package journal

import (
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/scan"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openTarget(t testing.TB, dir string) *fsx.Target {
	t.Helper()
	target, err := fsx.OpenTarget(dir)
	must(t, err)
	t.Cleanup(func() { target.Close() })
	return target
}

// quickTarget does not fsync. That Writer calls for it in the right places is seen in crash_test.go.
type quickTarget struct{ *fsx.Target }

type quickFile struct{ fsx.File }

func (quickTarget) SyncDir(string) error { return nil }

func (q quickTarget) OpenFile(name string, how fsx.Open, mode fs.FileMode) (fsx.File, error) {
	f, err := q.Target.OpenFile(name, how, mode)
	return quickFile{f}, err
}

func (quickFile) Sync() error { return nil }

func sampleFacts() *Facts {
	return &Facts{
		Created:  time.Unix(1790000000, 0).UTC(),
		SystemID: math.MaxUint64 - 5, ControlVersion: 1300, CatalogVersion: 202209061, SegSize: 16 << 20,
		Control:   bytes.Repeat([]byte("control "), 1024),
		Label:     []byte{},
		History:   []byte("1\t0/3000000\tno recovery target specified\n"),
		TargetTLI: 2, Divergence: 0x3000100, TargetEnd: 0x9000000,
		Checkpoint: 0x2000060, Redo: 0x2000028, CheckpointTLI: 1, FirstSegment: 2, LastSegment: 1 << 40,
	}
}

func sampleBlocks(n int) *scan.BlockMap {
	m := scan.NewBlockMap(0)
	in := m.NewInserter()
	rng := rand.New(rand.NewPCG(5, 5))
	for range n {
		in.Add(pg.Rel{Tablespace: 1663, Database: 5, Number: pg.RelNumber(rng.IntN(1 + n/10))}, pg.BlockNo(rng.IntN(1<<20)))
	}
	return m
}

func sampleSession(i int) Session {
	return Session{
		Time: time.Unix(1790000000+int64(i), 0).UTC(), Source: Server + SourceKind(i%2), Fsync: i%3 != 0,
		History:   pg.History{{TLI: 1, End: 0x3000000}, {TLI: pg.TLI(2 + i), Begin: 0x3000000}},
		SourceEnd: 0x5000000, SourceCheckpoint: pg.LSN(0x4000060 + i), SourceRedo: 0x4000028, SourceCheckpointTLI: 2,
		Keep: append([]string(nil), []string{"a", "conf.d/*", ""}[:i%4]...), Exclude: append([]string(nil), []string{"log"}[:i%2]...),
	}
}

func sameBlocks(t testing.TB, a, b *scan.BlockMap) bool {
	t.Helper()
	bytesOf := func(m *scan.BlockMap) []byte {
		var all []byte
		_, err := m.Encode(func(c []byte) error { all = append(all, c...); return nil })
		must(t, err)
		return all
	}
	return bytes.Equal(bytesOf(a), bytesOf(b))
}

func loadBytes(b []byte) (*State, error) { return Load(bytes.NewReader(b), int64(len(b))) }

// model is what a State should say: maps, filled by the rules of the documentation.
type model struct {
	Sessions []Session
	Marks    []Mark
	Original map[string]int64
	Done     map[string]Done
}

func newModel() *model { return &model{Original: map[string]int64{}, Done: map[string]Done{}} }

func (m *model) clone() *model {
	return &model{slices.Clone(m.Sessions), slices.Clone(m.Marks), maps.Clone(m.Original), maps.Clone(m.Done)}
}

func modelOf(s *State) *model {
	m := newModel()
	m.Sessions, m.Marks = s.Sessions, s.Marks
	for path := range s.Touched() {
		m.Original[path], _ = s.Original(path)
	}
	for _, p := range s.paths {
		if d, ok := s.Done(p.path); ok {
			m.Done[p.path] = d
		}
	}
	return m
}

func (m *model) equal(n *model) bool {
	return slices.EqualFunc(m.Sessions, n.Sessions, func(a, b Session) bool { return reflect.DeepEqual(a, b) }) &&
		slices.Equal(m.Marks, n.Marks) && maps.Equal(m.Original, n.Original) && maps.Equal(m.Done, n.Done)
}

// step is one call of a Writer.
type step struct {
	session *Session
	mark    *Mark
	touched []File
	done    []File
	bound   pg.LSN
	sync    bool
}

// durable says whether the step returns only when it is durable.
func (s *step) durable() bool { return s.done == nil }

func (s *step) do(w *Writer) (err error) {
	switch {
	case s.session != nil:
		_, err = w.Session(*s.session)
	case s.mark != nil:
		err = w.Mark(*s.mark)
	case s.touched != nil:
		err = w.Touched(s.touched)
	case s.done != nil:
		err = w.Done(s.bound, s.done)
	default:
		err = w.Sync()
	}
	return err
}

func (s *step) apply(m *model) {
	switch {
	case s.session != nil:
		m.Sessions = append(m.Sessions, *s.session)
		if s.session.Restart {
			clear(m.Done)
		}
	case s.mark != nil:
		mark := *s.mark
		mark.Session = len(m.Sessions)
		m.Marks = append(m.Marks, mark)
	}
	for _, f := range s.touched {
		if old, ok := m.Original[f.Path]; !ok || f.Size < old {
			m.Original[f.Path] = f.Size
		}
		delete(m.Done, f.Path)
	}
	for _, f := range s.done {
		m.Done[f.Path] = Done{Session: len(m.Sessions), Bound: s.bound, Size: f.Size}
	}
}

// randomSteps begins with a session.
func randomSteps(rng *rand.Rand, n int) []step {
	files := func() []File {
		byPath := map[string]int64{}
		for range 1 + rng.IntN(6) {
			path := fmt.Sprintf("base/%d/%d", rng.IntN(3), rng.IntN(20))
			if rng.IntN(10) == 0 {
				path = strings.Repeat("long\n\xff/", 1+rng.IntN(30)) + path
			}
			byPath[path] = rng.Int64N(5)*8192 - 1
		}
		var files []File
		for path, size := range byPath {
			files = append(files, File{path, size})
		}
		slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
		return files
	}
	first := sampleSession(0)
	steps := []step{{session: &first}}
	for i := 1; i < n; i++ {
		switch rng.IntN(8) {
		case 0:
			s := sampleSession(i)
			s.Restart = rng.IntN(3) == 0
			steps = append(steps, step{session: &s})
		case 1:
			steps = append(steps, step{mark: &Mark{Phase: Phase(1 + rng.IntN(4)), Time: time.Unix(int64(i), 0).UTC(), Value: rng.Uint64()}})
		case 2, 3:
			steps = append(steps, step{touched: files()})
		case 4:
			steps = append(steps, step{sync: true})
		default:
			steps = append(steps, step{done: files(), bound: pg.LSN(rng.Uint64())})
		}
	}
	return steps
}

// written is a journal's bytes, with the model and the length after each step; the first is that of the head alone.
type written struct {
	bytes  []byte
	models []*model
	ends   []int64
	synced []int64 // how much was durable by then
}

func write(t testing.TB, sync bool, blocks *scan.BlockMap, steps []step) *written {
	t.Helper()
	dir := t.TempDir()
	target := quickTarget{openTarget(t, dir)}
	w, err := Create(target, Options{Mode: 0o600, Sync: sync}, sampleFacts(), blocks)
	must(t, err)
	m := newModel()
	out := &written{models: []*model{m.clone()}, ends: []int64{w.end}, synced: []int64{w.synced}}
	for _, s := range steps {
		must(t, s.do(w))
		s.apply(m)
		out.models = append(out.models, m.clone())
		out.ends = append(out.ends, w.end)
		out.synced = append(out.synced, w.synced)
	}
	must(t, w.Close())
	out.bytes, err = os.ReadFile(filepath.Join(dir, Name))
	must(t, err)
	if int64(len(out.bytes)) != w.end {
		t.Fatalf("%d bytes on disk, the writer thinks %d", len(out.bytes), w.end)
	}
	return out
}

// at is the index of the last step that is complete in the first n bytes.
func (w *written) at(n int64) int {
	i, found := slices.BinarySearch(w.ends, n)
	for found && i+1 < len(w.ends) && w.ends[i+1] == n {
		i++
	}
	if !found {
		i--
	}
	return i
}

func TestRoundTrip(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 1))
		blocks := sampleBlocks(rng.IntN(8000))
		w := write(t, seed%2 == 0, blocks, randomSteps(rng, 60))
		s, err := loadBytes(w.bytes)
		must(t, err)
		if !reflect.DeepEqual(&s.Facts, sampleFacts()) {
			t.Fatalf("facts: %+v", s.Facts)
		}
		if !sameBlocks(t, s.Blocks, blocks) {
			t.Fatal("other blocks")
		}
		if want := w.models[len(w.models)-1]; !modelOf(s).equal(want) {
			t.Fatalf("%+v\nwant %+v", modelOf(s), want)
		}
		if s.HeadEnd != w.ends[0] || s.Proven != s.Size || s.Size != int64(len(w.bytes)) {
			t.Fatalf("head %d of %d, proven %d of %d, %d bytes", s.HeadEnd, w.ends[0], s.Proven, s.Size, len(w.bytes))
		}
	}
}

// TestSemantics are the rules on paths, one by one.
func TestSemantics(t *testing.T) {
	one, two, three := sampleSession(1), sampleSession(2), sampleSession(3)
	three.Restart = true
	w := write(t, true, nil, []step{
		{session: &one},
		{touched: []File{{"grown", 100}, {"made", Absent}, {"empty", 0}, {"twice", 7}, {"twice", 5}}},
		{done: []File{{"grown", 300}, {"made", 8}, {"again", 1}}, bound: 11},
		{mark: &Mark{Phase: Guarded, Value: 1}},
		{session: &two},
		{touched: []File{{"grown", 200}, {"made", 8}, {"again", 1}}},
		{done: []File{{"grown", 400}}, bound: 22},
		{mark: &Mark{Phase: Guarded, Value: 2}},
		{mark: &Mark{Phase: Finishing, Value: 0xdeadbeef}},
	})
	s, err := loadBytes(w.bytes)
	must(t, err)
	for path, want := range map[string]int64{"grown": 100, "made": Absent, "empty": 0, "again": 1, "twice": 5} {
		if got, touched := s.Original(path); got != want || !touched {
			t.Errorf("Original(%s) = %d, %v, want %d", path, got, touched, want)
		}
	}
	if _, touched := s.Original("never"); touched {
		t.Error("a path that is not there was touched")
	}
	if d, ok := s.Done("grown"); !ok || d != (Done{Session: 2, Bound: 22, Size: 400}) {
		t.Errorf("Done(grown) = %+v, %v", d, ok)
	}
	for _, path := range []string{"made", "again", "empty", "never"} { // touched after they were done, or never done
		if d, ok := s.Done(path); ok {
			t.Errorf("Done(%s) = %+v", path, d)
		}
	}
	if m, ok := s.Reached(Guarded); !ok || m.Value != 2 || m.Session != 2 {
		t.Errorf("guarded: %+v, %v", m, ok)
	}
	if _, ok := s.Reached(Copied); ok {
		t.Error("copied was not reached")
	}

	w = write(t, true, nil, []step{
		{session: &one}, {touched: []File{{"a", 1}}}, {done: []File{{"a", 1}}}, {session: &three},
		{done: []File{{"b", 2}}},
	})
	s, err = loadBytes(w.bytes)
	must(t, err)
	if _, ok := s.Done("a"); ok {
		t.Error("done before a restart counts")
	}
	if _, ok := s.Done("b"); !ok {
		t.Error("done after a restart does not count")
	}
	if size, touched := s.Original("a"); size != 1 || !touched {
		t.Error("a restart has forgotten what a file was")
	}
}

func loadDir(t testing.TB, target fsx.FS) *State {
	t.Helper()
	f, err := os.Open(target.Path(Name))
	must(t, err)
	defer f.Close()
	info, err := f.Stat()
	must(t, err)
	s, err := Load(f, info.Size())
	must(t, err)
	return s
}
