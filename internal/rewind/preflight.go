package rewind

import (
	"errors"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// preflight looks for what would make the copy fail half-way: files that may not be written, directories in which names
// can neither be made nor removed, files of a local source that may not be read. All are found before one is
// touched; the message names the first.
func (r *run) preflight(p *plan.Plan) error {
	var first *fault.Error
	count := 0
	check := func(path string, mode uint32, text string) {
		full := filepath.Join(r.cfg.TargetDir, path)
		err := unix.Faccessat(unix.AT_FDCWD, full, mode, unix.AT_EACCESS)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return // what is missing will be made, and its directory is checked
		}
		count++
		if first == nil {
			first = fault.Because(err, text, full, fault.M(err))
		}
	}
	const writable = unix.W_OK
	readable := func(path string) {
		full := filepath.Join(r.cfg.SourceDir, path)
		if err := unix.Faccessat(unix.AT_FDCWD, full, unix.R_OK, unix.AT_EACCESS); errors.Is(err, fs.ErrPermission) {
			count++
			if first == nil {
				first = fault.Because(err, "could not open source file \"%s\": %s", full, fault.M(err))
			}
		}
	}
	dirs := map[string]bool{".": true, "global": true} // backup_label and pg_control
	for i := range p.Actions {
		a := &p.Actions[i]
		if r.live == nil && (a.Kind == plan.Copy || a.Kind == plan.CopyTail || len(a.Blocks) > 0) {
			readable(a.Path)
		}
		switch a.Kind {
		case plan.Create, plan.Remove:
			dirs[filepath.Dir(a.Path)] = true
		case plan.Copy:
			dirs[filepath.Dir(a.Path)] = true
			check(a.Path, writable, "could not open target file \"%s\": %s")
		case plan.CopyTail:
			check(a.Path, writable, "could not open target file \"%s\": %s")
		case plan.Truncate:
			check(a.Path, writable, "could not open file \"%s\" for truncation: %s")
		case plan.None:
			if len(a.Blocks) > 0 {
				check(a.Path, writable, "could not open target file \"%s\": %s")
			}
		}
	}
	check(controlFile, writable, "could not open target file \"%s\": %s")
	check(pg.BackupLabelName, writable, "could not open target file \"%s\": %s")
	for dir := range dirs {
		check(dir, writable|unix.X_OK, "could not write to directory \"%s\": %s")
	}
	if first == nil {
		return nil
	}
	if count > 1 {
		first.Advise("%d paths of the target cannot be written, or of the source not be read; this is the first of them. Nothing was "+
			"changed. Give them back to the user who runs the server, with permission, and run the same command again.", count)
	} else {
		first.Advise("Nothing was changed. Give it back to the user who runs the server, with permission, and run the same command again.")
	}
	return first
}
