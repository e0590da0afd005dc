package journal

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/scan"
)

func dumped(t testing.TB, b []byte) string {
	t.Helper()
	var out bytes.Buffer
	must(t, Dump(&out, bytes.NewReader(b), int64(len(b))))
	return out.String()
}

// small is a journal with one record of each kind.
func small(t testing.TB) *written {
	t.Helper()
	blocks := scan.NewBlockMap(0)
	in := blocks.NewInserter()
	for _, b := range []pg.BlockNo{0, 1, 2, 7, 131071, 131072} {
		in.Add(pg.Rel{Tablespace: 1663, Database: 5, Number: 16384}, b)
	}
	for i := range pg.BlockNo(20) {
		in.Add(pg.Rel{Tablespace: 1664, Number: 1262}, 2*i)
	}
	one := sampleSession(1)
	return write(t, true, blocks, []step{
		{session: &one},
		{touched: []File{{"base/5/16384", 8192}, {"evil\n\x1b[31m\xff", Absent}}},
		{done: []File{{"base/5/16384", 16384}}, bound: 0x9000060},
		{mark: &Mark{Phase: Finishing, Time: time.Unix(1790000009, 0), Value: 0xdeadbeef}},
	})
}

func TestDump(t *testing.T) {
	w := small(t)
	got := dumped(t, w.bytes)
	for _, want := range []string{
		fmt.Sprintf("journal, format version 1, run %x, %d bytes\n", w.bytes[12:28], len(w.bytes)),
		"byte 32: frame 0: facts, ",
		"\tsystem identifier 18446744073709551610, control version 1300, catalog version 202209061, WAL segments of 16777216 bytes\n",
		"\ttarget: timeline 2, WAL ends at 0/9000000, diverged at 0/3000100\n",
		"\tcheckpoint 0/2000060, redo 0/2000028, timeline 1\n",
		"\tcontrol file of 8192 bytes: ",
		"\tbackup_label of 0 bytes\n",
		"\thistory of 41 bytes\n\t\t\"1\\t0/3000000\\tno recovery target specified\"\n",
		"\trel 1663/5/16384 segment 0: 5 blocks: 0-2 7 131071\n\trel 1663/5/16384 segment 1: 1 blocks: 0\n",
		"\trel 1664/0/1262 segment 0: 20 blocks: 0 2 4 6 8 10 12 14 16 18 20 22 24 26 28 30 … up to 38\n",
		"\t1 map records, 3 files, 26 blocks\n",
		"\tsession 1 at 2026-09-21 14:13:21 +0000 UTC, source: directory, fsync: true, restart: false\n",
		"\ttimeline 1 from 0/0 to 0/3000000\n\ttimeline 3 from 0/3000000\n",
		"\t        8192 \"base/5/16384\"\n\t      absent \"evil\\n\\x1b[31m\\xff\"\n",
		"\tby session 1, no page newer than 0/9000060\n\t       16384 \"base/5/16384\"\n",
		"\tsession 1: finishing at 2026-09-21 14:13:29 +0000 UTC, value 3735928559 (0xdeadbeef)\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("missing: %q", want)
		}
	}
	if strings.Contains(got, "damaged") || strings.Contains(got, "not as it should be") {
		t.Error("damage where there is none")
	}
	if t.Failed() {
		t.Log(got)
	}
}

// TestDumpDamaged: whatever is broken, the records behind it are printed.
func TestDumpDamaged(t *testing.T) {
	w := small(t)
	last := "value 3735928559"
	for name, c := range map[string]struct {
		damage func(b []byte) []byte
		want   []string
	}{
		"a record in the middle": {func(b []byte) []byte { b[w.ends[1]+frameHeader] ^= 1; return b },
			[]string{fmt.Sprintf("damaged: byte %d: CRC of the frame is ", w.ends[1]), "by session 1", last}},
		"a length": {func(b []byte) []byte { b[w.ends[1]+8] ^= 0xff; return b },
			[]string{fmt.Sprintf("damaged: byte %d: ", w.ends[1]), last}},
		"zeros over two records": {func(b []byte) []byte { clear(b[w.ends[1]:w.ends[3]]); return b },
			[]string{"no frame begins with 00 00 00 00", fmt.Sprintf("passed over %d bytes", w.ends[3]-w.ends[1]), last}},
		"the magic": {func(b []byte) []byte { b[0] = 'X'; return b },
			[]string{"damaged: byte 0: ", "is not a journal", "byte 32: frame 0: facts", "base/5/16384", last}},
		"the run": {func(b []byte) []byte { b[13] ^= 1; return b },
			[]string{"damaged: byte 0: ", "CRC of the first 32 bytes", "byte 32: frame 0: facts", "base/5/16384", last}},
		"the whole beginning": {func(b []byte) []byte { clear(b[:5000]); return b },
			[]string{"damaged: byte 0: ", "rel 1664/0/1262", "session 1 at", "base/5/16384", last}},
		"the end": {func(b []byte) []byte { return b[:len(b)-1] },
			[]string{"by session 1", fmt.Sprintf("damaged: byte %d: a frame of", w.ends[3])}},
		"nothing there": {func([]byte) []byte { return nil }, []string{"damaged: byte 0: "}},
	} {
		t.Run(name, func(t *testing.T) {
			got := dumped(t, c.damage(bytes.Clone(w.bytes)))
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("missing: %q in\n%s", want, got)
				}
			}
		})
	}
	newer := append(preamble{version: 2}.encode(), w.bytes[preambleSize:]...)
	if err := Dump(io.Discard, bytes.NewReader(newer), int64(len(newer))); err == nil || !strings.Contains(err.Error(), "format version 2") {
		t.Errorf("a newer version: %v", err)
	}
	if err := Dump(failing{}, bytes.NewReader(w.bytes), int64(len(w.bytes))); err != io.ErrClosedPipe {
		t.Errorf("a writer that fails: %v", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestDumpEveryByte changes every byte: the dump comes to its end, and says that something is wrong.
func TestDumpEveryByte(t *testing.T) {
	w := small(t)
	b := w.bytes
	for n := range b {
		if n > 500 && int64(n) < w.ends[0]-200 && n%37 > 0 || testing.Short() && n%3 > 0 {
			continue // the control file is long
		}
		b[n] ^= 0xff
		if got := dumped(t, b); !strings.Contains(got, "damaged: byte ") {
			t.Errorf("byte %d:\n%s", n, got)
		}
		b[n] ^= 0xff
	}
}

func fuzzSeeds(f *testing.F) {
	w := small(f)
	f.Add(w.bytes)
	f.Add(w.bytes[:len(w.bytes)-3])
	middle := bytes.Clone(w.bytes)
	middle[w.ends[1]+30] ^= 4
	f.Add(middle)
	f.Add(forged(f, forgery{kindTouched, []byte{0, 1, 'a', 1, 1, 1, 'b', 0}}))
	f.Add(preamble{version: 2}.encode())
	f.Add([]byte(magic))
}

// repaired makes the CRCs of what looks like a preamble and frames right, so that what is behind them is reached.
func repaired(b []byte) []byte {
	b = bytes.Clone(b)
	if len(b) < preambleSize {
		return b
	}
	p, _ := decodePreamble(b)
	copy(b, preamble{version: Version, run: p.run}.encode())
	out := b[:preambleSize:preambleSize]
	for number, at := uint32(0), int64(preambleSize); int64(len(b))-at >= frameHeader; number++ {
		f, _, n := decodeHeader(b[at:], at)
		n = min(n, maxPayload, len(b)-int(at)-frameHeader)
		f.payload, f.number, f.tag = b[at+frameHeader:][:n], number, tagOf(p.run)
		out = appendFrame(out, &f)
		at = f.end()
	}
	return out
}

func FuzzLoad(f *testing.F) {
	fuzzSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, repaired(b)} {
			s, err := loadBytes(b)
			if s == nil {
				if err == nil {
					t.Fatal("neither state nor error")
				}
				continue
			}
			// What is proven, alone, is the same journal without damage.
			again, err := loadBytes(b[:s.Proven])
			if err != nil || again.Proven != s.Proven || !modelOf(again).equal(modelOf(s)) {
				t.Fatalf("%v", err)
			}
		}
	})
}

func FuzzDump(f *testing.F) {
	fuzzSeeds(f)
	f.Fuzz(func(_ *testing.T, b []byte) {
		for _, b := range [][]byte{b, repaired(b)} {
			_ = Dump(io.Discard, bytes.NewReader(b), int64(len(b))) // a newer version, perhaps
		}
	})
}

// TestControlInDump shows a real control file's contents, if it is one.
func TestControlInDump(t *testing.T) {
	files, err := filepath.Glob("../pg/testdata/*")
	must(t, err)
	shown := false
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil || len(data) != pg.ControlSize {
			continue
		}
		if _, err := pg.DecodeControl(data); err != nil {
			continue
		}
		f := sampleFacts()
		f.Control = data
		b := forge(preamble{version: Version}.encode(), RunID{}, 0, forgery{kindFacts, f.encode()}, forgery{kindHeadEnd, headEnd{}.encode()})
		if got := dumped(t, b); !strings.Contains(got, "control file of 8192 bytes: PostgreSQL ") {
			t.Errorf("%s:\n%s", name, got)
		}
		shown = true
	}
	if !shown {
		t.Error("no control file found")
	}
}
