package rewind

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fastrewind/fastrewind/archive"
	"github.com/fastrewind/fastrewind/archive/place"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/scan"
)

// walStores is where WAL comes from: the target's own pg_wal, and what is missing there from archives.
type walStores struct {
	local  *archive.PgWal
	spool  *archive.Spool // nil: there is no archive
	store  archive.Store
	places []*place.Place // the archives that are read directly
	done   func()         // with the output of restore_command; may be nil
	meter  *walMeter

	mu     sync.Mutex
	retain func(tli pg.TLI, seg pg.SegNo) bool // which segments in the spool are still wanted when they have been read
}

// openWAL finds out where WAL can be had from: the archives in the order in which the user named them, then, under -c,
// restore_command.
func (r *run) openWAL(ctx context.Context, d divergence) error {
	segSize := r.target.SegSize
	id := archive.Identity{
		Version: r.target.Version, SegSize: segSize, SystemID: r.target.SystemID,
		Histories: []pg.History{d.targetHistory, d.sourceHistory},
	}
	w := &walStores{local: archive.NewPgWal(r.cfg.TargetDir, segSize).Expect(id)}
	w.store = archive.Chain{w.local}
	w.meter = &walMeter{rep: r.rep}
	r.wal = w
	places, err := r.openArchives(ctx)
	if err != nil {
		return err
	}
	if r.cfg.RestoreTargetWAL {
		output, done := r.rep.Output()
		w.done = done
		places = append(places, archive.NewCommand(archive.CommandConfig{
			Command: r.restoreCmd, Major: r.target.Version.Major, SegSize: segSize, Timeout: r.cfg.RestoreTimeout,
			Output: output, Event: r.walEvent,
		}))
	}
	if len(places) == 0 {
		return nil
	}
	// Recovery will start in segments at or before the divergence; what else it wants is known only later.
	last := d.lsn.Seg(segSize)
	w.retain = func(_ pg.TLI, seg pg.SegNo) bool { return seg <= last }
	w.spool, err = archive.NewSpool(archive.SpoolConfig{
		DataDir:  r.cfg.TargetDir,
		Identity: id,
		Fetchers: places,
		Jobs:     r.cfg.ArchiveJobs,
		Readers:  r.cfg.Jobs + 1,
		Retain:   w.retains,
		Event:    r.walEvent,
	})
	if err != nil {
		return err
	}
	w.store = archive.Chain{w.local, w.spool}
	return nil
}

func (w *walStores) retains(tli pg.TLI, seg pg.SegNo) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.retain(tli, seg)
}

// retainAlso adds to the segments that are kept once they have come.
func (w *walStores) retainAlso(more func(tli pg.TLI, seg pg.SegNo) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.retain
	w.retain = func(tli pg.TLI, seg pg.SegNo) bool { return before(tli, seg) || more(tli, seg) }
}

// lookAhead fetches what the scan will ask for before it does: from the target's last segment down to the divergence all of
// them, and below it some, since nobody knows how far the checkpoint is. The caller must call the function returned.
func (w *walStores) lookAhead(ctx context.Context, d divergence, segSize uint32, jobs int) (stop func()) {
	if w.spool == nil {
		return func() {}
	}
	ahead := archive.NewAhead(ctx, archive.AheadConfig{
		Chain: archive.Chain{w.local, w.spool}, Local: w.local, Spool: w.spool,
		Expect: archive.Descending(d.targetHistory, segSize, (d.end - 1).Seg(segSize), d.lsn.Seg(segSize), 1),
		Window: 2 * jobs, Speculative: jobs,
	})
	before := w.store
	w.store = ahead
	return func() {
		w.store = before
		ahead.Stop()
	}
}

// Open implements scan.Segments.
func (w *walStores) Open(ctx context.Context, tli pg.TLI, seg pg.SegNo) (scan.Segment, error) {
	s, err := w.store.Open(ctx, tli, seg)
	if err != nil {
		return nil, err // not s: a nil pointer in an interface is not nil
	}
	return s, nil
}

func (w *walStores) close() error {
	if w.done != nil {
		defer w.done()
	}
	var err error
	if w.spool != nil {
		w.meter.close()
		err = w.spool.Close()
	}
	return errors.Join(err, place.CloseAll(w.places))
}

// walMeter shows how segments come from archives, and says at the end what came.
type walMeter struct {
	rep Reporter

	mu                 sync.Mutex
	meter              Meter // nil until the first has come
	began              time.Time
	segments, retries  int
	bytes              int64
	places             map[string]int
	refused, forgotten int
}

// walEvent makes lines and numbers of what happens to segments.
func (r *run) walEvent(e archive.Event) {
	m := r.wal.meter
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e.Kind {
	case archive.Opened:
		r.rep.Debug("using file \"%s\" restored from archive", e.Path)
	case archive.Fetched:
		if m.meter == nil {
			m.meter, m.began, m.places = r.rep.Start(PhaseArchive, 0, Bytes), time.Now().Add(-e.Duration), map[string]int{}
		}
		m.segments++
		m.bytes += e.Bytes
		m.places[e.Place]++
		m.meter.Add(e.Bytes)
		r.rep.Debug("segment %s came from %s in %v", e.Segment, e.Place, e.Duration.Round(time.Millisecond))
	case archive.Retried:
		m.retries++
		r.rep.Debug("attempt %d to fetch segment %s from %s failed: %v", e.Attempt, e.Segment, e.Place, e.Err)
	case archive.Refused:
		m.refused++
		r.rep.Warn(fmt.Sprintf("%s has no usable copy of WAL segment %s: %v", e.Place, e.Segment, e.Err),
			"Another place had it, so the rewind goes on. Look after that archive.")
	case archive.Dropped:
		r.rep.Debug("segment %s was not fetched ahead: %v", e.Segment, e.Err)
	case archive.Evicted:
		m.forgotten++
	}
}

func (m *walMeter) retried() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retries++
}

func (m *walMeter) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.meter == nil {
		return
	}
	m.meter.Done()
	m.meter = nil
	took := time.Since(m.began)
	for place, n := range m.places {
		m.rep.Note("%d WAL segments came from %s", n, place)
	}
	m.rep.Note("fetched %d WAL segments, %d MB in %v (%d retries, %d refused, %d removed again to make room)",
		m.segments, m.bytes>>20, took.Round(time.Millisecond), m.retries, m.refused, m.forgotten)
}
