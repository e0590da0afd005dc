package copier

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/fastrewind/fastrewind/internal/pg"
)

// dirSource gives pieces of the files of a directory.
type dirSource struct {
	dir  string
	bufs sync.Pool
}

func (s *dirSource) Fetch(ctx context.Context, ranges []pg.FileRange, emit func(int, pg.FileChunk) error) error {
	buf, _ := s.bufs.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
		*buf = make([]byte, MaxRange)
	}
	defer s.bufs.Put(buf)
	var in *os.File
	var name string
	defer func() {
		if in != nil {
			in.Close()
		}
	}()
	for i, r := range ranges {
		if err := ctx.Err(); err != nil {
			return err
		}
		if r.Path != name || in == nil {
			if in != nil {
				in.Close()
			}
			var err error
			in, err = os.Open(filepath.Join(s.dir, r.Path))
			if errors.Is(err, fs.ErrNotExist) {
				in = nil
				if err := emit(i, pg.FileChunk{Gone: true}); err != nil {
					return err
				}
				continue
			}
			if err != nil {
				return err
			}
			name = r.Path
		}
		n, err := in.ReadAt((*buf)[:r.Length], r.Offset)
		if err != nil && err != io.EOF {
			return err
		}
		if err := emit(i, pg.FileChunk{Data: (*buf)[:n]}); err != nil {
			return err
		}
	}
	return nil
}

// memSource gives pieces of files in memory. answer, if not nil, may give another answer than theirs.
type memSource struct {
	files  map[string][]byte
	answer func(r pg.FileRange, c pg.FileChunk) pg.FileChunk
}

func (s *memSource) Fetch(ctx context.Context, ranges []pg.FileRange, emit func(int, pg.FileChunk) error) error {
	var buf []byte
	for i, r := range ranges {
		if err := ctx.Err(); err != nil {
			return err
		}
		var c pg.FileChunk
		if data, found := s.files[r.Path]; found {
			from := min(r.Offset, int64(len(data)))
			// The same buffer for all, so that a chunk that was kept shows.
			buf = append(buf[:0], data[from:min(from+r.Length, int64(len(data)))]...)
			c.Data = buf
		} else {
			c.Gone = true
		}
		if s.answer != nil {
			c = s.answer(r, c)
		}
		err := emit(i, c)
		clear(buf)
		if err != nil {
			return err
		}
	}
	return nil
}
