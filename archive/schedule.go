package archive

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// schedule begins as many of the queued fetches as may run now. The lock is held; so it is for everything in this file
// unless said otherwise.
func (s *Spool) schedule() {
	if s.closed {
		return
	}
	for s.running < s.cfg.Jobs {
		e := s.next()
		if e == nil || !s.makeRoom(e) {
			return
		}
		if fits, err := s.fits(e); err != nil {
			s.remove(e, err)
			return // remove has scheduled
		} else if !fits {
			return
		}
		s.queue = slices.DeleteFunc(s.queue, func(q *entry) bool { return q == e })
		s.start(e)
	}
}

// next is the first in the queue, of those that a reader waits for if there are such.
func (s *Spool) next() *entry {
	for _, e := range s.queue {
		if e.demanded > 0 {
			return e
		}
	}
	if len(s.queue) > 0 {
		return s.queue[0]
	}
	return nil
}

func (s *Spool) start(e *entry) {
	ctx, stop := context.WithCancelCause(s.ctx)
	e.state, e.stop = fetching, stop
	s.running++
	s.wg.Go(func() {
		defer stop(nil)
		err := s.fetch(withNeeded(ctx, func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return e.demanded > 0
		}), e)
		s.finish(ctx, e, err)
	})
}

// finish notes what became of a fetch. Without the lock.
func (s *Spool) finish(ctx context.Context, e *entry, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	if err == nil {
		s.clock++
		e.state, e.used = ready, s.clock
		close(e.done)
		s.schedule()
		return
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errFinal) {
		s.failed[e.key] = err
	}
	s.remove(e, err)
}

func (s *Spool) retained(e *entry) bool { return s.cfg.Retain != nil && s.cfg.Retain(e.tli, e.seg) }

// makeRoom sees to it that e may be fetched without exceeding the window, and reports whether it may now.
func (s *Spool) makeRoom(e *entry) bool {
	if s.retained(e) {
		return true
	}
	for {
		n := 0
		for _, other := range s.entries {
			if other.state != queued && !s.retained(other) {
				n++
			}
		}
		if n < s.cfg.Window {
			return true
		}
		if !s.evict(e.demanded > 0) {
			return false
		}
	}
}

// evict removes the file that is least likely to be missed, if there is one: first what has been read and closed, longest
// ago; only for a reader who waits also what is open, which stays readable, and what nobody has read yet.
func (s *Spool) evict(forReader bool) bool {
	var victim *entry
	for _, e := range s.entries {
		if e.state != ready || e.wanted() || s.retained(e) || !forReader && e.worth() > 0 {
			continue
		}
		if victim == nil || e.worth() < victim.worth() || e.worth() == victim.worth() && e.used < victim.used {
			victim = e
		}
	}
	if victim == nil {
		return false
	}
	delete(s.entries, victim.key)
	_ = os.Remove(s.path(victim.name)) // what cannot be removed goes with the directory
	s.event(Event{Kind: Evicted, Segment: victim.name, Path: s.path(victim.name), Bytes: int64(s.cfg.Identity.SegSize)})
	return true
}

// worth orders files by how much it would matter if they went.
func (e *entry) worth() int {
	switch {
	case e.read && e.open == 0:
		return 0
	case e.read:
		return 1
	default:
		return 2
	}
}

// fits reports whether the file system has room for e besides all fetches that are under way, evicting if it has not. It
// is an error if it has none and nothing can change that.
func (s *Spool) fits(e *entry) (bool, error) {
	size := int64(s.cfg.Identity.SegSize)
	need := int64(s.running+1)*size + s.cfg.Margin
	for {
		free, err := s.free()
		if err != nil || free >= need {
			return true, nil //nolint:nilerr // who cannot say how much is free may still take it
		}
		if s.evict(e.demanded > 0) {
			continue
		}
		if s.running > 0 || s.arriving() {
			return false, nil // what arrives may be evicted
		}
		return false, noSpace(s.path(e.name), s.dir.path, free, size, s.cfg.Margin)
	}
}

// arriving reports whether somebody is about to take note that their segment has arrived.
func (s *Spool) arriving() bool {
	for _, e := range s.entries {
		if e.state == ready && e.wanted() {
			return true
		}
	}
	return false
}

func noSpace(path, dir string, free, size, margin int64) error {
	return localError(unix.ENOSPC, "could not write file \"%s\": %s", path, fault.M(unix.ENOSPC)).
		Advise("\"%s\" has %d MB free; a segment takes %d MB, and %d MB are to be left free. "+
			"Make room on that file system: at least some segments of missing WAL must fit in.", dir, free>>20, size>>20, margin>>20)
}
