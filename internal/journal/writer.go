package journal

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"sync"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/scan"
)

// flushBytes is how many bytes of frames are gathered before they are written.
const flushBytes = 256 << 10

// Options are how a journal is made.
type Options struct {
	Mode    fs.FileMode // of the file
	Sync    bool        // fsync; without it, nothing here promises anything about a crash of the machine
	Replace bool        // a journal that is there already; otherwise it is an error
}

// Writer appends to a journal. Its methods may be called from several goroutines at once. After a failed write or fsync the
// Writer is dead: all calls return that error. An fsync is never repeated (see fsx.File.Sync); the next run loads what has
// reached the disk.
type Writer struct {
	target fsx.FS
	file   fsx.File
	sync   bool
	run    RunID

	syncing sync.Mutex // held by who fsyncs; taken before mu

	mu       sync.Mutex
	buf      []byte // frames not yet written; empty while nobody holds mu
	end      int64  // of what has been written
	head     int64  // where the head ends; 0 while it is written
	synced   int64  // up to here the file is durable
	number   uint32 // of the next frame
	sessions int
	spans    int // of all sessions' histories
	failed   error
}

// Create writes a journal with its head, durably: when it returns, the target may be modified. After an error, or a crash
// on the way, the target is as it was, but for a temporary file perhaps, which the next Create overwrites. blocks must no
// longer be filled; it is read piece by piece. facts.Created is the caller's to set.
func Create(target fsx.FS, o Options, facts *Facts, blocks *scan.BlockMap) (_ *Writer, err error) {
	if why := facts.wrong(); why != "" {
		return nil, fault.New("journal cannot be written: %s", why)
	}
	if !o.Replace {
		switch _, err := target.Lstat(Name); {
		case err == nil:
			return nil, fault.Because(fs.ErrExist, "could not create file \"%s\": a journal exists already", target.Path(Name))
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fault.Because(err, "could not stat file \"%s\": %s", target.Path(Name), fault.M(err))
		}
	}
	// What an earlier run left there may have another mode, or be a link.
	if err := target.Remove(TempName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Because(err, "could not remove file \"%s\": %s", target.Path(TempName), fault.M(err))
	}
	w := &Writer{target: target, sync: o.Sync}
	if _, err := rand.Read(w.run[:]); err != nil {
		return nil, fault.Because(err, "could not make a random number: %s", fault.M(err))
	}
	if w.file, err = target.OpenFile(TempName, fsx.CreateNew, o.Mode); err != nil {
		return nil, fault.Because(err, "could not create file \"%s\": %s", target.Path(TempName), fault.M(err))
	}
	name := TempName
	defer func() {
		if err != nil {
			// Best effort: the error at hand says more. If it was the rename that could not be made durable, the journal may
			// come back after a crash; it is complete and tells of a target that was not touched.
			_ = w.file.Close()
			_ = target.Remove(name)
		}
	}()
	if err := w.writeHead(facts, blocks); err != nil {
		return nil, err
	}
	if err := target.Rename(TempName, Name); err != nil {
		return nil, fault.Because(err, "could not rename file \"%s\" to \"%s\": %s",
			target.Path(TempName), target.Path(Name), fault.M(err))
	}
	name = Name
	if err := w.syncDir(); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *Writer) writeHead(facts *Facts, blocks *scan.BlockMap) error {
	w.buf = append(w.buf, preamble{version: Version, run: w.run}.encode()...)
	err := w.append(func() error {
		if err := w.put(kindFacts, facts.encode()); err != nil {
			return err
		}
		var end headEnd
		if blocks != nil {
			var err error
			end.size, err = blocks.Encode(func(chunk []byte) error {
				end.chunks++
				return w.put(kindMap, chunk)
			})
			if err != nil {
				return err
			}
		}
		return w.put(kindHeadEnd, end.encode())
	})
	if err != nil {
		return err
	}
	if err := w.Sync(); err != nil {
		return err
	}
	w.head = w.end
	return nil
}

// Resume makes a Writer that goes on behind the last proven record of the journal that Load has read from r, and makes that
// journal durable: what Load has proven may so far have been in memory only. r is only read until Resume returns. It is an
// error if Load found the journal damaged; see Create with Options.Replace for what can be done then.
func Resume(target fsx.FS, r io.ReaderAt, s *State, sync bool) (_ *Writer, err error) {
	if s.damaged != nil {
		return nil, s.damaged
	}
	w := &Writer{
		target: target, sync: sync, run: s.Run,
		end: s.Proven, head: s.HeadEnd, synced: s.synced, number: s.frames, sessions: len(s.Sessions), spans: s.spans,
	}
	if w.file, err = target.OpenFile(Name, fsx.Existing, 0); err != nil {
		return nil, fault.Because(err, "could not open file \"%s\": %s", target.Path(Name), fault.M(err))
	}
	defer func() {
		if err != nil {
			_ = w.file.Close() // the error at hand says more
		}
	}()
	switch size, err := w.file.Size(); {
	case err != nil:
		return nil, fault.Because(err, "could not stat file \"%s\": %s", target.Path(Name), fault.M(err))
	case size != s.Size:
		return nil, fault.New("file \"%s\" has changed since it was read: it has %d bytes, expected %d", target.Path(Name), size, s.Size)
	}
	if sync {
		if err := w.rewrite(r, s.synced, s.Proven); err != nil {
			return nil, err
		}
	}
	if s.Proven < s.Size {
		// Before anything is appended: what is behind must not be taken for a successor of what will be there.
		if err := w.file.Truncate(s.Proven); err != nil {
			return nil, fault.Because(err, "could not truncate file \"%s\" to %d bytes: %s", target.Path(Name), s.Proven, fault.M(err))
		}
	}
	if !sync {
		return w, nil
	}
	w.synced = 0
	if err := w.Sync(); err != nil {
		return nil, err
	}
	// The run that made the journal may have ended before its name was durable.
	if err := w.syncDir(); err != nil {
		return nil, err
	}
	return w, nil
}

// rewrite writes again what no record says to have been fsynced. It may have been read from pages that an fsync has failed
// to write and marked clean all the same; only new writes make the next fsync write them.
func (w *Writer) rewrite(r io.ReaderAt, from, to int64) error {
	buf := make([]byte, min(flushBytes, to-from))
	for from < to {
		n := min(int64(len(buf)), to-from)
		if got, err := r.ReadAt(buf[:n], from); int64(got) < n {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return unreadable(err, from)
		}
		if _, err := w.file.WriteAt(buf[:n], from); err != nil {
			return w.writeFault(err)
		}
		from += n
	}
	return nil
}

// Run is the id of the run the journal is of, the same for all its sessions.
func (w *Writer) Run() RunID { return w.run }

// Session notes that a run begins or goes on, durably, and gives its number, from 1.
func (w *Writer) Session(s Session) (number int, err error) {
	if why := s.wrong(); why != "" {
		return 0, fault.New("session cannot be noted in the journal: %s", why)
	}
	err = w.durably(func() error {
		if w.spans+len(s.History) > maxAllSpans {
			return fault.New("journal \"%s\" has noted too many sessions: %d", w.target.Path(Name), w.sessions)
		}
		if err := w.put(kindSession, s.encode()); err != nil {
			return err
		}
		w.sessions++
		w.spans += len(s.History)
		number = w.sessions
		return nil
	})
	return number, err
}

// Touched notes the sizes of files that are about to be modified, made, truncated or removed, Absent for those that are not
// there, and returns when that is durable: only then may they be touched. A mark as done that one of them has from before
// no longer counts. It costs one fsync a call, or less with several callers; call it with many paths at a time. files may
// be in any order and is not kept.
func (w *Writer) Touched(files []File) error {
	files, err := sortedFiles(files)
	if err != nil {
		return err
	}
	return w.durably(func() error {
		if w.sessions == 0 {
			return errNoSession
		}
		return batches(nil, files, func(payload []byte) error { return w.put(kindTouched, payload) })
	})
}

// Done notes that files were completely copied and fsynced in this session, with the sizes copied, and that no page
// copied is newer than bound. It does not wait until that is durable: what is lost of it is copied again. Sync, or the next
// Touched, makes it durable. files may be in any order and is not kept.
func (w *Writer) Done(bound pg.LSN, files []File) error {
	files, err := sortedFiles(files)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.append(func() error {
		if w.sessions == 0 {
			return errNoSession
		}
		return batches(doneHead(w.sessions, bound), files, func(payload []byte) error { return w.put(kindDone, payload) })
	})
}

// Mark notes durably that this session has reached a phase. m.Session is set here.
func (w *Writer) Mark(m Mark) error {
	if m.Phase == 0 {
		return fault.New("phase 0 cannot be noted in the journal")
	}
	return w.durably(func() error {
		if w.sessions == 0 {
			return errNoSession
		}
		m.Session = w.sessions
		return w.put(kindMark, m.encode())
	})
}

var errNoSession = fault.New("journal has no session yet")

// Sync makes durable what was noted before it was called.
func (w *Writer) Sync() error {
	w.mu.Lock()
	end := w.end
	w.mu.Unlock()
	return w.syncTo(end)
}

// Close closes the file. It does not sync. All later calls fail.
func (w *Writer) Close() error {
	w.syncing.Lock()
	defer w.syncing.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if errors.Is(w.failed, fs.ErrClosed) {
		return w.failed
	}
	w.failed = fault.Because(fs.ErrClosed, "journal \"%s\" is closed", w.target.Path(Name))
	if err := w.file.Close(); err != nil {
		return fault.Because(err, "could not close file \"%s\": %s", w.target.Path(Name), fault.M(err))
	}
	return nil
}

// Remove removes the journal, durably if sync is set, and a temporary file of one. That there is none is no error. It is the
// last step of a rewind, or of taking back one that has not touched anything.
func Remove(target fsx.FS, sync bool) error {
	for _, name := range []string{Name, TempName} {
		if err := target.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault.Because(err, "could not remove file \"%s\": %s", target.Path(name), fault.M(err))
		}
	}
	return (&Writer{target: target, sync: sync}).syncDir()
}

// durably appends what fill puts, and waits until it is durable.
func (w *Writer) durably(fill func() error) error {
	w.mu.Lock()
	err := w.append(fill)
	end := w.end
	w.mu.Unlock()
	if err != nil {
		return err
	}
	return w.syncTo(end)
}

// append writes what fill puts. The caller holds mu, or is alone.
func (w *Writer) append(fill func() error) error {
	if w.failed != nil {
		return w.failed
	}
	if err := fill(); err != nil {
		return err // before its first put; or put has failed, and the Writer is dead
	}
	return w.flush()
}

// put adds a record.
func (w *Writer) put(k kind, payload []byte) error {
	for {
		part := payload[:min(maxPayload, len(payload))]
		payload = payload[len(part):]
		at := w.end + int64(len(w.buf))
		if w.head != 0 && at+frameHeader+int64(len(part))-w.head > MaxLogBytes {
			w.failed = fault.New("journal \"%s\" has grown over %d MB", w.target.Path(Name), int64(MaxLogBytes)>>20).
				Advise("So many interrupted runs are not expected. Take a new base backup.")
			return w.failed
		}
		w.buf = appendFrame(w.buf, &frame{
			offset: at, kind: k, goesOn: len(payload) > 0, number: w.number, tag: tagOf(w.run), synced: w.synced, payload: part,
		})
		w.number++
		if len(w.buf) >= flushBytes {
			if err := w.flush(); err != nil {
				return err
			}
		}
		if len(payload) == 0 {
			return nil
		}
	}
}

func (w *Writer) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	if _, err := w.file.WriteAt(w.buf, w.end); err != nil {
		w.failed = w.writeFault(err)
		return w.failed
	}
	w.end += int64(len(w.buf))
	w.buf = w.buf[:0]
	return nil
}

// syncTo makes the first end bytes durable. Of several callers one fsyncs for all.
func (w *Writer) syncTo(end int64) error {
	w.syncing.Lock()
	defer w.syncing.Unlock()
	w.mu.Lock()
	failed, synced, upTo := w.failed, w.synced, w.end
	w.mu.Unlock()
	if failed != nil || synced >= end || !w.sync {
		return failed
	}
	err := w.file.Sync()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failed = fault.Because(err, "could not fsync file \"%s\": %s", w.target.Path(Name), fault.M(err)).
			Advise("What had been written to it may be lost, and asking again would prove nothing. Check the disk, then run again.")
		return w.failed
	}
	w.synced = upTo
	return nil
}

func (w *Writer) syncDir() error {
	if !w.sync {
		return nil
	}
	if err := w.target.SyncDir("."); err != nil {
		return fault.Because(err, "could not fsync directory \"%s\": %s", w.target.Path("."), fault.M(err))
	}
	return nil
}

func (w *Writer) writeFault(err error) error {
	return fault.Because(err, "could not write file \"%s\": %s", w.target.Path(Name), fault.M(err))
}
