package copier

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/sync/errgroup"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// unsafePath is the error for a path that would lead out of the target. Every path comes from the source, which may be
// anybody's (CVE-2026-6475).
func unsafePath(err error, format, name string) error {
	return fault.Because(err, format, name).
		Advise("a name from the source, or a symbolic link in the target, leads outside the target data directory, and nothing " +
			"was written there; check who answers as the source, and the links in the target")
}

// makeEntries makes directories and links, parents first as they come.
func (c *Copier) makeEntries(ctx context.Context, actions []plan.Action) error {
	for i := range actions {
		if err := ctx.Err(); err != nil {
			return err
		}
		a := &actions[i]
		c.touch(parent(a.Path))
		switch a.Type {
		case pg.Directory:
			c.touch(a.Path)
			if err := c.fs.Mkdir(a.Path, c.opts.DirMode); err != nil {
				if errors.Is(err, fs.ErrExist) && c.madeBefore(a.Path) {
					continue
				}
				if errors.Is(err, fsx.ErrUnsafe) {
					return unsafePath(err, `target directory path is unsafe for directory creation: "%s"`, a.Path)
				}
				return fault.Because(err, `could not create directory "%s": %s`, c.fs.Path(a.Path), fault.M(err)).
					Advise("the directory that holds it must exist and be writable; for a tablespace, that is the location " +
						"that its link in pg_tblspc names")
			}
		case pg.SymbolicLink:
			if err := c.fs.Symlink(a.LinkTarget, a.Path); err != nil {
				if errors.Is(err, fsx.ErrUnsafe) {
					return unsafePath(err, `target symlink path is unsafe for creation: "%s"`, a.Path)
				}
				return fault.Because(err, `could not create symbolic link at "%s": %s`, c.fs.Path(a.Path), fault.M(err))
			}
		default:
			return fault.New(`invalid action (CREATE) for regular file`).Advise("path \"%s\"", a.Path)
		}
		c.count(func(s *Stats) { s.Made++ })
	}
	return nil
}

// madeBefore reports that an interrupted run made the directory, and that only its name, or that of a link on the way to
// it, was lost since. Any other directory that is in the way may be somebody else's: of the source, if both use one
// location for a tablespace.
func (c *Copier) madeBefore(name string) bool {
	if c.opts.MadeBefore == nil || !c.opts.MadeBefore(name) {
		return false
	}
	info, err := c.fs.Lstat(name)
	return err == nil && info.IsDir()
}

// truncate cuts files at the size they have in the source, and fsyncs them, through the descriptors that cut them.
func (c *Copier) truncate(ctx context.Context, actions []plan.Action) error {
	for len(actions) > 0 {
		n := min(len(actions), c.opts.OpenFiles/2)
		if err := c.truncateGroup(ctx, actions[:n]); err != nil {
			return err
		}
		actions = actions[n:]
	}
	return nil
}

func (c *Copier) truncateGroup(ctx context.Context, actions []plan.Action) (err error) {
	files := make([]fsx.File, 0, len(actions))
	names := make([]string, 0, len(actions))
	defer func() {
		for i, f := range files {
			if closeErr := f.Close(); closeErr != nil && err == nil {
				err = fault.Because(closeErr, `could not close target file "%s": %s`, c.fs.Path(names[i]), fault.M(closeErr))
			}
		}
	}()
	for i := range actions {
		if err := ctx.Err(); err != nil {
			return err
		}
		a := &actions[i]
		if _, gone := c.vanished[a.Path]; gone {
			continue
		}
		f, err := c.fs.OpenFile(a.Path, fsx.Existing, 0)
		if err != nil {
			if errors.Is(err, fsx.ErrUnsafe) {
				return unsafePath(err, `target file path is unsafe for truncation: "%s"`, a.Path)
			}
			return fault.Because(err, `could not open file "%s" for truncation: %s`, c.fs.Path(a.Path), fault.M(err))
		}
		files, names = append(files, f), append(names, a.Path)
		if err := f.Truncate(a.SourceSize); err != nil {
			return fault.Because(err, `could not truncate file "%s" to %d: %s`, c.fs.Path(a.Path), a.SourceSize, fault.M(err))
		}
		c.count(func(s *Stats) { s.Truncated++ })
	}
	if c.opts.Sync != SyncFsync {
		return nil
	}
	return c.syncGroup(ctx, len(files), func(i int) error { return c.syncFile(files[i], names[i]) })
}

// remove removes what the source has not, in the plan's order, which is what is inside a directory first. Files that
// follow each other go side by side: to free a large file's pages and extents takes the kernel longer than one would
// think (a tenth of a rewind from a directory, for 2 GB of diverged WAL), and needs no lock of the directory.
func (c *Copier) remove(ctx context.Context, actions []plan.Action) error {
	for len(actions) > 0 {
		n := 0
		for n < len(actions) && actions[n].Type == pg.RegularFile {
			n++
		}
		n = max(n, 1)
		g, groupCtx := errgroup.WithContext(ctx)
		g.SetLimit(c.opts.Jobs)
		for i := range actions[:n] {
			g.Go(func() error {
				if err := groupCtx.Err(); err != nil {
					return err
				}
				return c.removePlanned(&actions[i])
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		actions = actions[n:]
	}
	return ctx.Err()
}

func (c *Copier) removePlanned(a *plan.Action) error {
	err := c.removeEntry(a.Path, a.Type)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // somebody else was faster: a prefetching archiver, say; stock fails
	}
	if err == nil {
		c.count(func(s *Stats) { s.Removed++ })
	}
	return err
}

// removeEntry removes one path and notes the directories. The error has fs.ErrNotExist in it if there was none.
func (c *Copier) removeEntry(name string, kind pg.EntryType) error {
	c.mu.Lock()
	_, touched := c.dirs[name]
	c.mu.Unlock()
	if touched && kind == pg.SymbolicLink && c.opts.Sync != SyncNone {
		// A tablespace's link: the directory behind it stays, and cannot be reached by its name afterwards.
		if err := c.syncDir(name); err != nil {
			return err
		}
	}
	if err := c.fs.Remove(name); err != nil {
		unsafe := errors.Is(err, fsx.ErrUnsafe)
		switch {
		case kind == pg.Directory && unsafe:
			return unsafePath(err, `target directory path is unsafe for directory removal: "%s"`, name)
		case kind == pg.Directory:
			return fault.Because(err, `could not remove directory "%s": %s`, c.fs.Path(name), fault.M(err))
		case kind == pg.SymbolicLink && unsafe:
			return unsafePath(err, `target symlink path is unsafe for removal: "%s"`, name)
		case kind == pg.SymbolicLink:
			return fault.Because(err, `could not remove symbolic link "%s": %s`, c.fs.Path(name), fault.M(err))
		case unsafe:
			return unsafePath(err, `target file path is unsafe for removal: "%s"`, name)
		default:
			return fault.Because(err, `could not remove file "%s": %s`, c.fs.Path(name), fault.M(err))
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.dirs, name)
	c.dirs[parent(name)] = struct{}{}
	return nil
}
