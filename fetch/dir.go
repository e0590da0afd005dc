package fetch

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/datadir"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// Dir is a source that is the data directory of a stopped cluster on this machine.
type Dir struct {
	root *datadir.Root
	path string
	// listed are the files of the last listing with their sizes, sorted by path; nil before the first.
	listed atomic.Pointer[[]listedFile]
}

type listedFile struct {
	path string
	size int64
}

// OpenDir opens a data directory as a source. Whether the cluster in it is fit to be one is the caller's question.
func OpenDir(path string) (*Dir, error) {
	root, err := datadir.OpenRoot(path)
	if err != nil {
		return nil, fault.Because(err, "could not open directory \"%s\": %s", path, fault.M(err))
	}
	return &Dir{root: root, path: path}, nil
}

// Close lets go of the directory.
func (d *Dir) Close() error { return d.root.Close() }

// List lists the directory (datadir.List) and holds later fetches against it.
func (d *Dir) List(ctx context.Context, jobs int, progress func(entries int64)) ([]pg.Entry, error) {
	entries, err := datadir.List(ctx, d.path, jobs, progress)
	if err != nil {
		return nil, err
	}
	files := 0
	for i := range entries {
		if entries[i].Type == pg.RegularFile {
			files++
		}
	}
	listed := make([]listedFile, 0, files)
	for i := range entries {
		if e := &entries[i]; e.Type == pg.RegularFile {
			listed = append(listed, listedFile{e.Path, e.Size})
		}
	}
	d.listed.Store(&listed)
	return entries, nil
}

// ReadFile reads a small file whole.
func (d *Dir) ReadFile(ctx context.Context, path string, maxBytes int64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := VerifyPath(path); err != nil {
		return nil, err
	}
	return d.root.ReadFile(path, min(maxBytes, MaxWholeFile))
}

// ControlFile reads global/pg_control.
func (d *Dir) ControlFile(ctx context.Context) ([]byte, error) {
	return d.ReadFile(ctx, controlFile, maxControlFile)
}

// chunkBuffers are what ranges are read into, one for each running Fetch.
var chunkBuffers sync.Pool // of *[MaxChunk]byte

// Fetch reads the ranges one by one. A file stays open from one range to the next of the same path.
func (d *Dir) Fetch(ctx context.Context, ranges []pg.FileRange, emit func(i int, c pg.FileChunk) error) error {
	if err := checkRanges(ranges, verifySpelling); err != nil {
		return err
	}
	buf, ok := chunkBuffers.Get().(*[MaxChunk]byte)
	if !ok {
		buf = new([MaxChunk]byte)
	}
	defer chunkBuffers.Put(buf)

	var f sourceFile
	defer f.close()
	for i, r := range ranges {
		if err := ctx.Err(); err != nil {
			return err
		}
		if f.File == nil || f.path != r.Path {
			f.close()
			if err := f.open(d, r.Path); err != nil {
				return err
			}
		}
		data, err := f.read(buf[:r.Length], ranges, i)
		if err != nil {
			return err
		}
		if err := emit(i, pg.FileChunk{Data: data}); err != nil {
			return err
		}
	}
	return nil
}

// sourceFile is an open file of the directory, and what is known of it.
type sourceFile struct {
	*os.File
	path   string
	full   string
	size   int64 // as listed
	listed bool

	cold       bool // a range was not in the page cache
	advised    int  // the first range the kernel has not been told of
	sequential bool // the kernel has been told to read far ahead
}

func (f *sourceFile) open(d *Dir, path string) error {
	full := d.root.Full(path)
	file, err := d.root.Open(path)
	if err != nil {
		return fault.Because(err, "could not open source file \"%s\": %s", full, fault.M(err)).
			Advise("The source must be stopped, and stay so, while it is read as a directory.")
	}
	*f = sourceFile{File: file, path: path, full: full}
	if p := d.listed.Load(); p != nil {
		i, found := slices.BinarySearchFunc(*p, path, func(l listedFile, path string) int { return cmp.Compare(l.path, path) })
		if found {
			f.listed, f.size = true, (*p)[i].size
		}
	}
	if err := f.sameSize(); err != nil {
		f.close()
		return err
	}
	return nil
}

func (f *sourceFile) close() {
	if f.File != nil {
		_ = f.File.Close() // nothing was written
		f.File = nil
	}
}

// read fills buf with range i, as far as the file goes.
func (f *sourceFile) read(buf []byte, ranges []pg.FileRange, i int) ([]byte, error) {
	offset := ranges[i].Offset
	n, err := f.cached(buf, offset), error(nil)
	if n < len(buf) {
		f.advise(ranges, i)
		var more int
		more, err = f.ReadAt(buf[n:], offset+int64(n))
		n += more
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fault.Because(err, "could not read file \"%s\": %s", f.full, fault.M(err)).
			Advise("The read was of %d bytes at offset %d.", len(buf), offset)
	}
	if !f.listed {
		return buf[:n], nil
	}
	end := offset + int64(len(buf))
	if want := min(end, f.size) - offset; int64(n) < want {
		return nil, fault.New("unexpected EOF while reading file \"%s\"", f.full).
			Advise("Of %d bytes at offset %d there were %d, though the file was listed with %d. The source must be stopped, and stay so.",
				want, offset, n, f.size)
	}
	if end >= f.size {
		return buf[:n], f.sameSize()
	}
	return buf[:n], nil
}

// cached reads what the page cache has of a range, without waiting for a disk. Once something was missing, the file is
// taken to be cold and the question is not asked again.
func (f *sourceFile) cached(buf []byte, offset int64) int {
	if f.cold {
		return 0
	}
	n, err := unix.Preadv2(int(f.Fd()), [][]byte{buf}, offset, unix.RWF_NOWAIT)
	f.cold = errors.Is(err, unix.EAGAIN) || err == nil && n > 0 && n < len(buf)
	return max(n, 0) // file systems without RWF_NOWAIT, and errors, are left to the ordinary read
}

// lookAhead is how many ranges the kernel is told of before they are read.
const lookAhead = 32

// advise tells the kernel of a cold file what will be read after range i, as far as it is of the same file. That makes
// scattered blocks several times as fast, and long runs up to twice. In the page cache the advice would cost as much as
// reading a block.
func (f *sourceFile) advise(ranges []pg.FileRange, i int) {
	if !f.cold {
		return
	}
	for f.advised = max(f.advised, i+1); f.advised < min(i+lookAhead, len(ranges)); f.advised++ {
		before, r := &ranges[f.advised-1], &ranges[f.advised]
		if r.Path != f.path {
			return
		}
		switch follows := before.Offset+before.Length == r.Offset; {
		case !follows && r.Length < MaxChunk:
			_ = unix.Fadvise(int(f.Fd()), r.Offset, r.Length, unix.FADV_WILLNEED) // advice may fail
		case !f.sequential:
			_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_SEQUENTIAL)
			f.sequential = true
		}
	}
}

// sameSize fails if the file no longer has the listed size. Stock asks this of whole files once they are copied; here
// it is asked of every listed file, before the first byte and after the last.
func (f *sourceFile) sameSize() error {
	if !f.listed {
		return nil
	}
	info, err := f.Stat()
	if err != nil {
		return fault.Because(err, "could not stat file \"%s\": %s", f.full, fault.M(err))
	}
	if info.Size() != f.size {
		return fault.Because(fault.ErrSourceSize, "size of source file \"%s\" changed concurrently: %d bytes expected, %d copied", f.full, f.size, info.Size()).
			Advise("Something writes to the source directory. Stop it, or keep it from writing there (logs, for example), and start again.")
	}
	return nil
}
