package rewind

import "github.com/fastrewind/fastrewind/internal/fsx"

// targetFS is the target as a run writes it.
type targetFS interface {
	fsx.FS
	Close() error
}

// openTargetFS is how a run gets at its target. Tests put something in between.
var openTargetFS = func(dir string) (targetFS, error) { return fsx.OpenTarget(dir) }
