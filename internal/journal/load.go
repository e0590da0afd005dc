package journal

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/scan"
)

// State is what a journal holds. It may be used from several goroutines at once.
type State struct {
	Run      RunID
	Facts    Facts
	Blocks   *scan.BlockMap // read-only
	Sessions []Session      // the first is number 1
	Marks    []Mark         // in the order written

	HeadEnd int64 // bytes of the head
	Proven  int64 // bytes that hold only proven records
	Size    int64 // bytes of the file; what is behind Proven is a torn tail, or damaged

	synced  int64  // up to here the file is known to have been fsynced
	frames  uint32 // number of the next frame
	spans   int
	forget  int   // number of the last session with Restart
	damaged error // not nil: no torn tail

	index map[string]int32 // path to place in paths
	paths []pathState
}

type pathState struct {
	path     string
	original int64 // if touched
	done     Done  // if its Session is not 0
	touched  bool
}

// Done is what is known of a file that was completely copied.
type Done struct {
	Session int    // number of the session that copied it
	Bound   pg.LSN // no page copied is newer
	Size    int64  // bytes, as copied
}

// Original is the size in bytes that a file had before the rewind, Absent if there was none, and whether it was noted: if
// not, the rewind has not touched it. The least of all notes counts: once something was found absent, everything that is
// there later is the rewind's.
func (s *State) Original(path string) (size int64, touched bool) {
	i, ok := s.index[path]
	if !ok || !s.paths[i].touched {
		return 0, false
	}
	return s.paths[i].original, true
}

// Done says whether a file was completely copied and not touched again since, and not before the last session that
// restarted.
func (s *State) Done(path string) (Done, bool) {
	i, ok := s.index[path]
	if !ok {
		return Done{}, false
	}
	d := s.paths[i].done
	if d.Session == 0 || d.Session < s.forget {
		return Done{}, false
	}
	return d, true
}

// Touched yields every path that was noted as touched, with what Original says of it, in the order first noted.
func (s *State) Touched() iter.Seq2[string, int64] {
	return func(yield func(string, int64) bool) {
		for i := range s.paths {
			if p := &s.paths[i]; p.touched && !yield(p.path, p.original) {
				return
			}
		}
	}
}

// Reached gives the latest mark of a phase, of whatever session.
func (s *State) Reached(phase Phase) (m Mark, ok bool) {
	for _, m := range slices.Backward(s.Marks) {
		if m.Phase == phase {
			return m, true
		}
	}
	return Mark{}, false
}

const (
	// pathBytes is the memory of a path in a State beside its own bytes, about.
	pathBytes = 160
	// A path may cost far more memory than its bytes in the file, since it can share its beginning with the one before;
	// those of servers cost some 20 times as much. A map whose blocks lie far apart costs up to 100 times as much.
	freeMemory = 64 << 20
	pathFactor = 64
	mapFactor  = 256
	// maxPathMemory is for some 80 million files.
	maxPathMemory = 16 << 30
)

// Load reads a journal of size bytes. Beside the State it needs a buffer of a few hundred kilobytes, and the record of facts
// for a moment; a State's memory is bounded by a multiple of size.
//
// A torn tail is no error: the State ends before it. ErrNotJournal, *VersionError and *DamagedError are in the chain of
// errors that say what kind of file it is. For a DamagedError with Head set, the State is returned too, with what lies
// before the damage: facts and block map, but touched files may be missing from it.
func Load(r io.ReaderAt, size int64) (*State, error) {
	in := newReader(r, size)
	pre, err := in.preamble()
	if err != nil {
		return nil, err
	}
	l := loader{
		State: &State{Run: pre.run, Size: in.size, index: make(map[string]int32)},
		in:    in,
		paths: min(freeMemory+pathFactor*in.size, maxPathMemory),
		mapIn: scan.NewMapDecoder(min(freeMemory+mapFactor*in.size, scan.DefaultMaxMapBytes)),
	}
	return l.load()
}

// loader fills a State.
type loader struct {
	*State
	in     *reader
	paths  int64 // bytes of memory left for paths
	mapIn  *scan.MapDecoder
	chunks uint64
	facts  bool // they are there
}

func (l *loader) load() (*State, error) {
	for at := int64(preambleSize); at < l.Size; {
		rec, bad, err := l.in.record(at, l.frames, tagOf(l.Run))
		if err != nil {
			return nil, err
		}
		if bad != nil {
			if l.HeadEnd == 0 {
				return nil, damagedHead(bad.offset, bad.reason)
			}
			return l.tail(bad)
		}
		if why := l.apply(&rec); why != "" {
			reason := fmt.Sprintf("record \"%v\": %s", rec.kind, why)
			if l.HeadEnd == 0 {
				return nil, damagedHead(at, reason)
			}
			return l.damage(at, reason)
		}
		l.frames += rec.frames
		l.synced = max(l.synced, rec.synced)
		at = rec.end
		l.Proven = at
		if rec.kind == kindHeadEnd {
			l.HeadEnd = at
		}
	}
	if l.HeadEnd == 0 {
		return nil, damagedHead(l.Size, "it ends there, within the head")
	}
	return l.State, nil
}

// tail decides what an unproven frame behind the head is: the beginning of a torn tail, unless one behind it says that it
// had been fsynced.
func (l *loader) tail(bad *problem) (*State, error) {
	limit := l.in.searchLimit(bad.offset)
	for at := bad.offset + 1; ; {
		f, found, err := l.in.search(at, limit)
		switch {
		case errors.Is(err, errSearch):
			return l.damage(bad.offset, bad.reason+", and what is behind it is no crash's doing")
		case err != nil:
			return nil, err
		case !found:
			return l.State, nil
		case f.tag == tagOf(l.Run) && f.number >= l.frames && f.synced > bad.offset && f.synced <= f.offset:
			return l.damage(bad.offset, fmt.Sprintf("%s; frame %d at byte %d says that the first %d bytes had been fsynced",
				bad.reason, f.number, f.offset, f.synced))
		}
		at = f.end()
	}
}

func (l *loader) damage(offset int64, reason string) (*State, error) {
	l.damaged = damaged(offset, reason)
	return l.State, l.damaged
}

// apply adds a record to the State, and says what is wrong with it if something is.
func (l *loader) apply(rec *record) (why string) {
	switch inHead := rec.kind <= kindHeadEnd; {
	case inHead != (l.HeadEnd == 0):
		return "in or behind the head, where it cannot be"
	case l.facts == (rec.kind == kindFacts):
		return "not the first, or the second of its kind"
	case !inHead && rec.kind != kindSession && len(l.Sessions) == 0:
		return "before the first session"
	}
	switch rec.kind {
	case kindFacts:
		l.facts = true
		l.Facts, why = decodeFacts(rec.payload)
	case kindMap:
		l.chunks++
		if err := l.mapIn.Add(rec.payload); err != nil {
			return err.Error()
		}
	case kindHeadEnd:
		return l.finishHead(rec.payload)
	case kindSession:
		var s Session
		if s, why = decodeSession(rec.payload); why != "" {
			return why
		}
		if l.spans += len(s.History); l.spans > maxAllSpans {
			return "too many sessions with too long histories"
		}
		l.Sessions = append(l.Sessions, s)
		if s.Restart {
			l.forget = len(l.Sessions)
		}
	case kindTouched:
		return l.addFiles(rec.payload, nil)
	case kindDone:
		d := decoder{rest: rec.payload}
		done := Done{Session: int(d.number32()), Bound: pg.LSN(d.number())}
		if d.why != "" {
			return d.why
		}
		if done.Session == 0 || done.Session > len(l.Sessions) {
			return fmt.Sprintf("of session %d, after %d sessions", done.Session, len(l.Sessions))
		}
		return l.addFiles(d.rest, &done)
	case kindMark:
		var m Mark
		if m, why = decodeMark(rec.payload); why != "" {
			return why
		}
		if m.Session == 0 || m.Session > len(l.Sessions) {
			return fmt.Sprintf("of session %d, after %d sessions", m.Session, len(l.Sessions))
		}
		l.Marks = append(l.Marks, m)
	default:
		return fmt.Sprintf("kind %d, which version %d of the format does not have", rec.kind, Version)
	}
	return why
}

func (l *loader) finishHead(payload []byte) string {
	want, why := decodeHeadEnd(payload)
	if why != "" {
		return why
	}
	if got := (headEnd{l.chunks, l.mapIn.Size()}); got != want {
		return fmt.Sprintf("the block map has %d chunks, %d files, %d blocks, expected %d, %d, %d",
			got.chunks, got.size.Files, got.size.Blocks, want.chunks, want.size.Files, want.size.Blocks)
	}
	l.Blocks = l.mapIn.Map()
	return ""
}

// addFiles notes the files of a batch as touched, or as done. Nothing is noted of a batch with which something is wrong.
func (l *loader) addFiles(batch []byte, done *Done) (why string) {
	if why := eachFile(&decoder{rest: batch}, func([]byte, int64) {}); why != "" {
		return why
	}
	why = eachFile(&decoder{rest: batch}, func(path []byte, size int64) {
		i, ok := l.index[string(path)]
		if !ok {
			if l.paths -= int64(len(path)) + pathBytes; l.paths < 0 {
				return
			}
			i = int32(len(l.State.paths))
			name := string(path)
			l.State.paths = append(l.State.paths, pathState{path: name})
			l.index[name] = i
		}
		p := &l.State.paths[i]
		switch {
		case done != nil:
			p.done = *done
			p.done.Size = size
		case p.touched:
			p.original, p.done = min(p.original, size), Done{}
		default:
			p.touched, p.original, p.done = true, size, Done{}
		}
	})
	if l.paths < 0 {
		return "paths that need far more memory than a server's"
	}
	return why
}
