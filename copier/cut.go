package copier

import (
	"context"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// batch is what a worker asks the source for in one call. ranges[i] belongs to files[i].
type batch struct {
	ranges []pg.FileRange
	files  []*file
	bytes  int64 // expected
}

func (b *batch) reset() {
	clear(b.files) // let the files go
	b.ranges, b.files, b.bytes = b.ranges[:0], b.files[:0], 0
}

// produce cuts the actions' spans into batches, in the actions' order, and closes out. A batch comes from free and is
// sent back there by the worker, so there are never more than free was filled with.
func (r *run) produce(ctx context.Context, actions []plan.Action, out chan<- *batch, free <-chan *batch) error {
	defer close(out)
	var b *batch
	send := func() error {
		select {
		case out <- b:
			b = nil
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for i := range actions {
		a := &actions[i]
		spans := r.spans(a)
		n := 0
		for _, s := range spans {
			n += int((s.Length-1)/r.chunkBytes(a) + 1) // a listing may claim any size; this cannot overflow
		}
		if n == 0 {
			continue
		}
		f := r.newFile(a, n)
		for _, s := range spans {
			for s.Length > 0 {
				if b == nil {
					select {
					case b = <-free:
						b.reset()
					case <-ctx.Done():
						return context.Cause(ctx)
					}
				}
				length := min(s.Length, r.chunkBytes(a))
				b.ranges = append(b.ranges, pg.FileRange{Path: a.Path, Offset: s.Offset, Length: length})
				b.files = append(b.files, f)
				b.bytes += min(length, max(a.SourceSize-s.Offset, 0))
				s.Offset += length
				s.Length -= length
				if len(b.ranges) >= r.opts.BatchRanges || b.bytes >= r.opts.BatchBytes {
					if err := send(); err != nil {
						return err
					}
				}
			}
		}
	}
	if b != nil {
		return send()
	}
	return nil
}

// spans are the bytes to ask for. Of a whole file that is at least plan.MinWholeFile, even of one that was listed as
// empty: it may have grown since. If sizes must hold, one byte more than listed, to see that they do.
func (r *run) spans(a *plan.Action) []plan.Span {
	if a.Kind != plan.Copy {
		return a.CopySpans()
	}
	length := a.SourceSize
	if r.opts.StrictSizes {
		length++
	}
	return []plan.Span{{Offset: 0, Length: max(length, plan.MinWholeFile)}}
}

// chunkBytes is the length of the action's ranges. A file that fits is asked for in one: ranges of a smaller size would
// mostly lie behind its end.
func (r *run) chunkBytes(a *plan.Action) int64 {
	if a.Kind == plan.Copy && a.SourceSize <= plan.MinWholeFile {
		return MaxRange
	}
	return r.opts.ChunkBytes
}
