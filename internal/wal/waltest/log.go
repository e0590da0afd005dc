package waltest

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/wal"
)

// Log is segment files by name. Tests cut, swap and damage them as they like.
type Log struct {
	Format  wal.Format
	History pg.History // of the last timeline that was written
	Files   map[string][]byte
}

// Name is the file in which the history says that segment seg is.
func (l *Log) Name(seg pg.SegNo) string {
	return pg.SegmentName(l.History.SegmentTLI(seg, l.Format.SegSize), seg, l.Format.SegSize)
}

// File is the content of segment seg on the history's timeline, or nil.
func (l *Log) File(seg pg.SegNo) []byte { return l.Files[l.Name(seg)] }

// At is the log's bytes from an LSN to the end of its segment.
func (l *Log) At(at pg.LSN) []byte {
	return l.File(at.Seg(l.Format.SegSize))[uint64(at)%uint64(l.Format.SegSize):]
}

// Clone copies the log, so that a test can damage one of the two.
func (l *Log) Clone() *Log {
	c := *l
	c.History = slices.Clone(l.History)
	c.Files = maps.Clone(l.Files)
	for name, data := range c.Files {
		c.Files[name] = slices.Clone(data)
	}
	return &c
}

// ReadAt implements wal.Source. A missing segment is fs.ErrNotExist.
func (l *Log) ReadAt(p []byte, at pg.LSN) (int, error) {
	seg := at.Seg(l.Format.SegSize)
	file := l.File(seg)
	if file == nil {
		return 0, fmt.Errorf("%s: %w", l.Name(seg), fs.ErrNotExist)
	}
	off := int(uint64(at) % uint64(l.Format.SegSize))
	if off >= len(file) {
		return 0, nil
	}
	return copy(p, file[off:]), nil
}

// SegmentName implements wal.Source.
func (l *Log) SegmentName(seg pg.SegNo) string { return l.Name(seg) }
