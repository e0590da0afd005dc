// Command bench measures fastrewind against stock pg_rewind: both on identical copies of the same diverged cluster, in
// turn (A B A B), with the physical floor of the machine measured between them. It checks that both leave the same
// target behind, and prints and saves medians, spreads and ratios.
//
//	go run ./bench                                   the default scenarios at full scale, 3 runs each: some 10 minutes
//	go run ./bench -scenario all -runs 5             everything: hours, and 50 GB of disk
//	go run ./bench -scale SMALL                      a few hundred megabytes: a few minutes
//	go run ./bench -scenario dir,server-tcp -jobs 1,2,4
//
// -help lists the scenarios; those with an asterisk are not in the default set. -scale scales data, WAL, numbers of files and
// kept WAL alike. It needs nothing but a local PostgreSQL and about six times the cluster's size of free disk in -dir; for the
// scenarios of S3 what scripts/install-archivers installs; for cold ones a -dir, or a -colddir, that is on a disk.
//
//	main.go       the command line
//	scale.go      how big the clusters are
//	scenario.go   the table of scenarios: which clusters, which source, what counts
//	archive*.go   the scenarios in which WAL comes from an archive
//	fixture*.go   the clusters: a target that diverged, a source, a working copy; WAL, changed blocks, files of all kinds
//	proxy.go      the network between the programs and a source server: round trips, a bandwidth
//	cold.go       files dropped from memory before a run, and how much of them was
//	growth*.go    how a rewind's time grows with the diverged WAL, and with the cluster
//	cores.go      the scan on one processor and on two
//	load.go       what a rewind costs those who work on the source; --max-rate
//	plan10tb.go   block map and plan of a simulated cluster of 10 TB
//	mirror.go     the working copy made identical to the pristine target again, by copying only what was changed
//	bench.go      the order of the measurements
//	contender.go  stock and ours: command lines, and the phases of a run read from what they print
//	timeline.go   when a program printed which line
//	sample.go     one measured run
//	settle.go     the machine brought to rest, caches warmed
//	floor.go      the least time anyone could take
//	equal.go      both results compared
//	result.go     what is saved: one value for all of it
//	markdown.go   what is printed
//	summary.go    the table of README: goals, floors, and what was not reached
//	stats.go      medians and spreads
//	machine.go    the machine, the versions, the settings
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		stop()
		os.Exit(1)
	}
}

// run is the program: results to stdout and to files, what is going on to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cfg, out, err := parse(args, stderr)
	if err != nil {
		return err
	}
	var res *result
	err = pgtest.Run(ctx, "bench", stderr, func(tb pgtest.TB) { res = measure(tb, cfg) })
	if err != nil {
		return err
	}
	if err := res.save(out); err != nil {
		return err
	}
	_, err = io.WriteString(stdout, res.markdown())
	return err
}

// config is what the command line asks for.
type config struct {
	scenarios []scenario
	scale     scale
	runs      int
	jobs      []int // one contender each; none: one with fastrewind's own default
	dir       string
	coldDir   string   // where the clusters of cold scenarios are made
	args      []string // the command line, for the report
	log       io.Writer
}

func (c *config) logf(format string, args ...any) {
	_, _ = fmt.Fprintf(c.log, format+"\n", args...) // where progress cannot be written there is nobody to tell
}

func parse(args []string, stderr io.Writer) (cfg config, out string, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var names, scaleName, jobs string
	flags.StringVar(&names, "scenario", "default", "scenarios, separated by commas; default: those without an asterisk; all:\n"+describeScenarios())
	flags.StringVar(&scaleName, "scale", "FULL", "TINY, SMALL, FULL, or gigabytes of data and of diverged WAL: 3/1.75")
	flags.IntVar(&cfg.runs, "runs", 3, "measured runs of each program in each scenario")
	flags.StringVar(&jobs, "jobs", "", "values of fastrewind's --jobs, separated by commas, each a contender of its own (default: fastrewind's own default)")
	flags.StringVar(&out, "out", filepath.Join(".cache", "bench"), "directory for bench.json and bench.md")
	flags.StringVar(&cfg.dir, "dir", "", "where clusters are made, at most 40 bytes (default $PGTEST_DIR, else /tmp)")
	flags.StringVar(&cfg.coldDir, "colddir", "", "where the clusters of cold scenarios are made, on a disk (default: -dir, or, if that is in memory, the usual temporary directories)")
	if err := flags.Parse(args); err != nil {
		return cfg, "", err
	}
	if flags.NArg() > 0 {
		return cfg, "", fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if cfg.scenarios, err = chooseScenarios(names); err != nil {
		return cfg, "", err
	}
	if cfg.scale, err = parseScale(scaleName); err != nil {
		return cfg, "", err
	}
	if slices.ContainsFunc(cfg.scenarios, func(s scenario) bool { return s.cold }) {
		if cfg.coldDir, err = chooseColdDir(cfg.coldDir, cfg.dir); err != nil {
			return cfg, "", err
		}
	}
	if cfg.runs < 1 {
		return cfg, "", fmt.Errorf("-runs is %d, and must be at least 1", cfg.runs)
	}
	for _, s := range strings.FieldsFunc(jobs, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return cfg, "", fmt.Errorf("-jobs has %q, which is no number of jobs", s)
		}
		cfg.jobs = append(cfg.jobs, n)
	}
	cfg.args, cfg.log = args, stderr
	return cfg, out, nil
}
