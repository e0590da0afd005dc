package main

import (
	"os"
	"path/filepath"
	"slices"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// saved is what stock made of the working copy, put aside to be compared.
type saved struct {
	root string
	data string
}

// saveResult moves the working copy's data directory away. The next restore makes it anew.
func saveResult(tb pgtest.TB, p *pair) saved {
	root, err := os.MkdirTemp(p.env.Root, "stock")
	if err != nil {
		tb.Fatalf("bench: %v", err)
	}
	s := saved{root: root, data: filepath.Join(root, "data")}
	if err := os.Rename(p.work.DataDir(), s.data); err != nil {
		tb.Fatalf("bench: %v", err)
	}
	return s
}

func (s saved) remove(tb pgtest.TB) {
	if err := os.RemoveAll(s.root); err != nil {
		tb.Fatalf("bench: %v", err)
	}
}

// compare fails unless the working copy is what stock left behind, and returns the reasons of the differences that had
// to be allowed. pg_internal.init and the like need none: see pgtest.RewindDifferences.
func (s saved) compare(tb pgtest.TB, p *pair, sc scenario) []string {
	dropLinked(tb, p.work.DataDir(), s.data)
	allow := append(pgtest.RewindDifferences(sc.source.live()), pgtest.AllowSourceBlocks(p.source))
	if sc.access != nil {
		allow = append(allow, sc.access.allow())
	}
	differences, allowed, err := pgtest.CompareTrees(p.work.DataDir(), s.data, allow...)
	if err != nil {
		tb.Fatalf("bench: scenario %s: %v", sc.name, err)
	}
	for i, d := range differences {
		if i == 20 {
			break // whoever looks for the cause has enough
		}
		tb.Errorf("bench: scenario %s: fastrewind's result (first) is not stock's (second): %s", sc.name, d)
	}
	if len(differences) > 0 {
		tb.Fatalf("bench: scenario %s: %d differences", sc.name, len(differences))
	}
	var paths []string
	for _, d := range allowed {
		paths = append(paths, d.Path)
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}
