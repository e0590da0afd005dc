package undo

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/fastrewind/fastrewind/copier"
	"github.com/fastrewind/fastrewind/internal/datadir"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// ApplyOptions are how Apply goes about it. The zero value is good.
type ApplyOptions struct {
	Jobs int // writers, 1 to 16; default 4
	// Ours, if not nil, says that a control file which the undo does not know is one that a rewind has put there.
	Ours func(control []byte) bool
	// Progress, if not nil, is told how many bytes were put back, from several goroutines.
	Progress func(bytes int64)
	// Wrap, if not nil, gives what stands between Apply and the target.
	Wrap func(fsx.FS) fsx.FS
}

// ApplyStats is what one Apply did.
type ApplyStats struct {
	Removed int   // paths that were not there before the rewind
	Made    int   // files, directories and links that were not there any more
	Bytes   int64 // written
}

// Apply puts the target back as it was before the run whose undo is in dir: names, contents, sizes, links and permissions,
// and modification times where the system lets it. It can be interrupted at any moment and run again, and may be run again
// after its end.
//
// Nothing is touched before all of the undo has been read and found whole, nor if the target's control file is none that
// the run is known to have had: then a server has run on the target since, and what it wrote fits neither state.
// The caller makes sure that no server runs now.
//
// The order: the guard that keeps servers from starting; the rewind's own files are removed, so that no rewind can go on
// with a state that is being taken back; what the run made is removed; everything else is put back and synced; backup_label;
// and last of all global/pg_control. Errors are *fault.Error or ctx's.
func Apply(ctx context.Context, dir, targetDir string, o ApplyOptions) (stats ApplyStats, err error) {
	if o.Jobs <= 0 {
		o.Jobs = 4
	}
	o.Jobs = min(o.Jobs, maxWorkers)
	if o.Progress == nil {
		o.Progress = func(int64) {}
	}
	s, err := openStore(dir, nil)
	if err != nil {
		return stats, err
	}
	defer func() { _ = s.close() }() // only read from
	k, parts, err := s.verify(ctx, o.Jobs)
	if err != nil {
		return stats, err
	}
	if err := outside(dir, targetDir); err != nil {
		return stats, err
	}
	if err := s.checkControl(targetDir, parts, o.Ours); err != nil {
		return stats, err
	}
	target, err := fsx.OpenTarget(targetDir)
	if err != nil {
		return stats, fault.Because(err, "could not open directory \"%s\": %s", targetDir, fault.M(err))
	}
	defer func() { _ = target.Close() }() // what was written was synced by name
	read, err := datadir.OpenRoot(targetDir)
	if err != nil {
		return stats, fault.Because(err, "could not open directory \"%s\": %s", targetDir, fault.M(err))
	}
	defer func() { _ = read.Close() }() // only read from
	a := &applier{store: s, known: k, parts: parts, target: target, attrs: read, opts: o, dirs: map[string]bool{}}
	if o.Wrap != nil {
		a.target = o.Wrap(target)
	}
	err = a.apply(ctx)
	a.stats.Bytes = a.bytes.Load()
	return a.stats, err
}

// checkControl sees that the target's control file is the original, one of the guards, or one that a rewind ended with.
func (s *store) checkControl(targetDir string, parts []part, ours func([]byte) bool) error {
	now, err := datadir.ReadFile(targetDir, controlName, maxFrame)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no server has run without one
	}
	if err != nil {
		return err
	}
	if slices.Equal(now, s.head.Control) || ours != nil && ours(now) {
		return nil
	}
	for _, p := range parts {
		if slices.Equal(now, p.GuardControl) {
			return nil
		}
	}
	final, err := s.finals()
	if err != nil {
		return err
	}
	if slices.Contains(final.Controls, digest(now)) {
		return nil
	}
	return fault.New("target data directory \"%s\" has changed since the rewind", targetDir).
		Advise("Its control file is neither what it was before the rewind saved in \"%s\", nor what that rewind left: a server "+
			"has been started on it since, or it is another directory (the undo is of \"%s\"). It cannot be put back; nothing "+
			"was touched.", s.dir, s.head.TargetDir)
}

// undoLabel is what lies in backup_label while Apply is at work, if the run had no text of its own. No server's parser
// takes it (read_backup_label, xlogrecovery.c), and people can read it.
const undoLabel = "This data directory is being put back by \"fastrewind undo\", and must not be started.\n" +
	"If that has ended, run the same command again; it goes on.\n"

type applier struct {
	store  *store
	known  known
	parts  []part
	target fsx.FS
	attrs  *datadir.Root // for permissions and times
	opts   ApplyOptions

	dirs  map[string]bool // whose names changed
	stats ApplyStats
	bytes atomic.Int64
}

func (a *applier) apply(ctx context.Context) error {
	paths := slices.Sorted(maps.Keys(a.known))
	for _, step := range []func(context.Context, []string) error{
		a.possible, a.guard, a.removeCreated, a.makeEntries, a.writeData, a.cutFiles, a.restoreModes, a.syncDirs, a.release,
	} {
		if err := step(ctx, paths); err != nil {
			return err
		}
	}
	return nil
}

// possible sees that every byte that is not in the undo is still in the target. It fails only if something was removed or
// cut that was not announced to Save, or by somebody else.
func (a *applier) possible(ctx context.Context, paths []string) error {
	for _, name := range paths {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		e := a.known[name]
		if e.kind != regular || total(e.covered()) == e.size {
			continue
		}
		var size int64
		info, err := a.target.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		case err != nil:
			return fault.Because(err, "could not stat file \"%s\": %s", a.target.Path(name), fault.M(err))
		case info.Mode().IsRegular():
			size = info.Size()
		}
		if size >= e.size {
			continue
		}
		lost := subtract([]plan.Span{{Offset: size, Length: e.size - size}}, e.covered())
		if len(lost) > 0 {
			return fault.New("file \"%s\" cannot be put back: %d bytes at offset %d are lost", a.target.Path(name), lost[0].Length, lost[0].Offset).
				Advise("The file has %d bytes now and had %d, and these are not in the undo: something other than the rewind has cut "+
					"or removed it. Nothing was touched.", size, e.size)
		}
	}
	return nil
}

// guard keeps servers from starting, and rewinds from going on.
func (a *applier) guard(_ context.Context, _ []string) error {
	last := a.parts[len(a.parts)-1]
	if err := copier.WriteDurably(a.target, copier.SyncFsync, controlName, last.GuardControl, ownFile); err != nil {
		return err
	}
	label := last.GuardLabel
	if len(label) == 0 {
		label = []byte(undoLabel)
	}
	if err := copier.WriteDurably(a.target, copier.SyncFsync, labelName, label, ownFile); err != nil {
		return err
	}
	for _, p := range a.parts {
		for _, name := range p.Own {
			if err := a.remove(name); err != nil {
				return err
			}
		}
	}
	return a.syncDir(".")
}

// remove removes a path if it is there.
func (a *applier) remove(name string) error {
	err := a.target.Remove(name)
	switch {
	case err == nil:
		a.dirs[path.Dir(name)] = true
		delete(a.dirs, name)
		a.stats.Removed++
		return nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil
	}
	f := fault.Because(err, "could not remove file \"%s\": %s", a.target.Path(name), fault.M(err))
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) {
		return f.Advise("The rewind made this directory, and somebody else has put something into it since. Move that away, and " +
			"run the same command again; it goes on.")
	}
	return f.Advise("Mend that and run the same command again; it goes on.")
}

// removeCreated removes what was not there: what is in a directory before the directory.
func (a *applier) removeCreated(ctx context.Context, paths []string) error {
	for _, name := range slices.Backward(paths) {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if a.known[name].kind != absent {
			continue
		}
		if err := a.remove(name); err != nil {
			return err
		}
	}
	return nil
}

// makeEntries makes what is not there any more, directories before what is in them; files are empty at first.
func (a *applier) makeEntries(ctx context.Context, paths []string) error {
	for _, name := range paths {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		e := a.known[name]
		if e.kind == absent {
			continue
		}
		there, err := a.isThere(e)
		if err != nil {
			return err
		}
		if there {
			continue
		}
		if err := a.remove(name); err != nil { // something else of this name
			return err
		}
		a.dirs[path.Dir(name)] = true
		a.stats.Made++
		switch e.kind {
		case directory:
			err = a.target.Mkdir(name, e.mode|0o700)
			a.dirs[name] = true
		case link:
			err = a.target.Symlink(e.target, name)
		default:
			var f fsx.File
			if f, err = a.target.OpenFile(name, fsx.CreateNew, e.mode|0o600); err == nil {
				err = f.Close()
			}
		}
		if err != nil {
			return fault.Because(err, "could not create file \"%s\": %s", a.target.Path(name), fault.M(err)).
				Advise("Mend that and run the same command again; it goes on.")
		}
	}
	return nil
}

// isThere reports whether there is already something of the entry's type, and, for a link, that it leads where it did.
func (a *applier) isThere(e *entry) (bool, error) {
	info, err := a.target.Lstat(e.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fault.Because(err, "could not stat file \"%s\": %s", a.target.Path(e.path), fault.M(err))
	}
	switch info.Mode().Type() {
	case 0:
		return e.kind == regular, nil
	case fs.ModeDir:
		return e.kind == directory, nil
	case fs.ModeSymlink:
		if e.kind != link {
			return false, nil
		}
		to, err := a.target.Readlink(e.path)
		if err != nil {
			return false, fault.Because(err, "could not read symbolic link \"%s\": %s", a.target.Path(e.path), fault.M(err))
		}
		return to == e.target, nil
	default:
		return false, nil
	}
}

// writeData writes the saved bytes, the latest part's first: where two parts have a byte, the earlier one is right.
func (a *applier) writeData(ctx context.Context, paths []string) error {
	clones := map[int][]*entry{}
	for _, name := range paths {
		if e := a.known[name]; e.clone > 0 {
			clones[e.part] = append(clones[e.part], e)
		}
	}
	for _, p := range slices.Backward(a.parts) {
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(a.opts.Jobs)
		for n := range int(p.dataFiles) {
			g.Go(func() error { return a.writePieces(gctx, p.number, n) })
		}
		for _, e := range clones[p.number] {
			g.Go(func() error { return a.writeClone(gctx, e) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// output is a file of the target while it is written, by one goroutine; synced when the next one is opened.
type output struct {
	*applier
	name string
	out  fsx.File
}

func (o *output) write(name string, data []byte, offset int64) error {
	if o.out == nil || o.name != name {
		if err := o.leave(); err != nil {
			return err
		}
		var err error
		if o.out, err = o.open(name); err != nil {
			return err
		}
		o.name = name
	}
	if _, err := o.out.WriteAt(data, offset); err != nil {
		return fault.Because(err, "could not write file \"%s\": %s", o.target.Path(name), fault.M(err)).
			Advise("%d bytes at offset %d could not be put back. Mend that and run the same command again; it goes on.", len(data), offset)
	}
	o.bytes.Add(int64(len(data)))
	o.opts.Progress(int64(len(data)))
	return nil
}

// leave syncs and closes what was written.
func (o *output) leave() error {
	if o.out == nil {
		return nil
	}
	err := o.sync(o.out, o.name)
	if closeErr := o.out.Close(); closeErr != nil && err == nil {
		err = fault.Because(closeErr, "could not close file \"%s\": %s", o.target.Path(o.name), fault.M(closeErr))
	}
	o.out = nil
	return err
}

// drop closes without a word, after an error.
func (o *output) drop() {
	if o.out != nil {
		_ = o.out.Close() // the error at hand says more
	}
}

func (a *applier) sync(f fsx.File, name string) error {
	if err := f.Sync(); err != nil {
		return fault.Because(err, "could not fsync file \"%s\": %s", a.target.Path(name), fault.M(err)).
			Advise("The disk did not take what was written. Check it and the kernel's log, then run the same command again: it " +
				"writes everything anew.")
	}
	return nil
}

// open opens a file of the target that is there. One that its owner may not write, as it was, is made writable: its
// permissions are restored later.
func (a *applier) open(name string) (fsx.File, error) {
	f, err := a.target.OpenFile(name, fsx.Existing, 0)
	if errors.Is(err, fs.ErrPermission) && a.chmod(name, a.known[name].mode|0o600) == nil {
		f, err = a.target.OpenFile(name, fsx.Existing, 0)
	}
	if err != nil {
		return nil, fault.Because(err, "could not open file \"%s\": %s", a.target.Path(name), fault.M(err)).
			Advise("Mend that and run the same command again; it goes on.")
	}
	return f, nil
}

func (a *applier) writePieces(ctx context.Context, number, n int) error {
	o := output{applier: a}
	defer o.drop()
	name := partName(number) + "/" + dataName(n)
	at := place{run: a.store.head.Run, part: uint16(number), file: uint16(n) + 1}
	_, err := a.store.scan(ctx, name, at, func(_ byte, payload []byte) error {
		return decodePieces(payload, func(p piece) error { return o.write(p.path, p.data, p.offset) })
	})
	if err != nil {
		return err
	}
	return o.leave()
}

func (a *applier) writeClone(ctx context.Context, e *entry) error {
	name := partName(e.part) + "/" + cloneName(e.clone)
	in, err := a.store.openFile(name)
	if err != nil {
		return a.store.damage(name, err)
	}
	defer in.Close()
	o := output{applier: a}
	defer o.drop()
	buf := make([]byte, fillFrame)
	for offset := int64(0); offset < e.size; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := in.ReadAt(buf[:min(int64(len(buf)), e.size-offset)], offset)
		if n == 0 {
			return a.store.damage(name, cmp.Or(err, io.ErrUnexpectedEOF))
		}
		if err := o.write(e.path, buf[:n], offset); err != nil {
			return err
		}
		offset += int64(n)
	}
	return o.leave()
}

// cutFiles gives every file its size.
func (a *applier) cutFiles(ctx context.Context, paths []string) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(a.opts.Jobs)
	for _, name := range paths {
		e := a.known[name]
		if e.kind != regular {
			continue
		}
		g.Go(func() error {
			if err := gctx.Err(); err != nil {
				return context.Cause(gctx)
			}
			return a.cut(e)
		})
	}
	return g.Wait()
}

func (a *applier) cut(e *entry) error {
	info, err := a.target.Lstat(e.path)
	if err != nil {
		return fault.Because(err, "could not stat file \"%s\": %s", a.target.Path(e.path), fault.M(err))
	}
	if info.Size() == e.size {
		return nil
	}
	if info.Size() < e.size {
		return fault.New("file \"%s\" has only %d bytes of the %d it had, and the rest is not in the undo", a.target.Path(e.path), info.Size(), e.size).
			Advise("Something other than the rewind has cut it; it cannot be put back as it was.")
	}
	f, err := a.open(e.path)
	if err != nil {
		return err
	}
	if info.Size() > e.size {
		if err = f.Truncate(e.size); err != nil {
			err = fault.Because(err, "could not truncate file \"%s\" to %d: %s", a.target.Path(e.path), e.size, fault.M(err))
		}
	}
	if err == nil {
		err = a.sync(f, e.path)
	}
	if closeErr := f.Close(); closeErr != nil && err == nil {
		err = fault.Because(closeErr, "could not close file \"%s\": %s", a.target.Path(e.path), fault.M(closeErr))
	}
	return err
}

// restoreModes gives files and directories their permissions and files their time, what is in a directory before the
// directory, which its owner may not even be allowed to enter afterwards.
func (a *applier) restoreModes(ctx context.Context, paths []string) error {
	for _, name := range slices.Backward(paths) {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		e := a.known[name]
		if e.kind != regular && e.kind != directory {
			continue
		}
		if err := a.setAttrs(name, e.mode, e.mtime, e.kind == regular); err != nil {
			return fault.Because(err, "could not change permissions of \"%s\": %s", a.target.Path(name), fault.M(err))
		}
	}
	return nil
}

func (a *applier) chmod(name string, mode fs.FileMode) error { return a.setAttrs(name, mode, 0, false) }

// setAttrs works on what can be opened for reading; for anything else permissions are as good as those it has.
func (a *applier) setAttrs(name string, mode fs.FileMode, mtime int64, withTime bool) error {
	info, err := a.target.Lstat(name)
	if err != nil || info.Mode().Type()&^fs.ModeDir != 0 { // never a FIFO, whose opening would wait
		return err
	}
	f, err := a.attrs.Open(name)
	if errors.Is(err, fs.ErrPermission) && info.Mode().Perm() == mode {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if withTime {
		setTime(f, mtime)
	}
	if info.Mode().Perm() == mode {
		return nil
	}
	return f.Chmod(mode)
}

// syncDirs makes the names durable.
func (a *applier) syncDirs(ctx context.Context, _ []string) error {
	names := slices.Sorted(maps.Keys(a.dirs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(a.opts.Jobs)
	for _, name := range names {
		g.Go(func() error {
			if err := gctx.Err(); err != nil {
				return context.Cause(gctx)
			}
			return a.syncDir(name)
		})
	}
	return g.Wait()
}

func (a *applier) syncDir(name string) error {
	err := a.target.SyncDir(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) { // gone with its names
		return nil
	}
	return fault.Because(err, "could not fsync file \"%s\": %s", a.target.Path(name), fault.M(err)).
		Advise("The disk did not take what was written. Check it and the kernel's log, then run the same command again.")
}

// release puts backup_label and the control file back, which makes the target one that can be started.
func (a *applier) release(_ context.Context, _ []string) error {
	h := &a.store.head
	if h.HasLabel {
		if err := a.putBack(labelName, h.Label, h.LabelMode); err != nil {
			return err
		}
	} else {
		if err := a.remove(labelName); err != nil {
			return err
		}
		if err := a.syncDir("."); err != nil {
			return err
		}
	}
	return a.putBack(controlName, h.Control, h.ControlMode)
}

// putBack writes a small file under its temporary name with its own permissions, whatever the umask, and renames it.
func (a *applier) putBack(name string, data []byte, mode fs.FileMode) error {
	if err := copier.WriteDurably(a.target, copier.SyncFsync, name, data, mode.Perm()|0o600); err != nil {
		return err
	}
	if err := a.chmod(name, mode.Perm()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Because(err, "could not change permissions of \"%s\": %s", a.target.Path(name), fault.M(err))
	}
	return nil
}
