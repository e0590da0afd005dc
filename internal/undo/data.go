package undo

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/fsx"
)

// frameFile is a file of a part while it is written, by one goroutine.
type frameFile struct {
	store   *store
	name    string
	out     fsx.File
	coder   *coder
	payload []byte // of the frame to be
	offset  int64  // where it will be written
	started int64  // writeback has been started up to here
	count   uint64 // pieces
	bytes   uint64 // in them
}

func newFrameFile(s *store, name string, at place) (*frameFile, error) {
	c, err := newCoder()
	if err != nil {
		return nil, err
	}
	out, err := s.out.OpenFile(name, fsx.CreateNew, ownFile)
	if err != nil {
		return nil, fault.Because(err, "could not create file \"%s\": %s", s.path(name), fault.M(err))
	}
	f := &frameFile{store: s, name: name, out: out, coder: c}
	if err := f.write(at.header()); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return f, nil
}

func (f *frameFile) write(b []byte) error {
	if _, err := f.out.WriteAt(b, f.offset); err != nil {
		return fault.Because(err, "could not write file \"%s\": %s", f.store.path(f.name), fault.M(err)).
			Advise("The undo could not be saved. What this run was about to do was not done; make room for the undo, or name " +
				"another directory, and run the same command again.")
	}
	f.offset += int64(len(b))
	return nil
}

// flush writes the payload as a frame.
func (f *frameFile) flush(kind byte) error {
	if len(f.payload) == 0 {
		return nil
	}
	err := f.write(f.coder.frame(kind, f.payload))
	f.payload = f.payload[:0]
	if err != nil || f.offset-f.started < 8<<20 {
		return err
	}
	// So that the disk works meanwhile; a failure is the fsync's to report.
	err = f.out.StartWriteback(f.started, f.offset-f.started)
	f.started = f.offset
	if err != nil {
		return fault.Because(err, "could not write file \"%s\": %s", f.store.path(f.name), fault.M(err))
	}
	return nil
}

// end writes what is left and the end frame, and syncs the file.
func (f *frameFile) end(counts [4]uint64) error {
	kind := byte(kindData)
	if f.count == 0 {
		kind = kindEntries
	}
	if err := f.flush(kind); err != nil {
		return err
	}
	f.payload = appendEnd(f.payload, counts)
	if err := f.flush(kindEnd); err != nil {
		return err
	}
	if err := f.out.Sync(); err != nil {
		return fault.Because(err, "could not fsync file \"%s\": %s", f.store.path(f.name), fault.M(err)).
			Advise("The undo could not be saved; what this run was about to do was not done. Check the disk and the kernel's log.")
	}
	return nil
}

func (f *frameFile) close() error {
	_ = f.coder.enc.Close() // it writes nowhere
	if err := f.out.Close(); err != nil {
		return fault.Because(err, "could not close file \"%s\": %s", f.store.path(f.name), fault.M(err))
	}
	return nil
}

// blockRoom is what must be left of a frame for another piece: less would only cut blocks in two.
const blockRoom = 8 << 10

// saveJob reads the bytes of one job into pieces.
func (v *saver) saveJob(ctx context.Context, f *frameFile, j job) error {
	in, err := v.openOriginal(j.path)
	if err != nil {
		return err
	}
	defer in.Close()
	for _, s := range j.spans {
		for s.Length > 0 {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			n := min(s.Length, int64(fillFrame-len(f.payload)))
			f.payload = appendPiece(f.payload, j.path, s.Offset, int(n))
			got, err := in.ReadAt(f.payload[len(f.payload)-int(n):], s.Offset)
			switch {
			case int64(got) == n:
			case errors.Is(err, io.EOF):
				return fault.New("could not read file \"%s\": read %d of %d at offset %d", v.target.Path(j.path), got, n, s.Offset).
					Advise("The file has become shorter, by something other than this run as far as its undo knows. These bytes " +
						"are saved nowhere: an undo could not be complete. Run without --keep-undo if that can be borne.")
			default:
				return fault.Because(err, "could not read file \"%s\": %s", v.target.Path(j.path), fault.M(err))
			}
			f.count++
			f.bytes += uint64(n)
			v.bytes.Add(n)
			v.opts.Progress(n)
			s.Offset += n
			s.Length -= n
			if len(f.payload) >= fillFrame-blockRoom {
				if err := f.flush(kindData); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// openOriginal opens a file of the target for reading. It was a regular file when it was noted.
func (v *saver) openOriginal(name string) (*os.File, error) {
	in, err := v.read.Open(name)
	if err != nil {
		return nil, fault.Because(err, "could not open target file \"%s\": %s", v.target.Path(name), fault.M(err))
	}
	info, err := in.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return nil, errors.Join(fault.Because(err, "could not read file \"%s\": %s", v.target.Path(name), fault.M(err)), in.Close())
	}
	return in, nil
}

// cloneMin is the size of a file below which a reflink of its own is more work than its bytes.
const cloneMin = 128 << 10

// tryClone makes a reflink of a whole file, if both lie on one file system that can. A file system that cannot is asked
// once.
func (v *saver) tryClone(e *entry) error {
	if e.size < cloneMin {
		return nil
	}
	in, err := v.openOriginal(e.path)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return fault.Because(err, "could not stat file \"%s\": %s", v.target.Path(e.path), fault.M(err))
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || v.uncloned[uint64(st.Dev)] {
		return nil
	}
	number := uint64(v.stats.Clones) + 1
	name := v.dir() + "/" + cloneName(number)
	made, err := v.cloneTo(name, in, e.size)
	if err != nil {
		return err
	}
	if !made {
		v.uncloned[uint64(st.Dev)] = true
		return nil
	}
	e.clone, e.spans = number, nil
	v.stats.Clones++
	v.stats.CloneBytes += e.size
	v.opts.Progress(e.size)
	return nil
}

func (v *saver) cloneTo(name string, in *os.File, size int64) (made bool, err error) {
	s := v.store
	out, err := s.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, ownFile)
	if err != nil {
		return false, fault.Because(err, "could not create file \"%s\": %s", s.path(name), fault.M(err))
	}
	cloneErr := v.opts.clone(out, in)
	var info fs.FileInfo
	if cloneErr == nil {
		info, err = out.Stat()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return false, fault.Because(err, "could not write file \"%s\": %s", s.path(name), fault.M(err))
	}
	if cloneErr == nil && info.Size() == size {
		return true, nil
	}
	if err := s.root.Remove(name); err != nil {
		return false, fault.Because(err, "could not remove file \"%s\": %s", s.path(name), fault.M(err))
	}
	return false, nil
}
