package copier

import (
	"strings"
	"sync"
	"time"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// batch is what a worker asks the source for in one call. ranges[i] belongs to files[i].
type batch struct {
	ranges []pg.FileRange
	files  []*file
	bytes  int64 // expected
	limit  int64 // bytes at which it is closed
}

func (b *batch) reset(limit int64) {
	clear(b.files) // let the files go
	b.ranges, b.files, b.bytes, b.limit = b.ranges[:0], b.files[:0], 0, limit
}

func (b *batch) full(o *Options) bool {
	return b.bytes >= b.limit || int64(len(b.ranges)) >= int64(o.BatchRanges)*(b.limit/o.BatchBytes)
}

// within is how many bytes would have been copied in limit, as fast as the batch was in took.
func (b *batch) within(limit, took time.Duration) int64 {
	return int64(float64(b.bytes) / max(took.Seconds(), 1e-6) * limit.Seconds())
}

// cutter cuts the actions' spans into batches, as the workers ask for them.
//
// A worker stays with a file until it is copied, and goes on to one that nobody has begun; only when there is none does
// it help with the file of which most is left. Two writers of one file wait for each other (the inode's lock is held
// over each write, and the bytes go through a core that does not have them): on two cores, scattered blocks of 8 kB were
// copied 1.5 times as fast with a file for each. It also means that files are complete, and so durable, early.
type cutter struct {
	run *run

	mu      sync.Mutex
	wal     []plan.Action // WAL not begun; it comes first: a running source removes it one day
	actions []plan.Action // not begun, in the plan's order; with the WAL among them, to be passed over
	left    int64         // bytes of all actions that are not in a batch yet, about
	current []cursor      // by worker
}

// cursor is where a worker is in a file.
type cursor struct {
	action *plan.Action // nil before the first
	file   *file
	spans  []plan.Span // to be asked for, the first not before begin; the plan's, so not to be changed
	begin  int64
	left   int64 // in bytes
}

func (r *run) newCutter(actions []plan.Action) *cutter {
	c := &cutter{run: r, actions: actions, current: make([]cursor, r.opts.MostJobs)}
	for i := range actions {
		c.left += actions[i].CopyBytes()
		if isWAL(&actions[i]) {
			c.wal = append(c.wal, actions[i])
		}
	}
	return c
}

func isWAL(a *plan.Action) bool { return a.Kind == plan.Copy && strings.HasPrefix(a.Path, "pg_wal/") }

// pop gives an action that nobody has begun, or nil.
func (c *cutter) pop() *plan.Action {
	if len(c.wal) > 0 {
		a := &c.wal[0]
		c.wal = c.wal[1:]
		return a
	}
	for len(c.actions) > 0 {
		a := &c.actions[0]
		c.actions = c.actions[1:]
		if !isWAL(a) {
			return a
		}
	}
	return nil
}

// batchBytes is how large the next batch may be: large, so that a source far away is asked seldom, as long as each
// worker has several more to come; smaller towards the end, so that all of them end together.
func (c *cutter) batchBytes() int64 {
	o := &c.run.opts
	return min(max(c.left/int64(4*o.MostJobs), o.BatchBytes), o.MostBatchBytes)
}

// next fills the worker's batch, with affordable bytes at most where that is more than the least. It is left empty if
// nothing is to be asked for any more.
func (c *cutter) next(worker int, b *batch, affordable int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b.reset(max(min(c.batchBytes(), affordable), c.run.opts.BatchBytes))
	defer func() { c.left -= b.bytes }()
	own := &c.current[worker]
	for {
		c.take(own, b)
		if b.full(&c.run.opts) || !c.begin(own) {
			break
		}
	}
	if len(b.ranges) > 0 {
		return
	}
	most := own
	for i := range c.current {
		if c.current[i].left > most.left {
			most = &c.current[i]
		}
	}
	c.take(most, b)
}

// begin puts the cursor on the first file that nobody has begun and of which anything is to be asked for.
func (c *cutter) begin(at *cursor) bool {
	for {
		a := c.pop()
		if a == nil {
			return false
		}
		*at = cursor{action: a, spans: c.run.spans(a)}
		n := 0
		for _, s := range at.spans {
			n += int((s.Length-1)/c.run.chunkBytes(a) + 1) // a listing may claim any size; this cannot overflow
			at.left += s.Length
		}
		if n > 0 {
			at.file, at.begin = c.run.newFile(a, n), at.spans[0].Offset
			return true
		}
	}
}

// take moves ranges from the cursor into b, until one of them is at its end.
func (c *cutter) take(at *cursor, b *batch) {
	for len(at.spans) > 0 && !b.full(&c.run.opts) {
		a, s := at.action, at.spans[0]
		length := min(s.Offset+s.Length-at.begin, c.run.chunkBytes(a))
		b.ranges = append(b.ranges, pg.FileRange{Path: a.Path, Offset: at.begin, Length: length})
		b.files = append(b.files, at.file)
		b.bytes += min(length, max(a.SourceSize-at.begin, 0))
		at.begin += length
		at.left -= length
		if at.begin < s.Offset+s.Length {
			continue
		}
		if at.spans = at.spans[1:]; len(at.spans) > 0 {
			at.begin = at.spans[0].Offset
		}
	}
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
