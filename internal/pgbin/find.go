package pgbin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pgbin/proc"
)

// Options say whose postgres is wanted, and where to look.
type Options struct {
	DataDir     string // the target's data directory
	Major       int    // the target's major, as MajorOf reads it
	BinDir      string // --pg-bindir; may be empty
	ProgramPath string // argv[0] of this program
	ProgramName string // what this program calls itself in messages
}

// Postgres is a server program of the target's major.
type Postgres struct {
	Path    string // absolute
	Version string // what it says to -V, without line end
	Major   int
}

// Find looks for the target's server program: in --pg-bindir, beside this program, where the target's postmaster.opts
// says, in the usual places, in PATH. The first whose -V gives the right major is taken. Stock wants the very same
// version as its own, beside itself; for us any minor will do, since it is the server's major that decides what recovery
// and configuration mean.
//
// The error has stock's text; its advice lists every place and what was found there.
func Find(ctx context.Context, o Options) (*Postgres, error) {
	own := ownPath(o.ProgramPath)
	var seen strings.Builder
	besideWrong := false
	for _, p := range places(&o, own) {
		found, err := p.try(ctx, o.Major)
		if err == nil {
			return found, nil
		}
		if ctx.Err() != nil {
			return nil, fault.Because(context.Cause(ctx), "could not look for program \"%s\": %s", "postgres", context.Cause(ctx))
		}
		fmt.Fprintf(&seen, "\n  %s (%s): %s", p.path, p.why, complaint(err))
		var other *wrongVersionError
		if errors.As(err, &other) && p.why == besideProgram {
			besideWrong = true
		}
	}
	full := o.ProgramName
	if own != "" {
		full = own
		if end, err := filepath.EvalSymlinks(own); err == nil {
			full = end
		}
	}
	fail := fault.New("program \"%s\" is needed by %s but was not found in the same directory as \"%s\"", "postgres", o.ProgramName, full)
	if besideWrong {
		fail = fault.New("program \"%s\" was found by \"%s\" but was not the same version as %s", "postgres", full, o.ProgramName)
	}
	return nil, fail.Advise("The target needs postgres of version %d. Looked at:%s\n"+
		"Install the server package of version %d, or name the directory of its programs with --pg-bindir.", o.Major, seen.String(), o.Major)
}

// complaint is what an error of try amounts to, in a list.
func complaint(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "not there"
	}
	return fault.M(err)
}

// wrongVersionError says that a program was there and ran, but is not the one wanted.
type wrongVersionError struct{ version string }

func (e *wrongVersionError) Error() string { return fmt.Sprintf("its version is %q", e.version) }

// versionTimeout and maxVersionBytes bound what a program that is not postgres can do to us when asked for its version.
const (
	versionTimeout  = 30 * time.Second
	maxVersionBytes = 1024
)

// Beside asks the server program that lies beside this one, as it does beside pg_rewind, for its version; beside the name it
// was called by, if that is a link, before where that leads. It may be of any major; ok is false if there is none that answers.
func Beside(ctx context.Context, programPath string) (found *Postgres, ok bool) {
	list := places(&Options{}, ownPath(programPath))
	slices.Reverse(list)
	for _, p := range list {
		if p.why != besideProgram {
			continue
		}
		if found, err := p.ask(ctx); err == nil {
			return found, true
		}
	}
	return nil, false
}

// In asks the server program in a directory for its version. It may be of any major; ok is false if there is none that answers.
func In(ctx context.Context, dir string) (found *Postgres, ok bool) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, false
	}
	found, err = place{path: filepath.Join(dir, "postgres")}.ask(ctx)
	return found, err == nil
}

// try asks the program at a place for its version, which must be of the major.
func (p place) try(ctx context.Context, major int) (*Postgres, error) {
	found, err := p.ask(ctx)
	if err == nil && found.Major != major {
		return nil, &wrongVersionError{found.Version}
	}
	return found, err
}

// ask asks the program at a place for its version.
func (p place) ask(ctx context.Context) (*Postgres, error) {
	if err := executable(p.path); err != nil {
		return nil, err
	}
	if p.distrusted {
		path, err := trustworthy(p.path)
		if err != nil {
			return nil, err
		}
		p.path = path
	}
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	out := head{limit: maxVersionBytes}
	cmd := exec.Command(p.path, "-V")
	cmd.Stdout = &out
	if err := proc.Run(ctx, cmd, time.Second); err != nil {
		return nil, fmt.Errorf("asked for its version: %s", proc.Failure(err))
	}
	version := out.line()
	major, ok := parseVersion(version)
	if !ok {
		return nil, &wrongVersionError{version}
	}
	return &Postgres{Path: p.path, Version: version, Major: major}, nil
}

// parseVersion reads the major from what postgres prints, as in "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)",
// "postgres (PostgreSQL) 19rc1".
func parseVersion(line string) (major int, ok bool) {
	rest, ok := strings.CutPrefix(line, "postgres (PostgreSQL) ")
	if !ok {
		return 0, false
	}
	digits := 0
	for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
		digits++
	}
	major, err := strconv.Atoi(rest[:digits])
	return major, err == nil
}

// head is an io.Writer that keeps the first limit bytes and drops the others.
type head struct {
	buf   bytes.Buffer
	limit int
}

func (h *head) Write(p []byte) (int, error) {
	if room := h.limit - h.buf.Len(); room > 0 {
		h.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// line is the first line, without its end.
func (h *head) line() string {
	line, _, _ := strings.Cut(h.buf.String(), "\n")
	return strings.TrimRight(line, "\r")
}
