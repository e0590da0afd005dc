package layout

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // pgBackRest's choice: it tells damage here, not malice
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"

	"github.com/fastrewind/fastrewind/archive/codec"
	"github.com/fastrewind/fastrewind/archive/object"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// ErrDamaged is in the chain of errors that say that a WAL file is in the archive, but not usable.
var ErrDamaged = errors.New("damaged in the archive")

// maxSmall is the most that a history or backup file may have, decoded.
const maxSmall = 1 << 20

// Info is what a WAL file was fetched from.
type Info struct {
	Name     string // as PostgreSQL named it
	Key      string // relative to the Bucket's root
	Path     string // whole, for messages
	Encoding string // as Entry.Encoding, and the encryption, if any: "lz4 within libsodium"
	Stored   int64  // bytes in the archive
	Size     int64  // bytes decoded and written
}

// Restarter is a writer that can begin anew: Restart makes what was written to it undone.
type Restarter interface{ Restart() error }

// Fetch writes segment seg of timeline tli to w, decoded: exactly Cluster.SegSize bytes. If it returns an error, what was
// written to w is worthless, since some formats show at their end only that they were damaged.
//
// What is damaged is read once more. If there are several copies of the segment, in several encodings, and one is damaged,
// the next is tried. For both, w must be a Restarter, a *bytes.Buffer, or a file that can be truncated.
func (r *Repository) Fetch(ctx context.Context, tli pg.TLI, seg pg.SegNo, w io.Writer) (Info, error) {
	if !pg.ValidSegSize(r.cluster.SegSize) {
		return Info{}, fault.New("cannot name WAL segment %d: the segment size is %d bytes", seg, r.cluster.SegSize)
	}
	return r.FetchNamed(ctx, pg.SegmentName(tli, seg, r.cluster.SegSize), w)
}

// FetchHistory returns the history file of a timeline.
func (r *Repository) FetchHistory(ctx context.Context, tli pg.TLI) ([]byte, error) {
	var b bytes.Buffer
	_, err := r.FetchNamed(ctx, pg.HistoryName(tli), &b)
	if err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// FetchNamed is Fetch for a WAL file of any kind, by the name PostgreSQL gave it: a segment, SEGMENT.partial,
// TTTTTTTT.history, SEGMENT.oooooooo.backup. Only that file is fetched, never a partial one in a whole one's place. Without
// a Cluster.SegSize, a segment must have the size that its own first page names.
func (r *Repository) FetchNamed(ctx context.Context, name string, w io.Writer) (Info, error) {
	wal, ok := parseWALName(name)
	if !ok {
		return Info{}, fault.New("\"%s\" is not the name of a WAL file", name).
			Advise("Expected are names such as 000000010000000000000001, 00000002.history, " +
				"000000010000000000000001.partial or 000000010000000000000001.00000028.backup.")
	}
	info, gone, err := r.fetch(ctx, wal, w, false)
	if gone {
		// Listed a while ago, and not there now: tools compress anew, and expire. Look again, once.
		info, _, err = r.fetch(ctx, wal, w, true)
	}
	return info, err
}

// fetch tries the objects that may be w, one after the other. gone: one that was listed is not there, and none was usable.
func (r *Repository) fetch(ctx context.Context, w walName, dst io.Writer, fresh bool) (info Info, gone bool, err error) {
	f, err := r.find(ctx, w, fresh)
	if err != nil {
		return Info{}, false, err
	}
	start := positionOf(dst)
	written := int64(0)
	var damaged, denied error
	for _, o := range f.objects {
		if written > 0 && !start.restart(dst) {
			break // the error is that of the copy before
		}
		info, err = r.read(ctx, o, dst)
		if errors.Is(err, ErrDamaged) && (info.Size == 0 || start.restart(dst)) {
			info, err = r.read(ctx, o, dst) // it may have been damaged on its way
		}
		written = info.Size
		switch {
		case err == nil:
			if f.guessed {
				r.worked.Store(&o.ext)
			}
			return info, false, nil
		case ctx.Err() != nil:
			return Info{}, false, err
		case errors.Is(err, fs.ErrNotExist):
			gone = gone || !f.guessed
		case f.guessed && errors.Is(err, object.ErrDenied):
			denied = err
		case errors.Is(err, ErrDamaged):
			damaged = also(damaged, err)
		default:
			return Info{}, false, err
		}
	}
	switch {
	case damaged != nil:
		return Info{}, gone && written == 0, damaged
	case denied != nil:
		return Info{}, false, fault.Because(denied, "could not fetch WAL file \"%s\" from archive \"%s\": %s", w.name, r.archive.Where(), denied).
			Advise("Whoever may not list an archive is denied what is missing, too. " +
				"To tell one from the other, allow listing it (s3:ListBucket on the bucket).")
	}
	return Info{}, gone, r.missing(w)
}

// also adds to an error about one copy of a file that about another.
func also(before, err error) error {
	var a, b *fault.Error
	if before == nil || !errors.As(before, &a) || !errors.As(err, &b) {
		return err
	}
	c := *a
	c.Advice += " Another copy: " + b.Text + "."
	return &c
}

// read reads one object. info.Size is what was written to dst, whether or not all is well.
func (r *Repository) read(ctx context.Context, o listed, dst io.Writer) (info Info, err error) {
	decoder, _ := codec.ByExtension(o.ext)
	chain := codec.Chain{Key: r.key, Codec: decoder}
	info = Info{Name: o.name, Key: o.key, Path: r.bucket.Path(o.key), Encoding: chain.String()}
	body, opened, err := r.bucket.Open(ctx, o.key)
	if err != nil {
		return info, err
	}
	defer body.Close()
	info.Stored = opened.Size
	limit := int64(maxSmall)
	whole := o.kind == Segment || o.kind == Partial
	if whole {
		limit = pg.MaxSegSize
		if r.cluster.SegSize != 0 {
			limit = int64(r.cluster.SegSize)
		}
	}
	out := &measure{w: dst}
	if o.sha1 != "" {
		out.sum = sha1.New() //nolint:gosec // see the import
	}
	info.Size, err = chain.Copy(out, body, limit)
	switch {
	case errors.Is(err, codec.ErrDamaged), errors.Is(err, codec.ErrTooLarge):
		return info, r.unusable(o, err)
	case errors.Is(err, codec.ErrKey):
		return info, fault.Because(err, "could not read \"%s\": %s", info.Path, err).Advise("%s", advice(err))
	case err != nil:
		return info, err
	}
	if whole {
		if err := out.checkSize(info.Size, r.cluster.SegSize); err != nil {
			return info, r.unusable(o, err)
		}
	}
	if out.sum != nil {
		if sum := hex.EncodeToString(out.sum.Sum(nil)); sum != o.sha1 {
			return info, r.unusable(o, fmt.Errorf("the SHA-1 of what is in it is %s", sum))
		}
	}
	return info, nil
}

// unusable is the error of an object that is there, but not what it should be.
func (r *Repository) unusable(o listed, why error) error {
	return fault.Because(errors.Join(ErrDamaged, why), "WAL file \"%s\" is damaged: %s", r.bucket.Path(o.key), why).Advise("%s", advice(why))
}

// advice is what an error advises, or that the copy will not do.
func advice(err error) string {
	var f *fault.Error
	if errors.As(err, &f) && f.Advice != "" {
		return f.Advice
	}
	return "It is not used. Is there another copy of this WAL file?"
}

// measure passes bytes on, and keeps what is needed to judge them.
type measure struct {
	w    io.Writer
	sum  hash.Hash // may be nil
	head []byte    // the first bytes: a long page header
}

// The long header of a segment's first page (XLogLongPageHeaderData, xlog_internal.h): 24 bytes of the short one, system
// identifier, segment size, block size.
const (
	offSystemID   = 24
	offSegSize    = 32
	longHeaderLen = 40
)

func (m *measure) Write(p []byte) (int, error) {
	if room := longHeaderLen - len(m.head); room > 0 {
		m.head = append(m.head, p[:min(len(p), room)]...)
	}
	if m.sum != nil {
		_, _ = m.sum.Write(p) // never fails
	}
	return m.w.Write(p)
}

// checkSize says how a segment of size bytes has not the segment size, which, if it is not known, is taken from the
// segment itself.
func (m *measure) checkSize(size int64, segSize uint32) error {
	if segSize == 0 {
		if len(m.head) < longHeaderLen {
			return fmt.Errorf("it has %d bytes", size)
		}
		segSize = binary.LittleEndian.Uint32(m.head[offSegSize:])
		if !pg.ValidSegSize(segSize) {
			return fmt.Errorf("its first page names a segment size of %d bytes", segSize)
		}
	}
	if size != int64(segSize) {
		return fmt.Errorf("it has %d bytes instead of %d", size, segSize)
	}
	return nil
}

// position is where in a file writing began.
type position struct {
	at    int64
	known bool
}

type truncater interface {
	io.Seeker
	Truncate(size int64) error
}

func positionOf(w io.Writer) position {
	switch w := w.(type) {
	case *bytes.Buffer:
		return position{int64(w.Len()), true}
	case truncater:
		at, err := w.Seek(0, io.SeekCurrent)
		return position{at, err == nil}
	}
	return position{}
}

// restart makes undone what was written to w since, and reports whether it could.
func (p position) restart(w io.Writer) bool {
	switch w := w.(type) {
	case Restarter:
		return w.Restart() == nil
	case *bytes.Buffer:
		w.Truncate(int(p.at))
		return true
	case truncater:
		if !p.known || w.Truncate(p.at) != nil {
			return false
		}
		_, err := w.Seek(p.at, io.SeekStart)
		return err == nil
	}
	return false
}
