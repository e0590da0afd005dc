package journal

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/scan"
)

// RunID tells one journal from all others.
type RunID [16]byte

func (id RunID) String() string { return fmt.Sprintf("%x", id[:]) }

// Facts are what the first run found out before it touched the target, and what a later one may no longer be able to find
// out: by then the target's control file, history and diverged WAL may be gone. They never change.
type Facts struct {
	Created time.Time // in seconds

	SystemID       uint64
	ControlVersion uint32 // pg_control_version
	CatalogVersion uint32 // catalog_version_no: control versions alone do not tell all majors apart
	SegSize        uint32 // bytes of a WAL segment

	Control []byte // the target's global/pg_control, as it was found
	Label   []byte // the target's backup_label; nil: there was none
	History []byte // content of the history file of TargetTLI; nil: there was none

	TargetTLI  pg.TLI
	Divergence pg.LSN // up to where both sides' WAL is the same
	TargetEnd  pg.LSN // where the target's WAL ends

	Checkpoint    pg.LSN // the last checkpoint record both have in common
	Redo          pg.LSN // where replay from it starts
	CheckpointTLI pg.TLI

	FirstSegment, LastSegment pg.SegNo // of the WAL that recovery needs, the last included
}

func (f *Facts) encode() []byte {
	var e encoder
	e.signed(f.Created.Unix())
	e.number(f.SystemID)
	e.number(uint64(f.ControlVersion))
	e.number(uint64(f.CatalogVersion))
	e.number(uint64(f.SegSize))
	e.optional(f.Control)
	e.optional(f.Label)
	e.optional(f.History)
	e.number(uint64(f.TargetTLI))
	e.number(uint64(f.Divergence))
	e.number(uint64(f.TargetEnd))
	e.number(uint64(f.Checkpoint))
	e.number(uint64(f.Redo))
	e.number(uint64(f.CheckpointTLI))
	e.number(uint64(f.FirstSegment))
	e.number(uint64(f.LastSegment))
	return e
}

// wrong says what cannot be in a journal, or nothing.
func (f *Facts) wrong() string {
	switch {
	case !pg.ValidSegSize(f.SegSize):
		return fmt.Sprintf("a WAL segment size of %d bytes", f.SegSize)
	case len(f.Control) == 0 || len(f.Control) > maxControlBytes:
		return fmt.Sprintf("a control file of %d bytes", len(f.Control))
	case len(f.Label) > maxLabelBytes:
		return fmt.Sprintf("a backup_label of %d bytes", len(f.Label))
	case len(f.History) > pg.MaxHistoryBytes:
		return fmt.Sprintf("a history file of %d bytes", len(f.History))
	case f.FirstSegment > f.LastSegment:
		return fmt.Sprintf("WAL segments from %d to %d", f.FirstSegment, f.LastSegment)
	}
	return ""
}

func decodeFacts(b []byte) (f Facts, why string) {
	d := decoder{rest: b}
	f.Created = time.Unix(d.signed(), 0).UTC()
	f.SystemID = d.number()
	f.ControlVersion = d.number32()
	f.CatalogVersion = d.number32()
	f.SegSize = d.number32()
	f.Control = d.optional(maxControlBytes)
	f.Label = d.optional(maxLabelBytes)
	f.History = d.optional(pg.MaxHistoryBytes)
	f.TargetTLI = pg.TLI(d.number32())
	f.Divergence = pg.LSN(d.number())
	f.TargetEnd = pg.LSN(d.number())
	f.Checkpoint = pg.LSN(d.number())
	f.Redo = pg.LSN(d.number())
	f.CheckpointTLI = pg.TLI(d.number32())
	f.FirstSegment = pg.SegNo(d.number())
	f.LastSegment = pg.SegNo(d.number())
	if why = d.end(); why == "" {
		why = f.wrong()
	}
	return f, why
}

// SourceKind is what a run copies from.
type SourceKind uint8

// The kinds of source.
const (
	Server SourceKind = iota + 1
	Directory
)

func (k SourceKind) String() string {
	switch k {
	case Server:
		return "server"
	case Directory:
		return "directory"
	default:
		return fmt.Sprintf("kind %d", uint8(k))
	}
}

// Session is one run that began or went on with a rewind.
type Session struct {
	Time    time.Time // in seconds
	Source  SourceKind
	Fsync   bool       // what is marked as done in this session was fsynced before it was marked
	Restart bool       // what was marked as done before this session does not count
	History pg.History // the source's; never empty

	SourceEnd           pg.LSN // how far the source's WAL was durable when the session began
	SourceCheckpoint    pg.LSN // the source's last checkpoint then,
	SourceRedo          pg.LSN // where replay from it starts,
	SourceCheckpointTLI pg.TLI // and its timeline

	Keep, Exclude []string // patterns of paths that the session left as they were (see plan.Patterns)
}

func (s *Session) encode() []byte {
	var e encoder
	e.signed(s.Time.Unix())
	e.number(uint64(s.Source))
	e.flag(s.Fsync)
	e.flag(s.Restart)
	e.number(uint64(len(s.History)))
	for _, span := range s.History {
		e.number(uint64(span.TLI))
		e.number(uint64(span.Begin))
		e.number(uint64(span.End))
	}
	e.number(uint64(s.SourceEnd))
	e.number(uint64(s.SourceCheckpoint))
	e.number(uint64(s.SourceRedo))
	e.number(uint64(s.SourceCheckpointTLI))
	e.names(s.Keep)
	e.names(s.Exclude)
	return e
}

func (s *Session) wrong() string {
	switch {
	case s.Source != Server && s.Source != Directory:
		return "a source of " + s.Source.String()
	case len(s.History) == 0 || len(s.History) > maxSpans:
		return fmt.Sprintf("a history of %d timelines", len(s.History))
	case len(s.Keep) > maxNames || len(s.Exclude) > maxNames:
		return fmt.Sprintf("%d patterns of paths", max(len(s.Keep), len(s.Exclude)))
	}
	return ""
}

func decodeSession(b []byte) (s Session, why string) {
	d := decoder{rest: b}
	s.Time = time.Unix(d.signed(), 0).UTC()
	source := d.number()
	s.Source = SourceKind(min(source, math.MaxUint8))
	s.Fsync = d.flag()
	s.Restart = d.flag()
	n := d.number()
	// Three bytes at least for each.
	if n > maxSpans || n > uint64(len(d.rest)/3) {
		return s, "a history longer than its record"
	}
	s.History = make(pg.History, n)
	for i := range s.History {
		s.History[i] = pg.TimelineSpan{TLI: pg.TLI(d.number32()), Begin: pg.LSN(d.number()), End: pg.LSN(d.number())}
	}
	s.SourceEnd = pg.LSN(d.number())
	s.SourceCheckpoint = pg.LSN(d.number())
	s.SourceRedo = pg.LSN(d.number())
	s.SourceCheckpointTLI = pg.TLI(d.number32())
	s.Keep = d.names()
	s.Exclude = d.names()
	if why = d.end(); why == "" {
		why = s.wrong()
	}
	return s, why
}

// Phase is a border within a run that a later run must know to have been reached.
type Phase uint8

// The phases.
const (
	Guarded   Phase = iota + 1 // no server can start on the target any more
	Copied                     // everything the plan named is copied and durable
	Finishing                  // Value is the CRC of the control file that is about to be put in place, last of all
	UndoKept                   // what this session overwrites is saved before
)

func (p Phase) String() string {
	switch p {
	case Guarded:
		return "guarded"
	case Copied:
		return "copied"
	case Finishing:
		return "finishing"
	case UndoKept:
		return "undo kept"
	default:
		return fmt.Sprintf("phase %d", uint8(p))
	}
}

// Mark says that a phase was reached.
type Mark struct {
	Session int // number of the session, from 1; set by the writer
	Phase   Phase
	Time    time.Time // in seconds
	Value   uint64    // what it is depends on the phase
}

func (m *Mark) encode() []byte {
	var e encoder
	e.number(uint64(m.Session))
	e.number(uint64(m.Phase))
	e.signed(m.Time.Unix())
	e.number(m.Value)
	return e
}

func decodeMark(b []byte) (m Mark, why string) {
	d := decoder{rest: b}
	m.Session = int(d.number32())
	phase := d.number()
	m.Time = time.Unix(d.signed(), 0).UTC()
	m.Value = d.number()
	m.Phase = Phase(min(phase, math.MaxUint8))
	if why = d.end(); why == "" && (phase == 0 || phase > math.MaxUint8) {
		why = "a phase with an impossible number"
	}
	return m, why
}

// headEnd is what the head must have been.
type headEnd struct {
	chunks uint64 // map records
	size   scan.MapSize
}

func (h headEnd) encode() []byte {
	var e encoder
	e.number(h.chunks)
	e.number(uint64(h.size.Files))
	e.number(uint64(h.size.Blocks))
	return e
}

func decodeHeadEnd(b []byte) (h headEnd, why string) {
	d := decoder{rest: b}
	h.chunks = d.number()
	h.size = scan.MapSize{Files: int64(d.number()), Blocks: int64(d.number())}
	return h, d.end()
}

// encoder is a record that grows.
type encoder []byte

func (e *encoder) number(v uint64) { *e = binary.AppendUvarint(*e, v) }
func (e *encoder) signed(v int64)  { *e = binary.AppendVarint(*e, v) }

func (e *encoder) flag(v bool) {
	if v {
		*e = append(*e, 1)
		return
	}
	*e = append(*e, 0)
}

func (e *encoder) optional(b []byte) {
	e.flag(b != nil)
	if b != nil {
		e.number(uint64(len(b)))
		*e = append(*e, b...)
	}
}

func (e *encoder) names(list []string) {
	e.number(uint64(len(list)))
	for _, name := range list {
		e.number(uint64(len(name)))
		*e = append(*e, name...)
	}
}

// decoder takes a record apart. After the first thing that is not there or not right everything is zero, and end says what
// it was.
type decoder struct {
	rest []byte
	why  string
}

func (d *decoder) fail(why string) {
	if d.why == "" {
		d.why = why
	}
	d.rest = nil
}

func (d *decoder) number() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.fail("it is cut short, or has a number over 64 bits")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) number32() uint32 {
	v := d.number()
	if v > math.MaxUint32 {
		d.fail(fmt.Sprintf("it has %d where 32 bits are expected", v))
		return 0
	}
	return uint32(v)
}

func (d *decoder) signed() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.fail("it is cut short, or has a number over 64 bits")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) flag() bool {
	b := d.take(1)
	if b == nil {
		return false
	}
	if b[0] > 1 {
		d.fail(fmt.Sprintf("it has %d where yes or no is expected", b[0]))
	}
	return b[0] == 1
}

// take gives the next n bytes, in place, or nil.
func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.rest)) || d.why != "" {
		d.fail("it is cut short")
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

// optional gives a copy, so that the whole record need not be kept for it. A string that is there but empty is not nil.
func (d *decoder) optional(most uint64) []byte {
	if !d.flag() {
		return nil
	}
	n := d.number()
	if n > most {
		d.fail(fmt.Sprintf("it has a string of %d bytes, where at most %d are expected", n, most))
		return nil
	}
	return append([]byte{}, d.take(n)...)
}

// names gives copies, at most maxNames; nil for none.
func (d *decoder) names() []string {
	n := d.number()
	if n > maxNames {
		d.fail(fmt.Sprintf("it has %d names, where at most %d are expected", n, maxNames))
		return nil
	}
	var list []string
	for ; n > 0 && d.why == ""; n-- {
		list = append(list, string(d.take(d.number())))
	}
	return list
}

// end is what was wrong, or that something is left over, or nothing.
func (d *decoder) end() string {
	if d.why == "" && len(d.rest) > 0 {
		return fmt.Sprintf("it has %d bytes too many", len(d.rest))
	}
	return d.why
}
