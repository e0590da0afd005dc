package pg

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestParseHistory(t *testing.T) {
	real, err := os.ReadFile("testdata/00000002.history")
	if err != nil {
		t.Fatal(err)
	}
	three := History{{1, 0, 0x3000000}, {2, 0x3000000, 0x5000028}, {3, 0x5000028, 0}}
	for _, c := range []struct {
		name, text string
		tli        TLI
		want       History
	}{
		{"timeline 1 has no file", "", 1, History{{TLI: 1}}},
		{"written by a server", string(real), 2, History{{1, 0, 0x16563E8}, {2, 0x16563E8, 0}}},
		{"two switches", "1\t0/3000000\tno recovery target specified\n\n2\t0/5000028\tbefore 2026-01-01 00:00:00+00\n", 3, three},
		{"19's form", "1\t0/03000000\tno recovery target specified\n2\t0/05000028\tx\n", 3, three},
		{"comments and empty lines", "# made by hand\n\n  # indented\n1\t0/3000000\n \t \n2\t0/5000028\t# reason\n", 3, three},
		{"blanks around", " 1  0/3000000  x\n\t2\t\t0/5000028\n", 3, three},
		{"carriage returns", "1\t0/3000000\tx\r\n2\t0/5000028\tx\r\n", 3, three},
		{"no final newline, no reason", "1\t0/3000000\n2\t0/5000028", 3, three},
		{"gaps", "1\t0/3000000\n5\tA/5000028\n", 4294967295, History{{1, 0, 0x3000000}, {5, 0x3000000, 0xA_05000028}, {4294967295, 0xA_05000028, 0}}},
		{"two switches at one place", "1\t0/3000000\n2\t0/3000000\n", 3, History{{1, 0, 0x3000000}, {2, 0x3000000, 0x3000000}, {3, 0x3000000, 0}}},
		{"a file for timeline 1 that is empty", "\n", 1, History{{TLI: 1}}},
	} {
		got, err := ParseHistory([]byte(c.text), c.tli)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.want)
		}
	}
}

func TestParseHistoryErrors(t *testing.T) {
	const (
		syntax   = "syntax error in history file: "
		invalid  = "invalid data in history file: "
		numeric  = "Expected a numeric timeline ID."
		location = "Expected a write-ahead log switchpoint location."
		sequence = "Timeline IDs must be in increasing sequence."
		child    = "Timeline IDs must be less than child timeline's ID."
		places   = "A timeline cannot end at 0/0."
	)
	for _, c := range []struct {
		line   string // the bad one; the first is good
		tli    TLI
		text   string
		detail string
	}{
		{"x\t0/5000000", 3, syntax + "x\t0/5000000", numeric},
		{"\x00\t0/5000000", 3, syntax + "\x00\t0/5000000", numeric},
		{"4294967296\t0/5000000", 3, syntax + "4294967296\t0/5000000", numeric},
		{"2", 3, syntax + "2", location},
		{"2\t", 3, syntax + "2\t", location},
		{"2x\t0/5000000", 3, syntax + "2x\t0/5000000", location},
		{"2\tbefore", 3, syntax + "2\tbefore", location},
		{"2\t5000000", 3, syntax + "2\t5000000", location},
		{"2\t0/", 3, syntax + "2\t0/", location},
		{"2\t/5000000", 3, syntax + "2\t/5000000", location},
		{"2\t0/G", 3, syntax + "2\t0/G", location},
		{"2\t0/500000000", 3, syntax + "2\t0/500000000", location},
		{"1\t0/5000000", 3, invalid + "1\t0/5000000", sequence},
		{"0\t0/5000000", 3, invalid + "0\t0/5000000", sequence},
		{"2\t0/0", 3, invalid + "2\t0/0", places},
		{"3\t0/5000000", 3, "invalid data in history file", child},
		{"4\t0/5000000", 3, "invalid data in history file", child},
	} {
		_, err := ParseHistory([]byte("1\t0/3000000\tx\n"+c.line+"\n"), c.tli)
		var he *HistoryError
		if !errors.As(err, &he) || he.Text != c.text || he.Detail != c.detail {
			t.Errorf("%q: %#v, want %q, %q", c.line, err, c.text, c.detail)
		}
	}
	// A timeline that ends at 0/0 would be taken for one that never ends: the clusters would seem never to have parted.
	_, err := ParseHistory([]byte("1\t0/0\tx\n"), 2)
	var he *HistoryError
	if !errors.As(err, &he) || he.Text != invalid+"1\t0/0\tx" {
		t.Errorf("a switch at 0/0: %#v", err)
	}
}

// TestHistoryGoesBack: after a recovery along timeline 2, which forked off at 0/5000000, to a point before that.
func TestHistoryGoesBack(t *testing.T) {
	h, err := ParseHistory([]byte("1\t0/5000000\tx\n2\t0/3000000\tbefore 2026\n3\t0/7000000\tx\n"), 4)
	want := History{{1, 0, 0x3000000}, {2, 0x3000000, 0x3000000}, {3, 0x3000000, 0x7000000}, {4, 0x7000000, 0}}
	if err != nil || !slices.Equal(h, want) {
		t.Fatalf("%v, %v", h, err)
	}
	const segSize = 1 << 20
	for seg, tli := range map[SegNo]TLI{1: 1, 0x2F: 1, 0x30: 3, 0x4F: 3, 0x6F: 3, 0x70: 4} {
		if got := h.SegmentTLI(seg, segSize); got != tli {
			t.Errorf("segment %d is on timeline %d, want %d", seg, got, tli)
		}
	}
	for l, tli := range map[LSN]TLI{0x2FFFFFF: 1, 0x3000000: 3, 0x4000000: 3} {
		if got := h.TLIAt(l); got != tli {
			t.Errorf("%v is on timeline %d, want %d", l, got, tli)
		}
	}
	// The servers that stayed on the timelines that it left.
	for _, other := range []History{{{1, 0, 0x5000000}, {2, 0x5000000, 0}}, {{1, 0, 0}}} {
		if _, lsn, ok := CommonAncestor(h, other); !ok || lsn != 0x3000000 {
			t.Errorf("with %v: %v, %v", other, lsn, ok)
		}
	}
}

func TestCommonAncestor(t *testing.T) {
	one := History{{1, 0, 0}}
	for _, c := range []struct {
		name string
		a, b History
		i    int
		lsn  LSN
		ok   bool
	}{
		{"failover", History{{1, 0, 500}, {2, 500, 0}}, one, 0, 500, true},
		{"two failovers, target behind", History{{1, 0, 500}, {2, 500, 900}, {3, 900, 0}}, one, 0, 500, true},
		{"1-2-3 against 1-2-4", History{{1, 0, 500}, {2, 500, 900}, {3, 900, 0}}, History{{1, 0, 500}, {2, 500, 700}, {4, 700, 0}}, 1, 700, true},
		{"1-2 against 1-3", History{{1, 0, 500}, {2, 500, 0}}, History{{1, 0, 400}, {3, 400, 0}}, 0, 400, true},
		{"source went on along the target's timeline", History{{1, 0, 500}, {2, 500, 900}, {3, 900, 0}}, History{{1, 0, 500}, {2, 500, 0}}, 1, 900, true},
		{"target is the descendant", one, History{{1, 0, 500}, {2, 500, 0}}, 0, 500, true},
		{"the same number, another place", History{{1, 0, 500}, {2, 500, 0}}, History{{1, 0, 400}, {2, 400, 0}}, 0, 400, true},
		{"the same", History{{1, 0, 500}, {2, 500, 0}}, History{{1, 0, 500}, {2, 500, 0}}, 1, math.MaxUint64, true},
		{"nothing in common", History{{2, 0, 0}}, one, 0, 0, false},
		{"nothing in common but later numbers", History{{1, 0, 500}, {3, 500, 0}}, History{{2, 0, 500}, {3, 500, 0}}, 0, 0, false},
	} {
		for range 2 {
			if i, lsn, ok := CommonAncestor(c.a, c.b); i != c.i || lsn != c.lsn || ok != c.ok {
				t.Errorf("%s: %d, %v, %v, want %d, %v, %v", c.name, i, lsn, ok, c.i, c.lsn, c.ok)
			}
			c.a, c.b = c.b, c.a // in either order
		}
	}
}

func TestTimelineOf(t *testing.T) {
	const size = 1 << 20
	// 2 begins within segment 3, 4 at the start of segment 5, 5 and 6 within segment 7.
	h := History{{1, 0, 0x345678}, {2, 0x345678, 0x500000}, {4, 0x500000, 0x710000}, {5, 0x710000, 0x720000}, {6, 0x720000, 0}}
	for seg, want := range map[SegNo]TLI{0: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 6, 8: 6, 1 << 40: 6} {
		if got := h.SegmentTLI(seg, size); got != want {
			t.Errorf("segment %d is on timeline %d, want %d", seg, got, want)
		}
	}
	for lsn, want := range map[LSN]TLI{
		0: 1, 0x345677: 1, 0x345678: 2, 0x4FFFFF: 2, 0x500000: 4, 0x70FFFF: 4, 0x710000: 5, 0x71FFFF: 5, 0x720000: 6, math.MaxUint64: 6,
	} {
		if got := h.TLIAt(lsn); got != want {
			t.Errorf("%v is on timeline %d, want %d", lsn, got, want)
		}
	}
	if h.TLI() != 6 {
		t.Errorf("the current timeline is %d", h.TLI())
	}
}

// encode writes a history as a server does (writeTimeLineHistory, timeline.c).
func encode(h History) []byte {
	var b []byte
	for i, s := range h[:len(h)-1] {
		if i > 0 {
			b = append(b, '\n')
		}
		b = fmt.Appendf(b, "%d\t%v\tno recovery target specified\n", s.TLI, s.End)
	}
	return b
}

func TestHistoryRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		var h History
		tli, at := TLI(0), LSN(0)
		for range rng.IntN(30) {
			tli += 1 + TLI(rng.Uint32N(1000))
			end := at + 1 + LSN(rng.Uint64()>>(10+rng.IntN(50)))
			h = append(h, TimelineSpan{tli, at, end})
			at = end
		}
		h = append(h, TimelineSpan{TLI: tli + 1, Begin: at})
		got, err := ParseHistory(encode(h), tli+1)
		if err != nil || !slices.Equal(got, h) {
			t.Fatalf("%v is read as %v, %v", h, got, err)
		}
	}
}

// FuzzHistory: what is read is a history: ascending, without gaps, open at its end; written again, it reads the same.
func FuzzHistory(f *testing.F) {
	f.Add([]byte("1\t0/16563E8\tno recovery target specified\n"), uint32(2))
	f.Add([]byte("# comment\n\n 1\t0/3000000\n2\tA/5000028\tx\r\n"), uint32(7))
	f.Add([]byte("1\t0/0\n"), uint32(2))
	f.Add([]byte{}, uint32(1))
	f.Fuzz(func(t *testing.T, data []byte, tli uint32) {
		h, err := ParseHistory(data, TLI(tli))
		var he *HistoryError
		if err != nil {
			if !errors.As(err, &he) || he.Text == "" || he.Detail == "" {
				t.Fatalf("%q: %#v", data, err)
			}
			return
		}
		if len(h) == 0 || len(h) > len(data)+1 || h.TLI() != TLI(tli) || h[0].Begin != 0 || h[len(h)-1].End != 0 {
			t.Fatalf("%q: %v", data, h)
		}
		for i := 1; i < len(h); i++ {
			if h[i].TLI <= h[i-1].TLI || h[i].Begin != h[i-1].End || h[i].Begin < h[i-1].Begin || h[i].Begin == 0 {
				t.Fatalf("%q: %v", data, h)
			}
		}
		if again, err := ParseHistory(encode(h), TLI(tli)); err != nil || !slices.Equal(again, h) {
			t.Fatalf("%q is read as %v, then as %v, %v", data, h, again, err)
		}
		// Every timeline that says to hold a segment is one of the history.
		for _, s := range h {
			if got := h.SegmentTLI(s.Begin.Seg(1<<24), 1<<24); !slices.ContainsFunc(h, func(s TimelineSpan) bool { return s.TLI == got }) {
				t.Fatalf("%v: segment of %v on timeline %d", h, s.Begin, got)
			}
		}
	})
}

func TestHistoryName(t *testing.T) {
	if got := HistoryName(0xAB); got != "000000AB.history" || strings.ToUpper(got[:8]) != got[:8] {
		t.Error(got)
	}
}
