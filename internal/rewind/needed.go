package rewind

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/fastrewind/fastrewind/copier"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
	"github.com/fastrewind/fastrewind/scan"
)

// walSegment is one segment along a history.
type walSegment struct {
	tli pg.TLI
	seg pg.SegNo
}

func (s walSegment) name(segSize uint32) string { return pg.SegmentName(s.tli, s.seg, segSize) }

// missingWAL lists the segments that the rewound server will want and that neither side will have given it: from where
// replay starts to where the source's WAL ends. Checkpoints of the source are further ahead, so it may have removed the
// first of them long ago.
func (r *run) missingWAL(f *facts, p *plan.Plan, sourceHistory pg.History) []walSegment {
	segSize := r.target.SegSize
	have := map[string]bool{}
	for _, path := range p.KeptWAL {
		have[strings.TrimPrefix(path, "pg_wal/")] = true
	}
	for i := range f.source {
		e := &f.source[i]
		if name, ok := cutWAL(e.Path); ok && e.Type == pg.RegularFile && e.Size == int64(segSize) {
			have[name] = true
		}
	}
	return r.lacking(f, sourceHistory, f.sourceEnd, func(name string) bool { return have[name] })
}

// lacking lists the segments along the source's history that recovery goes through up to end, less those that there are.
func (r *run) lacking(f *facts, sourceHistory pg.History, end pg.LSN, have func(name string) bool) []walSegment {
	segSize := r.target.SegSize
	start := min(r.backupLabel(f).Redo, f.scan.Redo)
	var missing []walSegment
	for seg := start.Seg(segSize); seg <= end.SegOfEnd(segSize); seg++ {
		s := walSegment{sourceHistory.SegmentTLI(seg, segSize), seg}
		if !have(s.name(segSize)) {
			missing = append(missing, s)
		}
	}
	return missing
}

// goneWAL is the files of pg_wal that the source had listed, or written since, and had no more when they were to be copied: its
// checkpoints go on while a large cluster is copied, and nothing holds its WAL for us.
type goneWAL struct {
	mu    sync.Mutex
	names map[string]bool
}

// note implements copier.Options.Gone.
func (g *goneWAL) note(path string) {
	name, isWAL := cutWAL(path)
	if !isWAL {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.names == nil {
		g.names = make(map[string]bool)
	}
	g.names[name] = true
}

func (g *goneWAL) has(name string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.names[name]
}

// findGoneWAL does what findNeededWAL does for segments that the source has removed since.
func (r *run) findGoneWAL(ctx context.Context, f *facts, end consistency) error {
	if r.live == nil {
		return nil
	}
	missing := r.lacking(f, end.history, end.lsn, func(name string) bool {
		if slices.Contains(r.toKeep, name) || r.lost[name] {
			return true // or was reported before
		}
		// What went while it was copied for the second time may be half of what it was.
		info, err := os.Lstat(filepath.Join(r.cfg.TargetDir, "pg_wal", name))
		return err == nil && info.Size() == int64(r.target.SegSize) && !r.gone.has(name)
	})
	return r.obtain(ctx, missing, end.history, end.lsn, "the source has removed WAL since it was listed that the rewound server needs")
}

// findNeededWAL looks for those segments in the archives, before anything is touched, and fetches what is there. What
// nobody has is named; it is no error, since the rewound server may have a restore_command of its own that finds it.
func (r *run) findNeededWAL(ctx context.Context, f *facts, p *plan.Plan, div divergence) error {
	missing := r.missingWAL(f, p, div.sourceHistory)
	r.keepStarted(f, p)
	return r.obtain(ctx, missing, div.sourceHistory, f.sourceEnd, "neither side has all of the WAL that the rewound server needs first")
}

// obtain fetches missing segments of the source's history, which ends at end, so that keepNeededWAL finds them; and says which
// nobody has.
func (r *run) obtain(ctx context.Context, missing []walSegment, history pg.History, end pg.LSN, complaint string) error {
	segSize := r.target.SegSize
	if len(missing) == 0 {
		return nil
	}
	if r.wal.spool == nil || r.cfg.FetchSourceWAL == ChoiceOff {
		r.warnOfMissingWAL(complaint, missing, nil)
		return nil
	}
	wanted := map[walSegment]bool{}
	for _, s := range missing {
		wanted[s] = true
	}
	r.wal.retainAlso(func(tli pg.TLI, seg pg.SegNo) bool { return wanted[walSegment{tli, seg}] })
	fetched := &walStores{store: r.wal.spool}
	errs := make([]error, len(missing))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(r.cfg.ArchiveJobs)
	for i, s := range missing {
		g.Go(func() error {
			opened, err := r.wal.spool.Open(gctx, s.tli, s.seg)
			if err == nil {
				_ = opened.Close() // only read from
				// Nobody reads it before the rewound server does.
				err = scan.CheckSegment(gctx, fetched, r.format(), history, s.seg, end)
			}
			errs[i] = err
			return gctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	var lost []walSegment
	var why error
	for i, s := range missing {
		name := s.name(segSize)
		switch {
		case errs[i] != nil:
			lost, why = append(lost, s), errs[i]
		case !slices.Contains(r.toKeep, name):
			r.toKeep = append(r.toKeep, name)
		}
	}
	if found := len(missing) - len(lost); found > 0 {
		r.rep.Note("%d WAL segments that the source has removed come from the archive", found)
	}
	if len(lost) > 0 {
		r.warnOfMissingWAL(complaint, lost, why)
	}
	return nil
}

// keepStarted keeps the segments from the common checkpoint to the divergence that were fetched for the scan, under the names
// that the target's own timeline gives them, as stock does, which leaves there what it restored; but not that of the divergence
// (see segments.has), nor what the source's copy replaces. Where both sides have a segment that is not copied, the target's was
// no good, or it would not have been fetched.
func (r *run) keepStarted(f *facts, p *plan.Plan) {
	if r.wal.spool == nil {
		return
	}
	copied := make(map[string]bool)
	for i := range p.Actions {
		if name, isWAL := cutWAL(p.Actions[i].Path); isWAL && p.Actions[i].Kind == plan.Copy {
			copied[name] = true
		}
	}
	rec := &f.recovery
	for seg := f.scan.Checkpoint.Seg(rec.segSize); rec.isCommon(seg); seg++ {
		name := walSegment{rec.history.SegmentTLI(seg, rec.segSize), seg}.name(rec.segSize)
		if _, fetched := r.wal.spool.Keep(name); fetched && !copied[name] {
			r.toKeep = append(r.toKeep, name)
		}
	}
}

// namedSegments is how many missing segments are named one by one.
const namedSegments = 20

func (r *run) warnOfMissingWAL(complaint string, missing []walSegment, why error) {
	if r.lost == nil {
		r.lost = make(map[string]bool)
	}
	for _, s := range missing {
		r.lost[s.name(r.target.SegSize)] = true
	}
	names := make([]string, 0, namedSegments+1)
	for i, s := range missing {
		if i == namedSegments {
			names = append(names, fmt.Sprintf("and %d more, up to %s", len(missing)-i, missing[len(missing)-1].name(r.target.SegSize)))
			break
		}
		names = append(names, s.name(r.target.SegSize))
	}
	advice := "Its restore_command must find it, or it will not start. Missing: " + strings.Join(names, ", ") + "."
	if r.wal.spool == nil {
		advice += " With --wal-archive or --restore-target-wal they are fetched now."
	}
	var f *fault.Error
	if errors.As(why, &f) {
		advice += " The last one: " + f.Text + "."
	}
	r.rep.Warn(complaint, advice)
}

// keepNeededWAL puts into the target what findNeededWAL and findGoneWAL have fetched.
func (r *run) keepNeededWAL(ctx context.Context, cp *copier.Copier) error {
	if len(r.toKeep) == 0 {
		return nil
	}
	p := &plan.Plan{}
	for _, name := range r.toKeep {
		p.Actions = append(p.Actions, plan.Action{
			Path: "pg_wal/" + name, Kind: plan.Copy, Type: pg.RegularFile, SourceSize: int64(r.target.SegSize),
		})
	}
	// If this is interrupted, what is there must not be taken for whole segments.
	if err := r.noteTouched(p); err != nil {
		return err
	}
	return r.carryOut(ctx, cp, restoredWAL{r.wal.spool}, p)
}
