package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// Fetcher is a place from which segments are fetched. All methods may be called from several goroutines at once.
type Fetcher interface {
	// Fetch writes one whole segment, decoded, to a file that does not exist yet. path is absolute, its last part the
	// segment's file name; its directory belongs to this one call, and what else is left there is removed.
	//
	// That the place plainly does not have the segment is said by an error for which errors.Is(err, fs.ErrNotExist); that
	// it has something else under that name, by errors.Is(err, ErrWrongSegment). The next place is asked after any error,
	// unless ctx is done. Fetch verifies what only it can (checksums of its own); size and first page are the Spool's affair.
	Fetch(ctx context.Context, tli pg.TLI, seg pg.SegNo, path string) error
	// String names the place in messages.
	String() string
}

// Repository is an archive that is read directly. Errors are as those of Fetcher.
type Repository interface {
	Fetch(ctx context.Context, tli pg.TLI, seg pg.SegNo, w io.Writer) error
}

// Reader makes a Fetcher of a Repository. name names it in messages; not more than segSize bytes are taken from it.
func Reader(repo Repository, name string, segSize uint32) Fetcher {
	return &reader{repo: repo, name: name, segSize: int64(segSize)}
}

type reader struct {
	repo    Repository
	name    string
	segSize int64
}

// String implements Fetcher.
func (r *reader) String() string { return r.name }

// Fetch implements Fetcher.
func (r *reader) Fetch(ctx context.Context, tli pg.TLI, seg pg.SegNo, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return localError(err, "could not create file \"%s\": %s", path, fault.M(err))
	}
	w := &capped{file: f, size: r.segSize, left: r.segSize}
	err = r.repo.Fetch(ctx, tli, seg, w)
	closed := f.Close()
	switch {
	case w.full:
		// Said before err: the repository may have wrapped ours.
		return fault.Because(ErrWrongSegment, "unexpected file size for \"%s\": more than %d bytes",
			pg.SegmentName(tli, seg, uint32(r.segSize)), r.segSize)
	case w.err != nil:
		return localError(w.err, "could not write file \"%s\": %s", path, fault.M(w.err))
	case err != nil:
		return err
	case closed != nil:
		return localError(closed, "could not close file \"%s\": %s", path, fault.M(closed))
	}
	return nil
}

// capped writes to a file at most a segment's bytes, whatever a stream decodes to.
type capped struct {
	file *os.File
	size int64
	left int64
	full bool
	err  error
}

// Write implements io.Writer.
func (c *capped) Write(p []byte) (int, error) {
	if int64(len(p)) > c.left {
		c.full = true
		return 0, fmt.Errorf("%w: it is larger than a segment", ErrWrongSegment)
	}
	n, err := c.file.Write(p)
	c.left -= int64(n)
	if err != nil {
		c.err = err
	}
	return n, err
}

// Restart throws away what was written: a repository may have a second copy of what turned out to be damaged.
func (c *capped) Restart() error {
	err := c.file.Truncate(0)
	if err == nil {
		_, err = c.file.Seek(0, io.SeekStart)
	}
	if err != nil {
		c.err = err
		return err
	}
	c.left, c.full = c.size, false
	return nil
}

// errLocal is in the chain of errors that our own side is to blame for: no other place is asked.
var errLocal = errors.New("local failure")

// localError words a failure of the private directory.
func localError(cause error, format string, args ...any) *fault.Error {
	return fault.Because(fmt.Errorf("%w: %w", errLocal, noLonger(cause)), format, args...)
}

// noLonger hides that an error is of a missing file, so that it is not taken for a segment the archive does not have.
func noLonger(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New(err.Error())
	}
	return err
}
