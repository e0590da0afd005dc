package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
)

func TestIdentity(t *testing.T) {
	le := binary.LittleEndian
	tests := []struct {
		what   string
		change func(b []byte)
		want   string // part of the reason; empty: it is accepted
	}{
		{"intact", func([]byte) {}, ""},
		{"it begins with the rest of a record", func(b []byte) { b[2] |= 1 }, ""},
		{"another version", func(b []byte) { b[0]++ }, "invalid magic number D111, expected D110 for version 15"},
		{"zeros", func(b []byte) { clear(b) }, "invalid magic number 0000"},
		{"no long header", func(b []byte) { b[2] = 0 }, "invalid info bits 0000"},
		{"unknown flags", func(b []byte) { b[3] = 0x80 }, "invalid info bits 8002"},
		{"another cluster", func(b []byte) { le.PutUint64(b[24:], 42) },
			"WAL file is from different database system: WAL file database system identifier is 42, pg_control database system identifier is 7710427983572053948"},
		{"another segment size", func(b []byte) { le.PutUint32(b[32:], 16<<20) }, "segment size in page header is 16777216, expected 1048576"},
		{"another page size", func(b []byte) { le.PutUint32(b[36:], 16384) }, "XLOG_BLCKSZ in page header is 16384, expected 8192"},
		{"another place", func(b []byte) { le.PutUint64(b[8:], 7<<20) }, "unexpected pageaddr 0/700000, expected 0/500000"},
		{"a later timeline", func(b []byte) { le.PutUint32(b[4:], 2) }, "it begins on timeline 2, expected 1"},
		{"no timeline", func(b []byte) { le.PutUint32(b[4:], 0) }, "it begins on timeline 0, expected 1"},
	}
	for _, tt := range tests {
		id := identity(t)
		b := content(5)
		tt.change(b)
		err := id.check(bytes.NewReader(b), "NAME", 1, 5)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.what, err)
		case tt.want != "" && (!errors.Is(err, ErrWrongSegment) || !strings.HasPrefix(err.Error(), `"NAME" is not the WAL segment it is named after: `) ||
			!strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %s", tt.what, err, tt.want)
		}
	}
	id := identity(t)
	id.SystemID = 0
	b := content(5)
	b[24]++
	if err := id.check(bytes.NewReader(b), "NAME", 1, 5); err != nil {
		t.Errorf("system identifier not known: %v", err)
	}
	if err := id.check(bytes.NewReader(b[:39]), "NAME", 1, 5); err == nil || errors.Is(err, ErrWrongSegment) {
		t.Errorf("cut short: %v", err)
	}
}

// The segment in which a timeline forked off begins with pages of the one before (XLogFileCopy).
func TestIdentityTimelines(t *testing.T) {
	const at = segSize // timeline 2 forked off within segment 5, timeline 3 just where segment 8 begins
	history := pg.History{{TLI: 1, End: 5*at + 0x2000}, {TLI: 2, Begin: 5*at + 0x2000, End: 8 * at}, {TLI: 3, Begin: 8 * at}}
	tests := []struct {
		tli, page pg.TLI
		seg       pg.SegNo
		ok        bool
	}{
		{1, 1, 4, true},
		{2, 1, 5, true},  // copied from timeline 1
		{2, 2, 5, false}, // the fork lies behind the page
		{2, 2, 6, true},
		{2, 1, 6, false}, // timeline 1 had ended
		{2, 3, 6, false},
		{3, 3, 8, true},
		{3, 2, 8, true}, // a page prepared by the server before it was promoted
		{3, 1, 8, false},
		{3, 2, 9, false},
		{7, 2, 9, true}, // of a timeline of which nothing is known, all that is certain is that none follows it
		{7, 8, 9, false},
	}
	for _, tt := range tests {
		id := identity(t)
		id.Histories = []pg.History{history}
		if tt.tli == 7 {
			id.Histories = nil
		}
		b := content(tt.seg)
		binary.LittleEndian.PutUint32(b[4:], uint32(tt.page))
		if err := id.check(bytes.NewReader(b), "NAME", tt.tli, tt.seg); (err == nil) != tt.ok {
			t.Errorf("page of timeline %d in segment %d of timeline %d: %v", tt.page, tt.seg, tt.tli, err)
		}
	}
}
