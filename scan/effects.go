package scan

import (
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/wal"
)

// harmless says of a record that changes relation files other than through its block references that the rest of the
// rewind deals with it (extractPageInfo, parsexlog.c):
//
//   - A database created by file copy: its files exist only in the target and are removed, or exist in the source as
//     well and then the source's own creation of them lies before the divergence.
//   - A database created block by block through WAL: its blocks are noted like any others.
//   - A dropped database: its files are missing in the target and are copied whole.
//   - A created relation file: only in the target, removed.
//   - A truncated relation: the tail that the source still has is copied, blocks beyond both ends do not exist.
//   - A commit or abort that drops relations: missing in the target, copied whole.
func harmless(v *pg.Version, rmid, info uint8) bool {
	op := info & wal.InfoRmgrMask
	switch rmid {
	case wal.RmgrDatabase:
		return op == v.WAL.DatabaseFileCopy || op == v.WAL.DatabaseWALLog || op == v.WAL.DatabaseDrop
	case wal.RmgrStorage:
		return op == wal.StorageCreate || op == wal.StorageTruncate
	case wal.RmgrTransaction:
		switch info & wal.XactOpMask {
		case wal.XactCommit, wal.XactCommitPrepared, wal.XactAbort, wal.XactAbortPrepared:
			return v.WAL.XactDropsRelations
		}
	}
	return false
}

// note puts the blocks a record changes into the map. Only main forks count: all other forks are copied whole. A record
// that changes files in a way this program does not know is fatal: leaving its effect in place would be silent
// corruption.
func note(v *pg.Version, rec *wal.Record, into noter) error {
	if rec.Info&wal.InfoSpecialRelUpdate != 0 && !harmless(v, rec.Rmgr, rec.Info) {
		return fault.New("WAL record modifies a relation, but record type is not recognized: "+
			"lsn: %v, rmid: %d, rmgr: %s, info: %02X", rec.LSN, rec.Rmgr, wal.RmgrName(rec.Rmgr), rec.Info).
			Advise("An extension's resource manager, or a server newer than this program, changed files in a way that " +
				"cannot be undone block by block. Take a new base backup.")
	}
	for i := range rec.Blocks {
		if b := &rec.Blocks[i]; b.Fork == pg.MainFork {
			into.Add(b.Rel, b.Block)
		}
	}
	return nil
}
