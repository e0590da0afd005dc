package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgbin/proc"
)

// CommandConfig says how segments come back by restore_command.
type CommandConfig struct {
	Command string // restore_command, as the target's server has it
	Major   int    // the target's: what placeholders mean, and how stock words a failure
	SegSize uint32 // WAL segment size in bytes
	// Timeout is how long one run for one segment may take; 0: as long as it wants.
	Timeout time.Duration
	// Retries is how often a run is repeated that failed for a reason that may pass; negative: never; 0: DefaultRetries.
	Retries int
	// Backoff is the pause before the first repetition, doubled before each further one; 0: DefaultBackoff.
	Backoff time.Duration
	// Output gets what the command prints, on either output, run by run; nil drops it.
	Output io.Writer
	// Event is told of repetitions; may be nil.
	Event func(Event)
}

// What CommandConfig has unless told otherwise.
const (
	DefaultRetries = 2
	DefaultBackoff = 500 * time.Millisecond
)

// Command is restore_command as a Fetcher.
//
// A run's end means what it means for stock (RestoreArchivedFile, src/fe_utils/archive.c): status 0 with a file is
// success; 1 to 125 that the archive does not have the segment; anything above, and death by signal, ends the search for
// good. Two things are more than stock does:
//
//   - A run that exceeds the timeout is stopped, with all its children, and repeated.
//   - Some tools have statuses of their own for a segment that the archive does not have. Of these tools (see tools) any other
//     status says that the tool failed, and the run is repeated. Once repetitions are used up the error has stock's text, but
//     is no fs.ErrNotExist. Of all other commands nothing is known, and so nothing is repeated: that a segment is missing
//     is an everyday answer, and must not cost more than one run.
type Command struct {
	cfg     CommandConfig
	missing func(status int) bool // nil: the command is no tool that is known
	tool    string
	printed sync.Mutex // output of one run at a time
}

// NewCommand makes a Fetcher of a restore_command. What is wrong with its placeholders is said by Fetch: a command that is
// not needed may be as it likes.
func NewCommand(cfg CommandConfig) *Command {
	switch {
	case cfg.Retries == 0:
		cfg.Retries = DefaultRetries
	case cfg.Retries < 0:
		cfg.Retries = 0
	}
	if cfg.Backoff <= 0 {
		cfg.Backoff = DefaultBackoff
	}
	c := &Command{cfg: cfg}
	c.tool, c.missing = toolOf(cfg.Command)
	return c
}

// String implements Fetcher.
func (c *Command) String() string { return "restore_command" }

// restoreGrace is how long a command gets to follow SIGTERM.
const restoreGrace = 5 * time.Second

// errTimeout is the cause with which a run is stopped that takes too long.
var errTimeout = errors.New("timeout")

// errFinal is in the chain of errors after which stock would not run the command again.
var errFinal = fault.ErrFatal

// Fetch implements Fetcher.
func (c *Command) Fetch(ctx context.Context, tli pg.TLI, seg pg.SegNo, path string) error {
	name := pg.SegmentName(tli, seg, c.cfg.SegSize)
	line, err := expand(c.cfg.Command, path, name, c.cfg.Major)
	if err != nil {
		return err
	}
	pause := c.cfg.Backoff
	for attempt := 1; ; attempt++ {
		passing, err := c.attempt(ctx, line, path, name)
		if err == nil || !passing || attempt > c.cfg.Retries || ctx.Err() != nil {
			return err
		}
		listener(c.cfg.Event).tell(Event{Kind: Retried, Segment: name, Place: c.String(), Attempt: attempt, Err: err})
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return stopped(ctx, name)
		}
		pause *= 2
	}
}

// attempt runs the command once. passing is set if another run may well succeed.
func (c *Command) attempt(ctx context.Context, line, path, name string) (passing bool, err error) {
	// What an earlier, failed attempt left must not be taken for this one's success.
	if err := os.RemoveAll(path); err != nil {
		return false, localError(err, "could not remove file \"%s\": %s", path, fault.M(err))
	}
	cmd := exec.Command("/bin/sh", "-c", line)
	// WAL-G's default is to leave a prefetcher behind, which fills %p's directory for as long as it likes.
	cmd.Env = append(os.Environ(), "WALG_DOWNLOAD_CONCURRENCY=1")
	show := c.collectOutput(cmd, path)
	run := ctx
	if c.cfg.Timeout > 0 {
		var cancel context.CancelFunc
		run, cancel = context.WithTimeoutCause(ctx, c.cfg.Timeout, errTimeout)
		defer cancel()
	}
	err = proc.Run(run, cmd, restoreGrace)
	if err == nil {
		show()
		return false, c.arrived(line, path, name)
	}
	passing, err = c.failure(ctx, err, line, name)
	if needed(ctx) {
		show()
		return passing, err
	}
	return passing, withhold(err, show)
}

// failure puts a run's end into words.
func (c *Command) failure(ctx context.Context, err error, line, name string) (passing bool, _ error) {
	exit := (*exec.ExitError)(nil)
	switch {
	case ctx.Err() != nil:
		return false, stopped(ctx, name)
	case errors.Is(err, errTimeout):
		return true, notRestored(errTimeout, name, "it did not end within %v and was stopped", c.cfg.Timeout).
			Advise("restore_command did not end within %v and was stopped. Is the archive within reach? The command was: %s",
				c.cfg.Timeout, line)
	case proc.Hard(err):
		what := "restore_command"
		if c.cfg.Major >= quotedNames {
			what = `"restore_command"`
		}
		return false, fault.Because(fmt.Errorf("%w: %w", errFinal, noLonger(err)), "%s failed: %s", what, proc.Failure(err)).
			Advise("The command was: %s", line)
	case c.missing != nil && errors.As(err, &exit) && !c.missing(exit.ExitCode()):
		return true, notRestored(err, name, "%s, which for %s is an error and not a missing file", proc.Failure(err), c.tool).
			Advise("restore_command ended thus: %s. For %s that is an error and not a missing file; see what it printed. The command was: %s",
				proc.Failure(err), c.tool, line)
	default:
		return false, notRestored(fs.ErrNotExist, name, "%s", proc.Failure(err)).
			Advise("The target's pg_wal lacks it, and restore_command ended thus: %s. The command was: %s", proc.Failure(err), line)
	}
}

// quotedNames is the major from which on stock's messages have the parameter's name in quotes.
const quotedNames = 17

func stopped(ctx context.Context, name string) error {
	return fault.Because(context.Cause(ctx), "could not restore file \"%s\" from archive", name).
		Advise("restore_command was stopped on request.")
}

// notRestored is stock's message, with what was said instead of the file.
func notRestored(cause error, name, format string, args ...any) *fault.Error {
	return fault.Because(&remark{fmt.Sprintf(format, args...), cause}, "could not restore file \"%s\" from archive", name)
}

// remark is what a place had to say, for a list of places.
type remark struct {
	text  string
	cause error
}

func (r *remark) Error() string { return r.text }
func (r *remark) Unwrap() error { return r.cause }

// arrived looks whether a run that ended well has left a file.
func (c *Command) arrived(line, path, name string) error {
	_, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return notRestored(fs.ErrNotExist, name, "it claimed success, but there is no file").
			Advise("The target's pg_wal lacks it; restore_command claimed success, but there is no file. The command was: %s", line)
	case err != nil:
		return localError(err, "could not stat file \"%s\": %s", path, fault.M(err))
	}
	return nil
}

// maxOutputBytes bounds what is shown of one run's output.
const maxOutputBytes = 64 << 10

// collectOutput lets the command write to a file without a name, and not to a pipe: programs that stay behind in the
// background may hold it open as long as they like. The output of several runs does not mix. show passes it on.
//
// It is never our standard output: that belongs to --help and --version.
func (c *Command) collectOutput(cmd *exec.Cmd, path string) (show func()) {
	if c.cfg.Output == nil {
		return func() {}
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".output-")
	if err != nil {
		return func() {} // what it prints matters less than what it does
	}
	_ = os.Remove(f.Name()) // the directory will be removed anyway
	cmd.Stdout, cmd.Stderr = f, f
	return sync.OnceFunc(func() {
		defer f.Close()
		c.printed.Lock()
		defer c.printed.Unlock()
		// The descriptor's offset is shared with what the command left running; reading must not move it.
		_, _ = io.Copy(c.cfg.Output, io.NewSectionReader(f, 0, maxOutputBytes)) // as above
	})
}

// withheld is in the chain of errors of commands that ran ahead of need: what they printed is shown to whoever turns out to
// need the segment, and to nobody if none does.
type withheld struct {
	cause error
	show  func()
}

func (w *withheld) Error() string { return w.cause.Error() }
func (w *withheld) Unwrap() error { return w.cause }

func withhold(err error, show func()) error {
	var f *fault.Error
	if errors.As(err, &f) {
		f.Err = &withheld{f.Err, show}
	}
	return err
}

// reveal shows what was withheld.
func reveal(err error) {
	var s *searched
	if errors.As(err, &s) {
		for _, a := range s.all {
			reveal(a.err)
		}
		return
	}
	var w *withheld
	if errors.As(err, &w) {
		w.show()
	}
}

// tools are the programs in a restore_command whose exit status tells a segment that the archive does not have from an
// error. What a missing segment gives was seen with WAL-G 3.0.9, pgBackRest 2.45 and barman-cloud 3.4.0; barman-wal-restore was
// not run, nor were Barman's other statuses.
var tools = map[string]func(status int) bool{
	"wal-g":                    func(s int) bool { return s == 74 }, // EX_IOERR; 1 is any error
	"pgbackrest":               func(s int) bool { return s == 1 },  // 25 to 125 are errors, such as 103
	"barman-cloud-wal-restore": func(s int) bool { return s == 1 },  // 2 no connection, 3 wrong usage, 4 anything else
	"barman-wal-restore":       func(s int) bool { return s == 1 },  // 2 no connection, 3 anything else
}

// toolOf finds the one known tool that a command runs. In a command that consists of several, the status may be another
// program's.
func toolOf(command string) (name string, missing func(status int) bool) {
	if strings.ContainsAny(command, "|&;\n`(") {
		return "", nil
	}
	for _, word := range strings.FieldsFunc(command, func(r rune) bool { return strings.ContainsRune(" \t\"'", r) }) {
		if m := tools[filepath.Base(word)]; m != nil {
			return filepath.Base(word), m
		}
	}
	return "", nil
}
