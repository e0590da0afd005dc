package copier

import (
	"context"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/plan"
)

// Source gives pieces of the source's files.
type Source interface {
	// Fetch gives ranges, each of at most MaxRange bytes, by one call of emit for each of them, in their order, from
	// the goroutine that called Fetch; i counts from 0. It returns the first error of emit as it is.
	//
	// Data is what the file has of the range at that moment: less, or nothing, if the file ends before; never more. Gone
	// if there is no such file. Data belongs to the source again when emit returns. Different ranges of one file may be
	// asked for in several calls at the same time, so a file that changes meanwhile may be seen in several states.
	//
	// Fetch may be called from Options.MostJobs goroutines at once. It returns soon after ctx is done, with ctx's error.
	Fetch(ctx context.Context, ranges []pg.FileRange, emit func(i int, c pg.FileChunk) error) error
}

// MaxRange is the greatest length of a range, in bytes. It is what a whole file is asked for at least, so that every small
// file comes in one piece, in one state.
const MaxRange = plan.MinWholeFile
