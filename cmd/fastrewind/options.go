package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/rewind"
)

// The ranks of long options, oldest first: a name shortened by somebody years ago keeps its meaning (grammar.match).
const (
	rankStock15 = iota
	rankStock17
	rankOwn
)

const (
	maxJobs = 1024 // far beyond what a source accepts as connections; catches a slip of the finger

	defaultArchiveJobs  = 16               // an archive is far away, and each segment waits for it
	defaultRetryFor     = 60 * time.Second // a server restarts in less, and so do most failovers
	defaultStallTimeout = 60 * time.Second
)

// options holds what the user asked for, from four places: the command line goes before the environment, the environment
// before the configuration file (conffile.go), and that before the defaults.
type options struct {
	cfg       rewind.Config
	progress  bool
	debug     bool
	logFormat logFormat
	help      bool
	version   bool

	flags    *pflag.FlagSet
	operands []string
	badLine  error           // what getopt complained about, after everything before it was read
	given    map[string]bool // options set by anything but their defaults

	publicSecret string // a configuration file with a password in it that everybody can read
}

// newCommand reads the command line. Errors are returned by the command's Execute.
func newCommand(self program, argv []string) (*cobra.Command, *options) {
	o := &options{given: map[string]bool{}}
	cmd := &cobra.Command{
		Use:               self.name,
		Args:              cobra.ArbitraryArgs, // operands are refused in stock's order, by options.check
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	o.flags = cmd.Flags()
	o.define(self)
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		if bad := (*pflag.InvalidValueError)(nil); errors.As(err, &bad) {
			return bad.Unwrap() // our own text, without pflag's
		}
		return err
	})
	cmd.SetArgs(o.read(self, argv))
	return cmd, o
}

// define declares every option, in the order of stock's getopt table, since complaints list options in that order.
func (o *options) define(self program) {
	f := o.flags
	f.SortFlags = false
	f.BoolVarP(&o.help, "help", "?", false, "")
	f.StringVarP(&o.cfg.TargetDir, "target-pgdata", "D", "", "")
	f.BoolVarP(&o.cfg.WriteRecoveryConf, "write-recovery-conf", "R", false, "")
	f.StringVar(&o.cfg.SourceDir, "source-pgdata", "", "")
	f.StringVar(&o.cfg.SourceServer, "source-server", "", "")
	f.BoolVar(&o.cfg.NoEnsureShutdown, "no-ensure-shutdown", false, "")
	f.StringVar(&o.cfg.ConfigFile, "config-file", "", "")
	f.BoolVarP(&o.version, "version", "V", false, "")
	f.BoolVarP(&o.cfg.RestoreTargetWAL, "restore-target-wal", "c", false, "")
	f.BoolVarP(&o.cfg.DryRun, "dry-run", "n", false, "")
	f.BoolVarP(&o.cfg.NoSync, "no-sync", "N", false, "")
	f.BoolVarP(&o.progress, "progress", "P", false, "")
	f.BoolVar(&o.debug, "debug", false, "")

	o.cfg.SyncMethod = rewind.SyncFsync
	f.Var((*syncMethodValue)(&o.cfg.SyncMethod), "sync-method", "")
	setRank(f, rankStock17, "sync-method")

	f.VarP(&numberValue{&o.cfg.Jobs, "-j/--jobs"}, "jobs", "j", "")
	f.Var((*rateValue)(&o.cfg.MaxRate), "max-rate", "")
	f.StringVar(&o.cfg.PgBinDir, "pg-bindir", "", "")
	o.logFormat = textFormat
	f.Var(&o.logFormat, "log-format", "")

	f.BoolVar(&o.cfg.Restart, "restart", false, "")
	f.Var((*durationValue)(&o.cfg.Timeout), "timeout", "")
	f.StringVar(&o.cfg.KeepUndo, "keep-undo", "", "")
	f.BoolVar(&o.cfg.FixPermissions, "fix-permissions", false, "")

	f.Var((*listValue)(&o.cfg.Keep), "keep", "")
	f.Var((*listValue)(&o.cfg.Exclude), "exclude", "")
	f.BoolVar(&o.cfg.KeepConfig, "keep-config", false, "")

	o.defineArchives(f)
	f.Var((*durationValue)(&o.cfg.RestoreTimeout), "restore-timeout", "")
	o.cfg.FetchSourceWAL = rewind.ChoiceAuto
	f.Var((*choiceValue)(&o.cfg.FetchSourceWAL), "fetch-source-wal", "")

	o.cfg.RetryFor, o.cfg.StallTimeout = defaultRetryFor, defaultStallTimeout
	f.Var((*durationValue)(&o.cfg.RetryFor), "retry-for", "")
	f.Var((*durationValue)(&o.cfg.StallTimeout), "stall-timeout", "")
	setRank(f, rankOwn, "jobs", "max-rate", "pg-bindir", "log-format", "restart", "timeout", "keep-undo", "fix-permissions",
		"keep", "exclude", "keep-config",
		"wal-archive", "wal-archive-layout", "s3-endpoint", "s3-region", "s3-profile", "s3-ca-file", "s3-path-style",
		"s3-requester-pays", "archive-jobs", "restore-timeout", "fetch-source-wal", "retry-for", "stall-timeout")

	o.cfg.ProgramName, o.cfg.ProgramPath = self.name, self.path
}

// defineArchives declares the options that say where WAL is archived. The command archive has them, too.
func (o *options) defineArchives(f *pflag.FlagSet) {
	f.Var((*listValue)(&o.cfg.WALArchives), "wal-archive", "")
	f.StringVar(&o.cfg.WALArchiveLayout, "wal-archive-layout", "", "")
	f.StringVar(&o.cfg.S3.Endpoint, "s3-endpoint", "", "")
	f.StringVar(&o.cfg.S3.Region, "s3-region", "", "")
	f.StringVar(&o.cfg.S3.Profile, "s3-profile", "", "")
	f.StringVar(&o.cfg.S3.CAFile, "s3-ca-file", "", "")
	f.BoolVar(&o.cfg.S3.PathStyle, "s3-path-style", false, "")
	f.BoolVar(&o.cfg.S3.RequesterPays, "s3-requester-pays", false, "")
	o.cfg.ArchiveJobs = defaultArchiveJobs
	f.Var(&numberValue{&o.cfg.ArchiveJobs, "--archive-jobs"}, "archive-jobs", "")
}

const rankAnnotation = "rank"

func setRank(f *pflag.FlagSet, rank int, names ...string) {
	for _, name := range names {
		f.Lookup(name).Annotations = map[string][]string{rankAnnotation: {strconv.Itoa(rank)}}
	}
}

// read turns argv into what pflag reads, with the operands after --.
func (o *options) read(self program, argv []string) []string {
	var args []string
	if len(argv) > 0 {
		args = argv[1:]
	}
	var plain []string
	switch {
	case self.stock && len(args) > 0 && (args[0] == "--help" || args[0] == "-?"):
		plain = []string{"--help"}
	case self.stock && len(args) > 0 && (args[0] == "--version" || args[0] == "-V"):
		plain = []string{"--version"}
	default:
		plain, o.operands, o.badLine = o.grammar(self).read(args)
	}
	return append(append(plain, "--"), o.operands...)
}

// grammar is getopt's view of the flags. Stock knows --help and --version as its first argument and nowhere else.
func (o *options) grammar(self program) grammar {
	var g grammar
	o.flags.VisitAll(func(f *pflag.Flag) {
		row := longOption{name: f.Name, value: f.NoOptDefVal == ""}
		if f.Shorthand != "" {
			row.short = f.Shorthand[0]
		}
		if f.Name == "help" || f.Name == "version" {
			row.last = true
			if self.stock {
				row.early, row.short = true, 0
			}
		}
		if rank := f.Annotations[rankAnnotation]; rank != nil {
			row.rank, _ = strconv.Atoi(rank[0]) // written by setRank
		}
		g = append(g, row)
	})
	return g
}

// finish completes the options once the command line is read: with what is wrong with it, or with the other settings.
func (o *options) finish(self program, p *process) error {
	if o.badLine != nil {
		return o.badLine
	}
	return o.readSettings(self, p)
}

// variable is the environment variable of an option.
func variable(option string) string {
	return "FASTREWIND_" + strings.ToUpper(strings.ReplaceAll(option, "-", "_"))
}

// readEnvironment sets the options that the command line did not. An empty variable counts as not set. A source named
// on the command line also goes before a source of the other kind named by the environment.
func (o *options) readEnvironment(env func(string) (string, bool)) error {
	sources := []string{"source-pgdata", "source-server"}
	sourceOnLine := slices.ContainsFunc(sources, o.flags.Changed)

	var firstErr error
	o.flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed {
			o.given[f.Name] = true
			return
		}
		value, _ := env(variable(f.Name))
		switch {
		case value == "" || firstErr != nil:
			return
		case f.Name == "help" || f.Name == "version":
			return // orders, not settings
		case sourceOnLine && slices.Contains(sources, f.Name):
			return
		}
		if err := setFromEnvironment(f, value); err != nil {
			firstErr = err
			return
		}
		o.given[f.Name] = true
	})
	return firstErr
}

func setFromEnvironment(f *pflag.Flag, value string) error {
	if f.Value.Type() == "bool" {
		on, err := parseSwitch(value)
		if err != nil {
			return fault.New("invalid value \"%s\" for environment variable \"%s\"", value, variable(f.Name)).
				WithHint("Use on, off, true, false, yes, no, 1 or 0.")
		}
		return f.Value.Set(strconv.FormatBool(on))
	}
	values := []string{value}
	if _, several := f.Value.(*listValue); several {
		values = strings.Fields(value)
	}
	var err error
	for _, one := range values {
		if err = f.Value.Set(one); err != nil {
			break
		}
	}
	if bad := (*fault.Error)(nil); errors.As(err, &bad) {
		return bad.WithDetail("The value comes from environment variable \"%s\".", variable(f.Name))
	}
	return err
}

// parseSwitch reads a Boolean as PostgreSQL's configuration files spell it.
func parseSwitch(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "on", "true", "yes", "1":
		return true, nil
	case "off", "false", "no", "0":
		return false, nil
	}
	return false, fmt.Errorf("not a Boolean value: %q", value)
}

// syncMethodValue is the value of --sync-method, with 17's text (parse_sync_method, option_utils.c).
type syncMethodValue rewind.SyncMethod

func (m *syncMethodValue) String() string { return string(*m) }
func (m *syncMethodValue) Type() string   { return "METHOD" }
func (m *syncMethodValue) Set(s string) error {
	switch method := rewind.SyncMethod(s); method {
	case rewind.SyncFsync, rewind.SyncSyncfs:
		*m = syncMethodValue(method)
		return nil
	}
	return fault.New("unrecognized sync method: %s", s)
}

// logFormat is the value of --log-format.
type logFormat string

const (
	textFormat logFormat = "text" // the lines of PostgreSQL's programs
	jsonFormat logFormat = "json" // one JSON object a line
)

func (l *logFormat) String() string { return string(*l) }
func (l *logFormat) Type() string   { return "FORMAT" }
func (l *logFormat) Set(s string) error {
	switch format := logFormat(s); format {
	case textFormat, jsonFormat:
		*l = format
		return nil
	}
	return fault.New("unrecognized log format: %s", s)
}
