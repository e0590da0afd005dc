// Command fastrewind brings a diverged PostgreSQL data directory back in line with another copy of the cluster: what
// pg_rewind does, in parallel.
//
// Called under the name pg_rewind, by a link or a copy, it takes the options, prints the words and returns the exit
// statuses of pg_rewind; under any other name it says more.
//
// The files, in the order a call goes through them:
//
//	main.go      what is taken from the operating system, and the one line of events: options, signals, run, exit
//	program.go   under which name the program runs
//	getopt.go    the command line as GNU getopt_long reads it, put into the plain form that pflag reads
//	commands.go  what the program can do besides: archive, journal, undo
//	options.go   every option: its flag, its environment variable, its meaning in rewind.Config
//	unknown.go   variables that look like an option's and are none
//	conffile.go  fastrewind.conf, which sets what neither command line nor environment did
//	values.go    the kinds of values options take
//	checks.go    what stock checks once all options are known, in stock's order
//	help.go      --help and --version
//	signals.go   SIGINT, SIGTERM, SIGHUP, SIGPIPE
//	dialect.go   under stock's name: the words of the target's major
//	exit.go      errors into exit statuses
//	reporter.go  rewind.Reporter: messages through zap, meters
//	lines.go     stock's form of a message, as a zap core; zap's JSON
//	meter.go     counting, and rates
//	progress.go  how meters are shown: bar, lines, JSON, stock's line
//	screen.go    one owner of stderr, so that messages and a bar do not mix
package main

import (
	"context"
	"io"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/fastrewind/fastrewind/internal/rewind"
)

// process is everything the program takes from the operating system; tests put other things there.
type process struct {
	args   []string                              // argv: the program's own name, then the arguments
	env    func(string) (value string, set bool) // os.LookupEnv
	names  func() []string                       // of the variables that env finds
	euid   int
	etc    string // the directory of the machine's configuration files; none if empty
	stdout io.Writer
	stderr io.Writer
	width  func() int // columns of the terminal behind stderr; 0 if stderr is not a terminal that can draw
	tty    bool       // stderr is a terminal, of whatever kind
	now    func() time.Time
	run    runFunc
}

type runFunc func(context.Context, rewind.Config, rewind.Reporter) error

func main() {
	surviveClosedPipes()
	os.Exit(theProcess(rewind.Run).start())
}

// start does what the command line asks for and returns the exit status. Every error of the program ends here.
func (p *process) start() int {
	self := thisProgram(p.args)
	screen := newScreen(p.stderr, p.width)
	cmd, opts := newCommand(self, p.args)
	speech := sync.OnceValue(func() *dialect { return p.dialect(self, opts.cfg.TargetDir) })
	// Mistakes on the command line are told as text: which format was meant is known only after it was read.
	rep := newReporter(self, screen, reporting{format: textFormat, now: p.now, speech: speech})

	if c, ok := p.command(self); ok {
		err := c.Execute()
		rep.Fail(untold(err))
		return exitStatus(self, err)
	}
	cmd.RunE = func(*cobra.Command, []string) error {
		if opts.version {
			printVersion(p.stdout, self, p.withConfFile(self))
			return nil
		}
		if err := opts.finish(self, p); err != nil {
			return err
		}
		rep = newReporter(self, screen, reporting{
			format: opts.logFormat, debug: opts.debug, now: p.now, speech: speech,
			progress: styleOf(opts, self, p),
		})
		defer rep.Close()
		opts.warn(rep)
		if err := opts.check(self, p.euid); err != nil {
			return err
		}
		return p.work(rep, func(ctx context.Context, rep rewind.Reporter) error { return p.run(ctx, opts.cfg, rep) })
	}
	cmd.SetHelpFunc(func(*cobra.Command, []string) { printHelp(p.stdout, self, p.dialect(self, "")) })

	err := cmd.Execute()
	rep.Fail(err)
	return exitStatus(self, err)
}
