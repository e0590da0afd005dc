package walcheck

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/fastrewind/fastrewind/archive/layout"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// Got says what Get has fetched.
type Got struct {
	layout.Info
	From string // the place
}

// GetFile fetches one WAL file, by the name PostgreSQL gave it, into a file. That is whole when it appears; it replaces
// another only if force is set.
func (a *Archives) GetFile(ctx context.Context, name, path string, force bool) (Got, error) {
	var got Got
	err := publish(path, force, func(f *os.File) (err error) {
		got, err = a.get(ctx, name, f)
		return err
	})
	return got, err
}

// GetTo fetches one WAL file, and writes it to out once it is known to be good.
func (a *Archives) GetTo(ctx context.Context, name string, out io.Writer) (Got, error) {
	f, err := os.CreateTemp("", "fastrewind-get-*")
	if err != nil {
		return Got{}, fault.Because(err, "could not create a temporary file: %s", fault.M(err)).
			Advise("The file is verified there before it is written to standard output; TMPDIR says where.")
	}
	// Nobody else needs its name, and so nothing can be left behind.
	defer func() { _ = f.Close() }()
	if err := os.Remove(f.Name()); err != nil {
		return Got{}, fault.Because(err, "could not remove file \"%s\": %s", f.Name(), fault.M(err))
	}
	got, err := a.get(ctx, name, f)
	if err != nil {
		return got, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return got, fault.Because(err, "could not read a temporary file: %s", fault.M(err))
	}
	if _, err := io.Copy(out, f); err != nil {
		return got, fault.Because(err, "could not write to standard output: %s", fault.M(err))
	}
	return got, nil
}

// get fetches into an empty file and looks whether it is what its name says.
func (a *Archives) get(ctx context.Context, name string, f *os.File) (Got, error) {
	info, p, err := a.fetch(ctx, name, f, func() error {
		_, err := f.Seek(0, io.SeekStart)
		return errors.Join(err, f.Truncate(0))
	})
	if err != nil {
		return Got{Info: info}, err
	}
	got := Got{Info: info, From: p.String()}
	if err := a.verify(name, f); err != nil {
		return got, fault.Because(err, "\"%s\" is not what its name says: %s", info.Path, err).
			Advise("Nothing was written. Is there another copy of this WAL file?")
	}
	return got, nil
}

// verify compares a file with its name.
func (a *Archives) verify(name string, f io.ReaderAt) error {
	if tli, ok := strings.CutSuffix(name, ".history"); ok {
		data, err := io.ReadAll(io.NewSectionReader(f, 0, pg.MaxHistoryBytes))
		if err != nil {
			return err
		}
		var id pg.TLI
		for _, c := range []byte(tli) {
			id = id<<4 | pg.TLI(bytes.IndexByte([]byte("0123456789ABCDEF"), c)) //nolint:gosec // FetchNamed has checked the name
		}
		_, err = pg.ParseHistory(data, id)
		return err
	}
	if strings.HasSuffix(name, ".backup") {
		return nil // a text without a sum; its size has been bounded
	}
	var h [headerBytes]byte
	if _, err := f.ReadAt(h[:], 0); err != nil {
		return err
	}
	return a.verifyHeader(name[:pg.SegmentNameLen], h[:])
}

// verifyHeader compares a segment's page header with its name, and with the cluster as far as that is known.
func (a *Archives) verifyHeader(name string, h []byte) error {
	c, ok := clusterOf(h)
	if !ok {
		return errors.New("it does not begin with the page header of a WAL segment")
	}
	le := binary.LittleEndian
	tli, seg, fits := pg.ParseSegmentName(name, c.SegSize)
	addr, page := pg.LSN(le.Uint64(h[headerAddr:])), pg.TLI(le.Uint32(h[headerTLI:]))
	switch {
	case !fits:
		return fault.New("no WAL segment of %d bytes has this name", c.SegSize)
	case addr != seg.Start(c.SegSize):
		return fault.New("it begins at %v instead of %v", addr, seg.Start(c.SegSize))
	case page == 0 || page > tli:
		return fault.New("it begins on timeline %d", page)
	case a.known.SystemID != 0 && c.SystemID != a.known.SystemID:
		return fault.New("its system identifier is %d instead of %d", c.SystemID, a.known.SystemID)
	case a.known.SegSize != 0 && c.SegSize != a.known.SegSize:
		return fault.New("its segment size is %d instead of %d bytes", c.SegSize, a.known.SegSize)
	case a.known.Version != nil && c.Version != a.known.Version:
		return fault.New("it is of PostgreSQL %d instead of %d", c.Version.Major, a.known.Version.Major)
	}
	return nil
}

// Destination is where a WAL file goes for what the user said: nothing for its own name in the current directory, a
// directory, or a file.
func Destination(name, said string) string {
	if said == "" {
		return name
	}
	if fi, err := os.Stat(said); err == nil && fi.IsDir() {
		return filepath.Join(said, name)
	}
	return said
}
