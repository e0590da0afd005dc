package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// fetch asks one place after the other for a segment until one has it, and puts its file into the private directory.
func (s *Spool) fetch(ctx context.Context, e *entry) error {
	var all answers
	for _, f := range s.cfg.Fetchers {
		began := time.Now()
		err := s.fetchFrom(ctx, f, e)
		if err == nil {
			s.event(Event{
				Kind: Fetched, Segment: e.name, Place: f.String(), Path: s.path(e.name),
				Bytes: int64(s.cfg.Identity.SegSize), Duration: time.Since(began),
			})
			for _, a := range all {
				if !errors.Is(a.err, fs.ErrNotExist) {
					s.event(Event{Kind: Refused, Segment: e.name, Place: a.place, Err: a.err})
				}
			}
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, errLocal) {
			return err
		}
		var worded *fault.Error
		if !errors.As(err, &worded) {
			err = fault.Because(err, "could not fetch \"%s\" from %v: %s", e.name, f, fault.M(err))
		}
		_, stock := f.(*Command)
		all = append(all, answer{place: f.String(), err: err, stock: stock})
	}
	if len(all) == 0 {
		return fault.Because(fs.ErrNotExist, "no archive is known to fetch \"%s\" from", e.name)
	}
	return all.conclude()
}

// fetchFrom lets one place write into a directory made for the occasion: whatever else a tool leaves there goes with it.
func (s *Spool) fetchFrom(ctx context.Context, f Fetcher, e *entry) error {
	dir, err := os.MkdirTemp(s.dir.path, "fetch-")
	if err != nil {
		return localError(err, "could not create directory to restore WAL into: %s", fault.M(err))
	}
	// What a program in the background still puts there keeps the directory; it goes with the private one.
	defer func() { _ = os.RemoveAll(dir) }()
	arrived := filepath.Join(dir, e.name)
	if err := f.Fetch(ctx, e.tli, e.seg, arrived); err != nil {
		return s.perhapsFull(err, arrived)
	}
	if err := s.verify(f, e, arrived); err != nil {
		return s.perhapsFull(err, arrived)
	}
	own, err := s.makeOwn(arrived)
	if err != nil {
		return s.perhapsFull(err, arrived)
	}
	if err := os.Rename(own, s.path(e.name)); err != nil {
		return localError(err, "could not rename file \"%s\" to \"%s\": %s", own, s.path(e.name), fault.M(err))
	}
	return nil
}

// verify holds a file against what the segment must be.
func (s *Spool) verify(f Fetcher, e *entry, path string) error {
	seg, err := openSegment(path)
	if err != nil {
		return fault.Because(noLonger(err), "could not open file \"%s\" restored from archive: %s", path, fault.M(err)).
			Advise("It came from %v.", f)
	}
	defer seg.Close()
	id := &s.cfg.Identity
	if err := id.checkSize(e.name, seg.size); err != nil {
		return err.Advise("What came from %v is not a whole WAL segment. Is the archive damaged, or its disk full?", f)
	}
	if err := id.check(seg, e.name, e.tli, e.seg); err != nil {
		var fail *fault.Error
		if errors.As(err, &fail) {
			fail.Advise("It came from %v. Does another cluster write to the same archive?", f)
		}
		return err
	}
	return nil
}

// makeOwn gives the name of a regular file that is ours alone: a command may have made a link into the archive, and what
// is kept will be written to by the target's server one day.
func (s *Spool) makeOwn(path string) (string, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return "", localError(err, "could not stat file \"%s\": %s", path, fault.M(err))
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && fi.Mode().IsRegular() && st.Nlink == 1 && int64(st.Uid) == int64(os.Geteuid()) {
		return path, nil
	}
	from, err := os.Open(path)
	if err != nil {
		return "", localError(err, "could not open file \"%s\": %s", path, fault.M(err))
	}
	defer from.Close()
	own := path + ".copy"
	to, err := os.OpenFile(own, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", localError(err, "could not create file \"%s\": %s", own, fault.M(err))
	}
	n, err := io.Copy(to, io.LimitReader(from, int64(s.cfg.Identity.SegSize)))
	if closed := to.Close(); err == nil {
		err = closed
	}
	if err == nil && n != int64(s.cfg.Identity.SegSize) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return "", localError(err, "could not copy file \"%s\" to \"%s\": %s", path, own, fault.M(err))
	}
	return own, nil
}

// perhapsFull looks whether a fetch may have failed because the disk filled up, which a command reports as it likes. What
// it has written is still there.
func (s *Spool) perhapsFull(err error, path string) error {
	const nothing = 256 << 10 // bytes
	free, why := s.free()
	if errors.Is(err, unix.ENOSPC) || why == nil && free < nothing {
		return noSpace(path, s.dir.path, free, int64(s.cfg.Identity.SegSize), s.cfg.Margin)
	}
	return err
}

// neededKey finds in a context whether somebody waits for what is being fetched.
type neededKey struct{}

func withNeeded(ctx context.Context, f func() bool) context.Context {
	return context.WithValue(ctx, neededKey{}, f)
}

// needed reports whether somebody waits for the segment; true if nobody can know.
func needed(ctx context.Context) bool {
	f, ok := ctx.Value(neededKey{}).(func() bool)
	return !ok || f()
}

// answer is what one place said about a segment.
type answer struct {
	place string
	err   error
	stock bool // it is restore_command, the only archive that stock knows
	local bool // it is pg_wal
}

type answers []answer

// searched is the cause of an error that has gone through answers; a Chain adds to them.
type searched struct {
	all   answers
	cause error
}

func (s *searched) Error() string { return s.cause.Error() }
func (s *searched) Unwrap() error { return s.cause }

// conclude makes one error of what all places said. The advice lists them all.
func (all answers) conclude() error {
	pick := all[0]
	for _, a := range all {
		if a.weight() >= pick.weight() {
			pick = a
		}
	}
	var f *fault.Error
	if !errors.As(pick.err, &f) {
		f = fault.Because(pick.err, "%s", fault.M(pick.err))
	}
	said := *f // several readers may be told at once, and each adds its own
	said.Err = &searched{all: all, cause: pick.err}
	if f.Err != nil {
		said.Err = &searched{all: all, cause: f.Err}
	}
	if len(all) > 1 {
		var b strings.Builder
		for _, a := range all {
			fmt.Fprintf(&b, "\n  %s: %s", a.place, a.said())
		}
		said.Advice = "Looked at:" + b.String() + "\n" + said.Advice
	}
	// Stock knows of no other places than pg_wal and what restore_command brings.
	said.Own = slices.ContainsFunc(all, func(a answer) bool { return !a.local && !a.stock })
	return &said
}

// weight says whose words the error has: those of the last archive with something else to say than that the segment is
// not there; if all say that, stock's: restore_command's, else pg_wal's, else the last archive's.
func (a *answer) weight() int {
	switch {
	case !a.local && !errors.Is(a.err, fs.ErrNotExist):
		return 3
	case a.stock:
		return 2
	case a.local:
		return 1
	default:
		return 0
	}
}

// said is what a place said, in a list of places.
func (a *answer) said() string {
	var r *remark
	var f *fault.Error
	switch {
	case errors.As(a.err, &r):
		return r.text
	case errors.Is(a.err, fs.ErrNotExist):
		return "not there"
	case errors.As(a.err, &f):
		return f.Text
	default:
		return fault.M(a.err)
	}
}
