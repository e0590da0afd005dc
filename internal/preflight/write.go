package preflight

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/datadir"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// attrs is what is known of a path.
type attrs struct {
	mode      uint32 // type and permissions, as in stat(2)
	uid       uint32
	dev       uint64
	immutable bool // chattr +i
	append    bool // chattr +a
	mount     bool // something is mounted here
}

func (a *attrs) is(format uint32) bool { return a.mode&unix.S_IFMT == format }

// access asks the kernel whether we may, with our effective ids: what is mounted read-only and what is immutable it
// refuses even root.
func access(full string, mode uint32) error {
	for {
		err := unix.Faccessat(unix.AT_FDCWD, full, mode, unix.AT_EACCESS)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// paths refuses names that the target cannot have, or that lead out of it (CVE-2026-6475). Whoever writes refuses them,
// too; here they are all seen before the first.
func (c *checker) paths(ctx context.Context) error {
	for i := range c.Plan.Actions {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		a := &c.Plan.Actions[i]
		if !fsx.Local(a.Path) {
			c.found(New(Path, "target file path is unsafe for open: \"%s\"", a.Path).At(a.Path).
				Advise("The source sends names that lead out of a data directory. Check who answers as the source."))
			continue
		}
		if a.Kind == plan.Remove {
			continue // it is there
		}
		long := len(c.full(a.Path)) >= datadir.MaxPath || strings.HasPrefix(a.Path, "pg_tblspc/") && len(a.Path) >= datadir.MaxPath
		for name := range strings.SplitSeq(a.Path, "/") {
			long = long || len(name) > unix.NAME_MAX
		}
		if long {
			c.found(New(Path, "could not open target file \"%s\": %s", c.full(a.Path), fault.M(unix.ENAMETOOLONG)).At(c.full(a.Path)).
				Advise("A path of a data directory has fewer than %d bytes, and a name at most %d.", datadir.MaxPath, unix.NAME_MAX))
		}
	}
	return nil
}

// writable looks whether every path that will change can be changed: files be written, and directories take and lose
// names.
func (c *checker) writable(ctx context.Context) error {
	dirs := map[string]bool{".": true} // whose contents change; true: names in it, too
	for i := range c.Plan.Actions {
		a := &c.Plan.Actions[i]
		switch a.Kind {
		case plan.Create, plan.Copy, plan.Remove:
			dirs[path.Dir(a.Path)] = true
		default:
			dirs[path.Dir(a.Path)] = dirs[path.Dir(a.Path)]
		}
	}
	for _, name := range c.Replaced {
		dirs[path.Dir(name)] = true
	}
	// Directories come first: what is in one that cannot be entered cannot be looked at.
	target, err := fsx.OpenTarget(c.TargetDir)
	if err != nil {
		name := c.TargetDir
		var p *fs.PathError
		if errors.As(err, &p) { // one of the directories that links lead to
			name = p.Path
		}
		c.found(Of(Permission, fault.Because(err, "could not open directory \"%s\": %s", name, fault.M(err))).At(name))
		return nil
	}
	defer func() { _ = target.Close() }() // nothing is written
	for _, name := range slices.Sorted(maps.Keys(dirs)) {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		c.directory(target, name, dirs[name])
	}
	actions := c.Plan.Actions
	found := make([][]Problem, (len(actions)+chunk-1)/chunk)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(c.Jobs)
	for n := range found {
		g.Go(func() error {
			for i := n * chunk; i < min(len(actions), (n+1)*chunk); i++ {
				if err := gctx.Err(); err != nil {
					return context.Cause(gctx)
				}
				if p, bad := c.action(&actions[i]); bad {
					found[n] = append(found[n], p)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	c.problems = append(c.problems, slices.Concat(found...)...)
	for _, name := range c.Replaced {
		c.replaced(name)
	}
	return nil
}

// chunk is how many actions one goroutine looks at in one go.
const chunk = 1024

// directory looks at a directory in which something will change, names or only what is behind them. One that is not there
// yet will be made.
func (c *checker) directory(target fsx.FS, name string, names bool) {
	full := c.full(name)
	if name != "." {
		if !fsx.Local(name) {
			return // paths has told
		}
		if _, err := target.Lstat(name + "/x"); errors.Is(err, fsx.ErrUnsafe) { // of name itself, no link would be followed
			c.found(Problem{Kind: Link, Path: full, Err: err, Text: "symbolic link leads out of the target: \"" + full + "\"",
				Advice: "Something will be written below it, and fastrewind writes only into the data directory, pg_wal and the " +
					"tablespaces. Put the directory itself in the place of the link."})
			return
		}
	}
	mode := uint32(unix.X_OK)
	text := "could not open directory \"%s\": %s"
	if names {
		mode, text = unix.X_OK|unix.W_OK, "could not write to directory \"%s\": %s"
	}
	err := access(full, mode)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	st, statErr := stat(full, true)
	if statErr == nil && err == nil && (st.append || st.immutable) && names {
		err = unix.EPERM // faccessat of x/sys takes the kernel's own EPERM for a sandbox's, and looks at the mode only
	}
	if err != nil {
		c.found(c.refused(err, text, name, st, statErr == nil))
	}
}

// action looks at the path of one action.
func (c *checker) action(a *plan.Action) (Problem, bool) {
	if !fsx.Local(a.Path) {
		return Problem{}, false
	}
	full := c.full(a.Path)
	if c.SourceDir != "" && a.Kind != plan.Remove && a.Kind != plan.Create && len(a.CopySpans()) > 0 {
		source := filepath.Join(c.SourceDir, a.Path)
		if err := access(source, unix.R_OK); errors.Is(err, fs.ErrPermission) {
			return New(Owner, "could not open source file \"%s\": %s", source, fault.M(err)).At(source).because(err).
				Advise("Every file of the source must be readable for the user that runs the rewind: give it back to the server's user."), true
		}
	}
	st, err := stat(full, false)
	if err != nil {
		// Not there: it will be made, in a directory that is looked at. Cannot be looked at: neither can its directory.
		return Problem{}, false
	}
	switch a.Kind {
	case plan.Create:
		if a.Type != pg.Directory || !st.is(unix.S_IFDIR) {
			return New(Type, "could not create \"%s\": %s", full, fault.M(unix.EEXIST)).At(full).
				Advise("It was not there when the target was listed. Somebody else writes to the target."), true
		}
		return Problem{}, false
	case plan.Remove:
		return c.removal(a, full, &st)
	default:
	}
	text := "could not open target file \"%s\": %s"
	if a.Kind == plan.Truncate {
		text = "could not open file \"%s\" for truncation: %s"
	}
	switch {
	case st.is(unix.S_IFLNK):
		return New(Link, text, full, fault.M(unix.ELOOP)).At(full).
			Advise("It is a symbolic link now, and was a file when the target was listed. No write follows it."), true
	case !st.is(unix.S_IFREG):
		return New(Type, "could not open target file \"%s\": not a regular file", full).At(full), true
	}
	err = access(full, unix.W_OK)
	if err == nil && (st.append || st.immutable) {
		err = unix.EPERM
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return Problem{}, false
	}
	return c.refused(err, text, a.Path, st, true), true
}

// removal looks at a path that will be removed, for which its own permissions do not matter.
func (c *checker) removal(a *plan.Action, full string, st *attrs) (Problem, bool) {
	text := "could not remove file \"%s\": %s"
	switch a.Type {
	case pg.Directory:
		text = "could not remove directory \"%s\": %s"
	case pg.SymbolicLink:
		text = "could not remove symbolic link \"%s\": %s"
	default:
	}
	switch {
	case st.mount:
		return New(Mount, text, full, fault.M(unix.EBUSY)).At(full).
			Advise("Something is mounted there, and the source has no such directory. Unmount it, and run the same command again."), true
	case st.immutable || st.append:
		return c.refused(unix.EPERM, text, a.Path, *st, true), true
	}
	return Problem{}, false
}

// replaced looks at a path in whose place a new file will be renamed: what is there need not be writable, but it must be
// something that a rename replaces.
func (c *checker) replaced(name string) {
	full := c.full(name)
	st, err := stat(full, false)
	if err != nil {
		return
	}
	switch {
	case st.is(unix.S_IFDIR):
		c.found(New(Type, "could not rename file \"%s\" to \"%s\": %s", full+".fastrewind.tmp", full, fault.M(unix.EISDIR)).At(full).
			Advise("A directory lies where the rewind will write a file. Move it away."))
	case st.immutable || st.append:
		c.found(c.refused(unix.EPERM, "could not open target file \"%s\": %s", name, st, true))
	case st.is(unix.S_IFLNK):
		c.replacedLink(name, full)
	case slices.Contains(c.Appended, name):
		if err := access(full, unix.R_OK); err != nil {
			c.found(c.refused(err, "could not open file \"%s\" for reading: %s", name, st, true))
		}
	}
}

// replacedLink: a link is replaced, and what it leads to stays as it is. Stock follows it; if it leads to /dev/null, as
// some managers have it for postgresql.auto.conf, what -R writes is lost without a word.
func (c *checker) replacedLink(name, full string) {
	to, err := os.Readlink(full)
	if err != nil {
		return
	}
	p := New(Link, "symbolic link \"%s\" will be replaced by a file", full).At(full).
		Advise("It leads to \"%s\", which stays as it is. If the link is wanted, make it again after the rewind.", to).Warn()
	if info, err := os.Stat(full); slices.Contains(c.Appended, name) && (err != nil || !info.Mode().IsRegular()) {
		p.Warning = false
		p.Text = "could not open file \"" + full + "\" for reading: it is a symbolic link to \"" + to + "\""
		p.Advice = "The rewind is to add settings to it, and what it leads to is no file. Remove the link, or do without --write-recovery-conf."
	}
	c.found(p)
}

func (p Problem) because(err error) Problem { p.Err = err; return p }

// refused words why a path of the target may not be changed. text takes the path and the reason.
func (c *checker) refused(err error, text, name string, st attrs, known bool) Problem {
	full := c.full(name)
	p := New(Permission, text, full, fault.M(err)).At(full).because(err)
	p.rel = name
	switch {
	case errors.Is(err, unix.EROFS):
		p.Kind = ReadOnly
		p.Advice = "The file system is mounted read-only. If the kernel made it so after an error of the disk, look at its log first; then remount it."
	case known && (st.immutable || st.append):
		p.Kind = Immutable
		flag := "i"
		if !st.immutable {
			flag = "a"
		}
		p.Advice = "The kernel lets nobody change it (chattr +" + flag + "). As root: chattr -" + flag + ", for each of them."
	case known && int(st.uid) != os.Geteuid():
		p.Kind = Owner
		p.Advice = "They belong to somebody else than the user that runs the rewind, which must be the server's. Give them back with chown."
	case known && errors.Is(err, fs.ErrPermission) && st.mode != st.mode|ownBits(&st):
		p.Fixable = true
		p.Advice = "Give the owner back what it needs with chmod, or have it done: --fix-permissions."
	default:
		p.Advice = "The server's user must be able to write it. Its mode says so; look at access control lists and security modules."
	}
	return p
}

// ownBits are the permissions an owner needs.
func ownBits(st *attrs) uint32 {
	if st.is(unix.S_IFDIR) {
		return 0o700
	}
	return 0o600
}
