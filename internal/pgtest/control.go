package pgtest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
)

// Control are the fields of global/pg_control that tests look at. It is decoded here, and not with internal/pg, so that
// what the tests believe does not rest on the code they test.
type Control struct {
	SystemID            uint64
	ControlVersion      uint32
	CatalogVersion      uint32
	State               uint32 // 1 shut down, 2 shut down in recovery, 4 in crash recovery, 5 in archive recovery, 6 in production
	Checkpoint          uint64 // LSN
	Redo                uint64 // LSN
	TimeLineID          uint32 // of the newest checkpoint
	MinRecoveryPoint    uint64 // LSN
	MinRecoveryPointTLI uint32
	SegSize             uint32 // bytes
	raw                 []byte
}

// controlVersions are the majors' pg_control_version.
var controlVersions = map[int]uint32{13: 1300, 14: 1300, 15: 1300, 16: 1300, 17: 1700, 18: 1800, 19: 1905}

// controlOffsets are where the fields are that have moved between majors, by pg_control_version. Read off
// pg_controldata's output and the headers of each major; ctlTime has not moved.
var controlOffsets = map[uint32]struct{ minRec, minRecTLI, segSize, crc int }{
	1300: {136, 144, 228, 288},
	1700: {136, 144, 228, 288},
	1800: {136, 144, 228, 292},
	1905: {144, 152, 240, 308},
}

const ctlTime = 24

// Control reads the cluster's pg_control, running or not.
func (c *Cluster) Control() Control {
	c.env.tb.Helper()
	ctl, err := ReadControl(c.DataDir())
	if err != nil {
		c.env.tb.Fatalf("pgtest: %v", err)
	}
	return ctl
}

// ReadControl reads the pg_control of a data directory. The checksum is not verified.
func ReadControl(dataDir string) (Control, error) {
	path := filepath.Join(dataDir, "global", "pg_control")
	data, err := os.ReadFile(path)
	if err != nil {
		return Control{}, err
	}
	if len(data) < 512 {
		return Control{}, fmt.Errorf("%s has %d bytes", path, len(data))
	}
	le := binary.LittleEndian
	version := le.Uint32(data[8:])
	at, ok := controlOffsets[version]
	if !ok {
		return Control{}, fmt.Errorf("%s has control version %d, whose layout pgtest does not know", path, version)
	}
	return Control{
		SystemID: le.Uint64(data), ControlVersion: version, CatalogVersion: le.Uint32(data[12:]),
		State: le.Uint32(data[16:]), Checkpoint: le.Uint64(data[32:]), Redo: le.Uint64(data[40:]), TimeLineID: le.Uint32(data[48:]),
		MinRecoveryPoint: le.Uint64(data[at.minRec:]), MinRecoveryPointTLI: le.Uint32(data[at.minRecTLI:]),
		SegSize: le.Uint32(data[at.segSize:]), raw: data,
	}, nil
}

// withoutTime is the file less what says when it was written, and less minRecoveryPoint and its timeline if so wanted.
func (c Control) withoutTime(orMinRecovery bool) []byte {
	at, raw := controlOffsets[c.ControlVersion], bytes.Clone(c.raw)
	clear(raw[ctlTime : ctlTime+8])
	clear(raw[at.crc : at.crc+4])
	if orMinRecovery {
		clear(raw[at.minRec : at.minRec+8])
		clear(raw[at.minRecTLI : at.minRecTLI+4])
	}
	return raw
}
