package wal

// Resource managers that this program has to know by number (rmgrlist.h); the numbers are the same in 13 to 19.
const (
	RmgrXLOG        = 0
	RmgrTransaction = 1
	RmgrStorage     = 2
	RmgrDatabase    = 4
)

// Info bits of a record (xlogrecord.h). The high four bits belong to the resource manager.
const (
	InfoRmgrMask         = 0xF0
	InfoSpecialRelUpdate = 0x01 // XLR_SPECIAL_REL_UPDATE: changes relation files without block references
)

// Info bits of resource manager XLOG (pg_control.h).
const (
	XLOGCheckpointShutdown = 0x00
	XLOGCheckpointOnline   = 0x10
	XLOGSwitch             = 0x40
)

// Info bits of resource manager Storage (storage_xlog.h).
const (
	StorageCreate   = 0x10
	StorageTruncate = 0x20
)

// Info bits of resource manager Transaction (xact.h); other bits of the high four are flags.
const (
	XactOpMask         = 0x70
	XactCommit         = 0x00
	XactAbort          = 0x20
	XactCommitPrepared = 0x30
	XactAbortPrepared  = 0x40
)

const (
	maxBuiltinRmgr = 21  // RM_MAX_BUILTIN_ID
	minCustomRmgr  = 128 // RM_MIN_CUSTOM_ID
)

var rmgrNames = [maxBuiltinRmgr + 1]string{
	"XLOG", "Transaction", "Storage", "CLOG", "Database", "Tablespace", "MultiXact", "RelMap", "Standby", "Heap2",
	"Heap", "Btree", "Hash", "Gin", "Gist", "Sequence", "SPGist", "BRIN", "CommitTs", "ReplicationOrigin", "Generic",
	"LogicalMessage",
}

// RmgrName is a resource manager's name, "custom" for those that extensions register.
func RmgrName(rmid uint8) string {
	switch {
	case rmid <= maxBuiltinRmgr:
		return rmgrNames[rmid]
	case rmid >= minCustomRmgr:
		return "custom"
	default:
		return "unknown"
	}
}
