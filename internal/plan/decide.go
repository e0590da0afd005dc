package plan

import (
	"strings"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// verdict is the answer to what happens to one path.
type verdict uint8

const (
	leave verdict = iota // nothing, and nothing to say about it
	create
	copyWhole
	relation // both sides have it, and it is made of blocks: its sizes and the block map decide
	remove
	removeExcluded
	leaveExcluded
	keepWAL
	skipWAL
)

const walDir = "pg_wal/"

// decide is the decision table: one path, as both sides list it; source or target is nil where it does not exist, never
// both (decide_file_action, filemap.c). isRel says whether path is a segment file of a relation's main fork.
func (in *Input) decide(path string, source, target *pg.Entry, isRel bool) (verdict, error) {
	// The control file is written last of all, by its own procedure.
	if path == "global/pg_control" {
		return leave, nil
	}
	// What this program keeps there while it is at work is each side's own affair.
	if path == JournalName {
		return leave, nil
	}
	// macOS' Finder writes these whenever somebody looks at a directory; a server never reads them.
	if strings.Contains(path, ".DS_Store") {
		return leave, nil
	}

	// A tablespace belongs to PostgreSQL only below its versions' directories. Stock copies and removes whatever else lies
	// at its location: with a source that lies about a link, that is any file of this machine.
	if in.foreignInTablespace(path) {
		return leaveExcluded, nil
	}
	if source != nil && source.Type == pg.SymbolicLink && strings.HasPrefix(path, tablespaceDir) && !isTablespaceLink(path) {
		return leave, fault.New("target symlink path is unsafe for creation: \"%s\"", path).
			Advise("Only links named by a number lie in pg_tblspc. Nothing was changed; check who answers as the source.")
	}

	// Replaced at the very end, by its own procedure. Until then it keeps servers from starting.
	if path == pg.BackupLabelName && (target == nil || target.Type == pg.RegularFile) {
		return leaveExcluded, nil
	}

	// What is excluded is no use to the target either, not even what it has of its own.
	switch temp := temporary(path); {
	case temp && target != nil:
		return remove, nil
	case temp:
		return leave, nil
	case !excluded(path):
	case target != nil:
		return removeExcluded, nil
	default:
		return leaveExcluded, nil
	}

	// Only in the source: copied whole. Replay would create most relations anyway, but not all: a relation created
	// without WAL and synced at commit (wal_level = minimal) has none.
	if target == nil {
		switch source.Type {
		case pg.Directory, pg.SymbolicLink:
			return create, nil
		case pg.RegularFile:
			return copyWhole, nil
		default:
			return leave, fault.New("unknown file type for \"%s\"", path)
		}
	}

	// Only in the target: removed, unless recovery after the rewind starts in this segment and the source, whose
	// checkpoints are further ahead, has already recycled its own copy (keepwal_entry_exists, filemap.c).
	if source == nil {
		if name, ok := strings.CutPrefix(path, walDir); ok && in.KeepWAL != nil && in.KeepWAL(name) {
			return keepWAL, nil
		}
		return remove, nil
	}

	// In both.
	if source.Type != target.Type {
		return leave, fault.New("file \"%s\" is of different type in source and target", path).
			Advise("It is a %s in the source and a %s in the target. Such a difference is never made by PostgreSQL itself: "+
				"move one of the two away by hand, or rebuild the target from a base backup.", source.Type, target.Type)
	}

	// The same on both sides, or the clusters would not be of one system; not overwritten, from caution.
	if strings.HasSuffix(path, "PG_VERSION") {
		return leave, nil
	}

	switch source.Type {
	case pg.Directory, pg.SymbolicLink:
		// A link may point elsewhere on each side: where a tablespace lies is each machine's own affair.
		return leave, nil
	case pg.RegularFile:
		switch {
		case isRel:
			return relation, nil
		case in.beforeDivergence(path) && source.Size == target.Size:
			return skipWAL, nil
		default:
			// No WAL tells which part of such a file changed.
			return copyWhole, nil
		}
	default:
		return leave, fault.New("unknown file type for \"%s\"", path)
	}
}

// beforeDivergence reports whether path is a WAL segment that ends before the point of divergence: what is in it is the
// same on both sides, whatever the timeline in its name (decide_wal_file_action of 19's filemap.c).
func (in *Input) beforeDivergence(path string) bool {
	name, ok := strings.CutPrefix(path, walDir)
	if !ok {
		return false
	}
	_, seg, ok := pg.ParseSegmentName(name, in.SegSize)
	return ok && seg < in.FirstDivergedSeg
}

// relationAction is what happens to a relation's segment file that both sides have. Blocks the target changed come from
// the block map; blocks the source changed are repaired by replay of the source's WAL. What is left is the size:
//
//   - smaller in the target: the target truncated it, or the source extended it, or both. In the second case replay
//     would bring the tail; since nobody knows which it is, the tail is copied.
//   - larger in the target: the surplus is cut off. Replay of the source's truncation might, but need not come by.
func relationAction(source, target *pg.Entry, blocks []Span) (kind Kind) {
	switch {
	case target.Size < source.Size:
		return CopyTail
	case target.Size > source.Size:
		return Truncate
	case len(blocks) > 0:
		return None
	default:
		return 0
	}
}
