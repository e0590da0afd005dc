package codec

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/ulikunitz/xz"

	"github.com/fastrewind/fastrewind/archive/location"
)

// TestMain fails if anything has started a goroutine: nobody could recover what panics there.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixtures are archives as WAL-G 3.0.9, pgBackRest 2.45, Barman 3.4.0, lzop, xz and the like wrote them, of a PostgreSQL 15
// cluster with segments of 1 MiB; with the originals' SHA-256 and the keys, which were made for this.
var fixtures = sync.OnceValues(func() (map[string][]byte, error) {
	f, err := os.Open("testdata/wal-archives.tar.xz")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	x, err := xz.NewReader(bufio.NewReader(f)) // the library's reader: ours is what is tested
	if err != nil {
		return nil, err
	}
	files := make(map[string][]byte)
	for t := tar.NewReader(x); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg {
			if files[path.Clean(h.Name)], err = io.ReadAll(t); err != nil {
				return nil, err
			}
		}
	}
})

const (
	segmentSize = 1 << 20
	forms       = 19 // of archives: pairs of tool and codec
)

// fixture is the bytes of a file of the fixtures.
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

// object is an object of the fixtures, and what it is an object of.
type object struct {
	path  string // below the bucket
	form  string // tool and codec: "walg/lz4"
	orig  string // the original's name
	chain Chain
	data  []byte
}

// fixtureKeys are the settings of the three encrypted archives.
func fixtureKeys(t testing.TB) location.Keys {
	t.Helper()
	return location.Keys{
		Sodium:          location.Secret(strings.TrimSpace(string(fixture(t, "sodium.hex")))),
		SodiumTransform: "hex",
		PGP:             location.Secret(fixture(t, "pgp.sec.asc")),
		PgBackRestPass:  location.Secret(fixture(t, "pgbr.pass")),
	}
}

// keyOf is the key of one of the fixtures' archives; nil for most.
func keyOf(t testing.TB, form string) Key {
	t.Helper()
	all := fixtureKeys(t)
	var key Key
	var err error
	switch form {
	case "walg/sodium":
		key, err = KeyFor(location.Keys{Sodium: all.Sodium, SodiumTransform: all.SodiumTransform}, location.WALG)
	case "walg/pgp":
		key, err = KeyFor(location.Keys{PGP: all.PGP}, location.WALG)
	case "pgbackrest/enc":
		key, err = KeyFor(all, location.PgBackRest)
		if err != nil {
			t.Fatal(err)
		}
		info, infoErr := ReadInfo(bytes.NewReader(fixture(t, "bucket/pgbackrest/enc/archive/main/archive.info")), key)
		if infoErr != nil {
			t.Fatal(infoErr)
		}
		_, rest, _ := strings.Cut(string(info), `cipher-pass="`)
		pass, _, found := strings.Cut(rest, `"`)
		if !found {
			t.Fatal("no cipher-pass in archive.info")
		}
		key, err = PgBackRestKey(location.Secret(pass))
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// objects are all objects of the fixtures with WAL, sorted by path.
func objects(t testing.TB) []object {
	t.Helper()
	files, err := fixtures()
	if err != nil {
		t.Fatal(err)
	}
	keys := make(map[string]Key)
	var all []object
	for name, data := range files {
		p, ok := strings.CutPrefix(name, "bucket/")
		if !ok || strings.Contains(p, "archive.info") {
			continue
		}
		form := path.Join(strings.Split(p, "/")[:2]...)
		key, ok := keys[form]
		if !ok {
			key = keyOf(t, form)
			keys[form] = key
		}
		ext := path.Ext(p)
		c, ok := ByExtension(ext)
		if !ok {
			c, ext = Codec{}, ""
		}
		orig := strings.TrimSuffix(path.Base(p), ext)
		if strings.HasPrefix(p, "pgbackrest/") {
			orig, _, _ = strings.Cut(orig, "-")
		}
		all = append(all, object{p, form, orig, Chain{key, c}, data})
	}
	slices.SortFunc(all, func(a, b object) int { return strings.Compare(a.path, b.path) })
	if len(all) != 8*forms {
		t.Fatalf("only %d objects in the fixtures", len(all))
	}
	return all
}

// pick is one object of each form: the one of orig.
func pick(t testing.TB, orig string) []object {
	t.Helper()
	all := slices.DeleteFunc(objects(t), func(o object) bool { return o.orig != orig })
	if len(all) != forms {
		t.Fatalf("%d objects of %s, and not one of each form", len(all), orig)
	}
	return all
}

const (
	someSegment = "000000010000000000000010"
	someBackup  = "000000010000000000000012.00000028.backup" // some 300 bytes
)

// originals are the SHA-256 of the originals by name.
func originals(t testing.TB) map[string]string {
	t.Helper()
	sums := make(map[string]string)
	for line := range strings.Lines(string(fixture(t, "SHA256SUMS.orig"))) {
		if f := strings.Fields(line); len(f) == 2 {
			sums[path.Base(strings.TrimPrefix(f[1], "*"))] = f[0]
		}
	}
	return sums
}

// sum is data's SHA-256 in hexadecimal.
func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

// decode decodes with a limit, and fails the test if it is exceeded or if an error is not one of ours.
func decode(t testing.TB, c Chain, data []byte, limit int64) ([]byte, error) {
	t.Helper()
	var out bytes.Buffer
	n, err := c.Copy(&out, bytes.NewReader(data), limit)
	if n != int64(out.Len()) || n > limit {
		t.Fatalf("%s: Copy says %d bytes, and wrote %d of at most %d", c, n, out.Len(), limit)
	}
	if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrKey) {
		t.Fatalf("%s: an error without one of the causes: %v", c, err)
	}
	return out.Bytes(), err
}
