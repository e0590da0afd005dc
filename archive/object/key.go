package object

import (
	"context"
	"io"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// maxKey is how long a key may be, in bytes, as S3 has it.
const maxKey = 1024

// validKey reports whether a key can be a name below a Bucket's root, in a directory as well as in a bucket: no empty
// element, none that a file system or a gateway in front of one would resolve to another place.
func validKey(key string) bool {
	if key == "" || len(key) > maxKey || !utf8.ValidString(key) || strings.ContainsFunc(key, isControl) {
		return false
	}
	for element := range strings.SplitSeq(key, "/") {
		switch element {
		case "", ".", "..":
			return false
		}
	}
	return true
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// validPrefix is validKey for the beginning of a key.
func validPrefix(prefix string) bool {
	return prefix == "" || validKey(strings.TrimSuffix(prefix, "/"))
}

// validFolder is validKey for "" and what ends in a slash.
func validFolder(folder string) bool {
	return folder == "" || strings.HasSuffix(folder, "/") && validPrefix(folder)
}

func badKey(path string) error {
	return fault.New("not the name of an object: \"%s\"", clean(path)).
		Advise("Names of objects have no empty elements, no \".\" or \"..\", no control characters, and at most %d bytes.", maxKey)
}

// Sub is the part of a Bucket below a folder, as a Bucket. The folder is without slashes at its ends; if it is empty, the
// Bucket itself is returned. Closing belongs to whoever made b.
func Sub(b Bucket, folder string) Bucket {
	if folder == "" {
		return b
	}
	return sub{b, folder + "/"}
}

type sub struct {
	b      Bucket
	prefix string // ends in a slash
}

func (s sub) List(ctx context.Context, prefix string, fn func(Object) error) error {
	return s.b.List(ctx, s.prefix+prefix, func(o Object) error {
		o.Key = strings.TrimPrefix(o.Key, s.prefix)
		return fn(o)
	})
}

func (s sub) Folders(ctx context.Context, folder string, limit int) ([]string, error) {
	return s.b.Folders(ctx, s.prefix+folder, limit)
}

func (s sub) Open(ctx context.Context, key string) (io.ReadCloser, Object, error) {
	if !validKey(key) { // or ".." would lead out of the folder
		return nil, Object{}, badKey(s.Path(key))
	}
	body, o, err := s.b.Open(ctx, s.prefix+key)
	o.Key = strings.TrimPrefix(o.Key, s.prefix)
	return body, o, err
}

func (s sub) Path(key string) string { return s.b.Path(s.prefix + key) }

// Close gives back what a Bucket holds: idle connections, an open directory. Bodies must have been closed before.
func Close(b Bucket) error {
	if c, ok := b.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// maxForeign is how much of a text that somebody else wrote is repeated in a message, in bytes.
const maxForeign = 400

// clean makes a text from outside fit for a message: one line, no control characters, not too long.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case isControl(r) || r >= 0x80 && r < 0xa0 || r == '\u2028' || r == '\u2029' || r >= 0x202a && r <= 0x202e:
			return -1
		}
		return r
	}, s)
	if len(s) > maxForeign {
		s = strings.ToValidUTF8(s[:maxForeign], "") + "..."
	}
	return strings.TrimSpace(s)
}

// folderOf is the folder a key or prefix lies in, "" or ending in a slash.
func folderOf(key string) string {
	dir, _ := path.Split(key)
	return dir
}
