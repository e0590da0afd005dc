package layout

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"path"
	"strings"

	"github.com/fastrewind/fastrewind/archive/codec"
	"github.com/fastrewind/fastrewind/archive/object"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// Entry is one WAL file in the archive, in one encoding.
type Entry struct {
	Kind     Kind
	Name     string   // as PostgreSQL named it
	TLI      pg.TLI   // timeline in the name
	Seg      pg.SegNo // segment in the name; 0 for histories, and while the segment size is not known
	Key      string   // relative to the Bucket's root
	Size     int64    // bytes as stored
	Encoding string   // the compression's name: "lz4", "uncompressed"
	SHA1     string   // of the decoded bytes, in hexadecimal digits, if the name says it
	Cluster  string   // pgBackRest: the archive id, "15-1"; else empty
}

// encoding names the compression that an extension stands for.
func encoding(ext string) string {
	c, _ := codec.ByExtension(ext)
	return c.String()
}

// List calls fn for each WAL file in the archive, ascending by key. What else lies there is passed over, and so are
// segments that cannot be the cluster's because of its segment size. It ends when fn returns an error, and returns that.
func (r *Repository) List(ctx context.Context, fn func(Entry) error) error {
	for _, id := range r.ids {
		top := r.dir + slashed(id)
		err := r.bucket.List(ctx, top, func(o object.Object) error {
			e, ok := r.entry(top, o)
			if !ok {
				return nil
			}
			e.Cluster = id
			return fn(e)
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// entry says what an object below top is, if it is a WAL file in its place.
func (r *Repository) entry(top string, o object.Object) (Entry, bool) {
	rest, ok := strings.CutPrefix(o.Key, top)
	if !ok {
		return Entry{}, false
	}
	name, ok := parseObjectName(path.Base(rest), r.hashed())
	if !ok {
		return Entry{}, false
	}
	e := Entry{
		Kind: name.kind, Name: name.name, TLI: name.tli(), Key: o.Key, Size: o.Size,
		Encoding: encoding(name.ext), SHA1: name.sha1,
	}
	below := ""
	if name.kind != History {
		if r.foldered() {
			below = name.folder() + "/"
		}
		if r.cluster.SegSize != 0 {
			if _, e.Seg, ok = pg.ParseSegmentName(name.name[:pg.SegmentNameLen], r.cluster.SegSize); !ok {
				return Entry{}, false
			}
		}
	}
	return e, rest == below+path.Base(rest)
}

// Identify says of which cluster the archive is, from the first page of the first segment in it that can be read: the
// system identifier and the segment size. Major stays as given to Open. For commands that have no target at hand.
func (r *Repository) Identify(ctx context.Context) (Cluster, error) {
	const most = 3 // segments looked into
	var names []listed
	err := r.List(ctx, func(e Entry) error {
		if e.Kind == Segment {
			name, _ := parseObjectName(path.Base(e.Key), r.hashed())
			names = append(names, listed{name, e.Key, e.Size})
		}
		if len(names) == most {
			return errStop
		}
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return Cluster{}, err
	}
	if len(names) == 0 {
		return Cluster{}, fault.New("archive \"%s\" has no WAL segment", r.archive.Where())
	}
	var c Cluster
	for _, o := range names {
		if c, err = r.identify(ctx, o); err == nil || !errors.Is(err, ErrDamaged) {
			return c, err
		}
	}
	return Cluster{}, err
}

func (r *Repository) identify(ctx context.Context, o listed) (Cluster, error) {
	h := header{}
	_, err := r.read(ctx, o, &h)
	if len(h.b) < longHeaderLen {
		if err == nil {
			err = r.unusable(o, errors.New("it has no page header"))
		}
		return Cluster{}, err
	}
	c := Cluster{
		SystemID: binary.LittleEndian.Uint64(h.b[offSystemID:]),
		SegSize:  binary.LittleEndian.Uint32(h.b[offSegSize:]),
		Major:    r.cluster.Major,
	}
	if !pg.ValidSegSize(c.SegSize) {
		return Cluster{}, r.unusable(o, errors.New("its first page is not that of a WAL segment"))
	}
	return c, nil
}

// header takes the bytes of a long page header, and no more.
type header struct{ b []byte }

func (h *header) Write(p []byte) (int, error) {
	h.b = append(h.b, p[:min(len(p), longHeaderLen-len(h.b))]...)
	if len(h.b) == longHeaderLen {
		return 0, errStop
	}
	return len(p), nil
}
