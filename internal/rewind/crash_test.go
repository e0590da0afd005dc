package rewind

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fastrewind/fastrewind/internal/crashtest"
	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/fsx/crashfs"
)

// wrapper is something between a run and its target.
type wrapper interface {
	Wrap(inner crashfs.Target) crashfs.Target
}

// wrappers are those that are wanted, by data directory. All other targets are opened as ever.
var wrappers sync.Map

func init() {
	openTargetFS = func(dir string) (targetFS, error) {
		target, err := fsx.OpenTarget(dir)
		if err != nil {
			return nil, err
		}
		if w, ok := wrappers.Load(dir); ok {
			return w.(wrapper).Wrap(target), nil
		}
		return target, nil
	}
}

// silent is a Reporter that has nobody to talk to.
type silent struct{}

func (silent) Info(string, ...any)            {}
func (silent) Progress(string, ...any)        {}
func (silent) Note(string, ...any)            {}
func (silent) Warn(string, string)            {}
func (silent) Debug(string, ...any)           {}
func (silent) DebugEnabled() bool             { return false }
func (silent) Output() (io.Writer, func())    { return io.Discard, func() {} }
func (silent) Start(Phase, int64, Unit) Meter { return silent{} }
func (silent) Add(int64)                      {}
func (silent) SetTotal(int64)                 {}
func (silent) Done()                          {}

// heard is a Reporter that notes whether there was a warning.
type heard struct {
	silent
	warned atomic.Bool
}

func (h *heard) Warn(string, string) { h.warned.Store(true) }

// scratch makes a directory in memory, if there is such a place: the tests write many gigabytes.
func scratch(t testing.TB) string {
	t.Helper()
	const memory = "/dev/shm"
	if info, err := os.Stat(memory); err != nil || !info.IsDir() {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "fastrewind-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// bench is where rewinds of one pair are run again and again.
type bench struct {
	pair   *crashtest.Pair
	config Config // without directories
	dir    string
	source string

	// Of the run that nothing disturbed:
	log     crashfs.Log
	rewound crashfs.Tree

	n atomic.Int64 // directories used
}

func newBench(t testing.TB, seed uint64, config Config) *bench {
	t.Helper()
	b := &bench{pair: crashtest.New(seed), config: config, dir: scratch(t)}
	b.source = filepath.Join(b.dir, "source")
	if err := b.pair.Source.Write(b.source); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.rewound, b.log, err = b.run(context.Background(), b.pair.Target, crashfs.Fault{}); err != nil {
		t.Fatalf("the rewind that nothing disturbs: %v", err)
	}
	for _, d := range b.pair.CheckRewound(b.rewound) {
		t.Errorf("after the rewind that nothing disturbs: %s", d)
	}
	return b
}

// compareEvery is of how many runs one is checked against the directory itself; the first always is.
const compareEvery = 8

// run writes a target, rewinds it, and gives what it is then, what was done to it, and how that ended.
func (b *bench) run(ctx context.Context, target crashfs.Tree, fault crashfs.Fault) (crashfs.Tree, crashfs.Log, error) {
	return b.runHeard(ctx, target, fault, silent{})
}

// runHeard is run with a Reporter.
func (b *bench) runHeard(
	ctx context.Context, target crashfs.Tree, fault crashfs.Fault, rep Reporter,
) (crashfs.Tree, crashfs.Log, error) {
	n := b.n.Add(1)
	root := filepath.Join(b.dir, fmt.Sprintf("target%d", n))
	fail := func(err error) (crashfs.Tree, crashfs.Log, error) {
		return nil, crashfs.Log{}, &brokenError{err}
	}
	defer func() { _ = os.RemoveAll(root) }() // the whole of b.dir is removed in the end
	if err := target.Write(root); err != nil {
		return fail(err)
	}
	world := crashfs.New(fault)
	runErr := b.runWith(ctx, b.configIn(root), world, rep)
	log := world.Log()
	model, err := log.Crash(target, crashtest.DataDir, log.Len(), crashfs.All())
	if err != nil {
		return fail(err)
	}
	// All that was written has to go through the seam, or nothing of this would be worth anything. To look every time would
	// cost a third of the tests' time.
	if n%compareEvery == 1 {
		tree, err := crashfs.Load(root)
		if err != nil {
			return fail(err)
		}
		if d := tree.Diff(model); d != nil {
			return fail(fmt.Errorf("%d paths were changed without the recorder's knowledge: %s", len(d), first(d)))
		}
	}
	return model, log, runErr
}

func (b *bench) configIn(root string) Config {
	cfg := b.config
	cfg.TargetDir, cfg.SourceDir = filepath.Join(root, crashtest.DataDir), filepath.Join(b.source, crashtest.DataDir)
	cfg.NoEnsureShutdown, cfg.ProgramName = true, "fastrewind"
	return cfg
}

// runWith rewinds with something between the run and its target; nil: nothing.
func (b *bench) runWith(ctx context.Context, cfg Config, between wrapper, rep Reporter) error {
	if between != nil {
		wrappers.Store(cfg.TargetDir, between)
		defer wrappers.Delete(cfg.TargetDir)
	}
	return Run(ctx, cfg, rep)
}

// brokenError is a failure of the test's own.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return "the test itself: " + e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

// past is how a target came to be what it is: what a process that was killed, or has failed, did to a tree.
type past struct {
	tree crashfs.Tree
	log  crashfs.Log
}

// goOn checks what some trouble has left: no server starts on a half-rewound target; the same command run again leaves what
// an undisturbed run leaves; and that is durable. If the machine has lost power, all that is left is durable; if it goes
// on, before says what may not be.
func (b *bench) goOn(left crashfs.Tree, before *past) error {
	return errors.Join(b.guarded(left), b.finished(left, before))
}

// guarded checks that no server starts on what some trouble has left, unless it finds a whole cluster.
func (b *bench) guarded(left crashfs.Tree) error {
	if d := b.pair.CheckGuard(left, b.rewound); d != nil {
		return complain("start guard", first(d))
	}
	return nil
}

// finished lets a run finish what another has begun.
func (b *bench) finished(left crashfs.Tree, before *past) error {
	p := past{left, crashfs.Log{}}
	if before != nil {
		p = *before
	}
	if b.differs(left) == nil {
		// Nobody has said that it was done. If the journal comes back, the next rewind will see that it was.
		return b.durable(p, crashtest.WithoutOwn)
	}
	after, log, err := b.run(context.Background(), left, crashfs.Fault{})
	if err != nil {
		return complain("the same command again fails", err.Error())
	}
	if d := b.differs(after); d != nil {
		return complain("the same command again leaves another tree", first(d))
	}
	return b.durable(past{p.tree, p.log.Then(log)}, whole)
}

// differs compares a tree with the one an undisturbed run leaves.
func (b *bench) differs(tree crashfs.Tree) []string {
	return crashtest.Timeless(tree).Diff(crashtest.Timeless(b.rewound))
}

func whole(t crashfs.Tree) crashfs.Tree { return t }

// durable checks that a power failure takes nothing away from a rewound target, in what counts.
func (b *bench) durable(p past, counts func(crashfs.Tree) crashfs.Tree) error {
	if b.config.NoSync {
		return nil
	}
	tree, err := p.log.Crash(p.tree, crashtest.DataDir, p.log.Len(), crashfs.Synced())
	if err != nil {
		return &brokenError{err}
	}
	if d := b.differs(counts(tree)); d != nil {
		return complain("a power failure after success takes something away", first(d))
	}
	return nil
}

// complaint is what is wrong, by kind.
type complaint struct{ kind, text string }

func (c *complaint) Error() string { return c.kind + ": " + c.text }

func complain(kind, text string) error { return &complaint{kind, text} }

// kinds counts an error's complaints.
func kinds(err error, into map[string]int) {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			kinds(e, into)
		}
		return
	}
	if c := (*complaint)(nil); errors.As(err, &c) {
		into[c.kind]++
		return
	}
	into["other"]++
}

func first(d []string) string {
	s := fmt.Sprintf("%d paths", len(d))
	for i, one := range d {
		if i == 3 {
			break
		}
		s += "; " + one
	}
	return s
}

// trial is one thing that may happen, and what it is called.
type trial struct {
	name string
	run  func() error
}

// try runs trials side by side and reports those that fail: the first few in full, and how many.
func try(t *testing.T, trials []trial) {
	t.Helper()
	next := make(chan trial)
	var wg sync.WaitGroup
	var mu sync.Mutex
	failed := 0
	why := map[string]int{}
	for range runtime.GOMAXPROCS(0) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for tr := range next {
				err := tr.run()
				if err == nil {
					continue
				}
				mu.Lock()
				kinds(err, why)
				if failed++; failed <= 8 || errors.As(err, new(*brokenError)) && failed < 100 {
					t.Errorf("%s: %v", tr.name, err)
				}
				mu.Unlock()
			}
		}()
	}
	for _, tr := range trials {
		next <- tr
	}
	close(next)
	wg.Wait()
	if failed > 0 {
		t.Errorf("%d of %d trials failed: %v", failed, len(trials), why)
	}
	t.Logf("%d trials", len(trials))
}
