package main

import "github.com/fastrewind/fastrewind/internal/fault"

// check refuses what stock refuses before it touches anything, in stock's order and words (main, pg_rewind.c). What is
// given counts, not what is empty: --source-server= means libpq's defaults, and so is a source.
func (o *options) check(self program, euid int) error {
	var problem *fault.Error
	switch {
	case !o.given["source-pgdata"] && !o.given["source-server"]:
		problem = fault.New("no source specified (--source-pgdata or --source-server)")
	case o.given["source-pgdata"] && o.given["source-server"]:
		problem = fault.New("only one of --source-pgdata or --source-server can be specified")
	case !o.given["target-pgdata"]:
		problem = fault.New("no target data directory specified (--target-pgdata)")
	case o.cfg.WriteRecoveryConf && !o.given["source-server"]:
		problem = fault.New("no source server information (--source-server) specified for --write-recovery-conf")
	case len(o.operands) > 0:
		problem = fault.New("too many command-line arguments (first is \"%s\")", o.operands[0])
	}
	if problem != nil {
		return problem.WithHint("%s", tryHelp(self))
	}
	// Files written by root would belong to root, and the server could not open them.
	if euid == 0 {
		return fault.New("cannot be executed by \"root\"").
			WithHint("You must run %s as the PostgreSQL superuser.", self.name)
	}
	if o.given["source-pgdata"] && o.cfg.SourceDir == "" {
		// An empty SourceDir tells the rewind to use the server. Stock gets as far as looking for this file.
		return fault.New("could not open file \"%s\" for reading: No such file or directory", "/global/pg_control").
			Advise("--source-pgdata is empty.")
	}
	return nil
}

// tryHelp is the hint after every mistake on the command line.
func tryHelp(self program) string { return "Try \"" + self.name + " --help\" for more information." }
