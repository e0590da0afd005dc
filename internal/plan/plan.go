// Package plan decides, without touching anything, what has to happen to each path of the target: a pure function from
// the two listings and the block map to a Plan. The rules are those of stock pg_rewind's filemap.c, with the reason
// beside each answer; what is ours on top is marked so.
//
//	plan.go     what a plan is made of, and its debug output
//	make.go     what a plan is made from; the walk over both listings, and the totals
//	decide.go   the decision table, one path at a time
//	exclude.go  what is never copied
//	patterns.go what the user wants kept or left out
//	blocks.go   from noted blocks to spans
//	order.go    the order of the actions, and why it is safe
package plan

import "github.com/fastrewind/fastrewind/internal/pg"

// Kind is what happens to one path. The numeric order is the order in which actions run (final_filemap_cmp, filemap.c).
type Kind uint8

// The kinds, in the order in which they run.
const (
	Create   Kind = iota + 1 // make a directory or a symbolic link
	Copy                     // copy a whole file; it may exist in the target, with any content and any size
	CopyTail                 // write the blocks noted, and append what the source has from TargetSize on
	None                     // write the blocks noted, nothing else
	Truncate                 // write the blocks noted, and cut the file at SourceSize
	Remove                   // remove a file, a symbolic link or an (by then empty) directory
)

// String is the word stock's debug output uses.
func (k Kind) String() string {
	switch k {
	case Create:
		return "CREATE"
	case Copy:
		return "COPY"
	case CopyTail:
		return "COPY_TAIL"
	case None:
		return "NONE"
	case Truncate:
		return "TRUNCATE"
	case Remove:
		return "REMOVE"
	default:
		return "UNKNOWN"
	}
}

// Span is a run of bytes of one file, to be copied from the same offset of the source's file.
type Span struct {
	Offset int64 // bytes
	Length int64 // bytes, more than zero
}

// Action is what happens to one path.
type Action struct {
	Path       string
	Kind       Kind
	Type       pg.EntryType // of the source's entry; for Remove, of the target's
	LinkTarget string       // for Create of a symbolic link
	SourceSize int64        // bytes, as listed; 0 for Remove
	TargetSize int64        // bytes, as listed; 0 if the target has no such file
	// PresentSize is what the target's file has now, in bytes; other than TargetSize only if an interrupted run has left it.
	PresentSize int64
	// KeepIfGone leaves the target's file as it is if the source has it no more when it is asked for. For files that are
	// copied a second time.
	KeepIfGone bool
	// Blocks are the changed blocks' spans, ascending, disjoint, never adjacent, all below both sizes. Only for
	// CopyTail, None and Truncate. Whole blocks, but for the one that is torn by the end of CopyTail's target.
	Blocks []Span
}

// CopySpans are all the bytes the action copies, ascending: the blocks, then the tail; or the whole file, for which
// the caller must ask for at least MinWholeFile bytes so that a small file that grew arrives complete.
func (a *Action) CopySpans() []Span {
	switch a.Kind {
	case Copy:
		if a.SourceSize == 0 {
			return nil
		}
		return []Span{{0, a.SourceSize}}
	case CopyTail:
		spans := a.Blocks[:len(a.Blocks):len(a.Blocks)]
		if n := len(spans); n > 0 && spans[n-1].Offset+spans[n-1].Length == a.TargetSize {
			spans = append([]Span(nil), spans...)
			spans[n-1].Length = a.SourceSize - spans[n-1].Offset
			return spans
		}
		return append(spans, Span{a.TargetSize, a.SourceSize - a.TargetSize})
	default:
		return a.Blocks
	}
}

// CopyBytes is how long all of CopySpans is.
func (a *Action) CopyBytes() (n int64) {
	for _, s := range a.CopySpans() {
		n += s.Length
	}
	return n
}

// MinWholeFile is how many bytes are asked for at least when a whole file is copied, whatever the listing says: a small
// file that grew since must not be cut in the middle (libpq_queue_fetch_file; stock commit 1691512674).
const MinWholeFile = 1 << 20

// Plan is the finished, read-only result: every action in the order in which it may safely run.
type Plan struct {
	// Actions hold a path of kind None only if it has blocks: nothing happens to any other.
	Actions []Action
	// CopyBytes is what will be copied, TotalBytes the size of all regular files of the source, as stock counts them
	// (calculate_totals, filemap.c).
	CopyBytes, TotalBytes int64
	// KeptWAL are the paths of WAL segments that only the target has and that are kept because recovery starts in
	// them. Ascending.
	KeptWAL []string
	// SkippedWAL are the paths of WAL segments that both sides have and that are not copied because they end before the
	// divergence. Ascending. Ours on every major; stock has the rule from 19 on.
	SkippedWAL []string
	// Excluded are the paths, of either side, that are never copied, but for temporary files, which stock passes over in
	// silence. Ascending.
	Excluded []string
}

// Debug writes the lines that stock's --debug prints about its decisions, one call of print for each line, formatted as
// by fmt.Sprintf: what is excluded and kept, then every action with its blocks (print_filemap, filemap.c; datapagemap_print).
func (p *Plan) Debug(print func(format string, args ...any)) {
	for _, path := range p.Excluded {
		print("entry \"%s\" excluded from source file list", path)
	}
	for _, path := range p.KeptWAL {
		print("Not removing file \"%s\" because it is required for recovery", path)
	}
	skipped := p.SkippedWAL
	printSkipped := func() {
		for _, path := range skipped {
			print("%s (%s)", path, None)
		}
		skipped = nil
	}
	for i := range p.Actions {
		a := &p.Actions[i]
		// Relations sort before pg_wal, so the skipped segments are the last of the kind None, as in 19.
		if a.Kind > None {
			printSkipped()
		}
		print("%s (%s)", a.Path, a.Kind)
		for _, s := range a.Blocks {
			for off := s.Offset; off < s.Offset+s.Length; off += pg.BlockSize {
				print("block %d", off/pg.BlockSize)
			}
		}
	}
	printSkipped()
}
