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
// by one for which errors.Is(err, ErrSize). Any other error means that nobody knows, and ends the search.
type Store interface {
	Open(ctx context.Context, tli pg.TLI, seg pg.SegNo) (*Segment, error)
}

// ErrSize is the cause in the errors of a segment that has not the segment size.
var ErrSize = errors.New("not the WAL segment size")

// Chain is stores in the order in which they are asked.
type Chain []Store

// Open returns what the first store has that has the segment. If none has, the error is the last store's, as stock's is,
// but advice about an earlier one's damaged copy is kept.
func (c Chain) Open(ctx context.Context, tli pg.TLI, seg pg.SegNo) (*Segment, error) {
	var damaged *fault.Error
	err := error(fault.Because(fs.ErrNotExist, "no place is known to look for WAL in"))
	for _, store := range c {
		var s *Segment
		s, err = store.Open(ctx, tli, seg)
		if err == nil {
			return s, nil
		}
		var f *fault.Error
		switch {
		case errors.Is(err, ErrSize):
			if damaged == nil {
				errors.As(err, &damaged)
			}
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		case damaged != nil && errors.As(err, &f):
			f.Advice += " Another copy is damaged: " + damaged.Text + "."
		}
	}
	return nil, err
}
