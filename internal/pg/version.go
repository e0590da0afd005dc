package pg

import "fmt"

// Version is everything that differs between majors of PostgreSQL and that this program has to know. The rows are
// constants: nothing else in the project asks which major it deals with.
type Version struct {
	Major           int
	ControlVersion  uint32 // pg_control_version (PG_CONTROL_VERSION, pg_control.h)
	CatalogVersion  uint32 // catalog_version_no (CATALOG_VERSION_NO, catversion.h)
	TablespaceDir   string // the version's directory below each tablespace (TABLESPACE_VERSION_DIRECTORY, relpath.h)
	WALMagic        uint16 // first two bytes of each WAL page (XLOG_PAGE_MAGIC, xlog_internal.h)
	control         *controlLayout
	CheckpointBytes int  // size of struct CheckPoint, the main data of a checkpoint record (pg_control.h)
	WideLSN         bool // LSNs are printed %X/%08X (19), not %X/%X; all servers read both

	WAL WALFlags
}

// WALFlags are the flag bits of WAL pages and records that were renumbered between majors.
type WALFlags struct {
	// Page headers, xlp_info (xlog_internal.h).
	PageOverwriteContrecord uint16 // XLP_FIRST_IS_OVERWRITE_CONTRECORD
	PageAll                 uint16 // XLP_ALL_FLAGS: any other bit is an error

	// Block images, bimg_info (xlogrecord.h).
	ImageHasHole    uint8
	ImageCompressed uint8 // all the bits that mean compressed, by whatever method

	TopLevelXID bool // block id 252 carries a top-level transaction id (14 and later)
	CustomRmgrs bool // resource managers 128–255 exist (15 and later)

	// Records that stock lets pass although they carry XLR_SPECIAL_REL_UPDATE (extractPageInfo, parsexlog.c).
	DatabaseFileCopy, DatabaseWALLog, DatabaseDrop uint8 // info bits of resource manager Database
	XactDropsRelations                             bool  // commits and aborts carry the bit (14 and later)
}

// What the WAL of one major has in common with its neighbours'.
var (
	walFlags13 = WALFlags{
		PageOverwriteContrecord: 0x0008,
		PageAll:                 0x000F,
		ImageHasHole:            0x01,
		ImageCompressed:         0x02, // pglz; 0x04 is "apply"
		DatabaseFileCopy:        0x00,
		DatabaseDrop:            0x10,
	}
	walFlags14 = func() WALFlags {
		f := walFlags13
		f.TopLevelXID, f.XactDropsRelations = true, true
		return f
	}()
	walFlags15 = WALFlags{
		PageOverwriteContrecord: 0x0008,
		PageAll:                 0x000F,
		ImageHasHole:            0x01,
		ImageCompressed:         0x04 | 0x08 | 0x10, // pglz, lz4, zstd; 0x02 is "apply"
		TopLevelXID:             true,
		CustomRmgrs:             true,
		DatabaseFileCopy:        0x00,
		DatabaseWALLog:          0x10,
		DatabaseDrop:            0x20,
		XactDropsRelations:      true,
	}
	walFlags19 = func() WALFlags {
		f := walFlags15
		f.PageOverwriteContrecord, f.PageAll = 0x0004, 0x0007
		return f
	}()
)

// versions is the one table, ascending. A row is added only after its values were checked against a released server, 19's
// against its first release candidate; an unknown catalog or control version is refused by name.
var versions = [...]Version{
	{
		Major: 13, ControlVersion: 1300, CatalogVersion: 202007201, TablespaceDir: "PG_13_202007201", WALMagic: 0xD106,
		control: &controlLayoutA, CheckpointBytes: 88, WAL: walFlags13,
	},
	{
		Major: 14, ControlVersion: 1300, CatalogVersion: 202107181, TablespaceDir: "PG_14_202107181", WALMagic: 0xD10D,
		control: &controlLayoutA, CheckpointBytes: 88, WAL: walFlags14,
	},
	{
		Major: 15, ControlVersion: 1300, CatalogVersion: 202209061, TablespaceDir: "PG_15_202209061", WALMagic: 0xD110,
		control: &controlLayoutA, CheckpointBytes: 88, WAL: walFlags15,
	},
	{
		Major: 16, ControlVersion: 1300, CatalogVersion: 202307071, TablespaceDir: "PG_16_202307071", WALMagic: 0xD113,
		control: &controlLayoutA, CheckpointBytes: 88, WAL: walFlags15,
	},
	{
		Major: 17, ControlVersion: 1700, CatalogVersion: 202406281, TablespaceDir: "PG_17_202406281", WALMagic: 0xD116,
		control: &controlLayoutA, CheckpointBytes: 88, WAL: walFlags15,
	},
	{
		Major: 18, ControlVersion: 1800, CatalogVersion: 202506291, TablespaceDir: "PG_18_202506291", WALMagic: 0xD118,
		control: &controlLayoutB, CheckpointBytes: 88, WAL: walFlags15,
	},
	{
		Major: 19, ControlVersion: 1905, CatalogVersion: 202610061, TablespaceDir: "PG_19_202610061", WALMagic: 0xD122,
		control: &controlLayoutC, CheckpointBytes: 96, WideLSN: true, WAL: walFlags19,
	},
}

// UnknownVersionError is returned for a cluster whose major is not in the table.
type UnknownVersionError struct {
	ControlVersion, CatalogVersion uint32
}

func (e *UnknownVersionError) Error() string {
	return fmt.Sprintf("unknown control file version %d with catalog version %d", e.ControlVersion, e.CatalogVersion)
}

// PreRelease is the major of which the cluster may be a beta or a release candidate: the only one in the table with this
// control version. 0 if there is none; 13 to 16 share theirs.
func (e *UnknownVersionError) PreRelease() int {
	major := 0
	for i := range versions {
		if v := &versions[i]; v.ControlVersion == e.ControlVersion {
			if major != 0 {
				return 0
			}
			major = v.Major
		}
	}
	return major
}

// FindVersion finds the row for the two version numbers of a pg_control. Majors 13 to 16 share a control version, so
// both are needed.
func FindVersion(controlVersion, catalogVersion uint32) (*Version, error) {
	for i := range versions {
		v := &versions[i]
		if v.ControlVersion == controlVersion && v.CatalogVersion == catalogVersion {
			return v, nil
		}
	}
	return nil, &UnknownVersionError{controlVersion, catalogVersion}
}

// likelyVersion is the row that a damaged control file belongs to, judged by the one number that is left of the two; or
// any, which will find other things wrong.
func likelyVersion(controlVersion, catalogVersion uint32) *Version {
	likely := &versions[0]
	for i := range versions {
		if v := &versions[i]; v.ControlVersion == controlVersion || v.CatalogVersion == catalogVersion {
			likely = v
		}
	}
	return likely
}

// VersionOf finds the row of a major, for tests and tools that have no pg_control at hand.
func VersionOf(major int) (*Version, bool) {
	for i := range versions {
		if versions[i].Major == major {
			return &versions[i], true
		}
	}
	return nil, false
}

// Majors lists the supported majors, ascending.
func Majors() []int {
	m := make([]int, len(versions))
	for i := range versions {
		m[i] = versions[i].Major
	}
	return m
}
