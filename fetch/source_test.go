package fetch

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// advice is the advice of an error, or empty.
func advice(err error) string {
	if f, ok := err.(*fault.Error); ok {
		return f.Advice
	}
	return ""
}

func TestVerifyPath(t *testing.T) {
	long := strings.Repeat("x", 255)
	for _, path := range []string{
		"PG_VERSION", "base/1/1259", "pg_tblspc/16385/PG_15_202209061/5/16384.1", "a b", "..a", "a..", "...", "ä/ö",
		`quote'"\`, long, long + "/" + long + "/" + long + "/" + long,
	} {
		if err := VerifyPath(path); err != nil {
			t.Errorf("%q: %v (%s)", path, err, advice(err))
		}
	}
	for path, why := range map[string]string{
		"":                        "is empty",
		"/etc/passwd":             "is absolute",
		"..":                      `component ".."`,
		"../x":                    `component ".."`,
		"a/../b":                  `component ".."`,
		"a/..":                    `component ".."`,
		"./a":                     `component "."`,
		"a/.":                     `component "."`,
		"a//b":                    "empty component",
		"a/":                      "empty component",
		"a\x00b":                  "control character 0x00",
		"a\nb":                    "control character 0x0a",
		"a\x7f":                   "control character 0x7f",
		"a\xffb":                  "not valid UTF-8",
		long + "x":                "more than 255 bytes",
		strings.Repeat("x/", 600): "longer than",
	} {
		err := VerifyPath(path)
		if err == nil || !strings.Contains(advice(err), why) || !strings.HasPrefix(err.Error(), "source path is unsafe: ") {
			t.Errorf("%q: got %v (%s), want %s", path, err, advice(err), why)
		}
	}
}

func TestCheckRanges(t *testing.T) {
	ok := pg.FileRange{Path: "a", Offset: 1 << 40, Length: MaxChunk}
	if err := checkRanges([]pg.FileRange{ok, ok, {Path: "b", Length: 1}}, VerifyPath); err != nil {
		t.Error(err)
	}
	for name, r := range map[string]pg.FileRange{
		"empty":    {Path: "a"},
		"negative": {Path: "a", Length: -1},
		"too long": {Path: "a", Length: MaxChunk + 1},
		"before":   {Path: "a", Offset: -1, Length: 1},
		"beyond":   {Path: "a", Offset: 1 << 62, Length: 1},
		"unsafe":   {Path: "../a", Length: 1},
	} {
		if err := checkRanges([]pg.FileRange{ok, r}, VerifyPath); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
