package rewind

import (
	"io"
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
	f, err := os.Open(path)
	if err != nil {
		return fault.Because(err, "could not open file \"%s\": %s", path, fault.M(err)).
			Advise("No rewind of this directory is unfinished, or it is not the data directory.")
	}
	defer func() { _ = f.Close() }() // only read from
	info, err := f.Stat()
	if err != nil {
		return fault.Because(err, "could not stat file \"%s\": %s", path, fault.M(err))
	}
	return journal.Dump(w, f, info.Size())
}
