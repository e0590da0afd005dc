// Command soak lets servers come apart at random, rewinds them, interrupts the rewinds at random, and checks each time that
// what comes out starts, streams and holds the data of its source. It ends at the first fault, or when its time is over.
//
//	go run ./internal/soak -minutes 30            rounds with seeds that follow each other, from one that is printed
//	go run ./internal/soak -seed 4711 -rounds 1   one round again
//
// What a round chooses comes from its seed. What depends on how fast things are, such as how far a rewind is when it is
// killed, does not come back exactly: run a round some times.
//
//	main.go     the command line, the loop, the summary
//	round.go    one round: servers, one or two turns, and what it says of itself
//	load.go     what servers do
//	part.go     how they come apart, and who is the source
//	session.go  rewinds, and how they are interrupted
//	judge.go    what must be true afterwards
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "soak: error:", err)
		stop()
		os.Exit(1)
	}
}

// config is what the command line asks for.
type config struct {
	time   time.Duration
	seed   uint64
	rounds int // 0: until the time is over
	dir    string
}

func parse(args []string, stderr io.Writer) (config, error) {
	var cfg config
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.SetOutput(stderr)
	minutes := flags.Float64("minutes", 10, "no round is begun after this time")
	flags.Uint64Var(&cfg.seed, "seed", 0, "of the first round; the others count on from it (default: by chance)")
	flags.IntVar(&cfg.rounds, "rounds", 0, "at most so many rounds")
	flags.StringVar(&cfg.dir, "dir", "", "where clusters are made, at most 40 bytes (default: $PGTEST_DIR, else memory, else /tmp)")
	if err := flags.Parse(args); err != nil {
		return cfg, err
	}
	if flags.NArg() > 0 {
		return cfg, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if cfg.seed == 0 {
		cfg.seed = 1 + rand.Uint64N(1_000_000_000)
	}
	cfg.time = time.Duration(*minutes * float64(time.Minute))
	if cfg.dir == "" {
		cfg.dir = os.Getenv("PGTEST_DIR")
	}
	const memory = "/dev/shm"
	if info, err := os.Stat(memory); cfg.dir == "" && err == nil && info.IsDir() {
		cfg.dir = memory
	}
	return cfg, nil
}

// roundTime is how long a round may take. Its own limits (a server's start, one rewind) are far shorter.
const roundTime = 15 * time.Minute

// tally is what has been done.
type tally struct{ rounds, rewinds, sessions, kills, undone, faults int }

func (t *tally) add(o tally) {
	t.rounds += o.rounds
	t.rewinds += o.rewinds
	t.sessions += o.sessions
	t.kills += o.kills
	t.undone += o.undone
	t.faults += o.faults
}

func (t tally) String() string {
	return fmt.Sprintf("%d rounds, %d rewinds in %d sessions, of which %d were interrupted; %d undone; %d faults",
		t.rounds, t.rewinds, t.sessions, t.kills, t.undone, t.faults)
}

// run is the program: a line for each round to stdout, and all that a round with a fault had to say to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cfg, err := parse(args, stderr)
	if err != nil {
		return err
	}
	// A fault's directories stay; the others are removed here.
	if err := os.Setenv("PGTEST_KEEP", "1"); err != nil {
		return err
	}
	say := func(format string, args ...any) {
		_, _ = fmt.Fprintf(stdout, format+"\n", args...) // where it cannot be written there is nobody to tell
	}
	begin := time.Now()
	var all tally
	for n := 0; (cfg.rounds == 0 || n < cfg.rounds) && (n == 0 || time.Since(begin) < cfg.time); n++ {
		seed := cfg.seed + uint64(n)
		one, line, err := playRound(ctx, cfg, seed, stderr)
		if ctx.Err() != nil {
			break // somebody wants no more: what the round says then is no fault
		}
		all.add(one)
		say("%s", line)
		if err != nil {
			say("%v: %v", time.Since(begin).Round(time.Second), all)
			return err
		}
	}
	say("%v: %v", time.Since(begin).Round(time.Second), all)
	return nil //nolint:nilerr // an error of a round that was interrupted is none
}

// playRound plays one round and cleans up after it, unless there was a fault.
func playRound(ctx context.Context, cfg config, seed uint64, stderr io.Writer) (tally, string, error) {
	limited, cancel := context.WithTimeout(ctx, roundTime)
	defer cancel()
	begin := time.Now()
	var log bytes.Buffer
	r := &round{rng: rand.New(rand.NewPCG(seed, 0))}
	err := pgtest.Run(limited, fmt.Sprintf("seed %d", seed), &log, func(tb pgtest.TB) {
		r.TB = tb
		r.env = pgtest.New(tb, pgtest.Options{Dir: cfg.dir, Timeout: 2 * time.Minute})
		r.program = pgtest.BuildFastrewind(tb).Fastrewind
		r.play()
	})
	r.done.rounds = 1
	verdict := "ok"
	if err != nil {
		r.done.faults, verdict = 1, "FAULT"
	}
	line := fmt.Sprintf("seed %d, %.1f s, %s: %s", seed, time.Since(begin).Seconds(), verdict, r.story())
	if err != nil && ctx.Err() == nil {
		_, _ = fmt.Fprintf(stderr, "%s\n%s\n", log.String(), r.story())
		return r.done, line, fmt.Errorf("%w\nagain: -seed %d -rounds 1; its directory: %s", err, seed, r.root())
	}
	if root := r.root(); root != "" {
		err = errors.Join(err, os.RemoveAll(root))
	}
	return r.done, line, err
}
