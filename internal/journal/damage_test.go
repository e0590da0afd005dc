package journal

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/scan"
)

// TestCut cuts at every length: an error within the head; behind it what was complete by then, and no error.
func TestCut(t *testing.T) {
	w := write(t, true, sampleBlocks(200), randomSteps(rand.New(rand.NewPCG(1, 2)), 40))
	for n := range len(w.bytes) {
		if testing.Short() && n > 100 && n%7 > 0 {
			continue
		}
		s, err := loadBytes(w.bytes[:n])
		if int64(n) < w.ends[0] {
			var bad *DamagedError
			switch {
			case n == 0 && errors.Is(err, ErrNotJournal):
			case n > 0 && errors.As(err, &bad) && !bad.Head && s == nil && bad.Offset <= int64(n):
			default:
				t.Fatalf("cut at %d of a head of %d bytes: %v", n, w.ends[0], err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
		i := w.at(int64(n))
		if !modelOf(s).equal(w.models[i]) || s.Proven != w.ends[i] {
			t.Fatalf("cut at %d: proven %d, want %d: %+v, want %+v", n, s.Proven, w.ends[i], modelOf(s), w.models[i])
		}
	}
}

// TestFlip changes every byte: never a record that was not written, and an error if the record had been fsynced and there is
// one behind it that knows.
func TestFlip(t *testing.T) {
	w := write(t, true, sampleBlocks(20), randomSteps(rand.New(rand.NewPCG(3, 2)), 30))
	b := bytes.Clone(w.bytes)
	for n := range b {
		for _, x := range []byte{1, 0x80, 0xff} {
			if x > 1 && n > 500 && int64(n) < w.ends[0]-500 {
				continue // the control file is long
			}
			if testing.Short() && n%3 > 0 {
				continue
			}
			b[n] ^= x
			s, err := loadBytes(b)
			var bad *DamagedError
			switch errors.As(err, &bad); {
			case int64(n) < w.ends[0]:
				if err == nil || s != nil {
					t.Fatalf("byte %d of the head: no error", n)
				}
			case err != nil && (bad == nil || !bad.Head || s == nil):
				t.Fatalf("byte %d: %v", n, err)
			default:
				i := w.at(int64(n))
				if s.Proven != w.ends[i] || !modelOf(s).equal(w.models[i]) {
					t.Fatalf("byte %d: proven %d, want %d; %v", n, s.Proven, w.ends[i], err)
				}
				// The next step that wrote something was told how much was durable after the step before it.
				last := len(w.ends) - 1
				for w.ends[last-1] == w.ends[last] {
					last--
				}
				if known := w.synced[last-1] > w.ends[i] && w.ends[i] < w.ends[last-1]; known != (err != nil) {
					t.Fatalf("byte %d, in the record at %d: fsynced and known: %v, but %v", n, w.ends[i], known, err)
				}
			}
			b[n] ^= x
		}
	}
}

// TestTails are files that end in something else than a record.
func TestTails(t *testing.T) {
	one := sampleSession(1)
	touch := func(paths ...string) step {
		var files []File
		for _, p := range paths {
			files = append(files, File{p, 1})
		}
		return step{touched: files}
	}
	done := func(path string) step { return step{done: []File{{path, 1}}} }
	w := write(t, true, sampleBlocks(10), []step{{session: &one}, touch("a"), done("a"), done("b"), done("c")})
	other := write(t, true, sampleBlocks(10), []step{{session: &one}, touch("a"), done("a"), done("b"), done("c"), touch("d"), done("d")})
	longer := write(t, true, sampleBlocks(10), []step{{session: &one}, touch("a"), done("a"), done("b"), done("c"), touch("d"), touch("e")})
	end := w.ends[5]
	rng := rand.New(rand.NewPCG(1, 1))
	noise := make([]byte, 300000)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	s, err := loadBytes(w.bytes)
	must(t, err)
	stray := func(number uint32, away int64) []byte {
		f := frame{offset: end + away, kind: kindDone, number: s.frames + number, tag: tagOf(s.Run), payload: doneHead(1, 1)}
		return appendFrame(bytes.Clone(w.bytes), &f)
	}
	for name, c := range map[string]struct {
		bytes  []byte
		proven int64 // -1: damaged
	}{
		"nothing":      {w.bytes, end},
		"zeros":        {append(bytes.Clone(w.bytes), make([]byte, 200000)...), end},
		"noise":        {append(bytes.Clone(w.bytes), noise...), end},
		"half a frame": {longer.bytes[:longer.ends[6]-1], longer.ends[5]},
		"an fsynced record is zero": {
			slices.Concat(longer.bytes[:longer.ends[2]], make([]byte, longer.ends[3]-longer.ends[2]), longer.bytes[longer.ends[3]:]), -1},
		"an fsynced record is zero, of those behind none knows": {
			slices.Concat(w.bytes[:w.ends[3]], make([]byte, w.ends[4]-w.ends[3]), w.bytes[w.ends[4]:]), w.ends[3]},
		"frames of another journal at their places": {slices.Concat(w.bytes[:end], other.bytes[end:]), end},
		"the same frame again":                      {slices.Concat(w.bytes, w.bytes[w.ends[4]:]), end},
		"two frames change places":                  {slices.Concat(w.bytes[:w.ends[3]], w.bytes[w.ends[4]:], w.bytes[w.ends[3]:w.ends[4]]), w.ends[3]},
		"a frame made for another place":            {stray(0, 100), end},
		"a frame with a number too high":            {stray(1, 0), end},
		"marks of frames all over":                  {append(bytes.Clone(w.bytes), bytes.Repeat([]byte(frameMarker), 100000)...), end},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := loadBytes(c.bytes)
			if c.proven < 0 {
				var bad *DamagedError
				if !errors.As(err, &bad) || !bad.Head || bad.Offset != longer.ends[2] || s.Proven != longer.ends[2] {
					t.Fatalf("%+v, %v", bad, err)
				}
				return
			}
			if err != nil || s.Proven != c.proven || s.Size != int64(len(c.bytes)) {
				t.Fatalf("proven %d, want %d: %v", s.Proven, c.proven, err)
			}
		})
	}
}

// TestLookalikes: bytes that look like beginnings of frames, each with a CRC of 64 kB to take, end a search early, and are
// not taken for a torn tail.
func TestLookalikes(t *testing.T) {
	one := sampleSession(1)
	w := write(t, true, nil, []step{{session: &one}})
	fake := frame{payload: make([]byte, 8)}
	b := bytes.Clone(w.bytes)
	for len(b) < 6<<20 {
		at := len(b)
		b = appendFrame(b, &fake)
		b[at+8], b[at+9], b[at+10] = 0, 0, 1
	}
	in := newReader(bytes.NewReader(b), int64(len(b)))
	if _, _, err := in.search(w.ends[1]+1, in.searchLimit(w.ends[1])); err != errSearch || in.hashed > 100<<20 {
		t.Errorf("%v after %d bytes", err, in.hashed)
	}
	var bad *DamagedError
	if s, err := loadBytes(b); !errors.As(err, &bad) || !bad.Head || s == nil {
		t.Errorf("Load: %v", err)
	}
	var out bytes.Buffer
	if err := Dump(&out, bytes.NewReader(b), int64(len(b))); err != nil || !strings.Contains(out.String(), errSearch.Error()) {
		t.Errorf("Dump: %v", err)
	}
}

// TestHeadErrors: each sort of bad head has an error of its own.
func TestHeadErrors(t *testing.T) {
	one := sampleSession(1)
	w := write(t, true, nil, []step{{session: &one}})
	newer := bytes.Clone(w.bytes)
	copy(newer, preamble{version: Version + 1, run: RunID{1}}.encode())
	zero := bytes.Clone(w.bytes)
	copy(zero, preamble{version: 0}.encode())
	flipped := bytes.Clone(w.bytes)
	flipped[8] ^= 2
	for name, c := range map[string]struct {
		bytes []byte
		is    func(error) bool
		text  string
	}{
		"empty":         {nil, func(err error) bool { return errors.Is(err, ErrNotJournal) }, "is not a journal"},
		"other file":    {[]byte("# PostgreSQL configuration\n"), func(err error) bool { return errors.Is(err, ErrNotJournal) }, "is not a journal"},
		"newer version": {newer, func(err error) bool { var v *VersionError; return errors.As(err, &v) && v.Version == Version+1 }, "format version 2"},
		"version 0":     {zero, func(err error) bool { var d *DamagedError; return errors.As(err, &d) && !d.Head }, "version 0"},
		"version changed": {flipped, func(err error) bool { var d *DamagedError; return errors.As(err, &d) && !d.Head && d.Offset == 0 },
			"CRC of the first 32 bytes"},
		"no frames": {w.bytes[:preambleSize], func(err error) bool { var d *DamagedError; return errors.As(err, &d) && d.Offset == preambleSize },
			"within the head"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := loadBytes(c.bytes)
			var f *fault.Error
			if s != nil || err == nil || !c.is(err) || !strings.Contains(err.Error(), c.text) || !errors.As(err, &f) || f.Advice == "" {
				t.Errorf("%v", err)
			}
		})
	}
	if _, err := Load(bytes.NewReader(nil), -1); !errors.Is(err, ErrNotJournal) {
		t.Error(err)
	}
	if _, err := Load(bytes.NewReader(w.bytes), int64(len(w.bytes))+1); err == nil || errors.As(err, new(*DamagedError)) {
		t.Errorf("a file that is shorter than it was said to be: %v", err)
	}
}

// forged makes a journal with a head and a session, and then records of our making, their CRCs right.
func forged(t testing.TB, records ...forgery) []byte {
	t.Helper()
	one := sampleSession(1)
	w := write(t, true, nil, []step{{session: &one}})
	s, err := loadBytes(w.bytes)
	must(t, err)
	return forge(w.bytes, s.Run, s.frames, records...)
}

type forgery struct {
	kind    kind
	payload []byte
}

func forge(b []byte, run RunID, number uint32, records ...forgery) []byte {
	b = bytes.Clone(b)
	for _, r := range records {
		for first := true; first || len(r.payload) > 0; first = false {
			n := min(len(r.payload), maxPayload)
			b = appendFrame(b, &frame{
				offset: int64(len(b)), kind: r.kind, number: number, tag: tagOf(run), payload: r.payload[:n], goesOn: len(r.payload) > n,
			})
			r.payload = r.payload[n:]
			number++
		}
	}
	return b
}

func numbers(v ...uint64) []byte {
	var e encoder
	for _, n := range v {
		e.number(n)
	}
	return e
}

// TestForged are records that are proven and nonsense all the same: an error, and nothing of them in the State.
func TestForged(t *testing.T) {
	path := func(shared, more uint64, s string, size uint64) []byte {
		return append(append(numbers(shared, more), s...), numbers(size)...)
	}
	session := func(source, fsync, restart, spans uint64, rest ...uint64) []byte {
		return append(append(numbers(0, source, fsync, restart, spans), numbers(rest...)...), 0, 0, 0, 0)
	}
	for name, c := range map[string]forgery{
		"unknown kind":               {99, nil},
		"kind 0":                     {0, nil},
		"a second head end":          {kindHeadEnd, headEnd{}.encode()},
		"facts behind the head":      {kindFacts, sampleFacts().encode()},
		"a map behind the head":      {kindMap, []byte{0, 0, 0, 0, 0x40, 1, 0, 0}},
		"done by no session":         {kindDone, doneHead(0, 1)},
		"done by a later session":    {kindDone, doneHead(2, 1)},
		"done, cut short":            {kindDone, []byte{1}},
		"a mark of a later session":  {kindMark, numbers(2, 1, 0, 0)},
		"a mark of phase 0":          {kindMark, numbers(1, 0, 0, 0)},
		"a mark of phase 300":        {kindMark, numbers(1, 300, 0, 0)},
		"a mark too long":            {kindMark, numbers(1, 1, 0, 0, 0)},
		"a path out of the tree":     {kindTouched, path(0, 4, "../x", 1)},
		"an absolute path":           {kindTouched, path(0, 2, "/x", 1)},
		"an empty path":              {kindTouched, path(0, 0, "", 1)},
		"a path with a zero byte":    {kindTouched, path(0, 1, "\x00", 1)},
		"a path too long":            {kindTouched, path(0, 4097, strings.Repeat("x", 4097), 1)},
		"a path too long together":   {kindTouched, append(path(0, 4096, strings.Repeat("x", 4096), 1), path(4096, 1, "y", 1)...)},
		"a path cut short":           {kindTouched, path(0, 9, "x", 1)},
		"a length of 64 bits":        {kindTouched, path(0, math.MaxUint64, "x", 1)},
		"shared with nothing":        {kindTouched, path(1, 1, "x", 1)},
		"shared of 64 bits":          {kindTouched, append(path(0, 1, "x", 1), path(math.MaxUint64, 1, "x", 1)...)},
		"a path twice":               {kindTouched, append(path(0, 1, "x", 1), path(1, 0, "", 1)...)},
		"paths descending":           {kindTouched, append(path(0, 1, "x", 1), path(0, 1, "w", 1)...)},
		"a size of 64 bits":          {kindTouched, path(0, 1, "x", math.MaxUint64)},
		"no size":                    {kindTouched, numbers(0, 1, 'x')},
		"a session without history":  {kindSession, session(1, 1, 0, 0)},
		"a session of kind 3":        {kindSession, session(3, 1, 0, 1, 1, 1, 1)},
		"a session of kind 257":      {kindSession, session(257, 1, 0, 1, 1, 1, 1)},
		"a session's flag is 2":      {kindSession, session(1, 2, 0, 1, 1, 1, 1)},
		"a session with many spans":  {kindSession, session(1, 1, 0, math.MaxUint64, 1, 1, 1)},
		"a timeline of 33 bits":      {kindSession, session(1, 1, 0, 1, 1<<32, 1, 1)},
		"a session with more behind": {kindSession, session(1, 1, 0, 1, 1, 1, 1, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			b := forged(t)
			bad := forged(t, c)
			s, err := loadBytes(bad)
			var d *DamagedError
			if !errors.As(err, &d) || !d.Head || d.Offset != int64(len(b)) {
				t.Fatalf("%v", err)
			}
			m := modelOf(s)
			if len(m.Sessions) != 1 || len(m.Marks)+len(m.Original)+len(m.Done) > 0 {
				t.Errorf("believed: %+v", m)
			}
			var out bytes.Buffer
			must(t, Dump(&out, bytes.NewReader(bad), int64(len(bad))))
			if !strings.Contains(out.String(), fmt.Sprintf("byte %d: frame 3", len(b))) {
				t.Errorf("not in the dump:\n%s", out.String())
			}
		})
	}
}

// TestForgedHead are heads whose CRCs are right.
func TestForgedHead(t *testing.T) {
	facts := func(change func(*Facts)) forgery {
		f := sampleFacts()
		change(f)
		return forgery{kindFacts, f.encode()}
	}
	good := facts(func(*Facts) {})
	chunk := forgery{kindMap, []byte{0, 0, 0, 0, 0x40, 1, 0, 0}}
	end := func(chunks uint64, files, blocks int64) forgery {
		return forgery{kindHeadEnd, headEnd{chunks, scan.MapSize{Files: files, Blocks: blocks}}.encode()}
	}
	start := preamble{version: Version}.encode()
	if _, err := loadBytes(forge(start, RunID{}, 0, good, chunk, end(1, 1, 1))); err != nil {
		t.Fatal("the good one: ", err)
	}
	for name, records := range map[string][]forgery{
		"facts twice":            {good, good, end(0, 0, 0)},
		"facts missing":          {end(0, 0, 0)},
		"facts behind the map":   {chunk, good, end(1, 1, 1)},
		"a map chunk missing":    {good, end(1, 1, 1)},
		"a block missing":        {good, chunk, end(1, 1, 2)},
		"a chunk twice":          {good, chunk, chunk, end(2, 2, 2)},
		"an empty chunk":         {good, {kindMap, nil}, end(1, 0, 0)},
		"head end too long":      {good, {kindHeadEnd, numbers(0, 0, 0, 0)}},
		"a session in the head":  {good, {kindSession, nil}},
		"segment size 3":         {facts(func(f *Facts) { f.SegSize = 3 }), end(0, 0, 0)},
		"no control file":        {facts(func(f *Facts) { f.Control = nil }), end(0, 0, 0)},
		"a large control file":   {facts(func(f *Facts) { f.Control = make([]byte, 1<<20) }), end(0, 0, 0)},
		"a large label":          {facts(func(f *Facts) { f.Label = make([]byte, 2<<20) }), end(0, 0, 0)},
		"a large history":        {facts(func(f *Facts) { f.History = make([]byte, pg.MaxHistoryBytes+1) }), end(0, 0, 0)},
		"segments descend":       {facts(func(f *Facts) { f.LastSegment = 1 }), end(0, 0, 0)},
		"facts cut short":        {{kindFacts, good.payload[:len(good.payload)-1]}, end(0, 0, 0)},
		"facts of endless bytes": {{kindFacts, make([]byte, maxFacts+1)}},
	} {
		t.Run(name, func(t *testing.T) {
			b := forge(start, RunID{}, 0, records...)
			s, err := loadBytes(b)
			var d *DamagedError
			if !errors.As(err, &d) || d.Head || s != nil {
				t.Fatalf("%v", err)
			}
			must(t, Dump(new(bytes.Buffer), bytes.NewReader(b), int64(len(b))))
		})
	}
}
