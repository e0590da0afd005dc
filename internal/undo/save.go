package undo

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fastrewind/fastrewind/copier"
	"github.com/fastrewind/fastrewind/internal/datadir"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// Input says what is going to happen to a target.
type Input struct {
	// RunID is the same for every session of one run, and never that of another run.
	RunID     string
	SystemID  uint64 // the target's
	TargetDir string
	// Plan is what the caller is about to carry out.
	Plan *plan.Plan
	// Extra are paths that the run will make, replace or remove besides, as a whole: postgresql.auto.conf,
	// standby.signal. A path that is not there is removed by the undo.
	Extra []string
	// Own are files of the rewind itself in the target: its journal. They are not saved, and Apply removes them.
	Own []string
	// Modes are the permissions that paths of the target had before the run changed them (--fix-permissions), for those
	// that it has changed. The target directory itself, ".", is passed over.
	Modes map[string]fs.FileMode
	// Control and Label are the target's global/pg_control and backup_label before the run; nil Label: there is none.
	// Those of the first session count.
	Control, Label []byte
	// GuardControl and GuardLabel are what keeps a server from starting on a half-rewound target. Apply puts them in
	// place first of all. No GuardLabel: Apply has one of its own.
	GuardControl, GuardLabel []byte
}

// Options are how Save goes about it. The zero value is good.
type Options struct {
	Jobs int // readers, 1 to 16; default 4
	// Progress, if not nil, is told how many bytes of the target were saved, from several goroutines.
	Progress func(bytes int64)
	// Wrap, if not nil, gives what stands between Save and the file system of the undo directory, reflinks excepted.
	Wrap func(fsx.FS) fsx.FS

	clone func(dst, src *os.File) error // for tests; default: FICLONE
}

func (o Options) withDefaults() Options {
	if o.Jobs <= 0 {
		o.Jobs = 4
	}
	o.Jobs = min(o.Jobs, maxWorkers)
	if o.Progress == nil {
		o.Progress = func(int64) {}
	}
	if o.clone == nil {
		o.clone = clone
	}
	return o
}

// Stats is what one Save did.
type Stats struct {
	Part       int   // the number of the part that was made; 0: there was nothing to add
	Paths      int   // noted for the first time
	Bytes      int64 // of the target that were read and saved
	Stored     int64 // bytes that took in the undo directory
	Clones     int   // whole files that were saved as reflinks
	CloneBytes int64 // their sizes
	Already    int64 // bytes that an earlier part has
}

// Save saves everything that carrying out in.Plan, and whatever else in announces, will overwrite or remove, so that Apply
// can put it back. It reads the target and changes nothing in it. When it returns nil, what it saved is durable, and the
// caller may go on to change the target; when it returns an error, the undo directory is as it was, but for a directory
// that was made.
//
// It must be called before the first change of a run and again before every further plan, by the same session or a later
// one: what it saved before is left as it is, and only what is new is added, as a part of its own. It takes the bytes of
// the target that no part has for original, which they are if nothing was changed that was not saved before.
//
// dir is made, with mode 0700, if its parent is there; otherwise it must be empty or have been made by the same run.
// Memory is bounded by the length of the plan, not by the sizes of files. Errors are *fault.Error or ctx's.
func Save(ctx context.Context, in Input, dir string, o Options) (stats Stats, err error) {
	s, err := Open(ctx, in, dir, o)
	if err != nil {
		return stats, err
	}
	stats, err = s.Save(ctx, in.Plan, in.Extra...)
	return stats, errors.Join(err, s.Close())
}

// Session is an undo directory that is open for one run, and locked: nobody else can save to it or restore from it. It
// spares a run that saves many times the reading of what is there already. Its methods may be called from several
// goroutines; they take turns.
type Session struct {
	mu    sync.Mutex
	in    Input
	opts  Options
	store *store
	known known // nil: to be read anew
	parts []part
}

// Open opens, or makes, the undo directory dir. in.Plan and in.Extra are not looked at. Errors are Save's.
func Open(ctx context.Context, in Input, dir string, o Options) (session *Session, err error) {
	if in.RunID == "" || len(in.Control) == 0 || len(in.GuardControl) == 0 {
		return nil, errors.New("undo: an undo needs a run's id, a control file and a guard")
	}
	if len(in.Label)+len(in.Control)+len(in.GuardControl)+len(in.GuardLabel) > maxFrame/4 {
		return nil, fault.New("control file or backup_label of \"%s\" is too large to be saved", in.TargetDir)
	}
	if err := outside(dir, in.TargetDir); err != nil {
		return nil, err
	}
	if err := prepare(dir); err != nil {
		return nil, err
	}
	s := &Session{in: in, opts: o.withDefaults()}
	if s.store, err = openStore(dir, o.Wrap); err != nil {
		return nil, err
	}
	if err = s.store.begin(&in); err == nil {
		err = s.read(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Session) read(ctx context.Context) (err error) {
	s.known, s.parts, err = s.store.readAll(ctx)
	return err
}

// Save is the package's Save for one more plan, which may be nil, and further paths, which are replaced as a whole.
func (s *Session) Save(ctx context.Context, p *plan.Plan, extra ...string) (Stats, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.store.clearTemporary(); err != nil {
		return Stats{}, err
	}
	if s.known == nil {
		if err := s.read(ctx); err != nil {
			return Stats{}, err
		}
	}
	v := &saver{in: s.in, opts: s.opts, store: s.store, known: s.known, number: s.store.parts + 1, guarded: guarded(s.parts, &s.in),
		uncloned: map[uint64]bool{}}
	v.in.Plan, v.in.Extra = p, extra
	if v.number > maxParts {
		return Stats{}, fault.New("undo directory \"%s\" has too many parts", s.store.dir)
	}
	stats, err := v.save(ctx)
	if err != nil {
		s.known = nil // it has what was noted and not saved
		return stats, err
	}
	if stats.Part > 0 {
		s.store.parts = stats.Part
		s.parts = append(s.parts, part{number: stats.Part, partInfo: v.info})
	}
	return stats, nil
}

// Finish is the package's Finish.
func (s *Session) Finish(control []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.finish(control)
}

// Close gives the directory free.
func (s *Session) Close() error { return s.store.close() }

// Bytes is how much of the target carrying p out overwrites or removes, going by its listed sizes: what Save will read,
// and, since it compresses, the most that it will store.
func Bytes(p *plan.Plan) (n int64) {
	for i := range p.Actions {
		a := &p.Actions[i]
		switch a.Kind {
		case plan.Copy, plan.Remove:
			n += a.TargetSize
		case plan.Truncate:
			n += total(merge(slices.Clone(a.Blocks), []plan.Span{{Offset: a.SourceSize, Length: a.TargetSize - a.SourceSize}}))
		default:
			n += total(clip(a.Blocks, a.TargetSize))
		}
	}
	return n
}

// Discard removes the undo of a run that has changed nothing, so that the next run can use the directory. Only what Save
// makes is removed, and the directory itself stays. An undo of another run is left alone; that, and a directory that is
// no undo, is no error.
func Discard(dir, runID string) (err error) {
	s, err := openStore(dir, nil)
	if err != nil {
		if _, headErr := os.Lstat(filepath.Join(dir, headFile)); headErr != nil {
			return nil // it is no undo, which may be why Save failed
		}
		return err
	}
	defer func() {
		if closeErr := s.close(); err == nil && closeErr != nil {
			err = closeErr
		}
	}()
	if s.empty || s.head.Run != runID {
		return nil
	}
	if err := s.clearTemporary(); err != nil {
		return err
	}
	for n := s.parts; n > 0; n-- {
		if err := s.removePart(partName(n)); err != nil {
			return err
		}
	}
	for _, name := range []string{finalFile, headFile} {
		if err := s.out.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault.Because(err, "could not remove file \"%s\": %s", s.path(name), fault.M(err))
		}
	}
	if err := s.out.SyncDir("."); err != nil {
		return fault.Because(err, "could not fsync file \"%s\": %s", s.dir, fault.M(err))
	}
	return nil
}

// Finish notes that a rewind of the run is about to put control in place as the target's last global/pg_control. It must
// be called, and have returned, before that is done: Apply takes a target with any other control file than those it knows
// for one on which a server has run since.
func Finish(dir, runID string, control []byte) (err error) {
	s, err := openStore(dir, nil)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := s.close(); err == nil && closeErr != nil {
			err = closeErr
		}
	}()
	if err := s.sameRun(runID); err != nil {
		return err
	}
	return s.finish(control)
}

func (s *store) finish(control []byte) error {
	final, err := s.finals()
	if err != nil {
		return err
	}
	sum := digest(control)
	if slices.Contains(final.Controls, sum) {
		return nil
	}
	final.Controls = append(final.Controls, sum)
	if n := len(final.Controls) - maxControls; n > 0 {
		final.Controls = final.Controls[n:]
	}
	return s.writeJSON(finalFile, 1, final)
}

func (s *store) sameRun(runID string) error {
	if s.empty {
		return noUndo(s.dir)
	}
	if s.head.Run == runID {
		return nil
	}
	return fault.New("undo directory \"%s\" belongs to another rewind", s.dir).
		Advise("It was made on %s by run %s of the target \"%s\", and this is run %s. Name another directory; or, if that undo "+
			"is not wanted any more, remove it.", s.head.Created.Format(time.DateTime), s.head.Run, s.head.TargetDir, runID)
}

func noUndo(dir string) error {
	return fault.New("directory \"%s\" holds no undo", dir).
		Advise("Name the directory that was given to --keep-undo. A rewind that failed before it changed anything leaves none.")
}

// begin makes the head, or sees that the one that is there is of the same run. A head without any part is of a run that
// has changed nothing.
func (s *store) begin(in *Input) error {
	if err := s.clearTemporary(); err != nil {
		return err
	}
	if s.parts > 0 {
		return s.sameRun(in.RunID)
	}
	s.empty = false
	controlMode, err := modeOf(in, controlName)
	if err != nil {
		return err
	}
	labelMode, err := modeOf(in, labelName)
	if err != nil {
		return err
	}
	full, err := filepath.Abs(in.TargetDir)
	if err != nil {
		return fault.Because(err, "could not get the absolute path of \"%s\": %s", in.TargetDir, fault.M(err))
	}
	s.head = headInfo{
		ControlMode: controlMode, LabelMode: labelMode,
		Run: in.RunID, SystemID: in.SystemID, TargetDir: full, Created: time.Now().UTC().Truncate(time.Second),
		Control: in.Control, HasLabel: in.Label != nil, Label: in.Label,
	}
	return s.writeJSON(headFile, 0, s.head)
}

// modeOf are a file's permissions; the strictest if there is none.
func modeOf(in *Input, name string) (fs.FileMode, error) {
	if mode, changed := in.Modes[name]; changed {
		return mode.Perm(), nil
	}
	full := filepath.Join(in.TargetDir, name)
	info, err := os.Lstat(full)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ownFile, nil
	case err != nil:
		return 0, fault.Because(err, "could not stat file \"%s\": %s", full, fault.M(err))
	}
	return info.Mode().Perm(), nil
}

// clearTemporary removes parts that were never completed.
func (s *store) clearTemporary() error {
	names, err := s.names(".")
	if err != nil {
		return err
	}
	for n := 1; n <= s.parts+1; n++ {
		if slices.Contains(names, partName(n)+tempSuffix) {
			if err := s.removePart(partName(n) + tempSuffix); err != nil {
				return err
			}
		}
	}
	return nil
}

// saver is one Save.
type saver struct {
	in     Input
	opts   Options
	store  *store
	known  known // grows as paths are noted
	number int   // of the part to be
	info   partInfo

	target  *fsx.Target   // for Lstat and Readlink
	read    *datadir.Root // for the bytes
	entries *frameFile
	noted   uint64 // entries
	jobs    chan job
	// guarded: an earlier part has the same guard and names the same files of ours.
	guarded bool
	// uncloned are the devices on which a reflink has failed.
	uncloned map[uint64]bool

	stats Stats
	bytes atomic.Int64
}

func guarded(parts []part, in *Input) bool {
	return slices.ContainsFunc(parts, func(p part) bool {
		return slices.Equal(p.GuardControl, in.GuardControl) && slices.Equal(p.GuardLabel, in.GuardLabel) && slices.Equal(p.Own, in.Own)
	})
}

// job is some of the bytes of one file, to be saved by one worker.
type job struct {
	path  string
	spans []plan.Span
}

// jobBytes is how much of a large file one worker takes at a time.
const jobBytes = 64 << 20

func (v *saver) dir() string { return partName(v.number) + tempSuffix }

func (v *saver) save(ctx context.Context) (stats Stats, err error) {
	if v.target, err = fsx.OpenTarget(v.in.TargetDir); err != nil {
		return stats, fault.Because(err, "could not open directory \"%s\": %s", v.in.TargetDir, fault.M(err))
	}
	defer func() { _ = v.target.Close() }() // only read from
	if v.read, err = datadir.OpenRoot(v.in.TargetDir); err != nil {
		return stats, fault.Because(err, "could not open directory \"%s\": %s", v.in.TargetDir, fault.M(err))
	}
	defer func() { _ = v.read.Close() }() // only read from

	out := v.store.out
	if err := out.Mkdir(v.dir(), ownDir); err != nil {
		return stats, fault.Because(err, "could not create directory \"%s\": %s", v.store.path(v.dir()), fault.M(err))
	}
	defer func() {
		if err != nil {
			_ = v.store.removePart(v.dir()) // the error at hand says more; the next Save removes it
		}
	}()
	files, err := v.fill(ctx)
	if err != nil {
		return stats, err
	}
	if v.noted == 0 && v.guarded {
		return v.stats, v.store.removePart(v.dir())
	}
	v.stats.Part = v.number
	v.stats.Bytes = v.bytes.Load()
	for _, f := range files {
		v.stats.Stored += f.offset
	}
	return v.stats, v.commit()
}

// commit makes the part durable and gives it its name.
func (v *saver) commit() error {
	s := v.store
	if v.stats.Clones > 0 {
		if err := s.out.SyncFS(); err != nil {
			return fault.Because(err, "could not synchronize file system for file \"%s\": %s", s.dir, fault.M(err))
		}
	}
	if err := s.out.SyncDir(v.dir()); err != nil {
		return fault.Because(err, "could not fsync file \"%s\": %s", s.path(v.dir()), fault.M(err))
	}
	if err := s.out.Rename(v.dir(), partName(v.number)); err != nil {
		return fault.Because(err, "could not rename file \"%s\" to \"%s\": %s", s.path(v.dir()), s.path(partName(v.number)), fault.M(err))
	}
	if err := s.out.SyncDir("."); err != nil {
		return fault.Because(err, "could not fsync file \"%s\": %s", s.dir, fault.M(err))
	}
	return nil
}

// fill writes all files of the part, synced and closed.
func (v *saver) fill(ctx context.Context) (files []*frameFile, err error) {
	defer func() {
		for _, f := range files {
			if closeErr := f.close(); err == nil {
				err = closeErr
			}
		}
	}()
	open := func(name string, file uint16) (*frameFile, error) {
		f, err := newFrameFile(v.store, v.dir()+"/"+name, place{run: v.store.head.Run, part: uint16(v.number), file: file})
		if err == nil {
			files = append(files, f)
		}
		return f, err
	}
	if v.entries, err = open(entriesFile, 0); err != nil {
		return files, err
	}
	v.info = partInfo{
		Created: time.Now().UTC().Truncate(time.Second), GuardControl: v.in.GuardControl, GuardLabel: v.in.GuardLabel, Own: v.in.Own,
	}
	info, err := json.Marshal(v.info)
	if err != nil {
		return files, err
	}
	v.entries.payload = append(v.entries.payload, info...)
	if err := v.entries.flush(kindJSON); err != nil {
		return files, err
	}

	v.jobs = make(chan job, 4*v.opts.Jobs)
	g, gctx := errgroup.WithContext(ctx)
	var mu sync.Mutex // guards files
	used := 0
	for range v.opts.Jobs {
		g.Go(func() error {
			var f *frameFile
			for j := range v.jobs {
				if f == nil {
					mu.Lock()
					var err error
					if f, err = open(dataName(used), uint16(used)+1); err == nil {
						used++
					}
					mu.Unlock()
					if err != nil {
						return err
					}
				}
				if err := v.saveJob(gctx, f, j); err != nil {
					return err
				}
			}
			if f == nil {
				return nil
			}
			return f.end([4]uint64{f.count, f.bytes})
		})
	}
	g.Go(func() error {
		defer close(v.jobs)
		return v.walk(gctx)
	})
	if err := g.Wait(); err != nil {
		return files, err
	}
	return files, v.entries.end([4]uint64{v.noted, uint64(used), uint64(v.stats.Clones), uint64(v.bytes.Load())})
}

// walk goes through everything that will change, notes what it is, and hands out what has to be read.
func (v *saver) walk(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(v.in.Modes)) {
		if name == "." {
			continue
		}
		if err := v.note(ctx, name, nil, -1); err != nil {
			return err
		}
	}
	if v.in.Plan != nil {
		for i := range v.in.Plan.Actions {
			a := &v.in.Plan.Actions[i]
			var err error
			switch a.Kind {
			case plan.Create, plan.Copy, plan.Remove:
				err = v.note(ctx, a.Path, nil, 0)
			case plan.Truncate:
				err = v.note(ctx, a.Path, a.Blocks, a.SourceSize)
			default:
				err = v.note(ctx, a.Path, a.Blocks, -1)
			}
			if err != nil {
				return err
			}
		}
	}
	for _, name := range v.in.Extra {
		if err := v.note(ctx, name, nil, 0); err != nil {
			return err
		}
		// The temporary file by which it is replaced, should the run end in between.
		if err := v.note(ctx, name+copier.TempSuffix, nil, 0); err != nil {
			return err
		}
	}
	return nil
}

// note saves of one path the blocks, and all from offset tail on, unless that is negative.
func (v *saver) note(ctx context.Context, name string, blocks []plan.Span, tail int64) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if v.special(name) {
		return nil
	}
	if !fsx.Local(name) || len(name) > maxName {
		return fault.Because(fsx.ErrUnsafe, "target file path is unsafe for open: \"%s\"", name)
	}
	first, found := v.known[name]
	if found && first.kind != regular {
		return nil
	}
	e := entry{path: name}
	if found {
		e.kind, e.size, e.mode, e.mtime = first.kind, first.size, first.mode, first.mtime
	} else if err := v.look(&e); err != nil {
		return err
	}
	if e.kind == regular {
		want := clip(blocks, e.size)
		if tail >= 0 && tail < e.size {
			want = merge(slices.Clone(want), []plan.Span{{Offset: tail, Length: e.size - tail}})
		}
		e.spans = want
		if found {
			e.spans = subtract(want, first.covered())
			v.stats.Already += total(want) - total(e.spans)
			if len(e.spans) == 0 {
				return nil
			}
		} else if len(want) == 1 && want[0].Length == e.size {
			if err := v.tryClone(&e); err != nil {
				return err
			}
		}
	}
	if !found {
		v.stats.Paths++
	}
	spans := e.spans
	for {
		e.spans = spans[:min(len(spans), spansPerEntry)]
		spans = spans[len(e.spans):]
		if err := v.add(ctx, e); err != nil {
			return err
		}
		if len(spans) == 0 {
			return nil
		}
	}
}

func (v *saver) special(name string) bool {
	switch name {
	case controlName, labelName, controlName + copier.TempSuffix, labelName + copier.TempSuffix:
		return true
	}
	return slices.Contains(v.in.Own, name)
}

// add writes one entry and hands its spans to the workers.
func (v *saver) add(ctx context.Context, e entry) error {
	if err := v.known.add(e); err != nil {
		return err
	}
	v.noted++
	v.entries.payload = appendEntry(v.entries.payload, &e)
	if len(v.entries.payload) >= fillFrame/4 {
		if err := v.entries.flush(kindEntries); err != nil {
			return err
		}
	}
	j := job{path: e.path}
	room := int64(jobBytes)
	send := func() error {
		if len(j.spans) == 0 {
			return nil
		}
		select {
		case v.jobs <- j:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		j.spans, room = nil, jobBytes
		return nil
	}
	for _, s := range e.spans {
		for s.Length > 0 {
			n := min(s.Length, room)
			j.spans = append(j.spans, plan.Span{Offset: s.Offset, Length: n})
			s.Offset += n
			s.Length -= n
			if room -= n; room == 0 {
				if err := send(); err != nil {
					return err
				}
			}
		}
	}
	return send()
}

// look fills in what a path is now.
func (v *saver) look(e *entry) error {
	info, err := v.target.Lstat(e.path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		e.kind = absent
		return nil
	case err != nil:
		return fault.Because(err, "could not stat file \"%s\": %s", v.target.Path(e.path), fault.M(err))
	}
	switch info.Mode().Type() {
	case 0:
		e.kind, e.size, e.mode, e.mtime = regular, info.Size(), info.Mode().Perm(), info.ModTime().UnixNano()
	case fs.ModeDir:
		e.kind, e.mode = directory, info.Mode().Perm()
	case fs.ModeSymlink:
		e.kind = link
		if e.target, err = v.target.Readlink(e.path); err != nil {
			return fault.Because(err, "could not read symbolic link \"%s\": %s", v.target.Path(e.path), fault.M(err))
		}
		if len(e.target) > maxName {
			return fault.New("symbolic link \"%s\" target is too long", v.target.Path(e.path))
		}
	default:
		return fault.New("unknown file type for \"%s\"", v.target.Path(e.path)).
			Advise("It is neither a file nor a directory nor a symbolic link, and cannot be saved. The target was not touched.")
	}
	if mode, changed := v.in.Modes[e.path]; changed {
		e.mode = mode.Perm()
	}
	return nil
}

// covered are the bytes of a file that are saved.
func (e *entry) covered() []plan.Span {
	if e.clone > 0 {
		return []plan.Span{{Offset: 0, Length: e.size}}
	}
	return e.spans
}
