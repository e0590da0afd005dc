package crashtest

import (
	"encoding/binary"
	"fmt"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/wal"
	"github.com/fastrewind/fastrewind/internal/wal/waltest"
)

// segSize is the WAL segment size in bytes, the smallest there is.
const segSize = 1 << 20

func version15() *pg.Version {
	v, ok := pg.VersionOf(15)
	if !ok {
		panic("crashtest: PostgreSQL 15 is gone")
	}
	return v
}

// logs are the WAL of both.
type logs struct {
	divergence pg.LSN
	checkpoint waltest.Written // the last before it
}

// log writes WAL, histories and control files. The clusters part in segment 3; the last checkpoint both have, and its redo
// point, are in segment 2, which the source has removed; both end in segment 4.
func (w *writer) log(promoted bool) logs {
	source, _ := w.commonLog()
	target, common := w.commonLog() // the same bytes again
	source.Promote(2)
	sourceEnd := w.ownLog(source, 2, w.sourceTouched)
	targetTLI := pg.TLI(1)
	if promoted {
		targetTLI = 3
		target.Promote(3)
	}
	targetEnd := w.ownLog(target, targetTLI, w.targetTouched)

	for name, data := range target.Files {
		w.file(w.target, "pg_wal/"+name, data)
		// Replay begins in segment 2, which is the same for both. In segment 3 they part, so only the source's will do.
		if name == pg.SegmentName(1, 2, segSize) {
			w.file(w.rewound, "pg_wal/"+name, data)
		}
	}
	for name, data := range source.Files {
		if name < pg.SegmentName(1, 3, segSize) {
			continue
		}
		w.file(w.source, "pg_wal/"+name, data)
		w.file(w.rewound, "pg_wal/"+name, data)
	}
	for tli, log := range map[pg.TLI]*waltest.Writer{2: source, targetTLI: target} {
		if tli == 1 {
			continue
		}
		name, text := "pg_wal/"+pg.HistoryName(tli), fmt.Appendf(nil, "1\t%v\tno recovery target specified\n", common.divergence)
		if log == source {
			w.file(w.source, name, text)
			w.file(w.rewound, name, text)
		} else {
			w.file(w.target, name, text)
		}
	}
	w.file(w.source, "global/pg_control", control(w.version, sourceEnd, 2))
	w.file(w.target, "global/pg_control", control(w.version, targetEnd, targetTLI))
	return common
}

// commonLog is what both have.
func (w *writer) commonLog() (*waltest.Writer, logs) {
	log := waltest.New(segSize)
	log.Touch(16384, 3)
	log.Checkpoint()
	log.Switch()
	log.FillTo(2*segSize + 0x2000)
	redo := wal.SkipPageHeader(log.Pos(), segSize)
	log.Touch(16388, 0) // between redo point and checkpoint: noted by nobody, replayed
	common := logs{checkpoint: log.Append(waltest.Checkpoint(redo, 1))}
	touchAll(log, w.before)
	log.Switch()
	log.FillTo(3*segSize + 0x4000)
	touchAll(log, w.before)
	common.divergence = log.Pos()
	return log, common
}

// ownLog is what one of the two wrote after they had parted, with a shutdown checkpoint at its end.
func (w *writer) ownLog(log *waltest.Writer, tli pg.TLI, touched []touch) waltest.Written {
	touchAll(log, touched[:len(touched)/2])
	if tli == 2 {
		log.Switch()
	}
	log.FillTo(4*segSize + pg.LSN(tli)*0x2000)
	touchAll(log, touched[len(touched)/2:])
	r := waltest.Checkpoint(wal.SkipPageHeader(log.Pos(), segSize), tli)
	r.Info = wal.XLOGCheckpointShutdown
	return log.Append(r)
}

func touchAll(log *waltest.Writer, touched []touch) {
	for _, t := range touched {
		r := waltest.Touch(t.rel.Number, t.block, 10)
		r.Blocks[0].Rel = t.rel
		log.Append(r)
	}
}

// Where 15 keeps what a rewind looks at (ControlFileData, pg_control.h).
const (
	offState, offTime, offCheckPoint, offRedo, offTLI, offPrevTLI = 16, 24, 32, 40, 48, 52
	offFullPageWrites, offWALLogHints, offBlockSize, offRelSeg    = 56, 176, 216, 220
	offWALBlock, offSegSize, offChecksums, offCRC                 = 224, 228, 252, 288
)

// control is the control file of a cluster that was shut down with a checkpoint.
func control(v *pg.Version, end waltest.Written, tli pg.TLI) []byte {
	le, b := binary.LittleEndian, make([]byte, pg.ControlSize)
	le.PutUint64(b, 7000000000000000001) // waltest's system
	le.PutUint32(b[8:], v.ControlVersion)
	le.PutUint32(b[12:], v.CatalogVersion)
	le.PutUint32(b[offState:], uint32(pg.StateShutdowned))
	le.PutUint64(b[offTime:], 1_700_000_000)
	le.PutUint64(b[offCheckPoint:], uint64(end.LSN))
	le.PutUint64(b[offRedo:], uint64(end.LSN))
	le.PutUint32(b[offTLI:], uint32(tli))
	le.PutUint32(b[offPrevTLI:], uint32(tli))
	b[offFullPageWrites], b[offWALLogHints] = 1, 1
	le.PutUint32(b[offBlockSize:], pg.BlockSize)
	le.PutUint32(b[offRelSeg:], pg.RelSegBlocks)
	le.PutUint32(b[offWALBlock:], pg.WALBlockSize)
	le.PutUint32(b[offSegSize:], segSize)
	le.PutUint32(b[offChecksums:], 1)
	le.PutUint32(b[offCRC:], pg.CRC32C(b[:offCRC]))
	return b
}
