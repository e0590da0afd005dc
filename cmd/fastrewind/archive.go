package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fastrewind/fastrewind/archive/object"
	"github.com/fastrewind/fastrewind/archive/place"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgbin"
	"github.com/fastrewind/fastrewind/internal/rewind"
	"github.com/fastrewind/fastrewind/internal/walcheck"
)

// The command archive, for a person who wants to know what a WAL archive has before it is needed:
//
//	archive.go        the options that its commands share, and how archives are opened
//	archive_ls.go     what is there
//	archive_get.go    one file of it
//	archive_check.go  would a range of it do?
//
// Their results go to standard output, everything else to standard error.

const usageArchive = `%[1]s archive looks into WAL archives.

Usage:
  %[1]s archive ls OPTION...                what is there
  %[1]s archive get OPTION... NAME [FILE|-] one file of it, decoded
  %[1]s archive check OPTION... FROM TO     would these segments do?
  %[1]s archive check OPTION... -D DIR      would a rewind of DIR find its WAL?

Each has a --help of its own. All want --wal-archive=WHERE.
`

const usageArchiveShared = `
Where WAL is archived:
` + usageArchives + `
Of which cluster (default: what the first segment in the archive says):
  -D, --target-pgdata=DIRECTORY  the cluster's data directory, which is only read
      --system-id=NUM            its system identifier, as pg_controldata prints it
      --wal-segsize=MB           its segment size in megabytes

      --pg-bindir=DIRECTORY      look here first for the postgres program, which is asked for
                                 the restore_command of -D if --wal-archive is "auto"
      --log-format=FORMAT        write messages as "text" (default) or "json", and results, too
      --debug                    write a lot of debug messages
  -?, --help                     show this help, then exit

Options can also be set by environment variables, as those of a rewind (%[1]s --help).
`

// archiveOptions are the options of one of the commands.
type archiveOptions struct {
	options         // cfg: of the archives, TargetDir, PgBinDir; flags: those that the environment may set
	systemID uint64 // 0: not given
	segSize  uint32 // bytes; 0: not given
	json     bool   // write results as JSON, whatever --log-format and its variable say
	self     program
	p        *process
}

func (p *process) archiveCommand(self program) *cobra.Command {
	c := &cobra.Command{
		Use:   "archive",
		Short: "Look into a WAL archive",
		Args:  cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fault.New("there is no command \"archive %s\"", args[0]).WithHint("There are ls, get and check.")
			}
			return fault.New("no command specified").WithHint("There are ls, get and check. Try \"%s archive --help\".", self.name)
		},
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if bad := (*pflag.InvalidValueError)(nil); errors.As(err, &bad) {
			return bad.Unwrap() // our own text, without pflag's
		}
		return fault.Because(err, "%s", err).WithHint("Try \"%s %s --help\" for more information.", self.name, c.CommandPath())
	})
	c.SetHelpCommand(&cobra.Command{Hidden: true})
	helps(c, p.stdout, fmt.Sprintf(usageArchive, self.name))
	c.AddCommand(p.archiveLs(self), p.archiveGet(self), p.archiveCheck(self))
	return c
}

// helps makes a command print this text when asked for help.
func helps(c *cobra.Command, out io.Writer, text string) {
	c.Flags().BoolP("help", "?", false, "")
	c.SetHelpFunc(func(*cobra.Command, []string) { _, _ = io.WriteString(out, text) }) // a reader who has gone away is no error
}

// archiveOptions declares the options that all commands have.
func (p *process) archiveOptions(self program, c *cobra.Command) *archiveOptions {
	o := &archiveOptions{self: self, p: p}
	o.given = map[string]bool{}
	o.flags = pflag.NewFlagSet(c.Name(), pflag.ContinueOnError)
	o.defineArchives(o.flags)
	o.flags.StringVarP(&o.cfg.TargetDir, "target-pgdata", "D", "", "")
	o.flags.StringVar(&o.cfg.PgBinDir, "pg-bindir", "", "")
	o.flags.BoolVar(&o.debug, "debug", false, "")
	o.logFormat = textFormat
	o.flags.Var(&o.logFormat, "log-format", "")
	c.Flags().AddFlagSet(o.flags)
	c.Flags().Var((*systemIDValue)(&o.systemID), "system-id", "")
	c.Flags().Var((*segSizeValue)(&o.segSize), "wal-segsize", "")
	return o
}

// run opens the archives and does something with them, until that is done or a signal comes. What do returns is printed
// here, in the format that was asked for.
func (o *archiveOptions) run(do func(ctx context.Context, a *walcheck.Archives, rep rewind.Reporter) error) error {
	if err := o.readSettings(o.self, o.p); err != nil {
		return err
	}
	if o.json {
		o.logFormat = jsonFormat
	}
	rep := newReporter(o.self, newScreen(o.p.stderr, o.p.width), reporting{
		format: o.logFormat, debug: o.debug, now: o.p.now, progress: styleOf(&o.options, o.self, o.p),
	})
	err := o.p.work(rep, func(ctx context.Context, rep rewind.Reporter) (err error) {
		a, err := o.open(ctx, rep)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, a.Close()) }()
		return do(ctx, a, rep)
	})
	if errors.Is(err, syscall.EPIPE) {
		return nil // who read the results has seen enough
	}
	if err == nil {
		return nil
	}
	rep.Fail(err)
	return &toldError{err}
}

// toldError is an error that was printed already.
type toldError struct{ err error }

func (e *toldError) Error() string { return e.err.Error() }
func (e *toldError) Unwrap() error { return e.err }

// untold is err if nobody has printed it yet.
func untold(err error) error {
	if told := (*toldError)(nil); errors.As(err, &told) {
		return nil
	}
	return err
}

func (o *archiveOptions) open(ctx context.Context, rep rewind.Reporter) (*walcheck.Archives, error) {
	command, err := o.restoreCommand(ctx, rep)
	if err != nil {
		return nil, err
	}
	return walcheck.Open(ctx, walcheck.Options{
		SystemID: o.systemID, SegSize: o.segSize,
		Options: place.Options{
			Where:          o.cfg.WALArchives,
			Layout:         o.cfg.WALArchiveLayout,
			Endpoint:       o.cfg.S3.Endpoint,
			Region:         o.cfg.S3.Region,
			Profile:        o.cfg.S3.Profile,
			CAFile:         o.cfg.S3.CAFile,
			PathStyle:      o.cfg.S3.PathStyle,
			RequesterPays:  o.cfg.S3.RequesterPays,
			RestoreCommand: command,
			TargetDir:      o.cfg.TargetDir,
			Concurrency:    o.cfg.ArchiveJobs,
			Retried: func(e object.Retry) {
				rep.Debug("attempt %d to read %s failed, trying again in %v: %s", e.Attempt, e.Path, e.Wait, e.Reason)
			},
			Note: func(line string) { rep.Note("%s", line) },
		},
	})
}

// restoreCommand asks the target's server for its restore_command, if settings are to be learned from that. A target
// without one is no error.
func (o *archiveOptions) restoreCommand(ctx context.Context, rep rewind.Reporter) (string, error) {
	if o.cfg.TargetDir == "" || !slices.Contains(o.cfg.WALArchives, place.Auto) {
		return "", nil
	}
	major, err := pgbin.MajorOf(o.cfg.TargetDir)
	if err != nil {
		return "", err
	}
	output, done := rep.Output()
	defer done()
	postgres, err := pgbin.Find(ctx, pgbin.Options{
		DataDir: o.cfg.TargetDir, Major: major, BinDir: o.cfg.PgBinDir, ProgramPath: o.self.path, ProgramName: o.self.name,
	})
	var command string
	if err == nil {
		command, err = postgres.RestoreCommand(ctx, o.cfg.TargetDir, "", output)
	}
	if err != nil && ctx.Err() == nil {
		rep.Debug("no restore_command to learn from: %v", err)
		return "", nil
	}
	return command, err
}

// results writes results to standard output: lines of text, or JSON objects.
type results struct {
	out  *bufio.Writer
	json bool
}

func (o *archiveOptions) results() *results {
	return &results{out: bufio.NewWriter(o.p.stdout), json: o.logFormat == jsonFormat}
}

// line writes a line, or the object, which has a type; it ends what emit-like callbacks do if nobody reads any more.
func (r *results) line(kind string, object map[string]any, format string, args ...any) error {
	if r.json {
		all := map[string]any{"type": kind}
		for k, v := range object {
			all[k] = v
		}
		data, err := json.Marshal(all)
		if err != nil {
			return err
		}
		format, args = "%s", []any{data}
	}
	_, err := fmt.Fprintf(r.out, format+"\n", args...)
	return err
}

// end writes what is still held back.
func (r *results) end(err error) error { return errors.Join(err, r.out.Flush()) }

// clusterFields says of which cluster something is, for JSON, and in words.
func clusterFields(c walcheck.Cluster) (fields map[string]any, words string) {
	fields = map[string]any{}
	var list []string
	if c.Version != nil {
		fields["major"] = c.Version.Major
		list = append(list, fmt.Sprintf("PostgreSQL %d", c.Version.Major))
	}
	if c.SystemID != 0 {
		fields["system_identifier"] = strconv.FormatUint(c.SystemID, 10) // too large for the numbers of many readers
		list = append(list, fmt.Sprintf("system identifier %d", c.SystemID))
	}
	if c.SegSize != 0 {
		fields["segment_size"] = c.SegSize
		list = append(list, fmt.Sprintf("WAL segments of %d MB", c.SegSize>>20))
	}
	return fields, strings.Join(list, ", ")
}

// systemIDValue is a system identifier.
type systemIDValue uint64

func (v *systemIDValue) String() string { return strconv.FormatUint(uint64(*v), 10) }
func (v *systemIDValue) Type() string   { return "NUM" }
func (v *systemIDValue) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 {
		return fault.New("invalid system identifier \"%s\"", s)
	}
	*v = systemIDValue(n)
	return nil
}

// segSizeValue is a WAL segment size, given in megabytes as to initdb.
type segSizeValue uint32

func (v *segSizeValue) String() string { return strconv.FormatUint(uint64(*v)>>20, 10) }
func (v *segSizeValue) Type() string   { return "MB" }
func (v *segSizeValue) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 11)
	if err != nil || !pg.ValidSegSize(uint32(n)<<20) {
		return fault.New("argument of --wal-segsize must be a power of two between 1 and 1024")
	}
	*v = segSizeValue(n << 20)
	return nil
}

// timelineValue is a timeline's number.
type timelineValue pg.TLI

func (v *timelineValue) String() string { return strconv.FormatUint(uint64(*v), 10) }
func (v *timelineValue) Type() string   { return "NUM" }
func (v *timelineValue) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 {
		return fault.New("invalid timeline \"%s\"", s)
	}
	*v = timelineValue(n)
	return nil
}
