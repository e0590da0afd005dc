package fetch

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
)

func int8Col(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

var yes, no = []byte{1}, []byte{0}

func TestDecodeListRow(t *testing.T) {
	prefixes := []string{"", "base/5/", "pg_tblspc/"}
	for name, c := range map[string]struct {
		row    [][]byte
		entry  pg.Entry
		dir    bool
		listed bool
		err    string
	}{
		"file":        {[][]byte{int8Col(2), []byte("1259"), int8Col(8192), no, nil}, pg.Entry{Path: "base/5/1259", Type: pg.RegularFile, Size: 8192}, false, true, ""},
		"directory":   {[][]byte{int8Col(1), []byte("base"), int8Col(4096), yes, nil}, pg.Entry{Path: "base", Type: pg.Directory}, true, true, ""},
		"tablespace":  {[][]byte{int8Col(3), []byte("16385"), int8Col(4096), yes, []byte("/ts")}, pg.Entry{Path: "pg_tblspc/16385", Type: pg.SymbolicLink, LinkTarget: "/ts"}, true, true, ""},
		"in place":    {[][]byte{int8Col(3), []byte("16385"), int8Col(4096), yes, []byte("pg_tblspc/16385")}, pg.Entry{Path: "pg_tblspc/16385", Type: pg.Directory}, true, true, ""},
		"no location": {[][]byte{int8Col(3), []byte("x"), int8Col(4096), yes, {}}, pg.Entry{Path: "pg_tblspc/x", Type: pg.Directory}, true, true, ""},
		"vanished":    {[][]byte{int8Col(1), []byte("x"), nil, nil, nil}, pg.Entry{}, false, false, ""},
		"traversal":   {[][]byte{int8Col(1), []byte(".."), int8Col(1), no, nil}, pg.Entry{}, false, false, "unsafe"},
		"path":        {[][]byte{int8Col(1), []byte("a/b"), int8Col(1), no, nil}, pg.Entry{}, false, false, "unsafe"},
		"empty":       {[][]byte{int8Col(1), {}, int8Col(1), no, nil}, pg.Entry{}, false, false, "unsafe"},
		"long":        {[][]byte{int8Col(1), bytes.Repeat([]byte("x"), 5000), int8Col(1), no, nil}, pg.Entry{}, false, false, "unsafe"},
		"bad link":    {[][]byte{int8Col(3), []byte("1"), int8Col(1), yes, []byte("/a\nb")}, pg.Entry{}, false, false, "unsafe"},
		"negative":    {[][]byte{int8Col(1), []byte("x"), int8Col(-1), no, nil}, pg.Entry{}, false, false, "impossible file size"},
		"absurd":      {[][]byte{int8Col(1), []byte("x"), int8Col(1 << 60), no, nil}, pg.Entry{}, false, false, "impossible file size"},
		"which?":      {[][]byte{int8Col(4), []byte("x"), int8Col(1), no, nil}, pg.Entry{}, false, false, "not asked for"},
		"zeroth":      {[][]byte{int8Col(0), []byte("x"), int8Col(1), no, nil}, pg.Entry{}, false, false, "not asked for"},
		"short":       {[][]byte{int8Col(1), []byte("x")}, pg.Entry{}, false, false, "another form"},
		"text size":   {[][]byte{int8Col(1), []byte("x"), []byte("12"), no, nil}, pg.Entry{}, false, false, "another form"},
		"null name":   {[][]byte{int8Col(1), nil, int8Col(1), no, nil}, pg.Entry{}, false, false, "another form"},
	} {
		e, dir, listed, err := decodeListRow(c.row, prefixes)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error()+advice(err), c.err) {
				t.Errorf("%s: got %v, want %s", name, err, c.err)
			}
			continue
		}
		if err != nil || e != c.entry || dir != c.dir || listed != c.listed {
			t.Errorf("%s: got %+v %v %v %v", name, e, dir, listed, err)
		}
	}
}

func TestSplitLevel(t *testing.T) {
	var level []string
	for i := range 100 {
		level = append(level, "d"+string(rune('a'+i%26))+strings.Repeat("x", i))
	}
	level[7] = tablespaceDir
	var got []string
	for dirs := range splitLevel(level, 2) {
		if len(dirs) > maxDirsPerQuery || slices.Contains(dirs, tablespaceDir) && len(dirs) != 1 {
			t.Errorf("%q", dirs)
		}
		got = append(got, dirs...)
	}
	slices.Sort(got)
	slices.Sort(level)
	if !slices.Equal(got, level) {
		t.Errorf("got %q", got)
	}
}

// A row of a file list may hold anything: it is refused, or it gives an entry that is safe to act on.
func FuzzFileList(f *testing.F) {
	f.Add(int8Col(1), []byte("base"), int8Col(4096), yes, []byte(nil), uint8(0))
	f.Add(int8Col(3), []byte("16385"), int8Col(4096), yes, []byte("/ts"), uint8(0))
	f.Add(int8Col(2), []byte("../../etc"), int8Col(-1), no, []byte("x"), uint8(4))
	f.Add([]byte{}, []byte("a/b\x00"), []byte{1}, []byte{}, []byte{}, uint8(31))
	prefixes := []string{"", "base/5/", "pg_tblspc/"}
	f.Fuzz(func(t *testing.T, n, name, size, isDir, link []byte, nulls uint8) {
		row := [][]byte{n, name, size, isDir, link}
		for i := range row {
			if nulls&(1<<i) != 0 {
				row[i] = nil
			}
		}
		row = row[:len(row)-int(nulls>>5)%len(row)]
		e, dir, listed, err := decodeListRow(row, prefixes)
		if err != nil || !listed {
			if e != (pg.Entry{}) || dir || listed {
				t.Fatalf("%+v %v %v with %v", e, dir, listed, err)
			}
			return
		}
		if err := VerifyPath(e.Path); err != nil {
			t.Fatalf("%q: %s", e.Path, advice(err))
		}
		parent := e.Path[:strings.LastIndexByte(e.Path, '/')+1]
		if !slices.Contains(prefixes, parent) {
			t.Fatalf("%q is in none of the directories asked for", e.Path)
		}
		switch e.Type {
		case pg.RegularFile:
			if dir || e.Size < 0 || e.Size > maxFileSize || e.LinkTarget != "" {
				t.Fatalf("%+v", e)
			}
		case pg.Directory:
			if !dir || e.Size != 0 || e.LinkTarget != "" {
				t.Fatalf("%+v", e)
			}
		case pg.SymbolicLink:
			if e.Size != 0 || e.LinkTarget[0] != '/' || strings.ContainsAny(e.LinkTarget, "\x00\n") {
				t.Fatalf("%+v", e)
			}
		default:
			t.Fatalf("%+v", e)
		}
	})
}
