package walcheck

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/archive/location"
)

// listing is all items of an archive's only place, a line each.
func listing(t *testing.T, a *Archives, segSize uint32) []string {
	t.Helper()
	var lines []string
	err := List(t.Context(), a.Places[0], segSize, func(i Item) error {
		line := string(i.Kind)
		switch i.Kind {
		case Timeline:
			line += fmt.Sprintf(" %d%s", i.TLI, i.Cluster)
			if i.HasHistory {
				line += fmt.Sprintf(" from %d at %v", i.Parent, i.Switch)
			}
			if i.Problem != nil {
				line += " problem"
			}
		case Total:
			line += fmt.Sprintf(" %d in %d, misnamed %d", i.Segments, i.Objects, i.Misnamed)
		default:
			line += fmt.Sprintf(" %s-%s %d in %d", i.First, i.Last, i.Segments, i.Objects)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %s\nwant %s", what, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

// TestListFixtures: every layout gives the same listing.
func TestListFixtures(t *testing.T) {
	dir := unpack(t)
	for _, folder := range []string{"walg/lz4", "pgbackrest/gz", "barman/bz2", "plain/zst"} {
		a := open(t, Options{}, filepath.Join(dir, "bucket", folder))
		c, err := a.Identify(t.Context(), a.Places[0])
		if err != nil || c.SystemID != fixtureSystem || c.SegSize != 1<<20 || c.Version == nil || c.Version.Major != 15 {
			t.Errorf("%s: %+v, %v", folder, c, err)
		}
		id := ""
		if a.Places[0].Archive().Layout == location.PgBackRest {
			id = "15-1"
		}
		same(t, folder, listing(t, a, c.SegSize), []string{
			"timeline 1" + id,
			"range " + seg10 + "-" + seg13 + " 4 in 4",
			"backup " + seg12 + ".00000028.backup-" + seg12 + ".00000028.backup 0 in 1",
			"partial " + seg13 + ".partial-" + seg13 + ".partial 0 in 1",
			"timeline 2" + id + " from 1 at 0/13000F0",
			"range " + seg13on2 + "-" + seg13on2 + " 1 in 1",
			"total 5 in 8, misnamed 0",
		})
	}
}

// TestListGaps: ranges end at gaps, across log files and timelines; encodings and what is no WAL do not break them.
func TestListGaps(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{
		"00000001000000000000000E.gz", "00000001000000000000000F.gz", "00000001000000000000000F.zst", "00000001000000000000000F.json",
		"000000010000000000000013.gz",
		"0000000100000000000000FF.gz", "000000010000000100000000.gz", "000000010000000100000005.00000028.backup", "000000010000000000000013.00000028.backup",
		"000000010000000000000113.gz", // no segment of 16 MB has this name
		"00000002.history",
		"000000020000000100000001",
		"00000003.history.gz", // not gzip
		"000000050000000100000001.lz4",
		"README",
	} {
		put(t, filepath.Join(dir, name), []byte("1\t0/13000060\treason\n"))
	}
	o := Options{}
	o.Layout = string(location.Plain)
	a := open(t, o, dir)
	same(t, "gaps", listing(t, a, 16<<20), []string{
		"timeline 1",
		"range 00000001000000000000000E-00000001000000000000000F 2 in 3",
		"gap 000000010000000000000010-000000010000000000000012 3 in 0",
		"range 000000010000000000000013-000000010000000000000013 1 in 1",
		"backup 000000010000000000000013.00000028.backup-000000010000000000000013.00000028.backup 0 in 1",
		"gap 000000010000000000000014-0000000100000000000000FE 235 in 0",
		"range 0000000100000000000000FF-000000010000000100000000 2 in 2",
		"backup 000000010000000100000005.00000028.backup-000000010000000100000005.00000028.backup 0 in 1",
		"timeline 2 from 1 at 0/13000060",
		"range 000000020000000100000001-000000020000000100000001 1 in 1",
		"timeline 3 from 0 at 0/0 problem",
		"timeline 5",
		"range 000000050000000100000001-000000050000000100000001 1 in 1",
		"total 7 in 13, misnamed 1",
	})
	if _, err := a.Identify(t.Context(), a.Places[0]); err == nil {
		t.Error("it is clear of which cluster these are")
	}
	enough := errors.New("enough")
	n := 0
	err := List(t.Context(), a.Places[0], 16<<20, func(Item) error {
		if n++; n == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || n != 3 {
		t.Errorf("after %d items: %v", n, err)
	}
}

// TestListAside: labels among the segments of one range do not break it, and do not pile up.
func TestListAside(t *testing.T) {
	dir := t.TempDir()
	const n = maxAside + 50
	for i := range n {
		name := fmt.Sprintf("%08X%08X%08X", 1, i/256, i%256)
		for _, suffix := range []string{"", ".00000028.backup"} {
			if err := os.WriteFile(filepath.Join(dir, name+suffix), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	o := Options{}
	o.Layout = string(location.Plain)
	a := open(t, o, dir)
	lines := listing(t, a, 16<<20)
	ranges := slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return !strings.HasPrefix(l, "range") })
	if len(lines) != n+3 || len(ranges) != 1 || !strings.HasSuffix(ranges[0], fmt.Sprintf("%d in %d", n, n)) {
		t.Errorf("%d lines, ranges %q", len(lines), ranges)
	}
}

func TestObjects(t *testing.T) {
	dir := filepath.Join(unpack(t), "bucket", "plain", "lz4")
	a := open(t, Options{}, dir)
	var got []string
	err := Objects(t.Context(), a.Places[0], func(o Object) error {
		if info, err := os.Stat(o.Path); err != nil || info.Size() != o.Bytes || o.Encoding != "lz4" {
			t.Errorf("%+v: %v", o, err)
		}
		got = append(got, o.Kind+" "+o.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	same(t, "objects", got, []string{
		"backup " + seg12 + ".00000028.backup", "history 00000002.history", "partial " + seg13 + ".partial",
		"segment " + seg10, "segment 000000010000000000000011", "segment " + seg12, "segment " + seg13, "segment " + seg13on2,
	})
}
