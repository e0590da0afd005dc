package layout

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/archive/object"
)

// form is one way of archiving in the fixtures.
type form struct {
	folder string
	layout location.Layout
	keys   func(t testing.TB) location.Keys
}

var allForms = []form{
	{"walg/lz4", location.WALG, nil},
	{"walg/zstd", location.WALG, nil},
	{"walg/brotli", location.WALG, nil},
	{"walg/lzma", location.WALG, nil},
	{"walg/sodium", location.WALG, func(t testing.TB) location.Keys {
		return location.Keys{Sodium: location.Secret(strings.TrimSpace(string(fixture(t, "sodium.hex")))), SodiumTransform: "hex"}
	}},
	{"walg/pgp", location.WALG, func(t testing.TB) location.Keys {
		return location.Keys{PGP: location.Secret(fixture(t, "pgp.sec.asc"))}
	}},
	{"pgbackrest/gz", location.PgBackRest, nil},
	{"pgbackrest/lz4", location.PgBackRest, nil},
	{"pgbackrest/zst", location.PgBackRest, nil},
	{"pgbackrest/bz2", location.PgBackRest, nil},
	{"pgbackrest/enc", location.PgBackRest, pgbackrestKeys},
	{"barman/gz", location.Barman, nil},
	{"barman/bz2", location.Barman, nil},
	{"plain/gz", location.Plain, nil},
	{"plain/zst", location.Plain, nil},
	{"plain/lz4", location.Plain, nil},
	{"plain/xz", location.Plain, nil},
	{"plain/bz2", location.Plain, nil},
	{"plain/wale", location.WALG, nil}, // nothing tells WAL-E's from WAL-G's
}

// layouts are one form of each layout, quick to decode: for what does not depend on the encoding.
func layouts() []form {
	return pick("walg/lz4", "pgbackrest/lz4", "barman/gz", "plain/lz4")
}

// forms are all of them, or in short runs those that are quick to decode.
func forms() []form {
	if testing.Short() {
		return pick("walg/lz4", "walg/zstd", "walg/sodium", "walg/pgp", "pgbackrest/lz4", "pgbackrest/enc", "barman/gz", "plain/lz4", "plain/wale")
	}
	return allForms
}

func pick(folders ...string) []form {
	var picked []form
	for _, f := range allForms {
		if slices.Contains(folders, f.folder) {
			picked = append(picked, f)
		}
	}
	if len(picked) != len(folders) {
		panic("a form is missing")
	}
	return picked
}

func pgbackrestKeys(t testing.TB) location.Keys {
	return location.Keys{PgBackRestPass: location.Secret(strings.TrimSpace(string(fixture(t, "pgbr.pass"))))}
}

func (f form) at(t testing.TB, prefix string) location.Archive {
	a := at(prefix)
	if f.keys != nil {
		a.Keys = f.keys(t)
	}
	return a
}

// sums are the SHA-256 of what was archived, by name.
func sums(t testing.TB) map[string]string {
	t.Helper()
	sums := map[string]string{}
	for line := range strings.Lines(string(fixture(t, "SHA256SUMS.orig"))) {
		fields := strings.Fields(line)
		if len(fields) != 2 {
			t.Fatalf("not a sum: %q", line)
		}
		sums[fields[1]] = fields[0]
	}
	if len(sums) != 8 {
		t.Fatalf("%d sums", len(sums))
	}
	return sums
}

// TestForms: every form is found by looking and by its name, at every depth that its prefix may have, and all that is in it
// decodes to what was archived.
func TestForms(t *testing.T) {
	for _, f := range forms() {
		t.Run(f.folder, func(t *testing.T) {
			b := bucketOf(t, f.folder).below("some/where/")
			b.put("some/elsewhere/wal_005/000000010000000000000010.lz4", nil)
			deeper := map[location.Layout][]string{
				location.WALG:       {"some/where", "/some/where/", "some/where/wal_005"},
				location.PgBackRest: {"some/where", "some/where/archive", "some/where/archive/main"},
				location.Barman:     {"some/where", "some/where/pgsrv", "some/where/pgsrv/wals"},
				location.Plain:      {"some/where"},
			}[f.layout]
			for i, prefix := range deeper {
				for _, layout := range []location.Layout{location.Unknown, f.layout} {
					a := f.at(t, prefix)
					a.Layout = layout
					r := open(t, a, b)
					if got := r.Archive().Layout; got != f.layout {
						t.Errorf("%s: layout %s", prefix, got)
					}
					if f.layout == location.PgBackRest && (r.Archive().Stanza != "main" || !strings.Contains(r.Describe(), "stanza main (15-1)")) {
						t.Errorf("%s: %s", prefix, r.Describe())
					}
					if f.layout == location.Barman && r.Archive().Server != "pgsrv" {
						t.Errorf("%s: server %q", prefix, r.Archive().Server)
					}
					if i == 0 && layout == location.Unknown {
						checkAll(t, r)
					} else if _, info, err := fetch(t, r, seg12); err != nil || info.Size != 1<<20 {
						t.Errorf("%s: %+v, %v", prefix, info, err)
					}
				}
			}
		})
	}
}

// checkAll fetches everything there is.
func checkAll(t *testing.T, r *Repository) {
	t.Helper()
	for name, want := range sums(t) {
		var b bytes.Buffer
		info, err := r.FetchNamed(t.Context(), name, &b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := sha256.Sum256(b.Bytes()); hex.EncodeToString(got[:]) != want {
			t.Errorf("%s: other bytes than were archived", name)
		}
		if info.Name != name || info.Size != int64(b.Len()) || info.Stored == 0 || !strings.HasSuffix(info.Path, info.Key) {
			t.Errorf("%s: %+v", name, info)
		}
	}
	var b bytes.Buffer
	if _, err := r.Fetch(t.Context(), 2, 0x13, &b); err != nil || b.Len() != 1<<20 {
		t.Errorf("segment 13 of timeline 2: %d bytes, %v", b.Len(), err)
	}
	if h, err := r.FetchHistory(t.Context(), 2); err != nil || !bytes.HasPrefix(h, []byte("1\t")) {
		t.Errorf("history of timeline 2: %q, %v", h, err)
	}
	for _, missing := range []string{"000000010000000000000014", "000000030000000000000013", "00000003.history", "000000020000000000000013.partial",
		"000000010000000000000013.00000028.backup", "FFFFFFFFFFFFFFFFFFFFFFFF"} {
		if _, err := r.FetchNamed(t.Context(), missing, &b); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, object.ErrDenied) || errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", missing, err)
		}
	}
}

// TestDirectory: the same through a real directory.
func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	files, err := fixtures()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range layouts() {
		t.Run(f.folder, func(t *testing.T) {
			b, err := object.NewDir(filepath.Join(dir, "bucket", f.folder))
			if err != nil {
				t.Fatal(err)
			}
			defer object.Close(b)
			a := location.Archive{Dir: filepath.Join(dir, "bucket", f.folder), Keys: f.at(t, "").Keys}
			r, err := Open(t.Context(), a, b, cluster)
			if err != nil {
				t.Fatal(err)
			}
			checkAll(t, r)
			checkList(t, r)
		})
	}
}

// checkList compares a listing with the names that were archived.
func checkList(t *testing.T, r *Repository) {
	t.Helper()
	want := sums(t)
	last := ""
	err := r.List(t.Context(), func(e Entry) error {
		if _, ok := want[e.Name]; !ok {
			t.Errorf("listed: %+v", e)
		}
		delete(want, e.Name)
		if e.Key <= last {
			t.Errorf("%s after %s", e.Key, last)
		}
		last = e.Key
		kind := Segment
		switch {
		case strings.HasSuffix(e.Name, ".history"):
			kind = History
		case strings.HasSuffix(e.Name, ".partial"):
			kind = Partial
		case strings.HasSuffix(e.Name, ".backup"):
			kind = Backup
		}
		tli, seg := uint32(1), uint64(0)
		if e.Name[7] == '2' {
			tli = 2
		}
		if kind != History {
			seg = uint64(0x10 + e.Name[23] - '0')
		}
		if e.Kind != kind || uint32(e.TLI) != tli || uint64(e.Seg) != seg || e.Size == 0 || e.Encoding == "" {
			t.Errorf("%+v", e)
		}
		return nil
	})
	if err != nil || len(want) > 0 {
		t.Errorf("%v; not listed: %v", err, want)
	}
	stop := errors.New("stop")
	n := 0
	if err := r.List(t.Context(), func(Entry) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Errorf("%v after %d", err, n)
	}
}

// TestIdentify: without a target, the archive says whose it is.
func TestIdentify(t *testing.T) {
	for _, f := range forms() {
		b := bucketOf(t, f.folder)
		r, err := Open(t.Context(), f.at(t, ""), b, Cluster{})
		if err != nil {
			t.Fatalf("%s: %v", f.folder, err)
		}
		want := cluster
		want.Major = 0
		if c, err := r.Identify(t.Context()); err != nil || c != want {
			t.Errorf("%s: %+v, %v", f.folder, c, err)
		}
		var got bytes.Buffer
		if _, err := r.FetchNamed(t.Context(), "000000010000000000000012", &got); err != nil || got.Len() != 1<<20 {
			t.Errorf("%s: %d bytes, %v", f.folder, got.Len(), err)
		}
		if _, err := r.Fetch(t.Context(), 1, 0x12, &got); err == nil {
			t.Errorf("%s: a segment was named without a segment size", f.folder)
		}
	}
	r, err := Open(t.Context(), location.Archive{S3: &location.S3{}, Layout: location.Plain}, empty(), Cluster{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Identify(t.Context()); err == nil {
		t.Error("an empty archive is of a cluster")
	}
}

// TestNotWAL: what is beside WAL is never taken for it.
func TestNotWAL(t *testing.T) {
	whole := fixture(t, "bucket/plain/lz4/000000010000000000000010.lz4")
	const seg = "000000010000000000000012"
	foreign := []string{
		seg + ".json", seg + "_delta", seg + "_delta.lz4", seg + ".partial", seg + ".partial.lz4", seg + ".00000028.backup.lz4", seg + ".lz4.tmp",
		seg + ".lz4.lz4", seg + "lz4", seg + "0.lz4", seg + ".gpg", seg + ".00000028.backup", seg + "/x.lz4", seg + ".", strings.ToLower("00000001000000000000001A") + ".lz4",
		seg + "-dc15b48c3eab55f342f28995caaf055446be4e3f.lz4",
	}
	for _, layout := range []location.Layout{location.WALG, location.Plain, location.Barman} {
		b, dir := empty(), ""
		switch layout {
		case location.WALG:
			dir = "wal_005/"
		case location.Barman:
			dir = "srv/wals/0000000100000000/"
		}
		for _, name := range foreign {
			b.put(dir+name, whole)
		}
		a := at("")
		a.Layout = layout
		r := open(t, a, b)
		for _, name := range []string{seg, "00000001000000000000001A", "00000001000000000000001"} {
			var got bytes.Buffer
			if info, err := r.FetchNamed(t.Context(), name, &got); err == nil {
				t.Errorf("%s: %s was taken for %s", layout, info.Key, name)
			}
		}
	}

	// pgBackRest: with a wrong SHA-1's length, in capitals, without any, with it but not in the folder of its name.
	b := bucketOf(t, "pgbackrest/gz")
	key := b.the(t, seg+"-")
	data := b.files[key]
	b.remove(key)
	for _, name := range []string{
		strings.Replace(key, "-6", "-", 1), strings.Replace(key, "-64ca6e", "-64CA6E", 1), key + ".tmp", key[:strings.LastIndex(key, "-")] + ".gz",
		strings.Replace(key, "0000000100000000/", "0000000200000000/", 1), strings.Replace(key, seg+"-", seg+".partial-", 1),
	} {
		if name == key {
			t.Fatal(name)
		}
		b.put(name, data)
	}
	var got bytes.Buffer
	if info, err := open(t, at(""), b).FetchNamed(t.Context(), seg, &got); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v", info.Key, err)
	}
}

// TestPartialIsNewer: a partial segment beside the whole one is never given for it, nor the other way round.
func TestPartialIsNewer(t *testing.T) {
	for _, f := range layouts() {
		r := open(t, f.at(t, ""), bucketOf(t, f.folder))
		var whole, partial bytes.Buffer
		if _, err := r.FetchNamed(t.Context(), "000000010000000000000013", &whole); err != nil {
			t.Fatal(err)
		}
		if _, err := r.FetchNamed(t.Context(), "000000010000000000000013.partial", &partial); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(whole.Bytes(), partial.Bytes()) {
			t.Errorf("%s: the fixture does not tell", f.folder)
		}
	}
}

// TestDetect: what is unclear is said.
func TestDetect(t *testing.T) {
	walg := func() *memory { return bucketOf(t, "walg/lz4") }
	barman := func() *memory { return bucketOf(t, "barman/gz") }
	rest := func() *memory { return bucketOf(t, "pgbackrest/gz") }
	named := func(l location.Layout, stanza, server string) location.Archive {
		a := at("")
		a.Layout, a.Stanza, a.Server = l, stanza, server
		return a
	}
	rename := func(m *memory, from, to string) *memory {
		n := empty()
		for key, data := range m.files {
			n.files[strings.Replace(key, from, to, 1)] = data
		}
		return n
	}
	for name, c := range map[string]struct {
		b      *memory
		a      location.Archive
		says   string // in text or advice
		errIs  error
		opened string // if no error: what Describe begins with
	}{
		"nothing": {b: empty(), a: at("x"), says: "Nothing is there at all"},
		"something else": {b: empty().put("x/base/PG_VERSION", nil).put("x/notes.txt", nil), a: at("x"),
			says: "Seen there: base/, notes.txt."},
		"two layouts":             {b: walg().add(barman(), "").put("pgsrv/base/x", nil).add(bucketOf(t, "plain/gz"), ""), a: at(""), says: "plain (mem://)"},
		"WAL-G beside pgBackRest": {b: walg().add(rest(), ""), a: at(""), says: "wal-g (mem://wal_005/); pgbackrest stanza main (mem://archive/main/)"},
		"two stanzas":             {b: rest().add(rename(rest(), "/main/", "/other/"), ""), a: at(""), says: "stanza main (mem://archive/main/); pgbackrest stanza other"},
		"two stanzas, one named": {b: rest().add(rename(rest(), "/main/", "/other/"), ""), a: named("", "other", ""),
			opened: "pgbackrest archive s3://mem: stanza other (15-1)"},
		"two stanzas, prefix of one": {b: rest().add(rename(rest(), "/main/", "/other/"), ""), a: at("archive/other"),
			opened: "pgbackrest archive s3://mem/archive/other: stanza other (15-1)"},
		"stanza that is not there": {b: rest(), a: named("", "nope", ""), says: "is not a pgBackRest stanza"},
		"two servers":              {b: barman().add(rename(barman(), "pgsrv/", "srv2/"), ""), a: at(""), says: "server pgsrv (mem://pgsrv/wals/); barman server srv2"},
		"two servers, one named": {b: barman().add(rename(barman(), "pgsrv/", "srv2/"), ""), a: named("", "", "srv2"),
			opened: "barman archive s3://mem: server srv2"},
		"no server":             {b: walg(), a: named(location.Barman, "", ""), says: "Looked for SERVER/wals/. Seen there: wal_005/."},
		"no stanza":             {b: walg(), a: named(location.PgBackRest, "", ""), says: "Looked for archive/STANZA/archive.info."},
		"unknown layout":        {b: walg(), a: named("tar", "", ""), says: "unknown layout of a WAL archive"},
		"named layout is right": {b: walg().add(barman(), ""), a: named(location.WALG, "", ""), opened: "wal-g archive s3://mem: from the test"},
		"server named, prefix is its own": {b: barman(), a: location.Archive{S3: &location.S3{Bucket: "mem"}, Prefix: "pgsrv", Server: "pgsrv"},
			opened: "barman archive s3://mem/pgsrv: server pgsrv"},
		"server named, prefix is that of its WAL": {b: barman(), a: location.Archive{S3: &location.S3{Bucket: "mem"}, Prefix: "pgsrv/wals", Server: "pgsrv"},
			opened: "barman archive s3://mem/pgsrv/wals: server pgsrv"},
		"server of the same name below": {b: barman().below("pgsrv/"), a: location.Archive{S3: &location.S3{Bucket: "mem"}, Prefix: "pgsrv", Server: "pgsrv"},
			opened: "barman archive s3://mem/pgsrv: server pgsrv"},
		"stanza named, repository called archive": {b: rest().below("archive/"), a: location.Archive{S3: &location.S3{Bucket: "mem"}, Prefix: "archive", Stanza: "main"},
			opened: "pgbackrest archive s3://mem/archive: stanza main (15-1)"},
		"stanza named, prefix of all": {b: rest(), a: location.Archive{S3: &location.S3{Bucket: "mem"}, Prefix: "archive", Stanza: "main"},
			opened: "pgbackrest archive s3://mem/archive: stanza main (15-1)"},
		"segments bare and in folders":        {b: bucketOf(t, "plain/gz").put("0000000100000000/"+seg12, nil), a: at(""), says: "holds more than one"},
		"WAL beside a folder of other things": {b: bucketOf(t, "plain/gz").put("base/x", nil), a: at(""), opened: "plain archive s3://mem: from the test"},
		"only a history":                      {b: empty().put("00000002.history", nil), a: at(""), opened: "plain archive s3://mem: from the test"},
		"encrypted by somebody else":          {b: walg(), a: location.Archive{S3: &location.S3{}, Keys: location.Keys{Unsupported: "a key of AWS KMS"}}, says: "a key of AWS KMS"},
		"listing denied":                      {b: &memory{files: walg().files, deny: func(op, _ string) bool { return op == "LIST" }}, a: at(""), says: "Name the layout", errIs: object.ErrDenied},
		"listing denied, stanza not named": {b: &memory{files: rest().files, deny: func(op, _ string) bool { return op == "LIST" }}, a: named(location.PgBackRest, "", ""),
			says: "Point to the stanza itself", errIs: object.ErrDenied},
		"listing fails": {b: &memory{files: walg().files, fail: func(op, _ string) error {
			if op == "LIST" {
				return errBroken
			}
			return nil
		}}, a: at(""), errIs: errBroken},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Open(t.Context(), c.a, c.b, cluster)
			switch {
			case c.opened != "":
				if err != nil {
					t.Fatalf("%v (%s)", err, adviceOf(err))
				}
				if !strings.HasPrefix(r.Describe(), c.opened) {
					t.Errorf("%s", r.Describe())
				}
				return
			case err == nil:
				t.Fatalf("opened: %s", r.Describe())
			case !strings.Contains(err.Error()+"\n"+adviceOf(err), c.says):
				t.Errorf("%v (%s)", err, adviceOf(err))
			}
			if errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a wrong address is said to be a missing file: %v", err)
			}
			if c.errIs != nil && !errors.Is(err, c.errIs) {
				t.Errorf("%v", err)
			}
		})
	}
}

var errBroken = errors.New("the network is down")

// TestCanceled: nothing is tried in vain.
func TestCanceled(t *testing.T) {
	r := open(t, at(""), bucketOf(t, "walg/lz4"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.FetchNamed(ctx, "000000010000000000000012", new(bytes.Buffer)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := Open(ctx, at(""), bucketOf(t, "walg/lz4"), cluster); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
