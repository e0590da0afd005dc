package journal

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"

	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/fsx/crashfs"
)

// quickRoot is quickTarget for crashfs, which sees the syncs before they are left out.
type quickRoot struct{ quickTarget }

func (q quickRoot) Close() error { return q.Target.Close() }

// life is what a process did to the journal: the operations, and after how many of them which model was acknowledged as
// durable, or was at least asked for.
type life struct {
	log  crashfs.Log
	acks []ack
	err  error
}

type ack struct {
	ops     int // the first so many operations were done when the call returned
	model   *model
	durable bool
}

// live runs a process: Create or Resume, then the steps, until the first error.
func live(t *testing.T, dir string, resumed bool, fault crashfs.Fault, steps []step) (l *life) {
	t.Helper()
	inner, err := fsx.OpenTarget(dir)
	must(t, err)
	world := crashfs.New(fault)
	target := world.Wrap(quickRoot{quickTarget{inner}})
	defer target.Close()
	l = &life{}
	defer func() { l.log = world.Log() }()
	m := newModel()
	var w *Writer
	if resumed {
		tree, err := crashfs.Load(dir)
		must(t, err)
		b := tree[Name].Data
		s, err := loadBytes(b)
		must(t, err)
		m = modelOf(s)
		w, l.err = Resume(target, bytes.NewReader(b), s, true)
	} else {
		w, l.err = Create(target, Options{Mode: 0o600, Sync: true}, sampleFacts(), sampleBlocks(50))
	}
	if l.err != nil {
		return l
	}
	l.acks = append(l.acks, ack{world.Log().Len(), m.clone(), true})
	for i := range steps {
		if l.err = steps[i].do(w); l.err != nil {
			before := world.Log().Len()
			for _, call := range []func() error{
				w.Sync,
				func() error { return w.Touched([]File{{"late", 1}}) },
				func() error { return w.Done(1, []File{{"late", 1}}) },
				func() error { return w.Mark(Mark{Phase: Copied}) },
				func() error { _, err := w.Session(sampleSession(0)); return err },
			} {
				if err := call(); err != l.err {
					t.Fatalf("a dead writer says %v, want %v", err, l.err)
				}
			}
			if world.Log().Len() != before {
				t.Fatalf("a dead writer goes on: %v", world.Log().Ops[before:])
			}
			break
		}
		steps[i].apply(m)
		l.acks = append(l.acks, ack{world.Log().Len(), m.clone(), steps[i].durable()})
	}
	_ = w.Close()
	return l
}

// check looks at what a crash after the first n operations has left: at least the last model acknowledged as durable by
// then, at most the model after the last, and one of those between.
func (l *life) check(t *testing.T, tree crashfs.Tree, n int, all []*model) {
	t.Helper()
	node, there := tree[Name]
	least := -1 // the last that must be there
	for i, a := range l.acks {
		if a.durable && a.ops <= n {
			least = i
		}
	}
	if !there {
		if least >= 0 {
			t.Fatalf("crash after %d: the journal is gone", n)
		}
		return
	}
	s, err := loadBytes(node.Data)
	if err != nil {
		t.Fatalf("crash after %d: %v", n, err)
	}
	if !reflect.DeepEqual(&s.Facts, sampleFacts()) || !sameBlocks(t, s.Blocks, sampleBlocks(50)) {
		t.Fatalf("crash after %d: another head", n)
	}
	got := modelOf(s)
	for _, m := range all[max(least, 0):] {
		if got.equal(m) {
			return
		}
	}
	t.Fatalf("crash after %d: %+v is none of the models from %d on", n, got, least)
}

func keeps(n int) []crashfs.Keep {
	keeps := []crashfs.Keep{crashfs.Synced(), crashfs.All()}
	for seed := range n {
		keeps = append(keeps, crashfs.Random(uint64(seed)))
	}
	return keeps
}

func seeds(t *testing.T) int {
	t.Helper()
	if testing.Short() {
		return 6
	}
	return 60
}

// modelsAfter is the model before the steps and after each.
func modelsAfter(m *model, steps []step) []*model {
	m = m.clone()
	all := []*model{m.clone()}
	for i := range steps {
		steps[i].apply(m)
		all = append(all, m.clone())
	}
	return all
}

// TestPowerFailure crashes after every operation of a run, with whatever of the unsynced surviving: the journal loads, and
// all that was acknowledged as durable is in it.
func TestPowerFailure(t *testing.T) {
	steps := randomSteps(rand.New(rand.NewPCG(4, 4)), 30)
	l := live(t, t.TempDir(), false, crashfs.Fault{}, steps)
	must(t, l.err)
	all := modelsAfter(newModel(), steps)
	for n := range l.log.Len() + 1 {
		for _, keep := range keeps(seeds(t)) {
			tree, err := l.log.Crash(crashfs.Tree{}, ".", n, keep)
			must(t, err)
			l.check(t, tree, n, all)
		}
	}
}

// TestFailedOperation fails every operation in turn: the error comes out, the writer is dead; and when another process goes
// on and the power fails then, what that one was told is durable is there, although a failed fsync may have lost what it
// had read.
func TestFailedOperation(t *testing.T) {
	first := randomSteps(rand.New(rand.NewPCG(6, 4)), 14)
	second := randomSteps(rand.New(rand.NewPCG(7, 4)), 6)
	for at := 1; ; at++ {
		for _, fault := range []crashfs.Fault{
			{At: at, Err: syscall.EIO}, {At: at, Err: syscall.ENOSPC, Short: true}, {At: at, Err: syscall.EIO, Applied: true},
		} {
			if testing.Short() && (fault.Short || fault.Applied) {
				continue
			}
			dir := t.TempDir()
			l := live(t, dir, false, fault, first)
			if l.log.Len() < at {
				if at < 20 {
					t.Fatalf("only %d operations", at)
				}
				return
			}
			if op := l.log.Ops[at-1]; op.Err == nil {
				continue // this operation cannot fail in this way
			} else if l.err != nil && !errors.Is(l.err, fault.Err) {
				t.Fatalf("%v failed, but the error is %v", op, l.err)
			} else if l.err == nil && op.Kind != crashfs.OpClose && op.Kind != crashfs.OpRemove {
				t.Fatalf("%v failed, and nobody said so", op)
			}
			tree, err := crashfs.Load(dir)
			must(t, err)
			if _, there := tree[Name]; !there {
				if len(l.acks) > 0 {
					t.Fatalf("operation %d failed: the journal is gone", at)
				}
				if left := len(tree); left > 1 || left == 1 && tree[TempName].Mode == 0 {
					t.Fatalf("operation %d failed: %d files are left", at, left)
				}
				continue
			}
			next := live(t, dir, true, crashfs.Fault{}, second)
			must(t, next.err)
			all := modelsAfter(next.acks[0].model, second)
			both := l.log.Then(next.log)
			for n := range next.log.Len() + 1 {
				if n < next.acks[0].ops {
					continue // it has not been told anything yet; TestPowerFailure is about that
				}
				for _, keep := range keeps(3) {
					tree, err := both.Crash(crashfs.Tree{}, ".", l.log.Len()+n, keep)
					must(t, err)
					next.check(t, tree, n, all)
				}
			}
		}
	}
}

// TestPowerFailureTwice: power fails, the next run goes on with what is left, and power fails again at every operation.
func TestPowerFailureTwice(t *testing.T) {
	first := randomSteps(rand.New(rand.NewPCG(8, 4)), 12)
	second := randomSteps(rand.New(rand.NewPCG(9, 4)), 5)
	l := live(t, t.TempDir(), false, crashfs.Fault{}, first)
	must(t, l.err)
	for n := l.acks[0].ops; n <= l.log.Len(); n++ {
		for _, keep := range keeps(seeds(t) / 6) {
			tree, err := l.log.Crash(crashfs.Tree{}, ".", n, keep)
			must(t, err)
			dir := filepath.Join(t.TempDir(), "target")
			must(t, tree.Write(dir))
			next := live(t, dir, true, crashfs.Fault{}, second)
			must(t, next.err)
			all := modelsAfter(next.acks[0].model, second)
			for k := range next.log.Len() + 1 {
				for _, keep := range keeps(2) {
					after, err := next.log.Crash(tree, ".", k, keep)
					must(t, err)
					next.check(t, after, k, all)
				}
			}
		}
	}
}

// TestKilledBeforeRename leaves a temporary file, which the next run takes away.
func TestKilledBeforeRename(t *testing.T) {
	dir := t.TempDir()
	for at := 1; ; at++ {
		l := live(t, dir, false, crashfs.Fault{At: at, Crash: true}, nil)
		tree, err := crashfs.Load(dir)
		must(t, err)
		if _, there := tree[Name]; there {
			break
		}
		if l.err == nil || at > 20 {
			t.Fatal(at, l.err)
		}
	}
	target := openTarget(t, dir)
	must(t, Remove(target, true))
	if _, err := target.Lstat(TempName); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
