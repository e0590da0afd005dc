package datadir

import (
	"errors"
	"io"
	"os"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// ReadFile reads the whole file dir/path, of at most maxBytes bytes. The texts are those of stock's slurpFile; a missing
// file is fs.ErrNotExist to errors.Is. The bytes are the caller's.
func ReadFile(dir, path string, maxBytes int64) ([]byte, error) {
	full := dir + "/" + path
	f, err := os.Open(full)
	return slurp(f, err, full, maxBytes)
}

// ReadFile is ReadFile for the root's directory, with the root's rules for links.
func (r *Root) ReadFile(path string, maxBytes int64) ([]byte, error) {
	f, err := r.Open(path)
	return slurp(f, err, r.Full(path), maxBytes)
}

func slurp(f *os.File, err error, full string, maxBytes int64) ([]byte, error) {
	if err != nil {
		return nil, fault.Because(err, "could not open file \"%s\" for reading: %s", full, fault.M(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fault.Because(err, "could not open file \"%s\" for reading: %s", full, fault.M(err))
	}
	if !info.Mode().IsRegular() {
		return nil, fault.New("could not read file \"%s\": not a regular file", full)
	}
	size := info.Size()
	if size > maxBytes {
		return nil, fault.New("file \"%s\" is too large to be read whole", full).
			Advise("It has %d bytes; a file of its kind has at most %d.", size, maxBytes)
	}
	data := make([]byte, size)
	n, err := io.ReadFull(f, data)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return nil, fault.New("could not read file \"%s\": read %d of %d", full, n, size).
			Advise("The file became shorter while it was read.")
	case err != nil:
		return nil, fault.Because(err, "could not read file \"%s\": %s", full, fault.M(err))
	}
	return data, nil
}
