package rewind

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// comparedBytes is how much WAL is compared at most. The first record of a timeline has the time of its promotion in it, so the
// beginning tells.
const comparedBytes = 64 << 10

// sameBeginning reports whether both sides have the same WAL at the beginning of their last timeline, as far as both have it.
//
// Servers that were promoted independently at the very same place have equal histories, and still are on two timelines of one
// number. Where one of them has no WAL of the beginning any more, nothing can be told, and the histories are believed.
func (r *run) sameBeginning(ctx context.Context, history pg.History) (bool, error) {
	last := history[len(history)-1]
	if len(history) == 1 {
		return true, nil // one initdb, one timeline
	}
	sourceEnd, err := r.sourceEnd(ctx, r.sourceCtl)
	if err != nil {
		return false, err
	}
	segSize := r.target.SegSize
	seg := last.Begin.Seg(segSize)
	end := min(sourceEnd, max(r.target.CheckPoint, r.target.MinRecoveryPoint), (seg + 1).Start(segSize), last.Begin+comparedBytes)
	if end <= last.Begin {
		return true, nil
	}
	rng := pg.FileRange{
		Path:   "pg_wal/" + pg.SegmentName(last.TLI, seg, segSize),
		Offset: int64(last.Begin - seg.Start(segSize)),
		Length: int64(end - last.Begin),
	}
	ours := make([]byte, rng.Length)
	n, err := readRange(filepath.Join(r.cfg.TargetDir, rng.Path), ours, rng.Offset)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case err != nil:
		return false, fault.Because(err, "could not read file \"%s\": %s", filepath.Join(r.cfg.TargetDir, rng.Path), fault.M(err))
	}
	same := true
	err = r.source.Fetch(ctx, []pg.FileRange{rng}, func(_ int, c pg.FileChunk) error {
		common := min(n, len(c.Data))
		same = bytes.Equal(ours[:common], c.Data[:common])
		return nil
	})
	return same, err
}
