package copier

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// run is the copying phase of one plan.
type run struct {
	*Copier
	src   Source
	slots chan struct{} // one element for each open file
	flush chan written  // what the workers have written, on its way to the flushers; long, so that a slow disk does not hold a fast source
	done  chan *file    // complete files, still open, on their way to the syncer; a place for every open file

	durable durables

	openMu sync.Mutex
	open   map[*file]struct{} // every file whose descriptor is open
}

// copyAll copies everything the actions ask for. It returns when all its goroutines have ended and all files are closed.
func (c *Copier) copyAll(ctx context.Context, src Source, actions []plan.Action) error {
	if len(actions) == 0 {
		return ctx.Err()
	}
	r := &run{
		Copier: c,
		src:    src,
		slots:  make(chan struct{}, c.opts.OpenFiles),
		flush:  make(chan written, c.opts.OpenFiles),
		done:   make(chan *file, c.opts.OpenFiles),
		open:   map[*file]struct{}{},
	}
	r.durable.news = make(chan struct{}, 1)
	cut := r.newCutter(actions)
	var lastByte time.Time

	g, ctx := errgroup.WithContext(ctx)
	var workers sync.WaitGroup
	atEnd := make(chan struct{}) // closed when there is nothing more to be asked for
	var end sync.Once
	hire := func(i int) {
		workers.Add(1)
		g.Go(func() error {
			defer workers.Done()
			var b batch
			affordable := c.opts.BatchBytes
			for {
				if cut.next(i, &b, affordable); len(b.ranges) == 0 {
					end.Do(func() { close(atEnd) })
					return nil
				}
				began := time.Now()
				if err := r.copyBatch(ctx, &b); err != nil {
					return err
				}
				affordable = b.within(longestBatch, time.Since(began))
			}
		})
	}
	for i := range c.opts.Jobs {
		hire(i)
	}
	workers.Add(1)
	g.Go(func() error {
		defer workers.Done()
		r.hireMore(ctx, atEnd, hire)
		return nil
	})
	g.Go(func() error {
		workers.Wait()
		lastByte = time.Now()
		close(r.flush)
		return nil
	})
	var flushers sync.WaitGroup
	flushers.Add(c.opts.Jobs)
	for range c.opts.Jobs {
		g.Go(func() error {
			defer flushers.Done()
			return r.flushFiles(ctx)
		})
	}
	g.Go(func() error {
		flushers.Wait()
		close(r.done)
		return nil
	})
	g.Go(func() error { return r.syncFiles(ctx) })
	g.Go(func() error { return r.tellDurable(ctx) })
	err := g.Wait()

	c.count(func(s *Stats) { s.DrainTime += time.Since(lastByte) })
	for f := range r.open { // only after an error
		_ = f.out.Close() // which is reported already
	}
	return err
}

// longestBatch is about how long a batch should take at most: it is one statement, which holds a snapshot on a server, and
// whoever else wants the connection waits for it.
const longestBatch = 2 * time.Second

// How often more workers are hired, how many at a time, and by what factor that must have raised the throughput to be
// worth another try.
const (
	hireEvery = 200 * time.Millisecond
	hireStep  = 2
	hireGain  = 1.1
)

// hireMore adds workers as long as that makes the copying faster, up to Options.MostJobs. How many a source can use
// cannot be known beforehand: one that has everything in memory is as fast with four as with eight, one that waits for its
// disk, 8 kB at a time, is 2.5 times as fast with eight as with two. Nobody is let go.
func (r *run) hireMore(ctx context.Context, atEnd <-chan struct{}, hire func(i int)) {
	tick := time.NewTicker(hireEvery)
	defer tick.Stop()
	bytes := r.Stats().Bytes // so far
	var rate int64           // in the last interval, before the last were hired
	for n := r.opts.Jobs; n < r.opts.MostJobs; {
		select {
		case <-tick.C:
		case <-atEnd:
			return
		case <-ctx.Done():
			return
		}
		now := r.Stats().Bytes
		came := now - bytes
		bytes = now
		if came == 0 {
			continue // the source is still making up its mind
		}
		if float64(came) < hireGain*float64(rate) {
			return
		}
		rate = came
		for range min(hireStep, r.opts.MostJobs-n) {
			hire(n)
			n++
		}
	}
}

// copyBatch fetches and writes one batch.
func (r *run) copyBatch(ctx context.Context, b *batch) error {
	w := writer{run: r}
	next := 0
	err := r.src.Fetch(ctx, b.ranges, func(i int, chunk pg.FileChunk) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if i != next || i >= len(b.ranges) {
			return fault.New("unexpected number of data chunks received").
				Advise("chunk %d came where chunk %d of %d was expected", i, next, len(b.ranges))
		}
		next++
		return w.put(ctx, b.files[i], b.ranges[i], chunk)
	})
	if err == nil && next != len(b.ranges) {
		err = fault.New("unexpected number of data chunks received").
			Advise("the source ended after %d of %d chunks", next, len(b.ranges))
	}
	if err != nil {
		return err
	}
	return w.leave(ctx)
}

// writer is a worker within one batch: it gathers what it writes to one file, to start the writeback of all of it at once
// and to count the chunks off together.
type writer struct {
	*run
	cur        *file // nil at the start
	chunks     int   // put into cur since it is cur
	bytes      int64 // written to cur since
	begin, end int64 // where
}

// put writes one chunk.
func (w *writer) put(ctx context.Context, f *file, want pg.FileRange, got pg.FileChunk) error {
	if f != w.cur {
		if err := w.leave(ctx); err != nil {
			return err
		}
		w.cur = f
	}
	w.chunks++
	n, err := f.accept(want, got)
	if err != nil || f.isGone() {
		return err
	}
	if err := w.openFile(ctx, f); err != nil || n == 0 {
		return err
	}
	if _, err := f.out.WriteAt(got.Data, want.Offset); err != nil {
		return w.writeFault(err, f.action.Path, want.Offset, n)
	}
	f.written.Add(n)
	w.opts.Progress(n)
	if w.end == 0 {
		w.begin = want.Offset
	}
	w.begin, w.end = min(w.begin, want.Offset), max(w.end, want.Offset+n)
	w.count(func(s *Stats) { s.Bytes += n })
	if w.bytes += n; w.bytes >= writebackBytes {
		return w.leave(ctx) // and comes back with the next chunk
	}
	return nil
}

// writebackBytes is how much of a file is written, in bytes, before its writeback is started.
const writebackBytes = 8 << 20

// leave is done with the current file as far as this batch goes, and hands it to a flusher.
func (w *writer) leave(ctx context.Context) error {
	if w.cur == nil {
		return nil
	}
	select {
	case w.flush <- written{w.cur, w.chunks, w.begin, w.end}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	w.cur, w.chunks, w.bytes, w.begin, w.end = nil, 0, 0, 0, 0
	return nil
}

// written is what a worker has put into a file within one batch.
type written struct {
	file       *file
	chunks     int
	begin, end int64 // in bytes; end is 0 if nothing had to be written
}

// flushFiles starts the writeback of what the workers have written, until flush is closed. Whoever counts the last chunk
// of a file off completes it.
//
// Started early, the disk works while the rest is copied: in the measurements that halves the time of whole files. It is not
// the workers' own business because sync_file_range waits while the disk's queue is full, and a worker that waits for the
// disk does not ask the source for anything: a third of the time of scattered blocks.
func (r *run) flushFiles(ctx context.Context) error {
	for w := range r.flush {
		if err := ctx.Err(); err != nil {
			return err
		}
		f := w.file
		if w.end > 0 && r.opts.Sync != SyncNone {
			if err := f.out.StartWriteback(w.begin, w.end-w.begin); err != nil {
				return r.writeFault(err, f.action.Path, w.begin, w.end-w.begin)
			}
		}
		if f.pending.Add(-int64(w.chunks)) > 0 {
			continue
		}
		if err := r.complete(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

func (c *Copier) writeFault(err error, name string, offset, n int64) error {
	return fault.Because(err, `could not write file "%s": %s`, c.fs.Path(name), fault.M(err)).
		Advise("%d bytes at offset %d could not be written; free space or mend the disk; the target is half rewound and must not be started, run the rewind again", n, offset)
}
