package copier

import (
	"context"
	"fmt"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// fewConnections is a source whose calls wait for each other, as those of a server with a small pool do.
type fewConnections struct {
	Source
	free chan struct{}
}

func (s *fewConnections) Fetch(ctx context.Context, ranges []pg.FileRange, emit func(int, pg.FileChunk) error) error {
	<-s.free
	defer func() { s.free <- struct{}{} }()
	return s.Source.Fetch(ctx, ranges, emit)
}

// TestDurable: every file is told of once, after its fsync, and whoever is told may ask the source something, which has no
// connection free before a worker is done, which may wait for the syncer.
func TestDurable(t *testing.T) {
	const files = 600
	_, spy := newTarget(t, nil)
	src := &memSource{files: map[string][]byte{}}
	var actions []plan.Action
	for i := range files {
		name := fmt.Sprintf("f%04d", i)
		src.files[name] = make([]byte, i)
		actions = append(actions, copyWhole(name, i))
	}
	few := &fewConnections{Source: src, free: make(chan struct{}, 2)}
	few.free <- struct{}{}
	few.free <- struct{}{}

	told := map[string]int64{}
	opts := modes
	opts.Jobs, opts.OpenFiles = 2, 16
	opts.Durable = func(_ context.Context, files []DurableFile) error {
		<-few.free
		few.free <- struct{}{}
		spy.mu.Lock()
		defer spy.mu.Unlock()
		synced := map[string]bool{}
		for _, op := range spy.ops {
			synced[op] = true
		}
		for _, f := range files {
			if _, again := told[f.Path]; again || !synced["sync "+f.Path] {
				t.Errorf("%s: told before: %v; fsynced: %v", f.Path, again, synced["sync "+f.Path])
			}
			told[f.Path] = f.Size
		}
		return nil
	}
	must(t, New(spy, opts).Run(t.Context(), few, &plan.Plan{Actions: actions}))
	if len(told) != files {
		t.Errorf("told of %d files of %d", len(told), files)
	}
	for i := range files {
		if name := fmt.Sprintf("f%04d", i); told[name] != int64(i) {
			t.Errorf("%s: told of %d bytes, want %d", name, told[name], i)
		}
	}
}
