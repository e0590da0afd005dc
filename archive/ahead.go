package archive

import (
	"context"
	"errors"
	"iter"
	"sync"

	"github.com/fastrewind/fastrewind/internal/pg"
)

// Want is one segment that a reader is expected to ask for.
type Want struct {
	TLI     pg.TLI
	Seg     pg.SegNo
	Certain bool // it will be asked for, unless everything fails; otherwise it may be
}

// Descending is the order in which a rewind reads: from segment newest down to certain for sure, and from there down to
// oldest until it has found its checkpoint. Each is on the timeline that the history says.
func Descending(h pg.History, segSize uint32, newest, certain, oldest pg.SegNo) iter.Seq[Want] {
	return func(yield func(Want) bool) {
		for seg := newest; seg >= max(oldest, 1); seg-- { // no log was ever written to segment 0
			if !yield(Want{TLI: h.SegmentTLI(seg, segSize), Seg: seg, Certain: seg >= certain}) {
				return
			}
		}
	}
}

// Ascending is the order of a reader who wants all segments from first to last.
func Ascending(h pg.History, segSize uint32, first, last pg.SegNo) iter.Seq[Want] {
	return func(yield func(Want) bool) {
		for seg := first; seg <= last; seg++ {
			if !yield(Want{TLI: h.SegmentTLI(seg, segSize), Seg: seg, Certain: true}) {
				return
			}
		}
	}
}

// AheadConfig says what to fetch ahead of a reader.
type AheadConfig struct {
	Chain  Chain          // what is read from; its Spool is Spool
	Local  *PgWal         // what it has is not fetched; may be nil
	Spool  *Spool         // where the rest comes from
	Expect iter.Seq[Want] // in the order in which it will be read; certain ones first
	// Window is how many segments may be on their way, or have arrived and not been asked for; 0: as many as the Spool's
	// window allows without losing what its readers still look back at.
	Window int
	// Speculative is how many of them may be uncertain ones; 0: the Spool's Jobs.
	Speculative int
}

// Ahead is a Chain whose segments are fetched before they are asked for. It does no harm if they are asked for in another
// order, or never. Failures of fetches that nobody waits for are dropped: the reader that asks gets its own.
//
// Uncertain segments are fetched only once pg_wal has turned out to lack something, so that a rewind whose WAL is all
// there runs no restore_command.
type Ahead struct {
	cfg    AheadConfig
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // holds one token when there may be something to do
	asked   map[key]bool
	ahead   map[key]bool // begun and not asked for; true: certain
	missed  bool         // pg_wal lacks one
}

// NewAhead begins fetching. Stop ends it; so does the end of ctx.
func NewAhead(ctx context.Context, cfg AheadConfig) *Ahead {
	if cfg.Window <= 0 {
		cfg.Window = max(1, cfg.Spool.cfg.Window-lookBack(cfg.Spool.cfg.Readers))
	}
	if cfg.Speculative <= 0 {
		cfg.Speculative = cfg.Spool.cfg.Jobs
	}
	ctx, cancel := context.WithCancel(ctx)
	a := &Ahead{cfg: cfg, cancel: cancel, changed: make(chan struct{}, 1), asked: map[key]bool{}, ahead: map[key]bool{}}
	a.wg.Go(func() { a.run(ctx) })
	return a
}

// Open implements Store.
func (a *Ahead) Open(ctx context.Context, tli pg.TLI, seg pg.SegNo) (*Segment, error) {
	missed := !a.has(tli, seg)
	a.mu.Lock()
	a.asked[key{tli, seg}] = true
	delete(a.ahead, key{tli, seg})
	a.missed = a.missed || missed
	a.mu.Unlock()
	a.wake()
	return a.cfg.Chain.Open(ctx, tli, seg)
}

// Stop ends fetching ahead and waits until everything that was begun has ended. Segments that have arrived stay in the
// Spool; Open still works.
func (a *Ahead) Stop() {
	a.cancel()
	a.wg.Wait()
}

func (a *Ahead) has(tli pg.TLI, seg pg.SegNo) bool {
	return a.cfg.Local != nil && a.cfg.Local.Has(tli, seg)
}

func (a *Ahead) wake() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// run goes through what is expected and begins fetches as there is room.
func (a *Ahead) run(ctx context.Context) {
	for w := range a.cfg.Expect {
		if ctx.Err() != nil {
			return
		}
		if a.has(w.TLI, w.Seg) {
			continue
		}
		if !a.begin(ctx, w) {
			return
		}
	}
}

// begin waits until w may be fetched and begins that, unless somebody asks for it first; false if ctx is done.
func (a *Ahead) begin(ctx context.Context, w Want) bool {
	k := key{w.TLI, w.Seg}
	for {
		a.mu.Lock()
		a.missed = a.missed || w.Certain
		asked, room := a.asked[k], a.room(w)
		if !asked && room {
			a.ahead[k] = w.Certain
		}
		a.mu.Unlock()
		switch {
		case asked:
			return true
		case room:
			a.wg.Go(func() { a.prefetch(ctx, w) })
			return true
		}
		select {
		case <-a.changed:
		case <-ctx.Done():
			return false
		}
	}
}

// room reports whether one more fetch may begin. The lock is held.
func (a *Ahead) room(w Want) bool {
	if len(a.ahead) >= a.cfg.Window {
		return false
	}
	if w.Certain {
		return true
	}
	speculative := 0
	for _, certain := range a.ahead {
		if !certain {
			speculative++
		}
	}
	return a.missed && speculative < a.cfg.Speculative
}

// prefetch fetches w. A failure leaves it among those ahead, so that an archive that ends here is not asked for all that
// lies beyond.
func (a *Ahead) prefetch(ctx context.Context, w Want) {
	err := a.cfg.Spool.Prefetch(ctx, w.TLI, w.Seg)
	if err != nil && ctx.Err() == nil && !errors.Is(err, errClosed) && !errors.Is(err, errAbandoned) {
		a.cfg.Spool.event(Event{Kind: Dropped, Segment: pg.SegmentName(w.TLI, w.Seg, a.cfg.Spool.cfg.Identity.SegSize), Err: err})
	}
}
