// Package preflight looks for everything that would make a rewind fail half-way, before anything is touched, and reports
// all of it together.
//
//	preflight.go  what is checked, and in which order
//	problem.go    one problem, and the one error that they are joined to
//	write.go      may every path that changes be written?
//	fix.go        repairing the modes of one's own files
//	space.go      is there room for what will be written?
//	tree.go       links, tablespaces, mount points, shared directories, backup_label
//	stat_*.go     what the operating system knows of a path
//
// What is found is a picture of one moment. Nothing later relies on it: whatever fails in spite of it fails cleanly.
package preflight

import (
	"context"
	"path/filepath"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// Input is what a run is going to do. Nothing in it is changed or kept.
type Input struct {
	TargetDir string
	// SourceDir is the source if it is a directory of this machine, else empty.
	SourceDir string
	// Plan may be nil if none could be made: then the listings are searched for paths of different type, and what a plan
	// would do is not checked.
	Plan *plan.Plan
	// Source and Target are the listings, ascending by path; nil if there are none.
	Source, Target []pg.Entry
	// TablespaceDir is the version's directory below each tablespace, as in pg.Version.
	TablespaceDir string
	// Replaced are paths that the run will put a new file in place of besides, by temporary file and rename: backup_label,
	// global/pg_control, the journal, and under -R postgresql.auto.conf and standby.signal.
	Replaced []string
	// Appended are those of Replaced whose present content is read and kept: postgresql.auto.conf.
	Appended []string
	// Needs is room for what the plan does not speak of.
	Needs []Need
	// Resuming: the backup_label in the target is the rewind's own.
	Resuming bool
	// Jobs is how many paths are looked at at a time; default 4.
	Jobs int
}

// Need is room that something will take.
type Need struct {
	Dir   string // that it will be in; need not exist yet
	Bytes int64
	What  string // in words: "WAL written by the source meanwhile"
	// AtMost: it may turn out to be much less, and running out of it does no harm: an undo is compressed, and saved before
	// anything is changed.
	AtMost bool
}

// Check looks for problems and reads nothing but names and attributes, of the target, of a local source, and of the
// directories that tablespace links name. It changes nothing. The problems come in an order that does not change from
// run to run. The only error is ctx's.
func Check(ctx context.Context, in Input) ([]Problem, error) {
	c := &checker{Input: in}
	if c.Jobs <= 0 {
		c.Jobs = 4
	}
	if err := c.types(ctx); err != nil {
		return nil, err
	}
	if c.Plan == nil {
		c.Plan = &plan.Plan{}
	}
	for _, step := range []func(context.Context) error{c.paths, c.writable, c.sharing, c.links, c.label, c.space} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return c.problems, nil
}

type checker struct {
	Input
	problems []Problem
}

func (c *checker) found(p Problem) { c.problems = append(c.problems, p) }

// full is a path of the target as messages show it.
func (c *checker) full(rel string) string { return filepath.Join(c.TargetDir, rel) }
