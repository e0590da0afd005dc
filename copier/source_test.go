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
