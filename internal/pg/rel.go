package pg

import (
	"strconv"
	"strings"
)

// Oid is a PostgreSQL object identifier; here of tablespaces and databases.
type Oid uint32

// RelNumber names a relation's files within its database and tablespace (RelFileNumber; relNode before 16).
type RelNumber uint32

// BlockNo is a block's number within a fork of a relation, counted over all the segment files of the fork.
type BlockNo uint32

// The two tablespaces that have no link in pg_tblspc (pg_tablespace_d.h).
const (
	DefaultTablespace Oid = 1663 // base/
	GlobalTablespace  Oid = 1664 // global/
)

// Block and file sizes of every server that distributions build; other values in pg_control are refused.
const (
	BlockSize     = 8192   // bytes
	RelSegBlocks  = 131072 // blocks in one segment file of a relation: 1 GiB
	WALBlockSize  = 8192   // bytes of a WAL page
	ControlSize   = 8192   // bytes of global/pg_control
	RelSegBytes   = int64(RelSegBlocks) * BlockSize
	MaxRelSegment = (1<<32 - 1) / RelSegBlocks // number of the last segment file a relation can have
)

// Fork is one of a relation's files (ForkNumber, relpath.h).
type Fork uint8

// The forks, numbered as in WAL.
const (
	MainFork Fork = iota
	FSMFork
	VMFork
	InitFork
)

// Rel says where a relation's files are (RelFileLocator; RelFileNode before 16).
type Rel struct {
	Tablespace Oid
	Database   Oid // 0 in the global tablespace
	Number     RelNumber
}

// RelFile is one segment file (of at most 1 GiB) of a relation's main fork.
type RelFile struct {
	Rel
	Segment uint32 // 0 is the file without suffix
}

// A block map notes by blocks that no relation has that files were made anew, under a name that something else may have had,
// without WAL for their content. A server extends no relation to its last possible segment, of the 32 TB that it could have;
// and no relation has the number 0.

// RemadeRelation is the block that stands for a relation's having been made anew.
func RemadeRelation(rel Rel) (Rel, BlockNo) { return rel, MaxRelSegment * RelSegBlocks }

// RemadeDatabase is the block that stands for a database's having been put into a tablespace anew, with all files.
func RemadeDatabase(tablespace, database Oid) (Rel, BlockNo) {
	return Rel{Tablespace: tablespace, Database: database}, 0
}

// RemadeBy are the segment files whose first block is noted if f may have been made anew.
func (f RelFile) RemadeBy() [2]RelFile {
	return [2]RelFile{
		{Rel: f.Rel, Segment: MaxRelSegment},
		{Rel: Rel{Tablespace: f.Tablespace, Database: f.Database}},
	}
}

// IsRemade reports whether blocks noted of f stand for something's having been made anew.
func (f RelFile) IsRemade() bool { return f.Number == 0 || f.Segment == MaxRelSegment }

// Path is the file's path relative to the data directory. tablespaceDir is the version's directory below each
// tablespace, as in Version.TablespaceDir.
func (f RelFile) Path(tablespaceDir string) string {
	b := make([]byte, 0, 64)
	switch f.Tablespace {
	case GlobalTablespace:
		b = append(b, "global/"...)
	case DefaultTablespace:
		b = append(b, "base/"...)
		b = strconv.AppendUint(b, uint64(f.Database), 10)
		b = append(b, '/')
	default:
		b = append(b, "pg_tblspc/"...)
		b = strconv.AppendUint(b, uint64(f.Tablespace), 10)
		b = append(b, '/')
		b = append(b, tablespaceDir...)
		b = append(b, '/')
		b = strconv.AppendUint(b, uint64(f.Database), 10)
		b = append(b, '/')
	}
	b = strconv.AppendUint(b, uint64(f.Number), 10)
	if f.Segment > 0 {
		b = append(b, '.')
		b = strconv.AppendUint(b, uint64(f.Segment), 10)
	}
	return string(b)
}

// ParseRelFile says whether path is a segment file of a relation's main fork, and which. It accepts exactly what Path
// generates: no leading zeros, no ".0", no other fork, no temporary relation (isRelDataFile, filemap.c).
func ParseRelFile(path, tablespaceDir string) (RelFile, bool) {
	var f RelFile
	rest, ok := strings.CutPrefix(path, "global/")
	switch {
	case ok:
		f.Tablespace = GlobalTablespace
	default:
		if rest, ok = strings.CutPrefix(path, "base/"); ok {
			f.Tablespace = DefaultTablespace
		} else if rest, ok = strings.CutPrefix(path, "pg_tblspc/"); ok {
			var spc uint32
			if spc, rest, ok = cutNumber(rest, '/'); !ok {
				return RelFile{}, false
			}
			f.Tablespace = Oid(spc)
			if f.Tablespace == DefaultTablespace || f.Tablespace == GlobalTablespace {
				return RelFile{}, false // Path would not put it there
			}
			if rest, ok = strings.CutPrefix(rest, tablespaceDir+"/"); !ok {
				return RelFile{}, false
			}
		} else {
			return RelFile{}, false
		}
		var db uint32
		if db, rest, ok = cutNumber(rest, '/'); !ok {
			return RelFile{}, false
		}
		f.Database = Oid(db)
	}
	name, suffix, dotted := strings.Cut(rest, ".")
	num, ok := number(name)
	if !ok {
		return RelFile{}, false
	}
	f.Number = RelNumber(num)
	if dotted {
		seg, ok := number(suffix)
		if !ok || seg == 0 {
			return RelFile{}, false
		}
		f.Segment = seg
	}
	return f, true
}

// cutNumber splits s at sep and reads what stands before it as a decimal number without leading zeros.
func cutNumber(s string, sep byte) (n uint32, rest string, ok bool) {
	i := strings.IndexByte(s, sep)
	if i < 0 {
		return 0, "", false
	}
	n, ok = number(s[:i])
	return n, s[i+1:], ok
}

func number(s string) (uint32, bool) {
	if s == "" || len(s) > 1 && s[0] == '0' || s[0] == '+' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil
}
