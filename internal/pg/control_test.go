package pg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// golden is goldenOf 15.18.
func golden(t testing.TB) (data []byte, said map[string]string) {
	t.Helper()
	return goldenOf(t, 15)
}

// goldenOf is the pg_control of a standby of one major, killed within archive recovery, and what pg_controldata said of it;
// of 14 and 16 it was 15's, which knows their layout. 19 is 19rc1.
func goldenOf(t testing.TB, major int) (data []byte, said map[string]string) {
	t.Helper()
	name := "testdata/" + strconv.Itoa(major) + ".pg_control"
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name + "data")
	if err != nil {
		t.Fatal(err)
	}
	return data, controldata(string(text))
}

var controldataLine = regexp.MustCompile(`(?m)^([^\n]+?):\s*(.*)$`)

// controldata takes pg_controldata's output apart.
func controldata(text string) map[string]string {
	out := make(map[string]string)
	for line := range strings.Lines(text) {
		// Keys may hold colons no, but values may: the first colon ends the key.
		if m := controldataLine.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			out[m[1]] = m[2]
		}
	}
	return out
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// agree compares a decoded control file with what pg_controldata said.
func agree(t testing.TB, c *Control, said map[string]string) {
	t.Helper()
	position := LSN.String
	if c.Version.WideLSN {
		position = LSN.Wide
	}
	for key, got := range map[string]string{
		"pg_control version number":            strconv.Itoa(int(c.Version.ControlVersion)),
		"Catalog version number":               strconv.Itoa(int(c.Version.CatalogVersion)),
		"Database system identifier":           strconv.FormatUint(c.SystemID, 10),
		"Database cluster state":               c.State.String(),
		"pg_control last modified":             c.Time.UTC().Format("Mon Jan _2 15:04:05 2006"),
		"Latest checkpoint location":           position(c.CheckPoint),
		"Latest checkpoint's REDO location":    position(c.Redo),
		"Latest checkpoint's REDO WAL file":    SegmentName(c.TLI, c.Redo.Seg(c.SegSize), c.SegSize),
		"Latest checkpoint's TimeLineID":       strconv.Itoa(int(c.TLI)),
		"Latest checkpoint's PrevTimeLineID":   strconv.Itoa(int(c.PrevTLI)),
		"Latest checkpoint's full_page_writes": onOff(c.FullPageWrites),
		"Minimum recovery ending location":     position(c.MinRecoveryPoint),
		"Min recovery ending loc's timeline":   strconv.Itoa(int(c.MinRecoveryPointTLI)),
		"Backup start location":                position(c.BackupStart),
		"Backup end location":                  position(c.BackupEnd),
		"End-of-backup record required":        yesNo(c.BackupEndRequired),
		"wal_log_hints setting":                onOff(c.WALLogHints),
		"Bytes per WAL segment":                strconv.Itoa(int(c.SegSize)),
		"Data page checksum version":           strconv.Itoa(int(c.ChecksumVersion)),
	} {
		if want, ok := said[key]; !ok || got != want {
			t.Errorf("%s: %q, pg_controldata says %q", key, got, want)
		}
	}
}

func TestControl(t *testing.T) {
	for _, major := range Majors() {
		t.Run(strconv.Itoa(major), func(t *testing.T) { testControl(t, major) })
	}
}

func testControl(t *testing.T, major int) {
	data, said := goldenOf(t, major)
	c, err := DecodeControl(data)
	if err != nil {
		t.Fatal(err)
	}
	agree(t, c, said)
	if c.Version.Major != major || c.MinRecoveryPoint == 0 || !c.WALLogHints || c.State != StateInArchiveRecovery {
		t.Errorf("the golden file is not what it was meant to be: %+v", c)
	}
	if got := c.Encode(); !bytes.Equal(got, data) {
		t.Error("written without changes, it differs")
	}
	before := *c
	c.State, c.Time, c.MinRecoveryPoint, c.MinRecoveryPointTLI = StateInArchiveRecovery, time.Unix(1<<33, 0), 0xA_0000BCD8, 7
	c.CheckPoint, c.SystemID, c.SegSize = 1, 2, 3 // not ours to change: Encode leaves them
	written := c.Encode()
	again, err := DecodeControl(written)
	if err != nil {
		t.Fatal(err)
	}
	if again.MinRecoveryPoint != 0xA_0000BCD8 || again.MinRecoveryPointTLI != 7 || again.Time.Unix() != 1<<33 {
		t.Errorf("%+v", again)
	}
	if again.SystemID != before.SystemID || again.CheckPoint != before.CheckPoint || again.SegSize != before.SegSize {
		t.Errorf("%+v", again)
	}
	changed := 0
	for i := range data {
		if data[i] != written[i] {
			changed++
		}
	}
	if changed > 8+8+4+4+4 {
		t.Errorf("%d bytes were changed", changed)
	}
	if again.SameAs(&before) || !before.SameAs(&before) {
		t.Error("SameAs")
	}
	if again.CurrentTLI() != 7 || before.CurrentTLI() != 1 {
		t.Errorf("current timelines %d, %d", again.CurrentTLI(), before.CurrentTLI())
	}
}

// TestControlEveryBit flips every bit of the part that is used: each is refused.
func TestControlEveryBit(t *testing.T) {
	for _, major := range Majors() {
		data, _ := goldenOf(t, major)
		v, _ := VersionOf(major)
		used := v.control.crc + 4
		for bit := range 8 * used {
			data[bit/8] ^= 1 << (bit % 8)
			if c, err := DecodeControl(data); err == nil {
				t.Errorf("%d: byte %d, bit %d: %+v", major, bit/8, bit%8, c)
			}
			data[bit/8] ^= 1 << (bit % 8)
		}
		// What comes behind is not covered by the checksum, and is not kept.
		data[used], data[ControlSize-1] = 1, 1
		c, err := DecodeControl(data)
		if err != nil {
			t.Fatal(err)
		}
		if b := c.Encode(); b[used] != 0 || b[ControlSize-1] != 0 {
			t.Errorf("%d: bytes behind the checksum are kept", major)
		}
	}
}

func TestControlEveryLength(t *testing.T) {
	data, _ := golden(t)
	for n := range ControlSize + 100 {
		if n == ControlSize {
			continue
		}
		cut := append(data[:min(n, ControlSize):ControlSize], make([]byte, max(0, n-ControlSize))...)
		_, err := DecodeControl(cut)
		var ce *ControlError
		if !errors.As(err, &ce) || ce.Text != "unexpected control file size "+strconv.Itoa(n)+", expected 8192" {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

// seal puts the right checksum into a changed control file.
func seal(data []byte) []byte {
	binary.LittleEndian.PutUint32(data[288:], CRC32C(data[:288]))
	return data
}

func TestControlErrors(t *testing.T) {
	le := binary.LittleEndian
	for _, c := range []struct {
		name string
		edit func(b []byte)
		want string
	}{
		{"all zeros", func(b []byte) { clear(b) },
			"WAL segment size must be a power of two between 1 MB and 1 GB, but the control file specifies 0 bytes"},
		{"segment size 1", func(b []byte) { le.PutUint32(b[228:], 1); seal(b) },
			"WAL segment size must be a power of two between 1 MB and 1 GB, but the control file specifies 1 byte"},
		{"segment size not a power of two", func(b []byte) { le.PutUint32(b[228:], 3<<20) },
			"WAL segment size must be a power of two between 1 MB and 1 GB, but the control file specifies 3145728 bytes"},
		{"segment size 2 GB", func(b []byte) { le.PutUint32(b[228:], 1<<31); seal(b) },
			"WAL segment size must be a power of two between 1 MB and 1 GB, but the control file specifies -2147483648 bytes"},
		{"checksum", func(b []byte) { b[288]++ }, "unexpected control file CRC"},
		{"damaged catalog version", func(b []byte) { b[12]++ }, "unexpected control file CRC"},
		{"damaged control version", func(b []byte) { b[9] = 0 }, "unexpected control file CRC"},
		{"block size", func(b []byte) { le.PutUint32(b[216:], 16384); seal(b) }, "clusters are not compatible with this version of pg_rewind"},
		{"relation segment size", func(b []byte) { le.PutUint32(b[220:], 16384); seal(b) }, "clusters are not compatible with this version of pg_rewind"},
		{"WAL block size", func(b []byte) { le.PutUint32(b[224:], 16384); seal(b) }, "clusters are not compatible with this version of pg_rewind"},
	} {
		t.Run(c.name, func(t *testing.T) {
			data, _ := golden(t)
			c.edit(data)
			_, err := DecodeControl(data)
			var ce *ControlError
			if !errors.As(err, &ce) || ce.Text != c.want {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

// TestControlUnknownVersion: an intact control file of another major is refused by its numbers, wherever that major
// keeps its checksum.
func TestControlUnknownVersion(t *testing.T) {
	for _, c := range []struct {
		control, catalog uint32
		crc              int
		preRelease       int
	}{
		{1201, 201909212, 288, 0}, {1300, 202006151, 288, 0}, {1700, 202404021, 288, 17}, {1800, 202504091, 292, 18},
		{1905, 202611111, 308, 19}, {942, 201608131, 288, 0},
	} {
		data, _ := golden(t)
		clear(data[288:])
		binary.LittleEndian.PutUint32(data[8:], c.control)
		binary.LittleEndian.PutUint32(data[12:], c.catalog)
		data[c.crc-1] = 0x5A
		binary.LittleEndian.PutUint32(data[c.crc:], CRC32C(data[:c.crc]))
		_, err := DecodeControl(data)
		var ue *UnknownVersionError
		if !errors.As(err, &ue) || ue.ControlVersion != c.control || ue.CatalogVersion != c.catalog {
			t.Errorf("%d, %d: %v", c.control, c.catalog, err)
		} else if got := ue.PreRelease(); got != c.preRelease {
			t.Errorf("%d, %d: may be of %d", c.control, c.catalog, got)
		}
	}
}

func TestStates(t *testing.T) {
	for s, want := range map[DBState]string{
		0: "starting up", 1: "shut down", 2: "shut down in recovery", 3: "shutting down", 4: "in crash recovery", 5: "in archive recovery",
		6: "in production", 7: "unrecognized status code 7", 1 << 31: "unrecognized status code 2147483648",
	} {
		if s.String() != want || s.CleanlyShutDown() != (s == 1 || s == 2) {
			t.Errorf("%d: %v, %v", uint32(s), s, s.CleanlyShutDown())
		}
	}
}

func TestVersions(t *testing.T) {
	for _, major := range Majors() {
		v, ok := VersionOf(major)
		if !ok || v.Major != major {
			t.Fatalf("%d: %+v", major, v)
		}
		if found, err := FindVersion(v.ControlVersion, v.CatalogVersion); err != nil || found != v {
			t.Errorf("%d: %v, %v", major, found, err)
		}
		if want := "PG_" + strconv.Itoa(major) + "_" + strconv.Itoa(int(v.CatalogVersion)); v.TablespaceDir != want {
			t.Errorf("%d: %s, want %s", major, v.TablespaceDir, want)
		}
	}
	if _, ok := VersionOf(9); ok {
		t.Error("9 is known")
	}
	var ue *UnknownVersionError
	if _, err := FindVersion(1300, 1); !errors.As(err, &ue) || !strings.Contains(err.Error(), "1300") {
		t.Errorf("%v", err)
	}
}

// FuzzControl: what is accepted is written back as it was, and every number in it is one a server could have.
func FuzzControl(f *testing.F) {
	data, _ := golden(f)
	f.Add(data[:292], true)
	f.Add(data[:292], false)
	rng := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		b := append([]byte(nil), data[:292]...)
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		f.Add(b, true)
	}
	f.Fuzz(func(t *testing.T, head []byte, sealed bool) {
		data := make([]byte, ControlSize)
		copy(data, head)
		if sealed {
			seal(data)
		}
		c, err := DecodeControl(data)
		if err != nil {
			var ce *ControlError
			var ue *UnknownVersionError
			if !errors.As(err, &ce) && !errors.As(err, &ue) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		if !ValidSegSize(c.SegSize) || c.Version == nil {
			t.Fatalf("%+v", c)
		}
		_ = c.State.String()
		want := append([]byte(nil), data...)
		clear(want[292:])
		if !bytes.Equal(c.Encode(), want) {
			t.Fatal("written without changes, it differs")
		}
	})
}
