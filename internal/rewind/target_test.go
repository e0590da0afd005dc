package rewind

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// TestUnknownVersion: a cluster that is in no row of the table is refused in stock's words, with its numbers and what to do.
func TestUnknownVersion(t *testing.T) {
	for _, tt := range []struct {
		control, catalog uint32
		advice           []string
	}{
		{1905, 202610062, []string{
			"pg_control version 1905 and catalog version 202610062", "a beta or release candidate of PostgreSQL 19",
			"Use a newer fastrewind, or the pg_rewind that came with that server.",
		}},
		{2001, 202710011, []string{
			"The target /data has pg_control version 2001 and catalog version 202710011", "knows the PostgreSQL majors [13 14 15 16 17 18 19] only",
			"Use a newer fastrewind, or the pg_rewind of that major.",
		}},
		{1201, 201909212, []string{"pg_control version 1201", "Use a newer fastrewind, or the pg_rewind of that major."}},
	} {
		data, err := os.ReadFile("../pg/testdata/19.pg_control")
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for at := 224; at < 512; at += 4 {
			if binary.LittleEndian.Uint32(data[at:]) == pg.CRC32C(data[:at]) {
				binary.LittleEndian.PutUint32(data[8:], tt.control)
				binary.LittleEndian.PutUint32(data[12:], tt.catalog)
				binary.LittleEndian.PutUint32(data[at:], pg.CRC32C(data[:at]))
				found++
			}
		}
		if found != 1 {
			t.Fatalf("%d checksums in the example", found)
		}
		_, err = decodeControl(data, "target", "/data")
		var f *fault.Error
		if !errors.As(err, &f) || f.Text != "clusters are not compatible with this version of pg_rewind" || !f.Own {
			t.Fatalf("%d, %d: %+v", tt.control, tt.catalog, err)
		}
		for _, want := range tt.advice {
			if !strings.Contains(f.Advice, want) {
				t.Errorf("%d, %d: %q does not say %q", tt.control, tt.catalog, f.Advice, want)
			}
		}
	}
}

// TestSegmentSizeInWords: the message keeps its arguments, so that it can be said in 17's words.
func TestSegmentSizeInWords(t *testing.T) {
	data, err := os.ReadFile("../pg/testdata/15.pg_control")
	if err != nil {
		t.Fatal(err)
	}
	c, err := pg.DecodeControl(data)
	if err != nil {
		t.Fatal(err)
	}
	at := -1
	for i := 16; i < 288; i += 4 {
		if binary.LittleEndian.Uint32(data[i:]) == c.SegSize {
			at = i
		}
	}
	binary.LittleEndian.PutUint32(data[at:], 5)
	_, err = decodeControl(data, "target", "/data")
	var f *fault.Error
	if !errors.As(err, &f) || !strings.HasSuffix(f.Text, "but the control file specifies 5 bytes") {
		t.Fatalf("got %v", err)
	}
	if m := f.Message(); len(m.Args) != 2 || m.String() != f.Text {
		t.Errorf("got %+v", m)
	}
}
