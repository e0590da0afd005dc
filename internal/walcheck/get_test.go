package walcheck

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/archive/layout"
	"github.com/fastrewind/fastrewind/internal/fault"
)

func sums(t *testing.T) map[string]string {
	t.Helper()
	files, err := fixtures()
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]string{}
	for line := range strings.Lines(string(files["SHA256SUMS.orig"])) {
		fields := strings.Fields(line)
		list[strings.TrimPrefix(fields[1], "./")] = fields[0]
	}
	if len(list) < 8 {
		t.Fatalf("%d sums", len(list))
	}
	return list
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// TestGet: all kinds of WAL files come out as they were archived, to files and to a writer.
func TestGet(t *testing.T) {
	dir := unpack(t)
	for _, folder := range []string{"walg/zstd", "pgbackrest/lz4", "barman/gz"} {
		a := open(t, Options{SystemID: fixtureSystem}, filepath.Join(dir, "bucket", folder))
		for name, want := range sums(t) {
			path := Destination(name, t.TempDir())
			got, err := a.GetFile(t.Context(), name, path, false)
			if err != nil || sumOf(read(t, path)) != want || got.Size != int64(len(read(t, path))) {
				t.Errorf("%s, %s: %+v, %v", folder, name, got, err)
			}
			var out bytes.Buffer
			if _, err := a.GetTo(t.Context(), name, &out); err != nil || sumOf(out.Bytes()) != want {
				t.Errorf("%s, %s to a writer: %d bytes, %v", folder, name, out.Len(), err)
			}
		}
	}
}

// TestGetRefuses: what is not what its name says never appears, and what is there stays.
func TestGetRefuses(t *testing.T) {
	dir := unpack(t)
	plain := filepath.Join(dir, "bucket", "plain", "lz4")
	other := t.TempDir() // an archive with segments under each other's names
	put(t, filepath.Join(other, seg10+".lz4"), read(t, filepath.Join(plain, seg12+".lz4")))
	put(t, filepath.Join(other, seg13on2+".lz4"), read(t, filepath.Join(plain, seg13+".lz4")))
	whole := read(t, filepath.Join(plain, seg13+".lz4"))
	put(t, filepath.Join(other, seg13+".lz4"), whole[:len(whole)-9])
	put(t, filepath.Join(other, seg12), bytes.Repeat([]byte("no WAL.\n"), 1<<17))
	put(t, filepath.Join(other, "00000002.history"), []byte("no history\n"))

	out := t.TempDir()
	for _, c := range []struct {
		o          Options
		name, want string
		is         error
	}{
		{Options{}, seg10, "it begins at 0/1200000 instead of 0/1000000", nil},
		{Options{SystemID: 7}, seg13on2, "its system identifier is 7710433884157629511 instead of 7", nil},
		{Options{}, seg13, "damaged", layout.ErrDamaged},
		{Options{}, seg12, "", layout.ErrDamaged},
		{Options{}, "00000002.history", "syntax error in history file", nil},
		{Options{}, "000000010000000000000099", "is not in archive", fs.ErrNotExist},
		{Options{}, "../" + seg10, "is not the name of a WAL file", nil},
	} {
		a := open(t, c.o, other)
		path := filepath.Join(out, "file")
		_, err := a.GetFile(t.Context(), c.name, path, false)
		if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v", c.name, err)
		}
		var b bytes.Buffer
		if _, err := a.GetTo(t.Context(), c.name, &b); err == nil || b.Len() > 0 {
			t.Errorf("%s to a writer: %d bytes, %v", c.name, b.Len(), err)
		}
	}
	// A timeline's first segment may begin with a page of the one before.
	if _, err := open(t, Options{}, other).GetFile(t.Context(), seg13on2, filepath.Join(out, "page"), false); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(out)
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestGetExisting(t *testing.T) {
	a := open(t, Options{}, filepath.Join(unpack(t), "bucket", "plain", "gz"))
	path := filepath.Join(t.TempDir(), "file")
	put(t, path, []byte("precious"))
	_, err := a.GetFile(t.Context(), seg10, path, false)
	var f *fault.Error
	if !errors.Is(err, fs.ErrExist) || !errors.As(err, &f) || f.Advice == "" || string(read(t, path)) != "precious" {
		t.Errorf("%v", err)
	}
	// Also if it comes while the segment is fetched.
	late := filepath.Join(t.TempDir(), "late")
	err = publish(late, false, func(f *os.File) error {
		put(t, late, []byte("precious"))
		_, err := f.WriteString("new")
		return err
	})
	if !errors.Is(err, fs.ErrExist) || string(read(t, late)) != "precious" {
		t.Errorf("%v", err)
	}
	if list, err := os.ReadDir(filepath.Dir(late)); err != nil || len(list) != 1 {
		t.Errorf("left behind: %v, %v", list, err)
	}
	if _, err := a.GetFile(t.Context(), seg10, path, true); err != nil || len(read(t, path)) != 1<<20 {
		t.Errorf("%v", err)
	}
	if _, err := a.GetFile(t.Context(), seg10, filepath.Join(path, "below"), true); err == nil {
		t.Error("a file is no directory")
	}
}

// TestGetNextPlace: an archive with a damaged copy is no end if another has a good one.
func TestGetNextPlace(t *testing.T) {
	dir := unpack(t)
	good := filepath.Join(dir, "bucket", "plain", "lz4")
	bad := t.TempDir()
	whole := read(t, filepath.Join(good, seg10+".lz4"))
	put(t, filepath.Join(bad, seg10+".lz4"), whole[:len(whole)-6]) // all blocks are there, the checksum is not
	a := open(t, Options{}, bad, good)
	path := filepath.Join(t.TempDir(), "file")
	got, err := a.GetFile(t.Context(), seg10, path, false)
	if err != nil || sumOf(read(t, path)) != sums(t)[seg10] || !strings.Contains(got.From, good) {
		t.Errorf("%+v, %v, %d bytes, %s", got, err, len(read(t, path)), sumOf(read(t, path)))
	}
}
