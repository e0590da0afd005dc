package walcheck

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// errStopped ends a fetch whose rest nobody wants.
var errStopped = errors.New("not wanted any more")

// where a segment was read from.
type origin struct {
	local    bool   // the target's pg_wal
	stored   int64  // bytes in the archive
	encoding string // empty if local
}

// stream is a segment's bytes, to be read once from its beginning to its end while they arrive. One goroutine fetches; end
// waits for it.
type stream struct {
	r      *io.PipeReader
	pos    int64
	over   bool // there is no more
	why    error
	stop   context.CancelFunc
	done   chan struct{}
	origin origin
	err    error // of the fetch; valid once done is closed
}

// openStream begins to fetch a segment: from the target's pg_wal if it is there, else from the archives.
func (a *Archives) openStream(ctx context.Context, name string, segSize uint32) *stream {
	ctx, stop := context.WithCancel(ctx)
	r, w := io.Pipe()
	s := &stream{r: r, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.origin, s.err = a.copySegment(ctx, name, segSize, w)
		_ = w.CloseWithError(s.err) // never fails; nil is the end
	}()
	return s
}

func (a *Archives) copySegment(ctx context.Context, name string, segSize uint32, w io.Writer) (origin, error) {
	if a.root != nil {
		f, err := a.root.Open("pg_wal/" + name)
		if err == nil {
			defer func() { _ = f.Close() }() // only read from
			return origin{local: true}, copyLocal(f, a.root.Full("pg_wal/"+name), segSize, w)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return origin{local: true}, fault.Because(err, "could not open file \"%s\": %s", a.root.Full("pg_wal/"+name), fault.M(err))
		}
	}
	info, _, err := a.fetch(ctx, name, w, nil)
	return origin{stored: info.Stored, encoding: info.Encoding}, err
}

func copyLocal(f *os.File, path string, segSize uint32, w io.Writer) error {
	n, err := io.Copy(struct{ io.Writer }{w}, io.LimitReader(f, int64(segSize)+1))
	switch {
	case errors.Is(err, errStopped):
		return err
	case err != nil:
		return fault.Because(err, "could not read file \"%s\": %s", path, fault.M(err))
	case n != int64(segSize):
		return fault.New("unexpected file size for \"%s\": %d instead of %d", path, n, segSize)
	}
	return nil
}

// readAt reads as wal.Source wants it, but never backwards, except that of a page cut short there is no more.
func (s *stream) readAt(p []byte, off int64) (int, error) {
	switch {
	case s.over:
		return 0, s.why
	case off < s.pos:
		return 0, fault.New("a segment was read backwards, from %d to %d", s.pos, off)
	}
	n, err := io.CopyN(io.Discard, s.r, off-s.pos)
	s.pos += n
	got := 0
	if err == nil {
		got, err = io.ReadFull(s.r, p)
		s.pos += int64(got)
	}
	s.over, s.why = err != nil, endless(err)
	return got, s.why
}

// endless makes an early end no error: whoever reads finds that the bytes are too few, and end finds out why.
func endless(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // io's own, not one in the chain of a decoder's
		return nil
	}
	return err
}

// drain reads the rest, and returns what is wrong with the segment as a whole: formats show at their end only that they
// were damaged.
func (s *stream) drain() error {
	_, err := io.Copy(io.Discard, s.r)
	<-s.done
	s.stop()
	return err
}

// drop ends the fetch.
func (s *stream) drop() {
	_ = s.r.CloseWithError(errStopped) // never fails
	s.stop()
	<-s.done
}

// source is the log as wal.Reader reads it: one segment after the other.
type source struct {
	ctx      context.Context //nolint:containedctx // for the time of one stretch
	archives *Archives
	span     *Span
	ended    func(pg.SegNo, origin, error) // told of each segment that was read to its end

	seg pg.SegNo
	cur *stream // nil: none is open
}

func (s *source) ReadAt(p []byte, at pg.LSN) (int, error) {
	seg := at.Seg(s.span.Cluster.SegSize)
	if s.cur == nil || s.seg != seg {
		s.finish()
		s.seg, s.cur = seg, s.archives.openStream(s.ctx, s.span.name(seg), s.span.Cluster.SegSize)
	}
	return s.cur.readAt(p, int64(at-seg.Start(s.span.Cluster.SegSize))) //nolint:gosec // less than a segment
}

func (s *source) SegmentName(seg pg.SegNo) string { return s.span.name(seg) }

// finish reads the segment that is open to its end.
func (s *source) finish() {
	if s.cur == nil {
		return
	}
	err := s.cur.drain()
	s.ended(s.seg, s.cur.origin, err)
	s.cur = nil
}

// drop ends the segment that is open where it is.
func (s *source) drop() {
	if s.cur != nil {
		s.cur.drop()
		s.cur = nil
	}
}
