package copier

import (
	"context"
	"maps"
	"path"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// syncers is how many fsyncs run at the same time. Each waits for its own data and then for the file system's journal, and
// a commit of the journal serves all who wait for it.
const syncers = 8

// syncGroupBytes is what is written to a group of files at least before they are synced early.
const syncGroupBytes = 512 << 20

// syncFiles fsyncs complete files until done is closed.
//
// Files come open, and are synced through the descriptor that wrote them. Linux reports a failed write to the descriptors
// that were open when it failed, each once (errseq_t, since 4.13); if all were closed meanwhile and the inode was evicted,
// a descriptor opened anew hears nothing of it and its fsync succeeds. The number of files waiting here is bounded by
// Options.OpenFiles, so that is how many descriptors it takes.
//
// They are gathered to half of that number, or until syncGroupBytes were written to them, before the first is synced:
// their writeback is under way by then, and one commit of the journal serves many; and no more than that is copied again
// if the run is interrupted.
func (r *run) syncFiles(ctx context.Context) error {
	group := make([]*file, 0, r.opts.OpenFiles/2)
	defer r.durable.end()
	var bytes int64
	flush := func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := r.syncGroup(ctx, len(group), func(i int) error {
			f := group[i]
			if err := r.syncFile(f.out, f.action.Path); err != nil {
				return err
			}
			return r.close(f)
		})
		if err == nil && r.opts.Durable != nil {
			r.durable.add(group)
		}
		clear(group)
		group, bytes = group[:0], 0
		return err
	}
	for f := range r.done {
		bytes += f.written.Load()
		if group = append(group, f); len(group) < cap(group) && bytes < syncGroupBytes {
			continue
		}
		if err := flush(); err != nil {
			return err
		}
	}
	return flush()
}

// durables are files that are durable and of which Options.Durable has not been told.
//
// It is told by a goroutine of its own. Durable may have to ask the source something, and wait until a worker gives a
// connection back; that worker may wait for a file to be closed, which is what the syncer does.
type durables struct {
	mu    sync.Mutex
	files []DurableFile
	news  chan struct{} // of one element; closed at the end
}

func (d *durables) add(group []*file) {
	d.mu.Lock()
	for _, f := range group {
		// What was kept of a file the source has no more is not all of it; and what is still to be cut may be as long as the
		// source's file by the time somebody asks.
		if !f.gone && f.action.Kind != plan.Truncate {
			d.files = append(d.files, f.durable())
		}
	}
	d.mu.Unlock()
	select {
	case d.news <- struct{}{}:
	default: // there are news already
	}
}

func (d *durables) end() { close(d.news) }

func (d *durables) take() []DurableFile {
	d.mu.Lock()
	defer d.mu.Unlock()
	files := d.files
	d.files = nil
	return files
}

// tellDurable tells Options.Durable of files until the syncer has ended and all have been told of.
func (r *run) tellDurable(ctx context.Context) error {
	for more := true; more; {
		select {
		case _, more = <-r.durable.news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if files := r.durable.take(); len(files) > 0 {
			if err := r.opts.Durable(ctx, files); err != nil {
				return err
			}
		}
	}
	return nil
}

// syncGroup runs sync(0) to sync(n-1), some at the same time, and stops at the first error.
func (c *Copier) syncGroup(ctx context.Context, n int, sync func(i int) error) error {
	g, groupCtx := errgroup.WithContext(ctx)
	g.SetLimit(syncers)
	for i := range n {
		g.Go(func() error {
			if err := groupCtx.Err(); err != nil {
				return err
			}
			return sync(i)
		})
	}
	return g.Wait()
}

func (c *Copier) syncFile(f fsx.File, name string) error {
	if err := c.failed.Load(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return c.fail(syncFault(err, c.fs.Path(name)))
	}
	c.count(func(s *Stats) { s.FileSyncs++ })
	return nil
}

func syncFault(err error, name string) *fault.Error {
	return fault.Because(err, `could not fsync file "%s": %s`, name, fault.M(err)).
		Advise("the disk did not take what was written, and the kernel may have thrown it away: check the disk and the kernel's " +
			"log before anything else; the target is not usable until a rewind of it has succeeded")
}

// fail keeps the first error of an fsync: from now on every one is refused with it.
func (c *Copier) fail(err *fault.Error) error {
	c.failed.CompareAndSwap(nil, err)
	return c.failed.Load()
}

// touch notes that a name in dir was made, removed or renamed.
func (c *Copier) touch(dir string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dirs[dir] = struct{}{}
}

// Sync makes durable what is not durable yet after Run: the names made and removed, by one fsync for each directory they
// are in, or, with SyncSyncfs, everything. Never a walk over the target: what was not touched is not looked at. With
// SyncNone it does nothing. After an fsync has failed, here or in Run, it returns that error again.
func (c *Copier) Sync(ctx context.Context) error {
	start := time.Now()
	defer func() { c.count(func(s *Stats) { s.FinishTime += time.Since(start) }) }()
	if c.opts.Sync == SyncNone {
		return nil
	}
	if err := c.failed.Load(); err != nil {
		return err
	}
	if c.opts.Sync == SyncSyncfs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.fs.SyncFS(); err != nil {
			return c.fail(fault.Because(err, `could not synchronize file system for file "%s": %s`, c.fs.Path("."), fault.M(err)))
		}
		clear(c.dirs)
		return nil
	}
	dirs := slices.Sorted(maps.Keys(c.dirs))
	err := c.syncGroup(ctx, len(dirs), func(i int) error { return c.syncDir(dirs[i]) })
	if err == nil {
		clear(c.dirs)
	}
	return err
}

func (c *Copier) syncDir(dir string) error {
	if err := c.failed.Load(); err != nil {
		return err
	}
	if err := c.fs.SyncDir(dir); err != nil {
		return c.fail(syncFault(err, c.fs.Path(dir)))
	}
	c.count(func(s *Stats) { s.DirSyncs++ })
	return nil
}

// parent is the directory that holds name, "." for the data directory.
func parent(name string) string { return path.Dir(name) }
