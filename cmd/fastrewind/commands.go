package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/rewind"
)

// A rewind has no name of its own on the command line, as it has none with pg_rewind. What else the program can do is a
// command, named by the first argument; under the name pg_rewind there are none.

// command finds the command that the arguments name, if they name one.
func (p *process) command(self program) (*cobra.Command, bool) {
	if self.stock || len(p.args) < 2 {
		return nil, false
	}
	for _, c := range p.commands(self) {
		if c.Name() == p.args[1] {
			c.SilenceErrors, c.SilenceUsage = true, true
			c.CompletionOptions = cobra.CompletionOptions{DisableDefaultCmd: true}
			c.SetArgs(p.args[2:])
			c.SetOut(p.stdout)
			c.SetErr(p.stderr)
			return c, true
		}
	}
	return nil, false
}

// commands are all there are.
func (p *process) commands(self program) []*cobra.Command {
	return []*cobra.Command{
		p.archiveCommand(self), p.journalCommand(self), p.undoCommand(self),
		p.manualCommand(), p.completionCommand(),
	}
}

func (p *process) journalCommand(self program) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "journal -D DIRECTORY",
		Short: "Print what an interrupted rewind has left",
		Long: "Prints the journal that an interrupted rewind has left in a data directory: what it found out, how far it came,\n" +
			"and what it copied. It changes nothing, and reads a damaged journal as far as it can.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if dir == "" {
				return fault.New("no data directory specified (--target-pgdata)").WithHint("%s", tryHelp(self))
			}
			return rewind.DumpJournal(p.stdout, dir)
		},
	}
	c.Flags().StringVarP(&dir, "target-pgdata", "D", "", "the data directory, or a journal")
	return c
}

func (p *process) undoCommand(self program) *cobra.Command {
	cfg := rewind.Config{ProgramName: self.name, ProgramPath: self.path}
	c := &cobra.Command{
		Use:   "undo -D DIRECTORY --from DIRECTORY",
		Short: "Put a target back as it was before a rewind with --keep-undo",
		Long: "Puts a data directory back exactly as it was before a rewind that was run with --keep-undo, whether that rewind was\n" +
			"finished or interrupted, as long as no server has run on it since. Interrupted, it can be run again.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			switch {
			case cfg.TargetDir == "":
				return fault.New("no data directory specified (--target-pgdata)").WithHint("%s", tryHelp(self))
			case cfg.KeepUndo == "":
				return fault.New("no undo specified (--from)").WithHint("%s", tryHelp(self))
			case p.euid == 0:
				return fault.New("cannot be executed by \"root\"").WithHint("You must run %s as the PostgreSQL superuser.", self.name)
			}
			return p.work(newReporter(self, newScreen(p.stderr, p.width), reporting{format: textFormat, now: p.now}),
				func(ctx context.Context, rep rewind.Reporter) error { return rewind.Undo(ctx, cfg, rep) })
		},
	}
	c.Flags().StringVarP(&cfg.TargetDir, "target-pgdata", "D", "", "the data directory")
	c.Flags().StringVar(&cfg.KeepUndo, "from", "", "the directory that was given to --keep-undo")
	c.Flags().VarP(&numberValue{&cfg.Jobs, "-j/--jobs"}, "jobs", "j",
		fmt.Sprintf("files written at a time (default: number of CPUs, from 2 to %d)", rewind.MostJobs))
	c.Flags().Lookup("jobs").DefValue = "" // it is another on every machine, which the manual must not say
	return c
}

// work does one piece of work until it ends or a signal stops it.
func (p *process) work(rep *reporter, do func(context.Context, rewind.Reporter) error) error {
	defer rep.Close()
	ctx, stop := untilSignal(context.Background(), func(name string) {
		rep.Note("%s received, stopping; send it again to quit at once", name)
	})
	defer stop()
	return interruption(ctx, do(ctx, rep))
}
