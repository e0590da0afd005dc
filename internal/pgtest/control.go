package pgtest

import (
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

// Offsets in pg_control of 13 to 17 (pg_control.h); all of them have control version 1300 or 1700.
const (
	ctlTime      = 24
	ctlMinRec    = 136
	ctlMinRecTLI = 144
	ctlCRC       = 288
	ctlCRCEnd    = 292
)

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
	if len(data) < ctlCRCEnd {
		return Control{}, fmt.Errorf("%s has %d bytes", path, len(data))
	}
	le := binary.LittleEndian
	ctl := Control{
		SystemID: le.Uint64(data), ControlVersion: le.Uint32(data[8:]), CatalogVersion: le.Uint32(data[12:]),
		State: le.Uint32(data[16:]), Checkpoint: le.Uint64(data[32:]), Redo: le.Uint64(data[40:]), TimeLineID: le.Uint32(data[48:]),
		MinRecoveryPoint: le.Uint64(data[ctlMinRec:]), MinRecoveryPointTLI: le.Uint32(data[ctlMinRecTLI:]),
		SegSize: le.Uint32(data[228:]), raw: data,
	}
	if ctl.ControlVersion != 1300 && ctl.ControlVersion != 1700 {
		return Control{}, fmt.Errorf("%s has control version %d, whose layout pgtest does not know", path, ctl.ControlVersion)
	}
	return ctl, nil
}
