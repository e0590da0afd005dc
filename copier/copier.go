// Package copier carries a plan out: it pulls bytes from a Source and puts them, and nothing else, into the target.
//
//	workers    cut a batch of ranges off the plan's spans, a file each as long as there are enough, ask the source for it,
//	           write every chunk as it arrives
//	flushers   start the writeback of what a batch has put into a file, complete the file after its last chunk
//	syncer     takes the complete files, still open, and fsyncs them in groups
//	teller     tells whoever wants to know which files are durable
//
//	copier.go    the order of the work, options, results
//	source.go    what a source has to give
//	cut.go       from a plan's spans to batches of ranges
//	worker.go    one batch at a time
//	file.go      one file of the target while chunks arrive for it
//	sync.go      durability: files in groups, directories once each, or whole file systems
//	entries.go   directories, links, truncations and removals
//	durable.go   small files that must appear complete or not at all
//
// The order is plan.Kind's: directories and links first, then all copying in parallel, then truncations, then removals. It
// is stock's (final_filemap_cmp, filemap.c), and its point is that everything a path needs is there before the path is, and
// that nothing is taken away before all that was to be fetched is there.
//
// Nothing here knows where bytes come from, nor what is a relation and what is not.
package copier

import (
	"context"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// SyncMethod is how the target is made durable.
type SyncMethod uint8

// The sync methods.
const (
	SyncFsync  SyncMethod = iota // fsync of every file that was written and of every directory whose names changed
	SyncSyncfs                   // syncfs of every file system of the target, in Sync
	SyncNone                     // left to the operating system (--no-sync)
)

// Options are a Copier's settings. The zero value of a number means its default.
type Options struct {
	Jobs        int   // workers at first, and so calls of Source.Fetch at a time; default 1
	MostJobs    int   // workers that there may be if they make the copying faster; default Jobs
	ChunkBytes  int64 // of a range at most, but a small file is always one range; default and at most 1 MiB: less is slower on ext4
	BatchBytes  int64 // expected, at which a batch is closed; default 4 MiB, and hardly any difference from 1 to 16
	BatchRanges int   // of a batch of BatchBytes at most; default 1000, as stock has chunks per query
	// MostBatchBytes is for a source that takes long to begin an answer: while much is left, batches may be that large,
	// in bytes. Default: BatchBytes.
	MostBatchBytes int64

	OpenFiles int // descriptors of target files at most; default 256, and never fewer than 8 for each job

	Sync     SyncMethod
	FileMode fs.FileMode // of files that are made: 0600, or 0640 with group access; files that exist keep theirs
	DirMode  fs.FileMode // of directories that are made: 0700 or 0750

	// StrictSizes is for a source that must not change while it is read, a stopped server's directory: a file of another
	// size than listed, a missing file and a short range are fatal then, as in stock's local_source.c. Otherwise the
	// source is a running server, whose WAL, replayed from before the divergence, will put all of it right.
	StrictSizes bool
	// SourceDir is put before the names of source files in messages, if not empty.
	SourceDir string

	// Vanishing, if not nil, is called before a file is removed because the source has it no more, which no plan has
	// announced. It is called from several goroutines. An error of it ends the run.
	Vanishing func(ctx context.Context, path string) error

	// Gone, if not nil, is told of every file that the source had no more when it was asked for. It is called from several
	// goroutines.
	Gone func(path string)

	// MadeBefore says of a directory that is to be made, and is there already, that an earlier run of this rewind made it.
	// nil: there was none.
	MadeBefore func(path string) bool

	// Durable, if not nil, is told which files have been copied completely and fsynced since the last call, by path and size
	// (not those of plan.Truncate, which are cut only later),
	// in bytes; never with SyncSyncfs or SyncNone. It is called from one goroutine, of its own. An error of it ends the run.
	Durable func(ctx context.Context, files []DurableFile) error

	// Progress, if not nil, is told how many bytes were written, chunk by chunk, from several goroutines.
	Progress func(bytes int64)
}

func (o Options) withDefaults() Options {
	o.Jobs = max(o.Jobs, 1)
	o.MostJobs = max(o.MostJobs, o.Jobs)
	if o.ChunkBytes <= 0 || o.ChunkBytes > MaxRange {
		o.ChunkBytes = MaxRange
	}
	if o.BatchBytes <= 0 {
		o.BatchBytes = 4 << 20
	}
	o.MostBatchBytes = max(o.MostBatchBytes, o.BatchBytes)
	if o.BatchRanges <= 0 {
		o.BatchRanges = 1000
	}
	if o.OpenFiles <= 0 {
		o.OpenFiles = 256
	}
	// An incomplete file needs a descriptor, and no worker may wait for one that only another waiting worker could free.
	// Incomplete are at most: for each job the first and the last file of its batch and the one being written, the last
	// being the one its next batch begins with. (Those that wait for a flusher go on by themselves.) The syncer lets
	// complete files gather up to half of OpenFiles; with 8 for each job the other half is enough.
	o.OpenFiles = max(o.OpenFiles, 8*o.MostJobs)
	if o.Progress == nil {
		o.Progress = func(int64) {}
	}
	return o
}

// DurableFile is one file that is complete and durable.
type DurableFile struct {
	Path string
	Size int64 // bytes that a whole file has; of others, the size that the source was listed with
}

// Stats is what a Copier has done so far. Times are wall time.
type Stats struct {
	Bytes       int64 // written
	Files       int   // regular files written
	Made        int   // directories and links made
	Truncated   int   // files cut by a plan.Truncate
	Removed     int   // paths removed by a plan.Remove
	Gone        int   // files removed because the source no longer has them
	FileSyncs   int
	DirSyncs    int
	MakeTime    time.Duration // directories and links
	CopyTime    time.Duration // copying, with the fsyncs that go on beside it
	DrainTime   time.Duration // the part of CopyTime after the last byte was written, when only fsyncs were left
	TruncTime   time.Duration
	RemoveTime  time.Duration
	FinishTime  time.Duration // Sync
	LargestOpen int           // descriptors of target files open at the same time
}

// Copier carries plans out on one target. Its methods must not be called at the same time, except Stats.
type Copier struct {
	fs   fsx.FS
	opts Options

	mu    sync.Mutex
	stats Stats
	dirs  map[string]struct{} // whose names changed, not yet synced
	// vanished are the files of plan.Truncate that the source had no more when their blocks were asked for.
	vanished map[string]struct{}
	// failed is the first error of an fsync. Nothing is synced afterwards: see fsx.File.Sync.
	failed atomic.Pointer[fault.Error]
}

// New makes a Copier that writes to target.
func New(target fsx.FS, opts Options) *Copier {
	return &Copier{fs: target, opts: opts.withDefaults(), dirs: map[string]struct{}{}, vanished: map[string]struct{}{}}
}

// Stats returns what was done so far.
func (c *Copier) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

func (c *Copier) count(f func(*Stats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.stats)
}

// Run carries p out. It may be called again with another plan. When it returns nil, every file written is durable, but no
// name that was made or removed: that takes Sync (with SyncSyncfs, so do the files). When it returns an error the target
// is somewhere in between and the plan can be made anew and run again; all goroutines have ended and all files are closed.
//
// Errors are *fault.Error with stock's text, the source's own, or ctx's.
func (c *Copier) Run(ctx context.Context, src Source, p *plan.Plan) error {
	creates, copies, truncates, removes := split(p.Actions)
	clear(c.vanished)
	for _, phase := range []struct {
		run  func() error
		took func(*Stats, time.Duration)
	}{
		{func() error { return c.makeEntries(ctx, creates) }, func(s *Stats, d time.Duration) { s.MakeTime += d }},
		{func() error { return c.copyAll(ctx, src, copies) }, func(s *Stats, d time.Duration) { s.CopyTime += d }},
		{func() error { return c.truncate(ctx, truncates) }, func(s *Stats, d time.Duration) { s.TruncTime += d }},
		{func() error { return c.remove(ctx, removes) }, func(s *Stats, d time.Duration) { s.RemoveTime += d }},
	} {
		start := time.Now()
		err := phase.run()
		c.count(func(s *Stats) { phase.took(s, time.Since(start)) })
		if err != nil {
			return err
		}
	}
	return nil
}

// split cuts the actions, which are in order, into the four phases. Truncations are in two of them: their blocks are
// copied with all the others.
func split(actions []plan.Action) (creates, copies, truncates, removes []plan.Action) {
	at := func(k plan.Kind) int {
		for i := range actions {
			if actions[i].Kind >= k {
				return i
			}
		}
		return len(actions)
	}
	copyAt, truncateAt, removeAt := at(plan.Copy), at(plan.Truncate), at(plan.Remove)
	return actions[:copyAt], actions[copyAt:removeAt], actions[truncateAt:removeAt], actions[removeAt:]
}
