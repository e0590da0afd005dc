package pg

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// DBState is the state field of pg_control (DBState, pg_control.h).
type DBState uint32

// The states.
const (
	StateStartup DBState = iota
	StateShutdowned
	StateShutdownedInRecovery
	StateShutdowning
	StateInCrashRecovery
	StateInArchiveRecovery
	StateInProduction
)

// String uses pg_controldata's words.
func (s DBState) String() string {
	words := [...]string{
		"starting up", "shut down", "shut down in recovery", "shutting down", "in crash recovery",
		"in archive recovery", "in production",
	}
	if int(s) < len(words) {
		return words[s]
	}
	return fmt.Sprintf("unrecognized status code %d", uint32(s))
}

// CleanlyShutDown reports whether a server stopped in this state needs no crash recovery.
func (s DBState) CleanlyShutDown() bool {
	return s == StateShutdowned || s == StateShutdownedInRecovery
}

// controlLayout holds the byte offsets of the fields this program reads or writes. The file is 8192 bytes; only the
// part up to and including the CRC is used, the rest is zero.
type controlLayout struct {
	state, time, checkPoint                     int
	redo, tli, prevTLI, fullPageWrites          int
	minRecoveryPoint, minRecoveryPointTLI       int
	backupStart, backupEnd, backupEndRequired   int
	walLevel, walLogHints                       int
	blockSize, relSegSize, walBlockSize, segSiz int
	checksumVersion                             int
	crc                                         int
}

// Layout A: majors 13 to 17 (src/include/catalog/pg_control.h, ControlFileData with the compiler's usual alignment).
var controlLayoutA = controlLayout{
	state: 16, time: 24, checkPoint: 32,
	redo: 40, tli: 48, prevTLI: 52, fullPageWrites: 56,
	minRecoveryPoint: 136, minRecoveryPointTLI: 144,
	backupStart: 152, backupEnd: 160, backupEndRequired: 168,
	walLevel: 172, walLogHints: 176,
	blockSize: 216, relSegSize: 220, walBlockSize: 224, segSiz: 228,
	checksumVersion: 252,
	crc:             288,
}

// Layout B: 18. The last checkpoint's wal_level lies in what was padding, and default_char_signedness comes before the
// nonce, which moves the CRC.
var controlLayoutB = func() controlLayout {
	b := controlLayoutA
	b.crc = 292
	return b
}()

// Layout C: 19. CheckPoint has grown by 8 bytes (logicalDecodingEnabled, 64-bit nextMultiOffset), and there are
// slru_pages_per_segment and data_checksum_version_init.
var controlLayoutC = controlLayout{
	state: 16, time: 24, checkPoint: 32,
	redo: 40, tli: 48, prevTLI: 52, fullPageWrites: 56,
	minRecoveryPoint: 144, minRecoveryPointTLI: 152,
	backupStart: 160, backupEnd: 168, backupEndRequired: 176,
	walLevel: 180, walLogHints: 184,
	blockSize: 224, relSegSize: 228, walBlockSize: 236, segSiz: 240,
	checksumVersion: 268,
	crc:             308,
}

// Offsets that have been the same in every major: they say which layout the rest has.
const (
	controlOffSystemID       = 0  // 8 bytes
	controlOffControlVersion = 8  // 4 bytes
	controlOffCatalogVersion = 12 // 4 bytes
)

// Control is a decoded pg_control. The numbers are copies: what Encode writes are the original bytes with the few
// fields replaced that a rewind may change.
type Control struct {
	Version *Version

	SystemID            uint64
	State               DBState
	Time                time.Time // last update
	CheckPoint          LSN       // of the last checkpoint record
	Redo                LSN       // where replay from that checkpoint starts
	TLI, PrevTLI        TLI       // of that checkpoint
	FullPageWrites      bool      // as of that checkpoint
	MinRecoveryPoint    LSN       // 0 unless archive recovery has to go at least this far
	MinRecoveryPointTLI TLI
	BackupStart         LSN
	BackupEnd           LSN
	BackupEndRequired   bool
	WALLogHints         bool
	ChecksumVersion     uint32 // 0: data checksums are off
	SegSize             uint32 // bytes of a WAL segment

	raw [ControlSize]byte
}

// ControlError says what is wrong with a pg_control.
type ControlError struct {
	Text   string // stock's words (get_control_data, pg_rewind.c)
	Detail string // expected and found

	Message fault.Message // Text before it was formatted, where there was something to format
}

func (e *ControlError) Error() string { return e.Text }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC32C is PostgreSQL's checksum of control files and WAL records (pg_crc32c.h).
func CRC32C(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// hasChecksum reports whether data is an intact control file of some major, known or not: somewhere around where they
// all keep it is the right checksum of everything before.
func hasChecksum(data []byte) bool {
	for off := 224; off < 512; off += 4 {
		if binary.LittleEndian.Uint32(data[off:]) == CRC32C(data[:off]) {
			return true
		}
	}
	return false
}

// DecodeControl decodes the content of global/pg_control, in the order of checks of stock's digestControlFile: size,
// (ours: known version), segment size, CRC. Errors are *ControlError or *UnknownVersionError. data is not kept.
func DecodeControl(data []byte) (*Control, error) {
	if len(data) != ControlSize {
		return nil, &ControlError{
			Text:   fmt.Sprintf("unexpected control file size %d, expected %d", len(data), ControlSize),
			Detail: "global/pg_control is always 8192 bytes; an empty or cut one was left by an interrupted write",
		}
	}
	le := binary.LittleEndian
	v, err := FindVersion(le.Uint32(data[controlOffControlVersion:]), le.Uint32(data[controlOffCatalogVersion:]))
	if err != nil {
		if hasChecksum(data) {
			return nil, err
		}
		// Not another major's, but damaged: zeros, perhaps. The checks below say so in the words for one of ours.
		v = likelyVersion(le.Uint32(data[controlOffControlVersion:]), le.Uint32(data[controlOffCatalogVersion:]))
	}
	at := v.control
	u32 := func(off int) uint32 { return le.Uint32(data[off:]) }
	lsn := func(off int) LSN { return LSN(le.Uint64(data[off:])) }
	c := &Control{
		Version:             v,
		SystemID:            le.Uint64(data[controlOffSystemID:]),
		State:               DBState(u32(at.state)),
		Time:                time.Unix(int64(le.Uint64(data[at.time:])), 0),
		CheckPoint:          lsn(at.checkPoint),
		Redo:                lsn(at.redo),
		TLI:                 TLI(u32(at.tli)),
		PrevTLI:             TLI(u32(at.prevTLI)),
		FullPageWrites:      data[at.fullPageWrites] != 0,
		MinRecoveryPoint:    lsn(at.minRecoveryPoint),
		MinRecoveryPointTLI: TLI(u32(at.minRecoveryPointTLI)),
		BackupStart:         lsn(at.backupStart),
		BackupEnd:           lsn(at.backupEnd),
		BackupEndRequired:   data[at.backupEndRequired] != 0,
		WALLogHints:         data[at.walLogHints] != 0,
		ChecksumVersion:     u32(at.checksumVersion),
		SegSize:             u32(at.segSiz),
	}
	copy(c.raw[:], data)
	if !ValidSegSize(c.SegSize) {
		plural := "s"
		if c.SegSize == 1 {
			plural = ""
		}
		m := fault.Message{
			Format: "WAL segment size must be a power of two between 1 MB and 1 GB, but the control file specifies %d byte%s",
			Args:   []any{int32(c.SegSize), plural},
		}
		return nil, &ControlError{Text: m.String(), Message: m}
	}
	if found, want := u32(at.crc), CRC32C(data[:at.crc]); found != want {
		return nil, &ControlError{
			Text:   "unexpected control file CRC",
			Detail: fmt.Sprintf("the file says %08X, its content gives %08X", found, want),
		}
	}
	for _, size := range []struct {
		what string
		off  int
		want uint32
	}{
		{"block size", at.blockSize, BlockSize},
		{"relation segment size (blocks)", at.relSegSize, RelSegBlocks},
		{"WAL block size", at.walBlockSize, WALBlockSize},
	} {
		if got := u32(size.off); got != size.want {
			return nil, &ControlError{
				Text:   "clusters are not compatible with this version of pg_rewind",
				Detail: fmt.Sprintf("the cluster's %s is %d, this program is made for %d", size.what, got, size.want),
			}
		}
	}
	return c, nil
}

// CurrentTLI is the timeline the cluster is really on: the greater of its last checkpoint's and its minimum recovery
// point's. Just after a promotion only the latter knows (stock 16 and later, commit 009eeee746; here on every major).
func (c *Control) CurrentTLI() TLI { return max(c.TLI, c.MinRecoveryPointTLI) }

// Encode gives the 8192 bytes to write, with State, Time, MinRecoveryPoint and MinRecoveryPointTLI taken from c, all
// else as it was decoded, and a new CRC.
func (c *Control) Encode() []byte {
	b := make([]byte, ControlSize)
	copy(b, c.raw[:])
	at, le := c.Version.control, binary.LittleEndian
	le.PutUint32(b[at.state:], uint32(c.State))
	le.PutUint64(b[at.time:], uint64(c.Time.Unix()))
	le.PutUint64(b[at.minRecoveryPoint:], uint64(c.MinRecoveryPoint))
	le.PutUint32(b[at.minRecoveryPointTLI:], uint32(c.MinRecoveryPointTLI))
	le.PutUint32(b[at.crc:], CRC32C(b[:at.crc]))
	clear(b[at.crc+4:])
	return b
}

// SameAs reports whether two control files are byte for byte the same.
func (c *Control) SameAs(d *Control) bool { return c.raw == d.raw }
