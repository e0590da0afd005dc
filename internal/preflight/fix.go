package preflight

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/fsx"
)

// ModeChange is one path whose permissions were changed.
type ModeChange struct {
	Path     string // relative to the target; "." is the target itself
	Old, New fs.FileMode
}

// FixPermissions gives the owner of every fixable problem's path what it lacks: read and write, and for a directory
// search. Nothing else is changed, and no link that leads out of the target is followed. changed is what was done, also
// beside an error; to undo it, give it to RestorePermissions. Check has to be called again: what was hidden by a directory
// may be seen only then.
func FixPermissions(targetDir string, problems []Problem) (changed []ModeChange, err error) {
	fixable := slices.DeleteFunc(slices.Clone(problems), func(p Problem) bool { return !p.Fixable })
	// A directory comes before what is in it.
	slices.SortFunc(fixable, func(a, b Problem) int { return strings.Compare(a.rel, b.rel) })
	done := map[string]bool{}
	for _, p := range fixable {
		if done[p.rel] {
			continue
		}
		done[p.rel] = true
		var change ModeChange
		err := at(targetDir, p.rel, func(root *os.Root, name string) error {
			info, err := root.Lstat(name)
			if err != nil {
				return err
			}
			want := info.Mode().Perm()
			switch info.Mode().Type() {
			case 0:
				want |= 0o600
			case fs.ModeDir:
				want |= 0o700
			default:
				return &fs.PathError{Op: "chmod", Path: name, Err: syscall.EINVAL}
			}
			change = ModeChange{p.rel, info.Mode().Perm(), want}
			return root.Chmod(name, want)
		})
		if err != nil {
			return changed, chmodFault(err, targetDir, p.rel)
		}
		if change.Old != change.New {
			changed = append(changed, change)
		}
	}
	return changed, nil
}

// RestorePermissions takes changes back, the last first. Paths that are gone are passed over.
func RestorePermissions(targetDir string, changes []ModeChange) error {
	var errs []error
	for _, c := range slices.Backward(changes) {
		err := at(targetDir, c.Path, func(root *os.Root, name string) error { return root.Chmod(name, c.Old) })
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, chmodFault(err, targetDir, c.Path))
		}
	}
	return errors.Join(errs...)
}

func chmodFault(err error, dir, name string) error {
	full := filepath.Join(dir, name)
	return fault.Because(err, "could not change permissions of \"%s\": %s", full, fault.M(err))
}

// at calls do with a root that name is below: the target, or what pg_wal or a tablespace's link leads to.
func at(targetDir, name string, do func(root *os.Root, name string) error) error {
	if name != "." && !fsx.Local(name) {
		return &fs.PathError{Op: "chmod", Path: name, Err: fsx.ErrUnsafe}
	}
	parts := strings.Split(name, "/")
	links := 0
	switch {
	case parts[0] == "pg_wal":
		links = 1
	case parts[0] == "pg_tblspc" && len(parts) > 1:
		links = 2
	}
	dir := filepath.Join(targetDir, path.Join(parts[:links]...))
	if info, err := os.Lstat(dir); links > 0 && err == nil && info.Mode()&fs.ModeSymlink == 0 {
		dir, links = targetDir, 0 // an ordinary directory
	}
	below := path.Join(parts[links:]...)
	if below == "" {
		below = "."
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return do(root, below)
}
