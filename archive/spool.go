package archive

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// SpoolConfig says from where segments come, and how much room they may take.
type SpoolConfig struct {
	DataDir  string    // the target's data directory: nothing is ever put into it
	Dir      string    // where the private directory is made; empty: beside DataDir, else where temporary files go
	Identity Identity  // what every segment must be
	Fetchers []Fetcher // the places, in the order in which they are asked
	Jobs     int       // fetches at once; at least 1
	// Window is how many segments may lie in the private directory, arrived or on their way, besides those of Retain.
	// 0: enough for Jobs fetches ahead and for Readers.
	Window int
	// Readers is how many segments the readers have open at once; 0: Jobs.
	Readers int
	// Retain says which segments will be wanted by Keep and must not go; nil: none. It is called with a lock held: it must
	// be quick and must not call the Spool.
	Retain func(tli pg.TLI, seg pg.SegNo) bool
	// Margin is how many bytes of the file system are left free; 0: DefaultMargin; negative: none.
	Margin int64
	// Event is told what happens, now and then with a lock held: it must not call the Spool. May be nil.
	Event func(Event)
}

// DefaultMargin is what is left free on the file system that holds the private directory: the cluster beside it may
// need some bytes too.
const DefaultMargin = 64 << 20

// Spool is segments that are fetched, each once however many readers ask for it at once, into a private directory where
// they are files that readers open. It holds a bounded number of them: those that nobody has opened for the longest time
// go first, and come again if they are asked for again.
//
// A segment is believed only if its size and its first page are right. A wrong copy is refused, and the next place asked.
//
// Stock restores into the target's pg_wal instead, where segments stay even after a dry run, and where prefetching
// archivers (WAL-G) leave files that come and go under the rewind's hands.
type Spool struct {
	cfg    SpoolConfig
	dir    *private
	free   func() (int64, error)
	ctx    context.Context //nolint:containedctx // ends with Close: fetches outlive the one who asked first
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // fetches

	mu      sync.Mutex
	closed  bool
	entries map[key]*entry
	failed  map[key]error // what no place has, or restore_command cannot be run for: nobody is asked again
	queue   []*entry      // waiting for their turn, in the order they were asked for
	running int
	clock   uint64 // counts openings
}

type key struct {
	tli pg.TLI
	seg pg.SegNo
}

// entry is one segment: queued, then fetching, then ready; or gone from the map again, if the fetch failed.
type entry struct {
	key
	name  string
	state state
	done  chan struct{} // closed when it is ready, or gone and err says why
	err   error
	stop  context.CancelCauseFunc // of the fetch

	demanded int    // readers who wait for it
	expected int    // prefetchers who do
	open     int    // open Segments
	read     bool   // it has been opened since it was fetched
	used     uint64 // clock of the last opening or, before the first, of the arrival
}

type state uint8

const (
	queued state = iota
	fetching
	ready
	gone
)

var (
	errClosed    = errors.New("the WAL archive is closed")
	errAbandoned = errors.New("nobody wants it any more")
)

// NewSpool makes the private directory, and removes those that dead runs have left at the same place. Close removes it.
func NewSpool(cfg SpoolConfig) (*Spool, error) {
	cfg.Jobs = max(1, cfg.Jobs)
	if cfg.Readers <= 0 {
		cfg.Readers = cfg.Jobs
	}
	if cfg.Window <= 0 {
		cfg.Window = 2*cfg.Jobs + lookBack(cfg.Readers)
	}
	switch {
	case cfg.Margin == 0:
		cfg.Margin = DefaultMargin
	case cfg.Margin < 0:
		cfg.Margin = 0
	}
	dir, err := newPrivate(cfg.DataDir, cfg.Dir)
	if err != nil {
		return nil, err
	}
	s := &Spool{cfg: cfg, dir: dir, free: dir.free, entries: map[key]*entry{}, failed: map[key]error{}}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s, nil
}

// lookBack is how many segments must stay for readers of descending shards: the one that each reads, the one after it,
// for the end of its last record, and one that it has done with, which it may have had open last.
func lookBack(readers int) int { return 2*readers + 1 }

// Open fetches a segment, or opens it again if it is still there. It does not return before a fetch that only it wanted
// has come to its end, even if ctx is done. If no place has the segment, errors.Is(err, fs.ErrNotExist). That, and
// that restore_command cannot be run, is remembered; after other failures the next Open tries again.
func (s *Spool) Open(ctx context.Context, tli pg.TLI, seg pg.SegNo) (*Segment, error) {
	for {
		e, err := s.await(ctx, key{tli, seg}, true)
		if errors.Is(err, errAbandoned) {
			continue // somebody else gave up just before
		}
		if err != nil {
			return nil, err
		}
		opened, err := s.openReady(e)
		if err != nil {
			return nil, err
		}
		s.event(Event{Kind: Opened, Segment: e.name, Path: opened.Path(), Bytes: opened.size})
		return opened, nil
	}
}

// Prefetch fetches a segment that somebody will ask for, and returns when it has arrived. It makes room by removing what
// was read before, never what was fetched and not yet read; whoever is in Open has precedence.
func (s *Spool) Prefetch(ctx context.Context, tli pg.TLI, seg pg.SegNo) error {
	e, err := s.await(ctx, key{tli, seg}, false)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave(e, false)
	return nil
}

// await registers the caller's interest in a segment and waits until it is ready. With a nil error, the caller still holds
// its interest in the entry, which must be given back by leave.
func (s *Spool) await(ctx context.Context, k key, demand bool) (*entry, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, errClosed
	}
	if err := s.failed[k]; err != nil {
		s.mu.Unlock()
		return nil, told(err, demand)
	}
	e := s.entries[k]
	if e == nil {
		e = &entry{key: k, name: pg.SegmentName(k.tli, k.seg, s.cfg.Identity.SegSize), done: make(chan struct{})}
		s.entries[k] = e
		s.queue = append(s.queue, e)
	}
	e.enter(demand)
	s.schedule()
	s.mu.Unlock()

	select {
	case <-e.done:
	case <-ctx.Done():
		s.mu.Lock()
		last := s.leave(e, demand)
		s.mu.Unlock()
		if last {
			<-e.done // what was started for us ends before we do
		}
		return nil, context.Cause(ctx)
	}
	if e.err != nil {
		return nil, told(e.err, demand) // it is out of the map, and interest in it means nothing
	}
	return e, nil
}

// told is an error that somebody is told of; a reader, with all that belongs to it.
func told(err error, demand bool) error {
	if demand {
		reveal(err)
	}
	return err
}

func (e *entry) enter(demand bool) {
	if demand {
		e.demanded++
	} else {
		e.expected++
	}
}

func (e *entry) wanted() bool { return e.demanded+e.expected > 0 }

// leave takes back somebody's interest. If nobody else has any in a segment that has not arrived, it is given up; last
// says so. The lock is held.
func (s *Spool) leave(e *entry, demand bool) (last bool) {
	if demand {
		e.demanded--
	} else {
		e.expected--
	}
	if !e.wanted() {
		switch e.state {
		case queued:
			s.remove(e, errAbandoned)
			return true
		case fetching:
			e.stop(errAbandoned)
			return true
		case ready, gone:
		}
	}
	s.schedule() // a ready one may now be evicted, a queued one may have lost its precedence
	return false
}

// remove takes an entry that has no file out of everything, and tells who waits. The lock is held.
func (s *Spool) remove(e *entry, err error) {
	if s.entries[e.key] == e {
		delete(s.entries, e.key)
	}
	for i, q := range s.queue {
		if q == e {
			s.queue = append(s.queue[:i], s.queue[i+1:]...)
			break
		}
	}
	e.state, e.err = gone, err
	close(e.done)
	s.schedule()
}

func (s *Spool) path(name string) string { return filepath.Join(s.dir.path, name) }

// openReady opens an entry's file and gives back the interest that kept it from being evicted.
func (s *Spool) openReady(e *entry) (*Segment, error) {
	path := s.path(e.name)
	opened, err := openSegment(path)
	if err == nil && opened.size != int64(s.cfg.Identity.SegSize) {
		_ = opened.Close() // only read from
		err = errors.New("its size has changed")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave(e, true)
	if err != nil {
		return nil, fault.Because(noLonger(err), "could not open file \"%s\" restored from archive: %s", path, fault.M(err))
	}
	s.clock++
	e.open++
	e.read, e.used = true, s.clock
	opened.release = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		e.open--
		s.schedule()
	}
	return opened, nil
}

// Keep gives a fetched segment to the caller, who may move or copy the file before Close removes what is left; once it is
// moved, Open fails for it. ok is false if it was not fetched, or not kept (see Retain). The file is a regular one and
// nobody else's, whatever a command has made.
func (s *Spool) Keep(name string) (path string, ok bool) {
	tli, seg, ok := pg.ParseSegmentName(name, s.cfg.Identity.SegSize)
	if !ok {
		return "", false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key{tli, seg}]
	if e == nil || e.state != ready {
		return "", false
	}
	path = s.path(name)
	_, err := os.Lstat(path)
	return path, !errors.Is(err, fs.ErrNotExist)
}

// Close stops what is being fetched, waits for it, and removes the private directory with all that is in it. The store
// must not be used afterwards; segments still open stay readable.
func (s *Spool) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	for len(s.queue) > 0 {
		s.remove(s.queue[0], errClosed)
	}
	s.mu.Unlock()
	s.cancel(errClosed)
	s.wg.Wait()
	return s.dir.close()
}

func (s *Spool) event(e Event) { listener(s.cfg.Event).tell(e) }
