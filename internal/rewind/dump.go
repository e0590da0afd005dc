package rewind

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/journal"
)

// DumpJournal prints what an interrupted rewind has left in the data directory dir, or in a journal named by its own path,
// damaged or not.
func DumpJournal(w io.Writer, dir string) error {
	path := dir
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		path = filepath.Join(dir, journal.Name)
	}
	f, size, err := openSized(path)
	var said *fault.Error
	if errors.Is(err, fs.ErrNotExist) && errors.As(err, &said) {
		return said.Advise("No rewind of this directory is unfinished, or it is not the data directory.")
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read from
	return journal.Dump(w, f, size)
}
