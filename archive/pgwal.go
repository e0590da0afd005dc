package archive

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// PgWal is the pg_wal directory of a cluster that is shut down.
type PgWal struct {
	dir     string
	segSize uint32
	id      *Identity
}

// NewPgWal makes a store of a data directory's pg_wal. The data directory's name appears in messages as given; segSize
// is the WAL segment size in bytes.
func NewPgWal(dataDir string, segSize uint32) *PgWal {
	return &PgWal{dir: filepath.Join(dataDir, "pg_wal"), segSize: segSize}
}

// Expect makes w look at the first page of its segments too, and returns w. A segment that is not what it is named after
// is still opened: in a Chain another store is preferred to it, and if there is none, it is for the reader to say, in
// stock's words, what is wrong and where.
func (w *PgWal) Expect(id Identity) *PgWal {
	w.id = &id
	return w
}

// Has reports whether the segment is there, and as good as Open can know.
func (w *PgWal) Has(tli pg.TLI, seg pg.SegNo) bool {
	s, err := w.Open(context.Background(), tli, seg)
	if err != nil {
		return false
	}
	defer s.Close()
	return s.suspect == nil
}

// Open opens pg_wal/NAME. A missing file is reported in the words that stock uses and HA managers look for:
// could not open file "<data directory>/pg_wal/NAME": No such file or directory.
func (w *PgWal) Open(ctx context.Context, tli pg.TLI, seg pg.SegNo) (*Segment, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	path := filepath.Join(w.dir, pg.SegmentName(tli, seg, w.segSize))
	s, err := openSegment(path)
	if err != nil {
		fail := fault.Because(err, "could not open file \"%s\": %s", path, fault.M(err))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, fail.Advise("The target has already removed this WAL segment, but what the rewind must undo is written in it. " +
				"Use --restore-target-wal if the target's restore_command can bring it back, or copy it there from the archive.")
		case errors.Is(err, fs.ErrPermission):
			return nil, fail.Advise("Run as the user the target's server runs as.")
		}
		return nil, fail
	}
	if s.size != int64(w.segSize) {
		_ = s.Close() // only read from
		return nil, fault.Because(ErrWrongSegment, "unexpected file size for \"%s\": %d instead of %d", path, s.size, w.segSize).
			Advise("The server never leaves a segment of another size; something else cut or replaced this one. Put an intact copy from the archive in its place.")
	}
	if w.id != nil {
		s.suspect = w.id.check(s, path, tli, seg)
	}
	return s, nil
}
