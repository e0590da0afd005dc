// Package object reads objects from where archives lie: an S3 bucket, or a directory.
package object

import (
	"context"
	"errors"
	"io"
)

// ErrDenied is in the chain of errors that say that access was denied, or, as AWS answers whoever may not list, that the
// object is missing: nobody can tell which.
var ErrDenied = errors.New("denied or missing")

// Object is one object as listed or opened.
type Object struct {
	Key  string // relative to the Bucket's root, without leading slash
	Size int64  // bytes as stored
}

// Bucket is a place with objects. All methods may be called from several goroutines at once.
//
// Errors are *fault.Error. That there is no such object is said by an error for which errors.Is(err, fs.ErrNotExist); that
// nobody knows because access is denied, by ErrDenied. A missing bucket, wrong credentials, an untrusted certificate or a
// server that does not answer is neither.
type Bucket interface {
	// List calls fn for each object whose key begins with prefix (which need not end at a slash), ascending by key. It ends
	// when fn returns an error, and returns that.
	List(ctx context.Context, prefix string, fn func(Object) error) error
	// Folders are the names directly below folder ("" or ending in a slash) that have something below them, ascending,
	// without slashes. At most max of them.
	Folders(ctx context.Context, folder string, max int) ([]string, error)
	// Open reads a whole object. The body survives broken connections: it goes on where it broke, and only if the object
	// is still the same. It must be closed. Its Read's errors are *fault.Error.
	Open(ctx context.Context, key string) (io.ReadCloser, Object, error)
	// Path is an object's whole name, for messages: s3://bucket/prefix/key, /dir/key.
	Path(key string) string
}
