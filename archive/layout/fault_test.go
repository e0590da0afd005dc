package layout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/archive/codec"
	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/archive/object"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

const seg12 = "000000010000000000000012"

// fetch fetches a WAL file into memory.
func fetch(t testing.TB, r *Repository, name string) ([]byte, Info, error) {
	t.Helper()
	var b bytes.Buffer
	info, err := r.FetchNamed(t.Context(), name, &b)
	return b.Bytes(), info, err
}

// original is a WAL file as PostgreSQL wrote it.
func original(t testing.TB, name string) []byte {
	t.Helper()
	data, _, err := fetch(t, open(t, at(""), bucketOf(t, "plain/zst")), name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// cut takes the end off an object's bytes.
func cut(data []byte) []byte { return bytes.Clone(data[:len(data)-len(data)/3]) }

// flipped is data with one bit changed.
func flipped(data []byte, at int) []byte {
	data = bytes.Clone(data)
	data[at] ^= 0x10
	return data
}

// TestDamaged: what is in the archive but not whole is an error that names it, and no missing file.
func TestDamaged(t *testing.T) {
	whole := original(t, seg12)
	for name, data := range map[string][]byte{
		"wal_005/" + seg12 + ".lz4": cut(fixture(t, "bucket/walg/lz4/wal_005/"+seg12+".lz4")),
		"wal_005/" + seg12 + ".zst": fixture(t, "bucket/walg/lz4/wal_005/"+seg12+".lz4"),
		"wal_005/" + seg12 + ".br":  cut(fixture(t, "bucket/walg/brotli/wal_005/"+seg12+".br")),
		"wal_005/" + seg12:          whole[:len(whole)-1],
		"wal_005/" + seg12 + ".gz":  nil,
		seg12:                       append(bytes.Clone(whole), 0),
		seg12 + ".xz":               fixture(t, "bucket/plain/xz/000000010000000000000012.00000028.backup.xz"),
	} {
		a := at("")
		if a.Layout = location.Plain; strings.HasPrefix(name, "wal_005/") {
			a.Layout = location.WALG
		}
		for _, c := range []Cluster{cluster, {}} {
			r, err := Open(t.Context(), a, empty().put(name, data), c)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = fetch(t, r, seg12)
			if !errors.Is(err, ErrDamaged) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, object.ErrDenied) {
				t.Errorf("%s: %v", name, err)
			} else if !strings.Contains(err.Error(), "mem://"+name) || adviceOf(err) == "" {
				t.Errorf("%s: %v (%s)", name, err, adviceOf(err))
			}
		}
	}
}

// TestLarger: an object that decodes to more than a segment is not decoded to its end.
func TestLarger(t *testing.T) {
	b := empty().put(seg12, make([]byte, 64<<20))
	a := at("")
	a.Layout = location.Plain
	var n counter
	_, err := open(t, a, b).FetchNamed(t.Context(), seg12, &n)
	if !errors.Is(err, ErrDamaged) || n > 1<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// TestCopies: of several copies the first in a fixed order is taken that is whole; what was written of a damaged one is
// undone, where that is possible.
func TestCopies(t *testing.T) {
	whole := original(t, seg12)
	lz4, gz := fixture(t, "bucket/plain/lz4/"+seg12+".lz4"), fixture(t, "bucket/plain/gz/"+seg12+".gz")
	plain := at("")
	plain.Layout = location.Plain
	both := func() *memory { return empty().put(seg12+".lz4", lz4).put(seg12+".gz", gz).put(seg12, whole) }
	for range 5 {
		if _, info, err := fetch(t, open(t, plain, both()), seg12); err != nil || info.Key != seg12+".lz4" {
			t.Errorf("%s, %v", info.Key, err)
		}
	}
	hinted := plain
	hinted.Extension = ".gz"
	if _, info, err := fetch(t, open(t, hinted, both()), seg12); err != nil || info.Key != seg12+".gz" {
		t.Errorf("with a hint: %s, %v", info.Key, err)
	}

	// Not lz4: that would notice before it has written anything.
	damaged := empty().put(seg12+".gz", cut(gz)).put(seg12+".bz2", fixture(t, "bucket/plain/bz2/"+seg12+".bz2"))
	path := filepath.Join(t.TempDir(), "f")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString("before"); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, plain, damaged).FetchNamed(t.Context(), seg12, file); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, append([]byte("before"), whole...)) {
		t.Errorf("into a file: %d bytes, %v", len(got), err)
	}
	buffer := bytes.NewBufferString("before")
	if _, err := open(t, plain, damaged).FetchNamed(t.Context(), seg12, buffer); err != nil || !bytes.Equal(buffer.Bytes(), append([]byte("before"), whole...)) {
		t.Errorf("into a buffer: %d bytes, %v", buffer.Len(), err)
	}
	again := &restartable{}
	if _, err := open(t, plain, damaged).FetchNamed(t.Context(), seg12, again); err != nil || !bytes.Equal(again.Bytes(), whole) || again.n == 0 {
		t.Errorf("into a Restarter: %d bytes, %v", again.Len(), err)
	}
	var n counter
	if _, err := open(t, plain, damaged).FetchNamed(t.Context(), seg12, &n); !errors.Is(err, ErrDamaged) {
		t.Errorf("into what cannot begin anew: %d bytes, %v", n, err)
	}
	// What no checksum protects comes last.
	if _, info, err := fetch(t, open(t, plain, empty().put(seg12+".gz", gz).put(seg12, flipped(whole, 9999))), seg12); err != nil || info.Key != seg12+".gz" {
		t.Errorf("%s, %v", info.Key, err)
	}
	all := both().put(seg12+".lz4", cut(lz4)).put(seg12+".gz", cut(gz)).put(seg12, whole[1:])
	if _, _, err := fetch(t, open(t, plain, all), seg12); !errors.Is(err, ErrDamaged) || strings.Count(adviceOf(err), "Another copy") != 2 {
		t.Errorf("all damaged: %v (%s)", err, adviceOf(err))
	}
}

type restartable struct {
	bytes.Buffer
	n int
}

func (r *restartable) Restart() error { r.n++; r.Reset(); return nil }

// TestWriteError: what the writer says is returned, and not taken for damage.
func TestWriteError(t *testing.T) {
	full := errors.New("the disk is full")
	for _, f := range layouts() {
		_, err := open(t, f.at(t, ""), bucketOf(t, f.folder)).FetchNamed(t.Context(), seg12, writer(func([]byte) (int, error) { return 0, full }))
		if !errors.Is(err, full) || errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", f.folder, err)
		}
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// TestReadError: a connection that breaks is not damage, and ends the search.
func TestReadError(t *testing.T) {
	for _, f := range forms() {
		b := bucketOf(t, f.folder)
		r := open(t, f.at(t, ""), b)
		b.fail = func(op, _ string) error {
			if op == "GET" {
				return errBroken
			}
			return nil
		}
		if _, _, err := fetch(t, r, seg12); !errors.Is(err, errBroken) {
			t.Errorf("%s: %v", f.folder, err)
		}
		cutting := &breaking{memory: bucketOf(t, f.folder)}
		r = open(t, f.at(t, ""), cutting)
		cutting.after = 1000
		if _, _, err := fetch(t, r, seg12); !errors.Is(err, errBroken) || errors.Is(err, ErrDamaged) {
			t.Errorf("%s, after 1000 bytes: %v", f.folder, err)
		}
	}
}

// breaking is a Bucket whose bodies break after some bytes.
type breaking struct {
	*memory
	after int64
}

func (b *breaking) Open(ctx context.Context, key string) (io.ReadCloser, object.Object, error) {
	body, o, err := b.memory.Open(ctx, key)
	if err != nil || b.after == 0 {
		return body, o, err
	}
	return io.NopCloser(io.MultiReader(io.LimitReader(body, b.after), reader(func([]byte) (int, error) { return 0, errBroken }))), o, nil
}

type reader func([]byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }

// TestSHA1: pgBackRest's segments are what their names say.
func TestSHA1(t *testing.T) {
	for _, folder := range []string{"pgbackrest/gz", "pgbackrest/enc"} {
		b := bucketOf(t, folder)
		a := at("")
		if folder == "pgbackrest/enc" {
			a.Keys = pgbackrestKeys(t)
		}
		ten, eleven := b.the(t, "0000000000000010-"), b.the(t, "0000000000000011-")
		b.put(eleven, b.files[ten])
		r := open(t, a, b)
		if _, _, err := fetch(t, r, "000000010000000000000011"); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "SHA-1") {
			t.Errorf("another segment's bytes: %v", err)
		}
		if _, _, err := fetch(t, r, "000000010000000000000010"); err != nil {
			t.Error(err)
		}
	}

	// A segment without compression: nothing but the SHA-1 would notice.
	whole := original(t, seg12)
	b := bucketOf(t, "pgbackrest/zst")
	key := b.the(t, seg12+"-")
	b.remove(key)
	raw := strings.TrimSuffix(key, ".zst")
	b.put(raw, whole)
	if _, info, err := fetch(t, open(t, at(""), b), seg12); err != nil || info.Encoding != "uncompressed" {
		t.Errorf("%s: %v", info.Encoding, err)
	}
	b.put(raw, flipped(whole, 500_000))
	if _, _, err := fetch(t, open(t, at(""), b), seg12); !errors.Is(err, ErrDamaged) {
		t.Errorf("flipped: %v", err)
	}
	// A second copy of the same, compressed, is taken instead.
	b.put(key, fixture(t, "bucket/pgbackrest/zst/"+key))
	if _, info, err := fetch(t, open(t, at(""), b), seg12); err != nil || info.Key != key {
		t.Errorf("%s: %v", info.Key, err)
	}
}

// TestDuplicates: two primaries in one stanza.
func TestDuplicates(t *testing.T) {
	b := bucketOf(t, "pgbackrest/gz")
	key := b.the(t, seg12+"-")
	other := strings.Replace(key, "-64ca6e", "-64ca6f", 1)
	b.put(other, b.files[key])
	_, _, err := fetch(t, open(t, at(""), b), seg12)
	if err == nil || errors.Is(err, ErrDamaged) || errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%v", err)
	}
	if says := adviceOf(err); !strings.Contains(says, key) || !strings.Contains(says, other) {
		t.Errorf("%v (%s)", err, says)
	}
	if _, _, err := fetch(t, open(t, at(""), b), "000000010000000000000011"); err != nil {
		t.Errorf("the next: %v", err)
	}
	// The same contents in two compressions are no contradiction.
	b = bucketOf(t, "pgbackrest/gz").add(bucketOf(t, "pgbackrest/lz4"), "")
	if _, _, err := fetch(t, open(t, at(""), b), seg12); err != nil {
		t.Errorf("twice the same: %v", err)
	}
}

// info is an archive.info of several clusters.
func info(history string) []byte {
	return []byte("[backrest]\nbackrest-format=5\nbackrest-version=\"2.45\"\n\n[db]\ndb-id=1\ndb-system-id=1\ndb-version=\"15\"\n\n[db:history]\n" +
		history + "\n[backrest]\nbackrest-checksum=\"7bf4\"\n")
}

// TestArchiveIDs: the folders are those of the cluster's system identifier and version, the newest first.
func TestArchiveIDs(t *testing.T) {
	const (
		ours     = `{"db-id":7710433884157629511,"db-version":"15"}`
		other    = `{"db-id":7710433884157629512,"db-version":"15"}`
		upgraded = `{"db-id":7710433884157629511,"db-version":"16"}`
		old      = `{"db-id":7710433884157629511,"db-version":"9.6"}`
	)
	for name, c := range map[string]struct {
		history string
		cluster Cluster
		ids     string // empty: an error
	}{
		"one":                {"1=" + ours, cluster, "15-1"},
		"another's":          {"1=" + other, cluster, ""},
		"among others":       {"1=" + other + "\n2=" + ours + "\n3=" + upgraded, cluster, "15-2"},
		"twice":              {"1=" + ours + "\n2=" + other + "\n10=" + ours, cluster, "15-10, 15-1"},
		"version unknown":    {"1=" + ours + "\n2=" + other + "\n3=" + upgraded, Cluster{SystemID: cluster.SystemID}, "16-3, 15-1"},
		"cluster unknown":    {"1=" + ours + "\n2=" + other + "\n3=" + old, Cluster{}, "9.6-3, 15-2, 15-1"},
		"another version's":  {"1=" + upgraded, cluster, ""},
		"not a history":      {"1=15", cluster, ""},
		"a path for version": {`1={"db-id":7710433884157629511,"db-version":"../15"}`, cluster, ""},
		"dots for version":   {`1={"db-id":7710433884157629511,"db-version":".."}`, Cluster{SystemID: cluster.SystemID}, ""},
		"none":               {"", cluster, ""},
	} {
		b := bucketOf(t, "pgbackrest/gz").put("archive/main/archive.info", info(c.history))
		b.remove("archive/main/archive.info.copy")
		r, err := Open(t.Context(), at(""), b, c.cluster)
		switch {
		case c.ids == "" && (err == nil || errors.Is(err, fs.ErrNotExist)):
			t.Errorf("%s: %v", name, err)
		case c.ids != "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.ids != "" && strings.Join(r.ids, ", ") != c.ids:
			t.Errorf("%s: %v", name, r.ids)
		}
	}
	b := bucketOf(t, "pgbackrest/gz").put("archive/main/archive.info", info("1="+other))
	if _, err := Open(t.Context(), at(""), b, cluster); err == nil || !strings.Contains(adviceOf(err), "15-1 of system 7710433884157629512") {
		t.Errorf("another's: %v (%s)", err, adviceOf(err))
	}
	// A segment in the older of two folders, and one that differs between them.
	b = bucketOf(t, "pgbackrest/gz").put("archive/main/archive.info", info("1="+ours+"\n2="+ours))
	if _, i, err := fetch(t, open(t, at(""), b), seg12); err != nil || !strings.Contains(i.Key, "/15-1/") {
		t.Errorf("%s: %v", i.Key, err)
	}
	if h, err := open(t, at(""), b).FetchHistory(t.Context(), 2); err != nil || len(h) == 0 {
		t.Errorf("history: %v", err)
	}
	b.put("archive/main/15-2/0000000100000000/"+seg12+"-"+strings.Repeat("0", 40)+".gz", nil)
	if _, _, err := fetch(t, open(t, at(""), b), seg12); err == nil || !strings.Contains(err.Error(), "different contents") {
		t.Errorf("differs: %v", err)
	}
	n := 0
	if err := open(t, at(""), b).List(t.Context(), func(e Entry) error {
		if e.Cluster == "15-2" {
			n++
		}
		return nil
	}); err != nil || n != 1 {
		t.Errorf("%d listed, %v", n, err)
	}
}

// TestInfoCopy: the copy does when archive.info itself does not.
func TestInfoCopy(t *testing.T) {
	const main, copied = "archive/main/archive.info", "archive/main/archive.info.copy"
	for _, f := range []form{{"pgbackrest/gz", location.PgBackRest, nil}, {"pgbackrest/enc", location.PgBackRest, pgbackrestKeys}} {
		whole := fixture(t, "bucket/"+f.folder+"/"+main)
		for name, spoil := range map[string]func(b *memory, key string){
			"missing": func(b *memory, key string) { b.remove(key) },
			"empty":   func(b *memory, key string) { b.put(key, nil) },
			"cut":     func(b *memory, key string) { b.put(key, whole[:len(whole)/5]) },
			"garbage": func(b *memory, key string) { b.put(key, []byte("[db:history]\nnonsense")) },
			"large":   func(b *memory, key string) { b.put(key, bytes.Repeat([]byte("[x]\n"), 1<<20)) },
			"denied": func(b *memory, key string) {
				deny := b.deny
				b.deny = func(op, k string) bool { return k == key || deny != nil && deny(op, k) }
			},
		} {
			b := bucketOf(t, f.folder)
			spoil(b, main)
			a := f.at(t, "")
			a.Stanza = "main"
			if _, _, err := fetch(t, open(t, a, b), seg12); err != nil {
				t.Errorf("%s, %s: %v", f.folder, name, err)
			}
			spoil(b, copied)
			_, err := Open(t.Context(), a, b, cluster)
			if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, object.ErrDenied) != (name == "denied") {
				t.Errorf("%s, both %s: %v", f.folder, name, err)
			}
		}
	}
}

// TestKeys: a wrong key is said to be one, and shown nowhere.
func TestKeys(t *testing.T) {
	const pass = "open sesame 1234567890"
	for _, c := range []struct {
		folder string
		keys   location.Keys
	}{
		{"pgbackrest/enc", location.Keys{PgBackRestPass: pass}},
		{"pgbackrest/enc", location.Keys{}},
		{"pgbackrest/gz", location.Keys{PgBackRestPass: pass}},
		{"walg/sodium", location.Keys{Sodium: pass + pass, SodiumTransform: "none"}},
		{"walg/sodium", location.Keys{Sodium: pass, SodiumTransform: "hex"}},
		{"walg/sodium", location.Keys{}},
		{"walg/lz4", location.Keys{Sodium: pass + pass, SodiumTransform: "none"}},
		{"walg/pgp", location.Keys{PGP: pass}},
		{"walg/pgp", location.Keys{}},
		{"walg/zstd", location.Keys{PGP: location.Secret(fixture(t, "pgp.sec.asc"))}},
	} {
		a := at("")
		a.Keys = c.keys
		r, err := Open(t.Context(), a, bucketOf(t, c.folder), cluster)
		if err == nil {
			_, _, err = fetch(t, r, seg12)
		}
		if !errors.Is(err, codec.ErrKey) && !errors.Is(err, codec.ErrDamaged) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s with %v: %v", c.folder, c.keys, err)
			continue
		}
		if says := err.Error() + adviceOf(err); strings.Contains(says, pass) || adviceOf(err) == "" {
			t.Errorf("%s: %s", c.folder, says)
		}
	}
}

// TestListOnce: a folder is listed once, however many segments are fetched from it at once; and again for what it does not
// have, if that was long ago.
func TestListOnce(t *testing.T) {
	for _, f := range layouts() {
		b := bucketOf(t, f.folder)
		r := open(t, f.at(t, ""), b)
		now := time.Unix(1e9, 0)
		var mu sync.Mutex
		r.cache.now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
		b.lists.Store(0)
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				name := []string{"000000010000000000000010", "000000010000000000000011", seg12, "000000010000000000000019"}[i%4]
				if _, err := r.FetchNamed(t.Context(), name, io.Discard); (err != nil) != (i%4 == 3) {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		wg.Wait()
		if n := b.lists.Load(); n != 1 {
			t.Errorf("%s: %d listings", f.folder, n)
		}
		// Archived a little later.
		var key string
		for k := range b.files {
			if strings.Contains(k, seg12) && !strings.Contains(k, ".backup") {
				key = k
			}
		}
		b.remove(key)
		fresh := strings.Replace(key, seg12, "000000010000000000000019", 1)
		b.put(fresh, fixture(t, "bucket/"+f.folder+"/"+key))
		if _, _, err := fetch(t, r, "000000010000000000000019"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a listing was not remembered: %v", f.folder, err)
		}
		mu.Lock()
		now = now.Add(stale + time.Second)
		mu.Unlock()
		if _, _, err := fetch(t, r, "000000010000000000000019"); err != nil {
			t.Errorf("%s: %v", f.folder, err)
		}
		// What was listed, and is gone.
		b.remove(fresh)
		if _, _, err := fetch(t, r, "000000010000000000000019"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: gone: %v", f.folder, err)
		}
	}
}

// TestRecompressed: an object that was replaced by one of another encoding since it was listed.
func TestRecompressed(t *testing.T) {
	b := bucketOf(t, "plain/gz")
	r := open(t, at(""), b)
	if _, _, err := fetch(t, r, seg12); err != nil {
		t.Fatal(err)
	}
	b.remove(seg12 + ".gz")
	b.put(seg12+".xz", fixture(t, "bucket/plain/xz/"+seg12+".xz"))
	if _, info, err := fetch(t, r, seg12); err != nil || info.Encoding != "xz" {
		t.Errorf("%+v, %v", info, err)
	}
}

// TestListWait: who waits for another's listing can be stopped, and does not suffer if the other is.
func TestListWait(t *testing.T) {
	b := bucketOf(t, "walg/lz4")
	r := open(t, at(""), b)
	b.lists.Store(0)
	b.block = make(chan struct{})
	first, stop := context.WithCancel(t.Context())
	errs := make(chan error, 3)
	go func() { _, err := r.FetchNamed(first, seg12, io.Discard); errs <- err }()
	for b.lists.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	second, stop2 := context.WithCancel(t.Context())
	go func() { _, err := r.FetchNamed(second, seg12, io.Discard); errs <- err }()
	stop2()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("the second: %v", err)
	}
	done := make(chan error)
	go func() { _, err := r.FetchNamed(t.Context(), seg12, io.Discard); done <- err }()
	stop()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
	close(b.block)
	if err := <-done; err != nil {
		t.Errorf("the third: %v", err)
	}
}

// TestCacheIsBounded: many folders do not stay in memory.
func TestCacheIsBounded(t *testing.T) {
	r := open(t, location.Archive{S3: &location.S3{}, Layout: location.Plain}, empty())
	for i := range 5 * maxCached {
		if _, err := r.Fetch(t.Context(), 1, pg.SegNo(i)*4096, io.Discard); !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if len(r.cache.all) != maxCached || len(r.cache.order) != maxCached {
		t.Errorf("%d folders, %d names", len(r.cache.all), len(r.cache.order))
	}
}

// TestLargeFolder: an endless folder is not taken into memory.
func TestLargeFolder(t *testing.T) {
	b := empty()
	for i := range maxListed + 1 {
		b.files[strings.Join([]string{"00000001", "00000000", fmt.Sprintf("%08X", i)}, "")] = nil
	}
	r := open(t, location.Archive{S3: &location.S3{}, Layout: location.Plain}, b)
	if _, _, err := fetch(t, r, seg12); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("%v", err)
	}
}

// TestDenied: without the right to list, names are tried; what is denied is not said to be missing.
func TestDenied(t *testing.T) {
	noList := func(op, _ string) bool { return op == "LIST" }
	for _, f := range layouts() {
		b := bucketOf(t, f.folder)
		b.deny = noList
		a := f.at(t, "")
		a.Layout = f.layout
		switch f.layout {
		case location.PgBackRest:
			a.Stanza = "main"
			r := open(t, a, b)
			if _, _, err := fetch(t, r, seg12); !errors.Is(err, object.ErrDenied) || errors.Is(err, fs.ErrNotExist) || !strings.Contains(adviceOf(err), "s3:ListBucket") {
				t.Errorf("%s: %v", f.folder, err)
			}
			if h, err := r.FetchHistory(t.Context(), 2); err != nil || len(h) == 0 {
				t.Errorf("%s: history: %v", f.folder, err)
			}
			continue
		case location.Barman:
			a.Server = "pgsrv"
		}
		r := open(t, a, b)
		checkAll(t, r)
		b.gets.Store(0)
		if _, _, err := fetch(t, r, seg12); err != nil || b.gets.Load() != 1 {
			t.Errorf("%s: %d requests although the extension was known, %v", f.folder, b.gets.Load(), err)
		}
		if err := r.List(t.Context(), func(Entry) error { return nil }); !errors.Is(err, object.ErrDenied) {
			t.Errorf("%s: %v", f.folder, err)
		}

		// As AWS does: what is missing is denied, too.
		b.deny = func(op, key string) bool { _, ok := b.files[key]; return op == "LIST" || !ok }
		if _, _, err := fetch(t, r, seg12); err != nil {
			t.Errorf("%s: %v", f.folder, err)
		}
		_, _, err := fetch(t, r, "000000010000000000000019")
		if !errors.Is(err, object.ErrDenied) || errors.Is(err, fs.ErrNotExist) || !strings.Contains(adviceOf(err), "s3:ListBucket") {
			t.Errorf("%s: missing and denied: %v", f.folder, err)
		}
	}
	b := bucketOf(t, "walg/brotli")
	b.deny = noList
	a := at("")
	a.Layout, a.Extension = location.WALG, ".br"
	r := open(t, a, b)
	b.gets.Store(0)
	if _, _, err := fetch(t, r, seg12); err != nil || b.gets.Load() != 1 {
		t.Errorf("with a hint: %d requests, %v", b.gets.Load(), err)
	}
	// What was listed and cannot be read is denied, and not missing either.
	b.deny = func(op, key string) bool { return op == "GET" && strings.Contains(key, seg12) }
	if _, _, err := fetch(t, r, seg12); !errors.Is(err, object.ErrDenied) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("GET denied: %v", err)
	}
}

// TestBadNames: names that PostgreSQL never gave are refused before anything is asked.
func TestBadNames(t *testing.T) {
	b := bucketOf(t, "plain/gz")
	r := open(t, at(""), b)
	b.gets.Store(0)
	b.lists.Store(0)
	for _, name := range []string{"", "..", "../" + seg12, seg12 + "/", seg12 + ".gz", seg12[:23], seg12 + "0", "RECOVERYXLOG", "00000002.history.gz", "2.history",
		"archive.info", seg12 + ".PARTIAL", seg12 + ".28.backup", strings.Repeat("Z", 24)} {
		var f *fault.Error
		if _, _, err := fetch(t, r, name); !errors.As(err, &f) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if b.gets.Load()+b.lists.Load() != 0 {
		t.Error("something was asked")
	}
}

// FuzzInfo: no archive.info makes parsing it fail otherwise than by an error, or leads out of the stanza.
func FuzzInfo(f *testing.F) {
	files, err := fixtures()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(files["bucket/pgbackrest/gz/archive/main/archive.info"])
	f.Add(info("1={\"db-id\":1,\"db-version\":\"9.6\"}\n2={\"db-id\":18446744073709551615,\"db-version\":\"15\"}"))
	f.Add([]byte("[cipher]\ncipher-pass=\"x\"\n[db:history]\n1={}\n"))
	f.Add([]byte("[db:history]\n1={\"db-id\":1,\"db-version\":\"../..\"}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		i, err := parseInfo(data)
		if err != nil {
			return
		}
		if len(i.dbs) == 0 {
			t.Error("no cluster, and no error")
		}
		for _, db := range i.dbs {
			if id := db.archiveID(); strings.ContainsAny(id, "/\\") || strings.HasPrefix(id, ".") {
				t.Errorf("a folder %q", id)
			}
		}
	})
}

// FuzzObjectName: a name that is taken for a WAL file's is made of that name and a known ending.
func FuzzObjectName(f *testing.F) {
	for _, s := range []string{seg12 + ".lz4", seg12 + ".partial.gz", "00000002.history", seg12 + ".00000028.backup", seg12 + "-" + strings.Repeat("a", 40) + ".zst"} {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, base string, hashed bool) {
		o, ok := parseObjectName(base, hashed)
		if !ok {
			return
		}
		sum := ""
		if o.sha1 != "" {
			sum = "-" + o.sha1
		}
		if base != o.name+sum+o.ext {
			t.Errorf("%q is %+v", base, o)
		}
		if w, ok := parseWALName(o.name); !ok || w != o.walName {
			t.Errorf("%q is not %+v", o.name, o.walName)
		}
		_ = o.tli()
	})
}

// TestListPassesOver: what does not lie where its tool puts it is not listed.
func TestListPassesOver(t *testing.T) {
	for _, f := range layouts() {
		b := bucketOf(t, f.folder)
		var key string
		for k := range b.files {
			if strings.Contains(k, seg12) && !strings.Contains(k, ".backup") {
				key = k
			}
		}
		dir, base := key[:strings.LastIndex(key, "/")+1], key[strings.LastIndex(key, "/")+1:]
		b.put(dir+"old/"+base, nil).put(dir+base+".tmp", nil).put(dir+"0000000100000001/"+base, nil).put(dir+seg12+".json", nil)
		// With segments of 1 MiB there is no such one.
		b.put(dir+strings.Replace(base, seg12, "0000000100000000FFFFFFFF", 1), nil)
		a := f.at(t, "")
		a.Layout = f.layout
		checkList(t, open(t, a, b))
	}
}

// TestListFailsOnce: a listing that failed is not remembered.
func TestListFailsOnce(t *testing.T) {
	for _, f := range layouts() {
		b := bucketOf(t, f.folder)
		r := open(t, f.at(t, ""), b)
		b.fail = func(string, string) error { return errBroken }
		if _, _, err := fetch(t, r, seg12); !errors.Is(err, errBroken) {
			t.Errorf("%s: %v", f.folder, err)
		}
		b.fail = nil
		if _, _, err := fetch(t, r, seg12); err != nil {
			t.Errorf("%s: %v", f.folder, err)
		}
	}
}
