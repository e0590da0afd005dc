package scan

import (
	"encoding/binary"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/wal"
)

// harmless says of a record that changes relation files other than through its block references that the rest of the
// rewind deals with it (extractPageInfo, parsexlog.c):
//
//   - A database created by file copy: its files exist only in the target and are removed; or else see noteRemade.
//   - A database created block by block through WAL: its blocks are noted like any others.
//   - A dropped database: its files are missing in the target and are copied whole.
//   - A created relation file: only in the target, removed; or else see noteRemade.
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

// noteRemade notes files that the target alone has made. Should the source have files of the same names, they are others, and
// nothing is known of what is in the target's:
//
//   - A database moved to another tablespace and back comes back by a copy of files. What was changed in between was changed
//     under names that are gone, so its blocks are noted in vain. (ALTER DATABASE SET TABLESPACE; xl_dbase_create_rec, later
//     xl_dbase_create_file_copy_rec, begins with the database and its new tablespace.)
//   - Relations get the same number on both sides if neither has been in use between a clean shutdown and the first start
//     after. One that is unlogged, or of wal_level=minimal, has no WAL for its content. (xl_smgr_create begins with the
//     relation; of an unlogged one, the init fork's is the only one.)
//
// Stock takes no notice, and what the target has stays where no record of the source replaces it.
func noteRemade(v *pg.Version, rec *wal.Record, into noter) {
	oid := func(i int) uint32 { return binary.LittleEndian.Uint32(rec.Main[4*i:]) }
	switch op := rec.Info & wal.InfoRmgrMask; {
	case rec.Rmgr == wal.RmgrDatabase && op == v.WAL.DatabaseFileCopy && len(rec.Main) >= 8:
		into.Add(pg.RemadeDatabase(pg.Oid(oid(1)), pg.Oid(oid(0))))
	case rec.Rmgr == wal.RmgrStorage && op == wal.StorageCreate && len(rec.Main) >= 12:
		into.Add(pg.RemadeRelation(pg.Rel{Tablespace: pg.Oid(oid(0)), Database: pg.Oid(oid(1)), Number: pg.RelNumber(oid(2))}))
	}
}

// note puts the blocks a record changes into the map. Only main forks count: all other forks are copied whole. A record
// that changes files in a way this program does not know is fatal: leaving its effect in place would be silent
// corruption.
func note(v *pg.Version, rec *wal.Record, diverged bool, into noter) error {
	if rec.Info&wal.InfoSpecialRelUpdate != 0 && diverged {
		noteRemade(v, rec, into)
	}
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
