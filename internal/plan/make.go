package plan

import (
	"errors"
	"path"
	"slices"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// Input is all that a plan is made from. Nothing in it is changed or kept; strings of the listings are shared with the
// plan.
type Input struct {
	// Source and Target are the listings of the two data directories, ascending by path in byte order. Nothing is left
	// out of them: exclusion happens here, so that the target's excluded files are found and removed.
	Source, Target []pg.Entry
	// Blocks is the block map; nil stands for an empty one.
	Blocks Blocks
	// KeepWAL reports whether recovery after the rewind needs a file of the target's pg_wal, given its name without
	// directory; nil if it needs none.
	KeepWAL func(name string) bool
	// Keep are files of which the target keeps its own, if it has one, and Exclude those that are not copied; what the target
	// has of either stays as it is. They must have been checked. Ours; stock knows no such thing.
	Keep, Exclude Patterns
	// Late are those of them that an interrupted run was not given: what the target has of them now may be the source's, or half
	// of it. It is an error if there is any.
	Late Patterns
	// FirstDivergedSeg is the segment that holds the point of divergence.
	FirstDivergedSeg pg.SegNo
	// SegSize is the WAL segment size in bytes, a valid one.
	SegSize uint32
	// TablespaceDir is the version's directory below each tablespace, as in pg.Version.
	TablespaceDir string
	// Original is for the plan of a run that goes on where another was interrupted: the size in bytes a relation's file or
	// a WAL segment had before the first of these runs touched it, the smallest if it was touched several times, or -1 if
	// it did not exist; known is false for files that none of them has touched. What an interrupted run left in a file beyond its
	// original size may be full of holes, so its present size proves nothing. nil: nothing was touched.
	Original func(path string) (size int64, known bool)
	// Copied reports that an earlier run has copied all of a file's content that is to be copied, and made it durable;
	// sourceSize is the source's file's size in bytes now. nil: nothing was copied.
	Copied func(path string, sourceSize int64) bool
	// MaxGapBlocks is how many unchanged blocks between two changed ones are copied along, to save a request. 0 copies
	// exactly what stock copies.
	MaxGapBlocks int
}

// Make decides what happens to every path. Both listings are walked once, in step; time is linear in their lengths and
// the number of blocks, memory in the number of actions.
//
// Errors are *fault.Error with stock's texts; they stand for clusters that cannot be rewound, or a listing that cannot
// be believed. Where several paths are at fault, which one is named may differ from stock, which looks at listings and
// WAL one after the other.
func Make(in Input) (*Plan, error) {
	m := maker{Input: in, plan: &Plan{}}
	s, t := listing{side: "source", rest: in.Source}, listing{side: "target", rest: in.Target}
	if err := s.advance(); err != nil {
		return nil, err
	}
	if err := t.advance(); err != nil {
		return nil, err
	}
	for s.head != nil || t.head != nil {
		source, target := s.head, t.head
		switch {
		case source == nil:
		case target == nil:
		case source.Path < target.Path:
			target = nil
		case source.Path > target.Path:
			source = nil
		}
		if err := m.path(source, target); err != nil {
			return nil, err
		}
		if source != nil {
			if err := s.advance(); err != nil {
				return nil, err
			}
		}
		if target != nil {
			if err := t.advance(); err != nil {
				return nil, err
			}
		}
	}
	m.actions[Remove] = slices.DeleteFunc(m.actions[Remove], func(a Action) bool {
		return a.Type == pg.Directory && m.holding[a.Path]
	})
	m.plan.Actions = m.actions.ordered()
	return m.plan, nil
}

// listing walks over one side's entries.
type listing struct {
	side string
	rest []pg.Entry
	head *pg.Entry // nil at the end
	own  pg.Entry  // what head points at if the entry had to be changed
}

// advance moves to the next entry and checks it against the one before.
func (l *listing) advance() error {
	if len(l.rest) == 0 {
		l.head = nil
		return nil
	}
	next := &l.rest[0]
	l.rest = l.rest[1:]
	switch {
	case l.head == nil:
	case next.Path == l.head.Path:
		return fault.New("duplicate source file \"%s\"", next.Path).
			Advise("The listing of the %s names it twice.", l.side)
	case next.Path < l.head.Path:
		return fault.New("listing of the %s is not sorted: \"%s\" comes after \"%s\"", l.side, next.Path, l.head.Path)
	}
	if next.Size < 0 {
		return fault.New("listing of the %s gives file \"%s\" a size of %d bytes", l.side, next.Path, next.Size)
	}
	l.head = next
	// pg_wal is often a link, to a disk of its own. Which of the two it is on either side is no affair of the rewind.
	if next.Path == "pg_wal" && next.Type == pg.SymbolicLink {
		l.own = pg.Entry{Path: next.Path, Type: pg.Directory}
		l.head = &l.own
	}
	return nil
}

// original is the entry of a file in the target as it was before any run touched it, as far as that matters; or nil if it
// did not exist and the source has it, so that all of it is copied.
func (m *maker) original(path string, source, target *pg.Entry) *pg.Entry {
	if m.Original == nil || source == nil || target == nil || target.Type != pg.RegularFile {
		return target
	}
	size, known := m.Original(path)
	switch {
	case !known || size >= target.Size:
		return target
	case size < 0:
		return nil
	default:
		was := *target
		was.Size = size
		return &was
	}
}

func (m *maker) copied(path string, sourceSize int64) bool {
	return m.Copied != nil && m.Copied(path, sourceSize)
}

// maker collects the plan while the listings are walked.
type maker struct {
	Input
	actions byKind
	plan    *Plan
	spans   []Span // of the file before; for the next one

	kept    map[string]bool // the target's own directories that Keep names as a whole
	holding map[string]bool // directories in which something stays that only the target has
}

// ErrLate is in the chain of the error that there is something of Input.Late.
var ErrLate = errors.New("asked for too late")

// isOwn reports whether a path is left alone because the user says so. present is the target's entry, target the one before any
// run touched it.
func (m *maker) isOwn(path string, present, target *pg.Entry) (bool, error) {
	if present != nil && present.Type != pg.Directory && m.Late.Match(path) {
		return false, fault.Because(ErrLate, "cannot leave \"%s\" alone any more: the interrupted rewind was begun without that", path).
			Advise("It may be the source's already, or half copied. The options --keep, --keep-config and --exclude must be those of the " +
				"interrupted run; what should be otherwise can be put back before the server is started.").Ours()
	}
	switch {
	case m.Exclude.Match(path):
		return true, nil
	case !m.Keep.Match(path):
		return false, nil
	case target == nil:
		return within(m.kept, path), nil
	}
	if target.Type == pg.Directory && !m.isNew(path) {
		if m.kept == nil {
			m.kept = make(map[string]bool)
		}
		m.kept[path] = true
	}
	return true, nil
}

// isNew reports whether an interrupted run has made a path.
func (m *maker) isNew(path string) bool {
	if m.Original == nil {
		return false
	}
	size, known := m.Original(path)
	return known && size < 0
}

// within reports whether one of the directories that hold a path is among dirs.
func within(dirs map[string]bool, name string) bool {
	for at := path.Dir(name); len(dirs) > 0 && at != "."; at = path.Dir(at) {
		if dirs[at] {
			return true
		}
	}
	return false
}

// stays notes the directories that hold a path, since it is not removed.
func (m *maker) stays(name string) {
	if m.holding == nil {
		m.holding = make(map[string]bool)
	}
	for at := path.Dir(name); at != "." && !m.holding[at]; at = path.Dir(at) {
		m.holding[at] = true
	}
}

// remade reports whether the target may have made a relation's file anew, so that nothing is known of what is in it.
func (m *maker) remade(rel pg.RelFile) bool {
	if m.Blocks == nil {
		return false
	}
	for _, by := range rel.RemadeBy() {
		if anyOf(m.Blocks.Blocks(by)) {
			return true
		}
	}
	return false
}

// withTorn adds to the blocks of a file the half block at its end, of an extension for which there was no room: it is not half of
// the source's block.
func withTorn(blocks []Span, size int64) []Span {
	half := size % pg.BlockSize
	if half == 0 {
		return blocks
	}
	if n := len(blocks); n > 0 && blocks[n-1].Offset+blocks[n-1].Length == size-half {
		blocks[n-1].Length += half
		return blocks
	}
	return append(blocks, Span{size - half, half})
}

// path takes one path's decision and adds what follows from it. One of source and target may be nil.
func (m *maker) path(source, target *pg.Entry) error {
	entry := source
	if entry == nil {
		entry = target
	}
	name := entry.Path
	rel, isRel := pg.ParseRelFile(name, m.TablespaceDir)
	if isRel {
		if source != nil && source.Type != pg.RegularFile {
			return fault.New("data file \"%s\" in source is not a regular file", name).Advise("It is a %s.", source.Type)
		}
		if target != nil && target.Type != pg.RegularFile && m.Blocks != nil && anyOf(m.Blocks.Blocks(rel)) {
			return fault.New("unexpected page modification for non-regular file \"%s\"", name).
				Advise("It is a %s in the target, but the target's WAL changes blocks of a relation under this name.", target.Type)
		}
	}
	if source != nil && source.Type == pg.RegularFile {
		m.plan.TotalBytes += source.Size
	}

	present := target
	target = m.original(name, source, target)
	v := leaveExcluded
	own, err := m.isOwn(name, present, target)
	if err == nil && !own {
		v, err = m.decide(name, source, target, isRel)
	}
	if err != nil {
		return err
	}
	if v == relation && m.remade(rel) {
		v = copyWhole
	}
	a := Action{Path: name, Type: entry.Type}
	if source != nil {
		a.SourceSize, a.LinkTarget = source.Size, source.LinkTarget
	}
	if target != nil {
		a.TargetSize = target.Size
	}
	if present != nil {
		a.PresentSize = present.Size
	}
	switch v {
	case create:
		a.Kind = Create
	case copyWhole:
		if present == nil || !m.copied(name, source.Size) {
			a.Kind = Copy
		}
	case relation:
		copied := m.copied(name, source.Size)
		if m.Blocks != nil && !copied {
			m.spans = appendSpans(m.spans[:0], m.Blocks.Blocks(rel), min(source.Size, target.Size), m.MaxGapBlocks)
			// No larger than it must be: in a cluster of 10 TB with 1% changed at random, spans are most of the memory.
			a.Blocks = slices.Clone(m.spans)
		}
		a.Kind = relationAction(source, target, a.Blocks)
		switch {
		case a.Kind == CopyTail && copied:
			a.Kind = 0
		case a.Kind == CopyTail:
			a.Blocks = withTorn(a.Blocks, target.Size)
		}
		if present.Size > source.Size && a.Kind != Truncate {
			// An interrupted run went beyond what the source has now: the tail, then the cut.
			a.Blocks, a.Kind, a.TargetSize = a.CopySpans(), Truncate, present.Size
		}
	case removeExcluded:
		m.plan.Excluded = append(m.plan.Excluded, name)
		fallthrough
	case remove:
		a = Action{Path: name, Kind: Remove, Type: target.Type, TargetSize: target.Size, PresentSize: target.Size}
	case leaveExcluded:
		m.plan.Excluded = append(m.plan.Excluded, name)
	case keepWAL:
		m.plan.KeptWAL = append(m.plan.KeptWAL, name)
	case skipWAL:
		m.plan.SkippedWAL = append(m.plan.SkippedWAL, name)
	case leave:
	}
	if source == nil && a.Kind != Remove {
		m.stays(name) // such as what a user keeps, or what is not PostgreSQL's in a tablespace within the data directory
	}
	if a.Kind == 0 {
		return nil
	}
	m.plan.CopyBytes += a.CopyBytes()
	m.actions.add(a)
	return nil
}
