package archive

import (
	"context"
	"errors"
	"io/fs"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// Store is a place that may have WAL segments.
//
// Open opens one segment, complete, of the segment size; the caller closes it. That the store does not have it, and that
// another may, is said by an error for which errors.Is(err, fs.ErrNotExist); so is a segment that is there but useless,
// by one for which errors.Is(err, ErrWrongSegment). Any other error means that nobody knows, and ends the search.
type Store interface {
	Open(ctx context.Context, tli pg.TLI, seg pg.SegNo) (*Segment, error)
}

// Chain is stores in the order in which they are asked: a PgWal, then a Spool, whose own order is that of its Fetchers.
type Chain []Store

// Open returns what the first store has that has the segment. A segment of pg_wal that is not what its name says is taken
// only if no other store has it.
//
// If none has, the error's text is stock's: that restore_command could not restore it, else that pg_wal's file could not
// be opened; or what a place had to say that could not tell. The advice lists every place and its answer.
func (c Chain) Open(ctx context.Context, tli pg.TLI, seg pg.SegNo) (*Segment, error) {
	var all answers
	var suspect *Segment
	for i, store := range c {
		s, err := store.Open(ctx, tli, seg)
		pgWal, local := store.(*PgWal)
		if err == nil && local && s.suspect != nil && i+1 < len(c) && suspect == nil {
			suspect = s
			all = append(all, answer{place: pgWal.dir, err: s.suspect, local: true})
			continue
		}
		if err == nil {
			if suspect != nil {
				_ = suspect.Close() // only read from
			}
			return s, nil
		}
		if ctx.Err() != nil {
			if suspect != nil {
				_ = suspect.Close()
			}
			return nil, err
		}
		var before *searched
		switch {
		case errors.As(err, &before):
			all = append(all, before.all...)
		case local:
			all = append(all, answer{place: pgWal.dir, err: err, local: true})
		default:
			all = append(all, answer{place: "archive", err: err})
		}
		if !errors.Is(err, ErrWrongSegment) && !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	switch {
	case suspect != nil:
		return suspect, nil
	case len(all) == 0:
		return nil, fault.Because(fs.ErrNotExist, "no place is known to look for WAL in")
	default:
		return nil, all.conclude()
	}
}
