package archive

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgbin/proc"
)

// RestoreConfig says how segments come back from the target's archive.
type RestoreConfig struct {
	Command string // restore_command, as the target's server has it
	DataDir string // the target's data directory: nothing is ever put into it
	SegSize uint32 // WAL segment size in bytes
	// Output gets what the command prints, on either output; nil drops it. *os.File is handed to the command itself.
	Output io.Writer
	// Debug gets stock's debug lines; nil drops them.
	Debug func(format string, args ...any)
}

// Restore is the target's archive, reached through its restore_command. One command runs at a time, as a server would run
// it.
//
// Restored segments lie in a private directory until Close, so that each is fetched once however often it is opened, and
// so that Keep can hand over those the rewound server will want. Stock restores into the target's pg_wal instead, where
// they stay even after a dry run, and where prefetching archivers (WAL-G) leave files that come and go under the rewind's
// hands.
type Restore struct {
	cfg RestoreConfig
	dir string
	// turn holds one token, owned by who may run the command and look at have.
	turn chan struct{}
	have map[string]bool // names restored, complete
}

// NewRestore makes the private directory, mode 0700: beside the data directory if that is possible, so that a segment kept
// can be moved into the target without a copy; else where temporary files go. Close removes it.
func NewRestore(cfg RestoreConfig) (*Restore, error) {
	dir, err := privateDir(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	r := &Restore{cfg: cfg, dir: dir, turn: make(chan struct{}, 1), have: map[string]bool{}}
	r.turn <- struct{}{}
	return r, nil
}

// privateDir makes a directory of our own, outside dataDir.
func privateDir(dataDir string) (string, error) {
	home, err := filepath.Abs(dataDir)
	if err != nil {
		return "", fault.Because(err, "could not get current working directory: %s", fault.M(err))
	}
	if real, err := filepath.EvalSymlinks(home); err == nil {
		home = real
	}
	var last error
	for _, parent := range []string{filepath.Dir(home), os.TempDir()} {
		// %p is put into the command without quotes. A blank in it would break commands that work for the server, where %p
		// is relative.
		parent, err := filepath.Abs(parent)
		if err != nil || strings.ContainsAny(parent, " \t\n\"'`$&|;<>()*?[]#~%\\!{}") || parent == home || strings.HasPrefix(parent, home+"/") {
			continue
		}
		dir, err := os.MkdirTemp(parent, ".fastrewind-wal-")
		if err == nil {
			return dir, nil
		}
		last = err
	}
	if last == nil {
		return "", fault.New("no usable directory to restore WAL into: neither \"%s\" nor \"%s\" will do", filepath.Dir(home), os.TempDir()).
			Advise("Their names would need quoting in a shell, or they lie in the target's data directory. Set TMPDIR to another directory.")
	}
	return "", fault.Because(last, "could not create directory to restore WAL into: %s", fault.M(last)).
		Advise("Tried \"%s\" and \"%s\". Set TMPDIR to a directory with room for the missing WAL.", filepath.Dir(home), os.TempDir())
}

// Open restores a segment, or opens it again if it was restored before. If the archive does not have it, or the command
// says so for whatever reason, errors.Is(err, fs.ErrNotExist); see proc.Hard for what ends the search.
func (r *Restore) Open(ctx context.Context, tli pg.TLI, seg pg.SegNo) (*Segment, error) {
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-r.turn:
		defer func() { r.turn <- struct{}{} }()
	}
	name := pg.SegmentName(tli, seg, r.cfg.SegSize)
	path := filepath.Join(r.dir, name)
	if !r.have[name] {
		if err := r.run(ctx, path, name); err != nil {
			return nil, err
		}
	}
	s, err := openSegment(path)
	if err != nil {
		return nil, fault.Because(noLonger(err), "could not open file \"%s\" restored from archive: %s", path, fault.M(err))
	}
	if s.size != int64(r.cfg.SegSize) {
		_ = s.Close() // only read from
		return nil, fault.New("unexpected file size for \"%s\": %d instead of %d", name, s.size, r.cfg.SegSize).
			Advise("restore_command ended well, but what it restored is not a whole WAL segment. Is the archive damaged, or its disk full?")
	}
	r.have[name] = true
	r.debug("using file \"%s\" restored from archive", path)
	return s, nil
}

// restoreGrace is how long a command gets to follow SIGTERM.
const restoreGrace = 5 * time.Second

// run runs the command for one segment (RestoreArchivedFile, src/fe_utils/archive.c).
func (r *Restore) run(ctx context.Context, path, name string) error {
	command, err := expand(r.cfg.Command, path, name)
	if err != nil {
		return err
	}
	// What an earlier, failed attempt left must not be taken for this one's success.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Because(err, "could not remove file \"%s\": %s", path, fault.M(err))
	}
	cmd := exec.Command("/bin/sh", "-c", command)
	// Not our standard output: that belongs to --help and --version.
	cmd.Stdout, cmd.Stderr = r.cfg.Output, r.cfg.Output
	err = proc.Run(ctx, cmd, restoreGrace)
	switch {
	case err != nil && ctx.Err() != nil:
		return fault.Because(context.Cause(ctx), "could not restore file \"%s\" from archive", name).
			Advise("restore_command was stopped on request.")
	case proc.Hard(err):
		return fault.Because(noLonger(err), "restore_command failed: %s", proc.Failure(err)).
			Advise("The command was: %s", command)
	case err != nil:
		return fault.Because(fs.ErrNotExist, "could not restore file \"%s\" from archive", name).
			Advise("The target's pg_wal lacks it, and restore_command ended thus: %s. The command was: %s", proc.Failure(err), command)
	}
	_, err = os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.Because(fs.ErrNotExist, "could not restore file \"%s\" from archive", name).
			Advise("The target's pg_wal lacks it; restore_command claimed success, but there is no file. The command was: %s", command)
	case err != nil:
		return fault.Because(err, "could not stat file \"%s\": %s", path, fault.M(err))
	}
	return nil
}

// noLonger hides that an error is of a missing file, so that it is not taken for a segment the archive does not have.
func noLonger(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New(err.Error())
	}
	return err
}

// Keep gives a restored segment to the caller, who may move or copy the file before Close removes what is left; once it
// is moved, Open fails for it. ok is false if it was not restored, or lies elsewhere (a command may have made a link into
// the archive).
func (r *Restore) Keep(name string) (path string, ok bool) {
	<-r.turn
	defer func() { r.turn <- struct{}{} }()
	if !r.have[name] {
		return "", false
	}
	path = filepath.Join(r.dir, name)
	fi, err := os.Lstat(path)
	return path, err == nil && fi.Mode().IsRegular()
}

// Close removes the private directory with all that is in it. The store must not be used afterwards; segments still open
// stay readable.
func (r *Restore) Close() error {
	<-r.turn // for good: a late Open waits for its context rather than fill a directory nobody removes
	var err error
	// A prefetcher in the background may put a file into a directory while it is being emptied.
	for range 10 {
		if err = os.RemoveAll(r.dir); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fault.Because(err, "could not remove directory \"%s\": %s", r.dir, fault.M(err)).
		Advise("It holds WAL restored for this run only. Remove it by hand.")
}

func (r *Restore) debug(format string, args ...any) {
	if r.cfg.Debug != nil {
		r.cfg.Debug(format, args...)
	}
}
