package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/internal/fault"
)

// Result is what settings say.
type Result struct {
	Archives []location.Archive // in order of preference
	Notes    []string           // what was seen and is not used, and why; without secrets
}

// finding collects a Result.
type finding struct{ Result }

func (f *finding) add(archives ...location.Archive) { f.Archives = append(f.Archives, archives...) }

func (f *finding) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	for _, n := range f.Notes {
		if n == text {
			return
		}
	}
	f.Notes = append(f.Notes, text)
}

// Auto finds the archives in settings that are there already. What restore_command says comes first, since the target's
// server itself relies on it; only if it names no archive that can be read directly, pgBackRest, WAL-G and WAL-E are asked
// for what they would use by themselves.
//
// It is an error if there is none, and if a file that matters cannot be read.
func Auto(e Env) (Result, error) {
	f := &finding{}
	if strings.TrimSpace(e.RestoreCommand) != "" {
		if err := fromCommand(e, f); err != nil {
			return Result{}, err
		}
	}
	if len(f.Archives) == 0 {
		if err := ambient(e, f); err != nil {
			return Result{}, err
		}
	}
	if len(f.Archives) == 0 {
		seen := "There is no restore_command, and there are no settings of pgBackRest, WAL-G or WAL-E in the environment or in their usual files."
		if len(f.Notes) > 0 {
			seen = "Seen: " + strings.Join(f.Notes, "; ") + "."
		}
		return Result{}, fault.New("found no settings of a WAL archive that can be read directly").
			Advise("%s Name the archive with --wal-archive s3://BUCKET/PREFIX or a directory, or let restore_command fetch the missing WAL (-c).", seen)
	}
	return f.Result, nil
}

// ambient finds what the tools would use without being told.
func ambient(e Env, f *finding) error {
	v := vars{base: e.Getenv}
	if err := pgBackRest(e, v, nil, "", f); err != nil {
		return err
	}
	found, err := walg(e, v, walgUse{}, f)
	if err != nil || found {
		return err
	}
	if wale(e, v, "", f) {
		return nil
	}
	for _, dir := range []string{"/etc/wal-g.d/env", "/run/etc/wal-e.d/env", "/etc/wal-e.d/env"} {
		if _, err := e.ReadDir(dir); isNotExist(err) {
			continue
		}
		set, err := e.envdir(dir)
		if err != nil {
			return err
		}
		w := v.with(set)
		found, err := walg(e, w, walgUse{outer: dir, invoked: strings.Contains(dir, "wal-g")}, f)
		if err != nil || found {
			return err
		}
		if wale(e, w, dir, f) {
			return nil
		}
	}
	return nil
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// Keys are the keys in the environment, for an archive that was named by itself: WAL-G's, and that of pgBackRest's first
// repository.
func Keys(e Env) (location.Keys, error) {
	keys, err := walgKeys(e, walgSettings{vars: vars{base: e.Getenv}})
	keys.PgBackRestPass = location.Secret(e.Getenv("PGBACKREST_REPO1_CIPHER_PASS"))
	return keys, err
}
