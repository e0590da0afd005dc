package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/scan"
)

// Dump prints all that is in a journal of size bytes, for a human. Damage does not stop it: it says where it is and what is
// wrong, and goes on with the next frame whose CRC is right. Errors are those of w and r, and that of a format which a newer
// program wrote.
func Dump(w io.Writer, r io.ReaderAt, size int64) error {
	d := dumper{Writer: bufio.NewWriter(w), in: newReader(r, size)}
	if err := d.dump(); err != nil {
		_ = d.Flush() // what there is helps; the error at hand says more
		return err
	}
	return d.Flush()
}

// dumper keeps bufio.Writer's first error, which Flush returns.
type dumper struct {
	*bufio.Writer
	in       *reader
	limit    int64 // of what searches may hash
	sessions int
}

func (d *dumper) say(format string, args ...any) { _, _ = fmt.Fprintf(d.Writer, format, args...) }

func (d *dumper) dump() error {
	pre, err := d.in.preamble()
	var (
		version *VersionError
		bad     *DamagedError
	)
	switch {
	case err == nil:
		d.say("journal, format version %d, run %v, %d bytes\n", pre.version, pre.run, d.in.size)
	case errors.As(err, &version):
		return err
	case errors.As(err, &bad), errors.Is(err, ErrNotJournal):
		d.say("damaged: byte 0: %v\n", err)
	default:
		return err
	}
	d.limit = d.in.searchLimit(0)
	// What a frame behind damage says of itself is believed: there may be nothing to compare it with.
	next := frame{offset: preambleSize, tag: tagOf(pre.run)}
	for next.offset < d.in.size {
		rec, problem, err := d.in.record(next.offset, next.number, next.tag)
		if err != nil {
			return err
		}
		if problem == nil {
			d.record(next.offset, &rec, next.number)
			next.offset, next.number = rec.end, next.number+rec.frames
			continue
		}
		if problem.offset > next.offset {
			d.say("byte %d: frame %d: the beginning of a record \"%v\"\n", next.offset, next.number, rec.kind)
		}
		d.say("damaged: byte %d: %s\n", problem.offset, problem.reason)
		f, err := d.search(problem.offset)
		if err == nil && f.offset == next.offset && f.number == next.number && f.tag == next.tag {
			// Its CRC is right, and still it is no part of a record.
			f, err = d.search(f.end())
		}
		if errors.Is(err, errSearch) || errors.Is(err, errNoFrame) {
			d.say("%d bytes from there to the end: %v\n", d.in.size-problem.offset, err)
			return nil
		}
		if err != nil {
			return err
		}
		d.say("passed over %d bytes\n", f.offset-problem.offset)
		next = f
	}
	return nil
}

var errNoFrame = errors.New("no frame in them")

func (d *dumper) search(offset int64) (frame, error) {
	f, found, err := d.in.search(offset, d.limit)
	if err == nil && !found {
		err = errNoFrame
	}
	return f, err
}

// record prints one record.
func (d *dumper) record(at int64, rec *record, number uint32) {
	d.say("byte %d: frame %d: %v, %d bytes", at, number, rec.kind, len(rec.payload))
	if rec.synced > 0 {
		d.say(", written when %d were fsynced", rec.synced)
	}
	d.say("\n")
	why := ""
	switch rec.kind {
	case kindFacts:
		var f Facts
		f, why = decodeFacts(rec.payload)
		d.facts(&f)
	case kindMap:
		m := scan.NewMapDecoder(0)
		if err := m.Add(rec.payload); err != nil {
			why = err.Error()
		}
		d.blocks(m.Map())
	case kindHeadEnd:
		var h headEnd
		h, why = decodeHeadEnd(rec.payload)
		d.say("\t%d map records, %d files, %d blocks\n", h.chunks, h.size.Files, h.size.Blocks)
	case kindSession:
		var s Session
		s, why = decodeSession(rec.payload)
		d.sessions++
		d.say("\tsession %d at %v, source: %v, fsync: %v, restart: %v\n", d.sessions, s.Time, s.Source, s.Fsync, s.Restart)
		d.say("\tsource: WAL up to %v, checkpoint %v, redo %v, timeline %d\n",
			s.SourceEnd, s.SourceCheckpoint, s.SourceRedo, s.SourceCheckpointTLI)
		for _, span := range s.History {
			d.say("\ttimeline %d from %v", span.TLI, span.Begin)
			if span.End != 0 {
				d.say(" to %v", span.End)
			}
			d.say("\n")
		}
		for _, pattern := range s.Keep {
			d.say("\tkeeps %q\n", pattern)
		}
		for _, pattern := range s.Exclude {
			d.say("\tleaves out %q\n", pattern)
		}
	case kindTouched:
		why = d.files(&decoder{rest: rec.payload})
	case kindDone:
		in := &decoder{rest: rec.payload}
		d.say("\tby session %d, ", in.number())
		d.say("no page newer than %v\n", pg.LSN(in.number()))
		why = d.files(in)
	case kindMark:
		var m Mark
		m, why = decodeMark(rec.payload)
		d.say("\tsession %d: %v at %v, value %d (%#x)\n", m.Session, m.Phase, m.Time, m.Value, m.Value)
	default:
		why = fmt.Sprintf("kind %d is not known", rec.kind)
	}
	if why != "" {
		d.say("\tnot as it should be: %s\n", why)
	}
}

func (d *dumper) facts(f *Facts) {
	d.say("\tcreated %v\n", f.Created)
	d.say("\tsystem identifier %d, control version %d, catalog version %d, WAL segments of %d bytes\n",
		f.SystemID, f.ControlVersion, f.CatalogVersion, f.SegSize)
	d.say("\ttarget: timeline %d, WAL ends at %v, diverged at %v\n", f.TargetTLI, f.TargetEnd, f.Divergence)
	d.say("\tcheckpoint %v, redo %v, timeline %d\n", f.Checkpoint, f.Redo, f.CheckpointTLI)
	d.say("\tWAL segments %d to %d\n", f.FirstSegment, f.LastSegment)
	d.say("\tcontrol file of %d bytes", len(f.Control))
	switch c, err := pg.DecodeControl(f.Control); {
	case err != nil:
		d.say(": %v\n", err)
	default:
		d.say(": PostgreSQL %d, %v, checkpoint %v, timeline %d\n", c.Version.Major, c.State, c.CheckPoint, c.TLI)
	}
	d.text("backup_label", f.Label)
	d.text("history", f.History)
}

// text prints a file's lines, quoted.
func (d *dumper) text(name string, content []byte) {
	if content == nil {
		d.say("\tno %s\n", name)
		return
	}
	d.say("\t%s of %d bytes\n", name, len(content))
	for line := range strings.Lines(string(content)) {
		d.say("\t\t%q\n", strings.TrimSuffix(line, "\n"))
	}
}

// shownRuns is how many runs of blocks are printed of a file.
const shownRuns = 16

func (d *dumper) blocks(m *scan.BlockMap) {
	files := slices.SortedFunc(m.Files(), func(a, b pg.RelFile) int { return strings.Compare(relName(a), relName(b)) })
	for _, f := range files {
		var runs [][2]uint32
		n := 0
		for b := range m.Blocks(f) {
			n++
			if k := len(runs); k > 0 && runs[k-1][1]+1 == b {
				runs[k-1][1] = b
			} else {
				runs = append(runs, [2]uint32{b, b})
			}
		}
		d.say("\t%s: %d blocks:", relName(f), n)
		for _, r := range runs[:min(len(runs), shownRuns)] {
			d.say(" %d", r[0])
			if r[1] > r[0] {
				d.say("-%d", r[1])
			}
		}
		if len(runs) > shownRuns {
			d.say(" … up to %d", runs[len(runs)-1][1])
		}
		d.say("\n")
	}
}

func relName(f pg.RelFile) string {
	return fmt.Sprintf("rel %d/%d/%d segment %d", f.Tablespace, f.Database, f.Number, f.Segment)
}

func (d *dumper) files(in *decoder) (why string) {
	return eachFile(in, func(path []byte, size int64) {
		if size == Absent {
			d.say("\t%12s %q\n", "absent", path)
			return
		}
		d.say("\t%12d %q\n", size, path)
	})
}
