package layout

import (
	"context"
	"strings"
	"sync/atomic"

	"github.com/fastrewind/fastrewind/archive/codec"
	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/archive/object"
	"github.com/fastrewind/fastrewind/internal/fault"
)

// Cluster is the cluster whose WAL is wanted. What is zero is not known: a command that only looks at an archive has no
// target at hand.
type Cluster struct {
	SystemID uint64 // system identifier, as in pg_control
	Major    int    // major version of PostgreSQL
	SegSize  uint32 // WAL segment size in bytes
}

// Repository is one archive, opened: it is known where in it WAL lies, and how it is decoded. All methods may be called
// from several goroutines at once. There is nothing to close.
//
// Errors are *fault.Error. That the archive does not have a file is said by an error for which errors.Is(err,
// fs.ErrNotExist); that nobody knows because access is denied, by object.ErrDenied; that what it has is not usable, by
// ErrDamaged.
type Repository struct {
	archive location.Archive // Layout, Stanza and Server filled in
	bucket  object.Bucket
	cluster Cluster
	dir     string    // the folder that WAL lies below, ending in a slash unless it is the root
	ids     []string  // pgBackRest: the folders below dir that hold the cluster's WAL, newest first; else one empty text
	key     codec.Key // of everything but archive.info; nil: not encrypted
	cache   *folderCache
	worked  atomic.Pointer[string] // the extension that a probe found last
}

// Open finds out where in the archive WAL lies. What a.Layout, a.Stanza and a.Server name is trusted; what they leave open
// is found out by looking, and it is an error if that has more than one answer. bucket is a's, and stays the caller's.
//
// A prefix may point at the archive's top, or at the folder of its WAL: wal_005, archive/STANZA, SERVER, SERVER/wals.
func Open(ctx context.Context, a location.Archive, bucket object.Bucket, c Cluster) (*Repository, error) {
	a.Prefix = strings.Trim(a.Prefix, "/")
	p, err := locate(ctx, bucket, a)
	if err != nil {
		return nil, err
	}
	a.Layout, a.Stanza, a.Server = p.layout, p.stanza, p.server
	r := &Repository{archive: a, bucket: bucket, cluster: c, dir: p.dir, ids: []string{""}}
	r.cache = newFolderCache(bucket, r.hashed())
	if r.key, err = codec.KeyFor(a.Keys, a.Layout); err != nil {
		return nil, fault.Because(err, "cannot read WAL archive \"%s\": %s", a.Where(), err).Advise("%s", advice(err))
	}
	if r.hashed() {
		if err := r.readInfo(ctx); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// hashed: segments carry the SHA-1 of what is in them in their names.
func (r *Repository) hashed() bool { return r.archive.Layout == location.PgBackRest }

// foldered: segments lie in one folder for each timeline and log file.
func (r *Repository) foldered() bool {
	return r.archive.Layout == location.PgBackRest || r.archive.Layout == location.Barman
}

// Archive is what was opened, with the layout, stanza and server that were found.
func (r *Repository) Archive() location.Archive { return r.archive }

// Describe is one line for the user, without secrets: layout, place, encryption, origin.
func (r *Repository) Describe() string {
	a := r.archive
	if r.hashed() {
		a.Stanza += " (" + strings.Join(r.ids, ", ") + ")"
	}
	return a.Describe()
}
