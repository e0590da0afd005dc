package preflight

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// types finds all paths that are of different type in source and target. A plan cannot be made then; who tried knows of
// the first only. Where there is a plan, those that are left are none of its business: what is excluded.
func (c *checker) types(ctx context.Context) error {
	if c.Plan != nil {
		return nil
	}
	source, target := c.Source, c.Target
	for len(source) > 0 && len(target) > 0 {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		s, t := &source[0], &target[0]
		switch {
		case s.Path < t.Path:
			source = source[1:]
			continue
		case s.Path > t.Path:
			target = target[1:]
			continue
		}
		source, target = source[1:], target[1:]
		if s.Type == t.Type || s.Path == "pg_wal" {
			continue
		}
		p := New(Type, "file \"%s\" is of different type in source and target", s.Path).At(c.full(s.Path))
		if t.Type == pg.SymbolicLink {
			p = p.Advise("In the target it is a symbolic link to \"%s\", in the source a %s. (A server shows a link of its own as "+
				"what it leads to.) If this is the directory of the server's log or of something else that is not the database's, "+
				"move the link away for the time of the rewind.", t.LinkTarget, s.Type)
		} else {
			p = p.Advise("It is a %s in the source and a %s in the target. PostgreSQL itself never makes such a difference: move "+
				"one of the two away by hand.", s.Type, t.Type)
		}
		c.found(p)
	}
	return nil
}

// sharing refuses a target that has a directory in common with the source: what is copied from one to the other would
// be written into what it is read from.
func (c *checker) sharing(ctx context.Context) error {
	if c.SourceDir == "" {
		return nil
	}
	roots := func(dir string, listing []pg.Entry) (names []string, infos []fs.FileInfo) {
		add := func(name string) {
			if info, err := os.Stat(name); err == nil {
				names, infos = append(names, name), append(infos, info)
			}
		}
		add(dir)
		add(filepath.Join(dir, "pg_wal"))
		for i := range listing {
			if e := &listing[i]; e.Type == pg.SymbolicLink && spaceLink(e.Path) {
				add(filepath.Join(dir, e.Path, c.TablespaceDir))
			}
		}
		return names, infos
	}
	names, infos := roots(c.SourceDir, c.Source)
	targetNames, targetInfos := roots(c.TargetDir, c.Target)
	for i, t := range targetInfos {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		for j, s := range infos {
			if os.SameFile(s, t) {
				c.found(New(Same, "source and target use the same directory: \"%s\" and \"%s\"", names[j], targetNames[i]).At(targetNames[i]).
					Advise("What would be written there is what is read from. If one cluster is a copy of the other made by hand, its " +
						"links still lead to the other's directories: give it its own."))
				if i == 0 && j == 0 {
					return nil // all the others follow from it
				}
			}
		}
	}
	if len(infos) > 0 && len(targetInfos) > 0 {
		c.nested(c.TargetDir, c.SourceDir, infos[0], "The target's data directory lies in the source's.")
		c.nested(c.SourceDir, c.TargetDir, targetInfos[0], "The source's data directory lies in the target's.")
	}
	return nil
}

// nested looks whether outer is a directory above inner.
func (c *checker) nested(inner, outerName string, outer fs.FileInfo, advice string) {
	at, err := filepath.EvalSymlinks(inner)
	if err == nil {
		at, err = filepath.Abs(at)
	}
	for err == nil && at != "/" {
		at = filepath.Dir(at)
		var info fs.FileInfo
		if info, err = os.Stat(at); err == nil && os.SameFile(info, outer) {
			c.found(New(Same, "directory \"%s\" lies inside \"%s\"", inner, outerName).At(inner).Advise("%s Move it elsewhere.", advice))
			return
		}
	}
}

func spaceLink(name string) bool {
	below, ok := strings.CutPrefix(name, "pg_tblspc/")
	return ok && !strings.Contains(below, "/")
}

// links looks at the tablespaces that will be made, and at links that will go.
func (c *checker) links(ctx context.Context) error {
	locations := map[string]string{} // by path of the link
	for i := range c.Plan.Actions {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		a := &c.Plan.Actions[i]
		switch {
		case a.Kind == plan.Create && a.Type == pg.SymbolicLink && spaceLink(a.Path):
			locations[a.Path] = a.LinkTarget
			c.location(a)
		case a.Kind == plan.Create && a.Type == pg.Directory:
			// Made through a link that is not there yet: what is there already is somebody's.
			dir, name := filepath.Split(a.Path)
			if to, found := locations[strings.TrimSuffix(dir, "/")]; found {
				c.vacant(a, filepath.Join(to, name))
			}
		case a.Kind == plan.Remove && a.Type == pg.SymbolicLink && !spaceLink(a.Path):
			c.found(New(Link, "symbolic link \"%s\" will be removed: the source has nothing of that name", c.full(a.Path)).At(c.full(a.Path)).
				Advise("What it leads to stays as it is.").Warn())
		}
	}
	return nil
}

// location looks at the directory that a new tablespace will be in. On this machine it may be missing, or the source's.
func (c *checker) location(a *plan.Action) {
	text := "could not create directory \"%s\": %s"
	inner := filepath.Join(c.full(a.Path), c.TablespaceDir)
	if !filepath.IsAbs(a.LinkTarget) {
		c.found(New(Tablespace, "target symlink path is unsafe for creation: \"%s\"", a.Path).At(c.full(a.Path)).
			Advise("The source says that this tablespace is at \"%s\", which is no absolute path.", a.LinkTarget))
		return
	}
	info, err := os.Stat(a.LinkTarget)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.found(New(Tablespace, text, inner, fault.M(unix.ENOENT)).At(a.LinkTarget).because(err).
			Advise("The source has a tablespace at \"%s\" that the target does not have. Make that directory here, empty, with mode 0700, "+
				"for the server's user; it may be a link to another place.", a.LinkTarget))
		return
	case err != nil:
		c.found(New(Tablespace, text, inner, fault.M(err)).At(a.LinkTarget).because(err))
		return
	case !info.IsDir():
		c.found(New(Tablespace, text, inner, fault.M(unix.ENOTDIR)).At(a.LinkTarget).
			Advise("The source has a tablespace at \"%s\". Here that is no directory.", a.LinkTarget))
		return
	}
	if err := access(a.LinkTarget, unix.W_OK|unix.X_OK); err != nil {
		c.found(New(Tablespace, text, inner, fault.M(err)).At(a.LinkTarget).because(err).
			Advise("The source has a tablespace at \"%s\". Here the user that runs the rewind may not write to it.", a.LinkTarget))
	}
}

func (c *checker) vacant(a *plan.Action, at string) {
	if _, err := os.Lstat(at); err != nil {
		return
	}
	c.found(New(Tablespace, "could not create directory \"%s\": %s", c.full(a.Path), fault.M(unix.EEXIST)).At(at).
		Advise("The new tablespace's directory \"%s\" is there already: it belongs to another cluster on this machine, maybe to the "+
			"source itself, or is left over from one. Two clusters cannot share it. If it is nobody's, remove it; otherwise the source "+
			"needs its tablespace at a path that is free here.", at))
}

// label refuses a target with a backup_label. A server that was shut down cleanly has none; where there is one all the
// same, the next start would replay from where it says, so the files may be older than the control file says, and older
// than any WAL that a rewind reads. Stock removes it without a word.
func (c *checker) label(context.Context) error {
	full := c.full(pg.BackupLabelName)
	if _, err := os.Lstat(full); c.Resuming || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	c.found(New(Label, "target data directory contains \"%s\"", pg.BackupLabelName).At(full).
		Advise("Somebody put a base backup, or part of one, there after the server was shut down: its files may be older than its control " +
			"file says, and what has to be copied cannot be known. If it is such a backup, start the server once, let it recover and stop " +
			"it. If you know that the file is only left over, move it away."))
	return nil
}
