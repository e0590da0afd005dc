package layout

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ulikunitz/xz"
	"go.uber.org/goleak"

	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/archive/object"
	"github.com/fastrewind/fastrewind/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The cluster of the fixtures: PostgreSQL 15 with segments of 1 MiB.
var cluster = Cluster{SystemID: 7710433884157629511, Major: 15, SegSize: 1 << 20}

// fixtures are archives that the real tools wrote: files by their names in the tar.
var fixtures = sync.OnceValues(func() (map[string][]byte, error) {
	f, err := os.Open("../codec/testdata/wal-archives.tar.xz")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	x, err := xz.NewReader(f)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for t := tar.NewReader(x); ; {
		h, err := t.Next()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg {
			if files[strings.TrimPrefix(h.Name, "./")], err = io.ReadAll(t); err != nil {
				return nil, err
			}
		}
	}
})

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	files, err := fixtures()
	if err != nil {
		t.Fatal(err)
	}
	data, ok := files[name]
	if !ok {
		t.Fatalf("no %s in the fixtures", name)
	}
	return data
}

// memory is a Bucket in memory, which can fail.
type memory struct {
	mu    sync.Mutex
	files map[string][]byte
	deny  func(op, key string) bool  // op is LIST or GET
	fail  func(op, key string) error // any other error
	block chan struct{}              // a LIST waits for it, if set
	lists atomic.Int64
	gets  atomic.Int64
}

// bucketOf is the fixtures below a folder of theirs, as a Bucket of their own.
func bucketOf(t testing.TB, folder string) *memory {
	t.Helper()
	all, err := fixtures()
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{files: map[string][]byte{}}
	for name, data := range all {
		if key, ok := strings.CutPrefix(name, "bucket/"+folder+"/"); ok {
			m.files[key] = data
		}
	}
	if len(m.files) == 0 {
		t.Fatalf("no %s in the fixtures", folder)
	}
	return m
}

func empty() *memory { return &memory{files: map[string][]byte{}} }

// below moves everything below a folder.
func (m *memory) below(folder string) *memory {
	moved := empty()
	moved.add(m, folder)
	return moved
}

// add copies another's objects below a folder.
func (m *memory) add(other *memory, folder string) *memory {
	for key, data := range other.files {
		m.files[folder+key] = data
	}
	return m
}

func (m *memory) put(key string, data []byte) *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[key] = data
	return m
}

func (m *memory) remove(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.files[key]; !ok {
		panic("no " + key)
	}
	delete(m.files, key)
}

// the is the only key that contains a text.
func (m *memory) the(t testing.TB, part string) string {
	t.Helper()
	var found []string
	for key := range m.files {
		if strings.Contains(key, part) {
			found = append(found, key)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%q is in %q", part, found)
	}
	return found[0]
}

func (m *memory) check(ctx context.Context, op, key string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if m.deny != nil && m.deny(op, key) {
		return fault.Because(object.ErrDenied, "%s of \"%s\": access denied", op, key)
	}
	if m.fail != nil {
		return m.fail(op, key)
	}
	return nil
}

func (m *memory) List(ctx context.Context, prefix string, fn func(object.Object) error) error {
	m.lists.Add(1)
	if m.block != nil {
		select {
		case <-m.block:
		case <-ctx.Done():
		}
	}
	if err := m.check(ctx, "LIST", prefix); err != nil {
		return err
	}
	m.mu.Lock()
	files := maps.Clone(m.files)
	m.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(files)) {
		if strings.HasPrefix(key, prefix) {
			if err := fn(object.Object{Key: key, Size: int64(len(files[key]))}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *memory) Folders(ctx context.Context, folder string, limit int) ([]string, error) {
	if err := m.check(ctx, "LIST", folder); err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for key := range m.files {
		if rest, ok := strings.CutPrefix(key, folder); ok {
			if name, _, ok := strings.Cut(rest, "/"); ok {
				names[name] = true
			}
		}
	}
	sorted := slices.Sorted(maps.Keys(names))
	return sorted[:min(limit, len(sorted))], nil
}

func (m *memory) Open(ctx context.Context, key string) (io.ReadCloser, object.Object, error) {
	m.gets.Add(1)
	if err := m.check(ctx, "GET", key); err != nil {
		return nil, object.Object{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.files[key]
	if !ok {
		return nil, object.Object{}, fault.Because(fs.ErrNotExist, "no \"%s\"", key)
	}
	return io.NopCloser(bytes.NewReader(data)), object.Object{Key: key, Size: int64(len(data))}, nil
}

func (m *memory) Path(key string) string { return "mem://" + key }

// at is an archive in a bucket that is called mem.
func at(prefix string) location.Archive {
	return location.Archive{Origin: "the test", S3: &location.S3{Bucket: "mem"}, Prefix: prefix}
}

func open(t testing.TB, a location.Archive, b object.Bucket) *Repository {
	t.Helper()
	r, err := Open(t.Context(), a, b, cluster)
	if err != nil {
		t.Fatalf("%v (%s)", err, adviceOf(err))
	}
	return r
}

func adviceOf(err error) string { return advice(err) }
