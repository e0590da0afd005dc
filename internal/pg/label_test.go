package pg

import (
	"bytes"
	"os"
	"testing"
	"time"
)

func TestBackupLabel(t *testing.T) {
	data, err := os.ReadFile("testdata/basebackup.backup_label") // by pg_basebackup of 15.18, segments of 1 MB
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseBackupLabel(data, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	want := BackupLabel{
		Redo: 0x900028, SegSize: 1 << 20, TLI: 1, Checkpoint: 0x900060, Method: "streamed", From: "primary",
		StartTime: time.Date(2026, 11, 21, 7, 40, 35, 0, time.UTC),
	}
	if !got.StartTime.Equal(want.StartTime) {
		t.Errorf("start time %v", got.StartTime)
	}
	got.StartTime = want.StartTime
	if got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	// Ours is theirs, but for the lines that pg_rewind leaves out (createBackupLabel).
	lines := bytes.SplitAfter(data, []byte("\n"))
	if got := want.Encode(); !bytes.Equal(got, bytes.Join(lines[:5], nil)) {
		t.Errorf("written:\n%s\nby the server:\n%s", got, data)
	}
}

// TestBackupLabelWide: 19 fills positions up, as its pg_rewind and its servers write them.
func TestBackupLabelWide(t *testing.T) {
	const text = "START WAL LOCATION: A/030000A8 (file 000000020000000A00000003)\nCHECKPOINT LOCATION: A/030000E0\n" +
		"BACKUP METHOD: pg_rewind\nBACKUP FROM: standby\nSTART TIME: 2026-11-21 07:40:35 UTC\n"
	l := BackupLabel{
		Redo: 0xA_030000A8, SegSize: 16 << 20, TLI: 2, Checkpoint: 0xA_030000E0, Method: BackupMethodRewind, From: BackupFromStandby,
		StartTime: time.Date(2026, 11, 21, 7, 40, 35, 0, time.UTC), WideLSN: true,
	}
	if got := l.Encode(); string(got) != text {
		t.Errorf("%s", got)
	}
	got, err := ParseBackupLabel([]byte(text), l.SegSize)
	if err != nil || got.Redo != l.Redo || got.Checkpoint != l.Checkpoint {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestBackupLabelZones: "%Z" is whatever the C library calls a time zone, and many have no name but their offset.
func TestBackupLabelZones(t *testing.T) {
	for _, zone := range []*time.Location{
		time.UTC, time.FixedZone("CEST", 7200), time.FixedZone("+03", 3*3600), time.FixedZone("-03", -3*3600),
		time.FixedZone("+0545", 5*3600+45*60), time.FixedZone("-0930", -9*3600-30*60), time.FixedZone("ChST", 10*3600), time.FixedZone("WITA", 8*3600),
	} {
		l := BackupLabel{Redo: 0x2000028, SegSize: 16 << 20, TLI: 3, Checkpoint: 0x2000060, Method: BackupMethodRewind, From: BackupFromStandby,
			StartTime: time.Date(2026, 3, 9, 23, 59, 1, 0, zone)}
		text := l.Encode()
		got, err := ParseBackupLabel(text, l.SegSize)
		if err != nil {
			t.Errorf("%v: %v", zone, err)
			continue
		}
		if again := got.Encode(); !bytes.Equal(again, text) {
			t.Errorf("%v: written as\n%s\nread, and written as\n%s", zone, text, again)
		}
	}
}

func TestBackupLabelErrors(t *testing.T) {
	const good = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n"
	for _, text := range []string{
		"", "\n", "nonsense\n",
		"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n",
		"CHECKPOINT LOCATION: 0/2000060\n",
		"START WAL LOCATION: 0-2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n",
		"START WAL LOCATION: 0/2000028\nCHECKPOINT LOCATION: 0/2000060\n",
		"START WAL LOCATION: 0/2000028 (file 000000010000000000000FFF)\nCHECKPOINT LOCATION: 0/2000060\n",
		"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: nowhere\n",
		good + "START TIME: yesterday\n",
		good + "cut in the midd",
	} {
		if l, err := ParseBackupLabel([]byte(text), 16<<20); err == nil {
			t.Errorf("%q is read as %+v", text, l)
		}
	}
	if _, err := ParseBackupLabel([]byte(good+"LABEL: a: b\nSTART TIMELINE: 1\n"), 16<<20); err != nil {
		t.Error(err)
	}
}

// FuzzBackupLabel: what is read can be written, and reads the same again.
func FuzzBackupLabel(f *testing.F) {
	data, err := os.ReadFile("testdata/basebackup.backup_label")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data, uint32(1<<20))
	f.Add([]byte("START WAL LOCATION: 1/2000028 (file 000000010000000100000002)\nCHECKPOINT LOCATION: 1/2000060\nSTART TIME: 2026-11-21 07:40:35 +0545\n"), uint32(16<<20))
	f.Fuzz(func(t *testing.T, data []byte, segSize uint32) {
		if !ValidSegSize(segSize) {
			return
		}
		l, err := ParseBackupLabel(data, segSize)
		if err != nil {
			return
		}
		text := l.Encode()
		again, err := ParseBackupLabel(text, segSize)
		if err != nil {
			t.Fatalf("%q is read as %+v, written as %q, and not read again: %v", data, l, text, err)
		}
		if again.Redo != l.Redo || again.TLI != l.TLI || again.Checkpoint != l.Checkpoint || !bytes.Equal(again.Encode(), text) {
			t.Fatalf("%q is read as %+v, then as %+v", data, l, again)
		}
	})
}
