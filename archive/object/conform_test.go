package object_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/fastrewind/fastrewind/archive/object"
	"github.com/fastrewind/fastrewind/internal/s3test"
)

var errNotExist = fs.ErrNotExist

// store is a place that the conformance suite fills.
type store struct {
	bucket object.Bucket
	put    func(key string, data []byte)
}

// TestConformance holds every kind of Bucket to what Bucket promises.
func TestConformance(t *testing.T) {
	inS3 := func(opts s3test.Options, change func(*s3test.Server, *store, testing.TB)) func(*testing.T) store {
		return func(t *testing.T) store {
			s := startServer(t, opts)
			set := settings(s, s.URL)
			if opts.Domain != "" {
				set.PathStyle, set.Connect = false, s.Addr
				set.Endpoint = "http://" + opts.Domain + s.Addr[strings.LastIndexByte(s.Addr, ':'):]
			}
			st := store{open(t, set, quick), func(key string, data []byte) { s.Put(bucketName, key, data) }}
			if change != nil {
				change(s, &st, t)
			}
			return st
		}
	}
	plainFiles := func(s *s3test.Server, st *store, tb testing.TB) {
		st.put = func(key string, data []byte) {
			dir := tb.TempDir()
			write(tb, filepath.Join(dir, key), data)
			s.CopyTree(bucketName, "", dir)
		}
	}
	for _, c := range []struct {
		name string
		make func(*testing.T) store
	}{
		{"directory", func(t *testing.T) store {
			dir := t.TempDir()
			return store{openDir(t, dir), func(key string, data []byte) { write(t, filepath.Join(dir, key), data) }}
		}},
		{"below a folder", func(t *testing.T) store {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "other"), []byte("x"))
			write(t, filepath.Join(dir, "in", "ne"), []byte("x"))
			return store{object.Sub(openDir(t, dir), "in/ner"), func(key string, data []byte) { write(t, filepath.Join(dir, "in", "ner", key), data) }}
		}},
		{"http", inS3(s3test.Options{}, nil)},
		{"https", inS3(s3test.Options{TLS: true}, nil)},
		{"virtual host", inS3(s3test.Options{Domain: "s3.test"}, nil)},
		{"copied files", inS3(s3test.Options{}, plainFiles)},
		{"first version of listing", func(t *testing.T) store {
			s := startServer(t, s3test.Options{})
			set := settings(s, s.URL)
			set.ListV1 = true
			return store{open(t, set, quick), func(key string, data []byte) { s.Put(bucketName, key, data) }}
		}},
	} {
		t.Run(c.name, func(t *testing.T) { conform(t, c.make(t)) })
	}
}

func conform(t *testing.T, s store) {
	ctx, b := t.Context(), s.bucket
	if got := list(t, b, ""); got != nil {
		t.Errorf("in nothing: %q", got)
	}
	if got, err := b.Folders(ctx, "", 10); got != nil || err != nil {
		t.Errorf("folders of nothing: %q %v", got, err)
	}
	contents := map[string][]byte{}
	for i, key := range []string{
		"000000010000000000000001", "000000010000000000000001.lz4", "00000002.history",
		"a/b/c", "a/b-c", "a/b.c", "a-/x", "a./x", "a0", "deep/er/and/deeper/still",
		"blank in name", "sign+plus", "percent%41", "quote\"'", "ümläut/ñ", "tilde~$&=;,@", "e/x", "e/y", "f/x",
	} {
		contents[key] = random(uint64(i), 100+i*7919)
		s.put(key, contents[key])
	}
	s.put("empty", nil)
	contents["empty"] = nil
	var keys []string
	for key := range contents {
		keys = append(keys, key)
	}
	slices.Sort(keys)

	for _, key := range keys {
		mustRead(t, b, key, contents[key])
		if p := b.Path(key); !strings.HasSuffix(p, "/"+key) {
			t.Errorf("path %q of %q", p, key)
		}
	}

	for _, prefix := range []string{"", "a", "a/", "a/b", "a/b/", "00000001", "000000010000000000000001", "deep/er/", "deep/er/an", "e/x", "nothing", "nothing/here", "ümläut/", "empty/"} {
		var want []string
		for _, key := range keys {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		if got := list(t, b, prefix); !slices.Equal(got, want) {
			t.Errorf("prefix %q: %q, want %q", prefix, got, want)
		}
	}
	err := b.List(ctx, "", func(o object.Object) error {
		if o.Size != int64(len(contents[o.Key])) {
			t.Errorf("%s: %d bytes listed, has %d", o.Key, o.Size, len(contents[o.Key]))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	enough, calls := errors.New("enough"), 0
	err = b.List(ctx, "", func(object.Object) error {
		if calls++; calls == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || calls != 3 {
		t.Errorf("%d calls, %v", calls, err)
	}

	for _, c := range []struct {
		folder string
		max    int
		want   []string
	}{
		{"", 100, []string{"a", "a-", "a.", "deep", "e", "f", "ümläut"}},
		{"", 2, nil}, {"", 0, nil}, {"a/", 100, []string{"b"}}, {"deep/", 1, []string{"er"}}, {"deep/er/", 1, []string{"and"}},
		{"e/", 100, nil}, {"nothing/", 100, nil}, {"empty/", 100, nil},
	} {
		got, err := b.Folders(ctx, c.folder, c.max)
		if c.folder == "" && c.max == 2 {
			if err != nil || len(got) != 2 {
				t.Errorf("two folders: %q %v", got, err)
			}
			continue
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("folders of %q: %q %v, want %q", c.folder, got, err, c.want)
		}
	}

	for _, key := range []string{"missing", "a", "a/b", "a/b/", "a/missing", "000000010000000000000001/x", "0000000100000000000000", "E/x"} {
		_, _, err := b.Open(ctx, key)
		if key == "a/b/" {
			wantError(t, err, nil, "not the name of an object")
			continue
		}
		wantError(t, err, errNotExist, b.Path(key))
	}
	for _, key := range []string{"", "/", "/a0", "../a0", "a/../a0", "./a0", "a//b", "a0/", "x\x00y", "x\ny", "..", ".", "a/.", "\xff", strings.Repeat("k", 1025)} {
		_, _, err := b.Open(ctx, key)
		wantError(t, err, nil, "not the name of an object")
	}
	for _, prefix := range []string{"/", "../", "a/../", "a//", "x\x00"} {
		wantError(t, b.List(ctx, prefix, func(object.Object) error { t.Error("called"); return nil }), nil, "not the name of an object")
		_, err := b.Folders(ctx, prefix, 1)
		wantError(t, err, nil, "not the name of an object")
	}
	if _, err := b.Folders(ctx, "a", 1); err == nil {
		t.Error("a folder without slash at its end")
	}

	// An end of the context ends everything; the body lives as long as it.
	ended, end := context.WithCancel(ctx)
	body, _, err := b.Open(ended, "f/x")
	if err != nil {
		t.Fatal(err)
	}
	end()
	if _, err := io.ReadAll(body); err != nil { // what has arrived already may be read
		wantError(t, err, context.Canceled)
	}
	_ = body.Close()
	_, _, err = b.Open(ended, "f/x")
	wantError(t, err, context.Canceled)
	wantError(t, b.List(ended, "", func(object.Object) error { return nil }), context.Canceled)
	_, err = b.Folders(ended, "", 1)
	wantError(t, err, context.Canceled)

	// Closed before its end, and read after that.
	body, _, err = b.Open(ctx, "f/x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(body, make([]byte, 10)); err != nil {
		t.Error(err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
	_ = body.Close()
	if n, err := body.Read(make([]byte, 10)); n != 0 || err == nil {
		t.Errorf("read after close: %d %v", n, err)
	}

	// Many at once.
	var g errgroup.Group
	g.SetLimit(16)
	for i := range 64 {
		g.Go(func() error {
			key := keys[i%len(keys)]
			got, err := read(ctx, b, key)
			if err == nil && !bytes.Equal(got, contents[key]) {
				err = fmt.Errorf("%s: other bytes", key)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// write writes a file and its directories.
func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func openDir(t *testing.T, dir string) object.Bucket {
	t.Helper()
	b, err := object.NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = object.Close(b) })
	return b
}
