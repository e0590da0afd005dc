package fetch

import (
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
)

func TestDecodeChunk(t *testing.T) {
	r := &pg.FileRange{Path: "base/5/1", Offset: 8192, Length: 4}
	path, offset := []byte(r.Path), int8Col(r.Offset)
	for name, c := range map[string]struct {
		row  [][]byte
		want string // the data, "gone", or the error
	}{
		"whole":         {[][]byte{path, offset, []byte("abcd")}, "abcd"},
		"short":         {[][]byte{path, offset, []byte("ab")}, "ab"},
		"nothing":       {[][]byte{path, offset, {}}, ""},
		"gone":          {[][]byte{path, offset, nil}, "gone"},
		"too much":      {[][]byte{path, offset, []byte("abcde")}, `received more than requested for file "base/5/1"`},
		"other file":    {[][]byte{[]byte("base/5/2"), offset, []byte("abcd")}, `received data for file "base/5/2", when requested for "base/5/1"`},
		"other gone":    {[][]byte{[]byte("base/5/2"), offset, nil}, `received data for file "base/5/2", when requested for "base/5/1"`},
		"other offset":  {[][]byte{path, int8Col(0), []byte("abcd")}, `received data at offset 0 of file "base/5/1", when requested for offset 8192`},
		"null path":     {[][]byte{nil, offset, []byte("abcd")}, "unexpected null values in result while fetching remote files"},
		"null offset":   {[][]byte{path, nil, []byte("abcd")}, "unexpected null values in result while fetching remote files"},
		"short offset":  {[][]byte{path, {1, 2}, []byte("abcd")}, "unexpected result length while fetching remote files"},
		"columns":       {[][]byte{path, offset}, "unexpected result set size while fetching remote files"},
		"long bad path": {[][]byte{[]byte(strings.Repeat("x", 1<<20)), offset, nil}, `received data for file "` + strings.Repeat("x", maxPath) + `", when requested for "base/5/1"`},
	} {
		chunk, err := decodeChunk(c.row, r)
		got := string(chunk.Data)
		switch {
		case err != nil:
			got = err.Error()
		case chunk.Gone:
			got = "gone"
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}
