package object_test

import (
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/fastrewind/fastrewind/archive/object"
	"github.com/fastrewind/fastrewind/internal/s3test"
)

// TestPages lists more than two pages of names.
func TestPages(t *testing.T) {
	s := startServer(t, s3test.Options{})
	dir := t.TempDir()
	var want, folders []string
	for i := range 2345 {
		name := fmt.Sprintf("0000000100000000%08X.lz4", i)
		want = append(want, "seg/"+name)
		write(t, filepath.Join(dir, "seg", name), []byte{byte(i)})
	}
	for i := range 1100 {
		folders = append(folders, fmt.Sprintf("%016X", i))
		write(t, filepath.Join(dir, "in", folders[i], "x"), nil)
	}
	s.CopyTree(bucketName, "", dir)
	p := s3test.NewProxy(t, s)
	for _, v1 := range []bool{false, true} {
		t.Run(fmt.Sprintf("first version %v", v1), func(t *testing.T) {
			set := settings(s, p.URL)
			set.ListV1 = v1
			b := open(t, set, quick)
			// One of three pages fails each time.
			p.Inject(func(r s3test.Request) *s3test.Fault {
				return []*s3test.Fault{nil, s3test.SlowDown(), nil, s3test.Cut(300)}[r.N%4]
			})
			p.Requests()
			if got := list(t, b, "seg/"); !slices.Equal(got, want) {
				t.Errorf("%d names, want %d", len(got), len(want))
			}
			if n := len(p.Requests()); n != 5 {
				t.Errorf("%d requests for 3 pages", n)
			}
			if got := list(t, b, "seg/0000000100000000000004"); len(got) != 256 {
				t.Errorf("%d names of 256", len(got))
			}
			p.Inject(nil)
			if got, err := b.Folders(t.Context(), "in/", 5000); !slices.Equal(got, folders) || err != nil {
				t.Errorf("%d folders, want %d: %v", len(got), len(folders), err)
			}
			if got, err := b.Folders(t.Context(), "in/", 1050); !slices.Equal(got, folders[:1050]) || err != nil {
				t.Errorf("%d folders, want 1050: %v", len(got), err)
			}
			opts := quick
			opts.MaxPages = 2
			bounded := open(t, set, opts)
			err := bounded.List(t.Context(), "seg/", func(object.Object) error { return nil })
			wantError(t, err, nil, "not at the end after 2 pages")
		})
	}
	// An error of the caller's is the caller's, and ends it at once.
	b, stop := open(t, settings(s, p.URL), quick), errors.New("stop")
	p.Requests()
	if err := b.List(t.Context(), "seg/", func(object.Object) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	if n := len(p.Requests()); n != 1 {
		t.Errorf("%d pages asked for", n)
	}
}

// listing is the XML of a page; items are "key" or "folder/" in <CommonPrefixes> when they begin with a slash.
func listing(more bool, token string, items ...string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s<ListBucketResult><IsTruncated>%v</IsTruncated>", xml.Header, more)
	if token != "" {
		fmt.Fprintf(&b, "<NextContinuationToken>%s</NextContinuationToken>", token)
	}
	for _, item := range items {
		if name, ok := strings.CutPrefix(item, "/"); ok {
			fmt.Fprintf(&b, "<CommonPrefixes><Prefix>%s</Prefix></CommonPrefixes>", name)
		} else {
			fmt.Fprintf(&b, "<Contents><Key>%s</Key><Size>5</Size></Contents>", item)
		}
	}
	return []byte(b.String() + "</ListBucketResult>")
}

// TestLyingListings: names that were not asked for, or do not end.
func TestLyingListings(t *testing.T) {
	s := startServer(t, s3test.Options{})
	p := s3test.NewProxy(t, s)
	b := open(t, settings(s, p.URL), quick)
	body := func(data []byte) *s3test.Fault {
		return &s3test.Fault{Status: http.StatusOK, Body: string(data) + "\n"}
	}
	for _, c := range []struct {
		name string
		page []byte
		want []string // nil: an error
		part string
	}{
		{"well", listing(false, "", "p/a", "p/b"), []string{"p/a", "p/b"}, ""},
		{"marks of folders", listing(false, "", "p/", "p/a", "p/a/", "p/b"), []string{"p/a", "p/b"}, ""},
		{"names nobody can open", listing(false, "", "p/..", "p/../../etc/passwd", "p//x", "p/a", "p/"+strings.Repeat("z", 1100)), []string{"p/a"}, ""},
		{"nothing", nil, nil, "not one of S3"},
		{"of another prefix", listing(false, "", "other/a"), nil, "not what was asked for"},
		{"of the folder above", listing(false, "", "p"), nil, "not what was asked for"},
		{"empty name", listing(false, "", ""), nil, "not what was asked for"},
		{"twice", listing(false, "", "p/a", "p/a"), nil, `"p/a" after "p/a"`},
		{"in no order", listing(false, "", "p/b", "p/a"), nil, `"p/a" after "p/b"`},
		{"more, but not where", listing(true, "", "p/a"), nil, "not where to go on"},
		{"no XML", []byte("hello"), nil, "not one of S3"},
		{"another XML", []byte("<html><body>hello</body></html>"), nil, "not one of S3"},
		{"half of it", listing(false, "", "p/a", "p/b")[:120], nil, "s3://wal/p/"},
		{"negative size", []byte(strings.Replace(string(listing(false, "", "p/a")), ">5<", ">-5<", 1)), nil, "size of -5"},
		{"size that is none", []byte(strings.Replace(string(listing(false, "", "p/a")), ">5<", ">x<", 1)), nil, "s3://wal/p/"},
		{"with more behind it", append(listing(false, "", "p/a"), make([]byte, 10<<20)...), []string{"p/a"}, ""},
		{"too large in one name", listing(false, "", "p/"+strings.Repeat("z", 10<<20)), nil, "s3://wal/p/"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.Inject(func(s3test.Request) *s3test.Fault { return body(c.page) })
			p.Requests()
			var got []string
			err := b.List(t.Context(), "p/", func(o object.Object) error {
				got = append(got, o.Key)
				return nil
			})
			if n := len(p.Requests()); n > object.DefaultMaxAttempts {
				t.Errorf("%d requests", n)
			}
			if c.want != nil && (err != nil || !slices.Equal(got, c.want)) {
				t.Errorf("%q %v, want %q", got, err, c.want)
			}
			if c.want == nil {
				wantError(t, err, nil, c.part)
			}
			for _, key := range got {
				if !strings.HasPrefix(key, "p/") || strings.Contains(key, "..") {
					t.Errorf("got %q", key)
				}
			}
		})
	}
	set := settings(s, p.URL)
	set.ListV1 = true
	first := open(t, set, quick)
	for _, page := range []string{"hello", "<html></html>", ""} {
		p.Inject(func(s3test.Request) *s3test.Fault { return body([]byte(page)) })
		wantError(t, first.List(t.Context(), "p/", func(object.Object) error { return nil }), nil, "not one of S3")
	}
	// A listing that goes round in a circle, by its token or by its names.
	for name, f := range map[string]func(s3test.Request) *s3test.Fault{
		"same token": func(s3test.Request) *s3test.Fault { return body(listing(true, "again")) },
		"same names": func(r s3test.Request) *s3test.Fault { return body(listing(true, fmt.Sprint("t", r.N), "p/a", "p/b")) },
	} {
		p.Requests()
		p.Inject(f)
		err := b.List(t.Context(), "p/", func(object.Object) error { return nil })
		wantError(t, err, nil, "not what was asked for")
		if n := len(p.Requests()); n != 2 {
			t.Errorf("%s: %d requests", name, n)
		}
	}
	for _, c := range []struct {
		name string
		page []byte
		want []string
	}{
		{"well", listing(false, "", "/p/a/", "/p/b/"), []string{"a", "b"}},
		{"with objects", listing(false, "", "p/x", "/p/b/"), []string{"b"}},
		{"two levels", listing(false, "", "/p/a/b/"), nil},
		{"no slash", listing(false, "", "/p/a"), nil},
		{"of another prefix", listing(false, "", "/q/a/"), nil},
		{"the prefix itself", listing(false, "", "/p/"), nil},
		{"upwards", listing(false, "", "/p/../"), []string{}},
	} {
		p.Inject(func(s3test.Request) *s3test.Fault { return body(c.page) })
		got, err := b.Folders(t.Context(), "p/", 10)
		if c.want == nil {
			wantError(t, err, nil, "not what was asked for")
		} else if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("folders, %s: %q %v, want %q", c.name, got, err, c.want)
		}
	}
}

// TestConnections: connections are kept and used again, not more than bodies are read at once.
func TestConnections(t *testing.T) {
	s := startServer(t, s3test.Options{TLS: true})
	data := random(20, 50_000)
	s.Put(bucketName, "key", data)
	p := s3test.NewProxy(t, s)
	b := open(t, settings(s, p.URL), quick)
	var g errgroup.Group
	g.SetLimit(16)
	for range 200 {
		g.Go(func() error {
			got, err := read(t.Context(), b, "key")
			if err == nil && string(got) != string(data) {
				err = errors.New("other bytes")
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	connections := map[string]int{}
	for _, r := range p.Requests() {
		connections[r.Remote]++
	}
	if n := len(connections); n > 40 { // a connection is dialled and dropped where one became free meanwhile
		t.Errorf("%d connections for 200 requests, 16 at once", n)
	}
	t.Logf("%d connections", len(connections))
}

// TestDir is what only directories have: links, and things that are no files.
func TestDir(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "archive")
	write(t, filepath.Join(top, "outside", "secret"), []byte("secret"))
	write(t, filepath.Join(dir, "in", "file"), []byte("content"))
	write(t, filepath.Join(dir, "dup", "x"), []byte("x"))
	for link, to := range map[string]string{
		"in/link": "file", "in/up": "../dup/x", "folder": "in", "in/dangling": "nowhere", "in/self": "self",
		"circle/down": "../circle", "circle/top": "..",
	} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(link)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	mkfifo(t, filepath.Join(dir, "in", "pipe"))
	if err := os.MkdirAll(filepath.Join(dir, "hollow", "inner"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(top, "to-archive")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir, filepath.Join(top, "to-archive")} {
		b := openDir(t, name)
		// Links that lead back to where one comes from are not followed round and round.
		want := []string{"dup/x", "folder/file", "folder/link", "folder/up", "in/file", "in/link", "in/up"}
		if got := list(t, b, ""); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		for i := range want {
			want[i] = "circle/top/" + want[i]
		}
		if got := list(t, b, "circle/"); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if got, err := b.Folders(t.Context(), "", 10); err != nil || !slices.Equal(got, []string{"circle", "dup", "folder", "in"}) {
			t.Errorf("folders %q %v", got, err)
		}
		for _, key := range []string{"in/file", "in/link", "folder/file", "folder/link", "circle/down/down/top/in/file"} {
			mustRead(t, b, key, []byte("content"))
		}
		_, _, err := b.Open(t.Context(), "in/pipe")
		wantError(t, err, nil, "not a regular file")
		for _, key := range []string{"in/dangling", "in", "hollow", "in/file/x"} {
			_, _, err := b.Open(t.Context(), key)
			wantError(t, err, errNotExist, "No such file")
		}
		_, _, err = b.Open(t.Context(), "in/self")
		wantError(t, err, nil, filepath.Join(name, "in/self"))
	}
	// Links that lead out: to a file, to a directory, absolute, and absolute though they end inside.
	for link, to := range map[string]string{
		"file": "../outside/secret", "dir": "../outside", "abs": filepath.Join(top, "outside", "secret"), "back": filepath.Join(dir, "in", "file"),
	} {
		t.Run(link, func(t *testing.T) {
			at := filepath.Join(dir, "planted")
			if err := os.Symlink(to, at); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(at)
			b := openDir(t, dir)
			for _, key := range []string{"planted", "planted/secret"} {
				body, _, err := b.Open(t.Context(), key)
				if err == nil {
					_ = body.Close()
				}
				if key == "planted" || link == "dir" {
					wantError(t, err, nil, "leads out of the archive", at)
				}
			}
			err := b.List(t.Context(), "", func(o object.Object) error {
				if strings.Contains(o.Key, "planted") {
					t.Errorf("listed %q", o.Key)
				}
				return nil
			})
			wantError(t, err, nil, "leads out of the archive", at)
			if got := list(t, b, "in/"); len(got) != 3 { // what is asked for is not disturbed
				t.Errorf("%q", got)
			}
		})
	}
	for _, name := range []string{filepath.Join(top, "missing"), filepath.Join(dir, "in", "file")} {
		_, err := object.NewDir(name)
		wantError(t, err, nil, "could not open directory", name)
	}
}

// TestDirChanges: files that grow or shrink while they are read.
func TestDirChanges(t *testing.T) {
	dir := t.TempDir()
	b := openDir(t, dir)
	path := filepath.Join(dir, "file")
	for name, change := range map[string]func() error{
		"longer":  func() error { return os.WriteFile(path, random(1, 2000), 0o644) },
		"shorter": func() error { return os.Truncate(path, 10) },
	} {
		write(t, path, random(1, 1000))
		body, o, err := b.Open(t.Context(), "file")
		if err != nil || o.Size != 1000 {
			t.Fatal(o, err)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4000)
		n := 0
		for err == nil && n < len(buf) {
			var m int
			m, err = body.Read(buf[n:])
			n += m
		}
		wantError(t, err, nil, name, path)
		if n > 1000 {
			t.Errorf("%d bytes of 1000", n)
		}
		_ = body.Close()
		_ = os.Remove(path)
	}
}
