package layout

import (
	"strings"

	"github.com/fastrewind/fastrewind/archive/codec"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// Kind is what sort of file PostgreSQL's archiver gave away.
type Kind uint8

// The kinds.
const (
	Segment Kind = iota + 1 // 24 hexadecimal digits
	Partial                 // SEGMENT.partial: the last one of a timeline, as far as it was written before a promotion
	History                 // TTTTTTTT.history
	Backup                  // SEGMENT.oooooooo.backup: where a base backup began and ended
)

// String names the kind as users do.
func (k Kind) String() string {
	switch k {
	case Segment:
		return "segment"
	case Partial:
		return "partial"
	case History:
		return "history"
	case Backup:
		return "backup"
	}
	return "unknown"
}

// knownExtension reports whether tools append ext to the names of what they compress. "" is one.
func knownExtension(ext string) bool {
	_, ok := codec.ByExtension(ext)
	return ok
}

// walName is a WAL file's own name, without what an archiving tool appended.
type walName struct {
	name string
	kind Kind
}

// folder is the first 16 digits of a segment's name, timeline and log file number: the folder that Barman and pgBackRest
// put it into.
func (w walName) folder() string { return w.name[:16] }

// tli is the timeline in the name.
func (w walName) tli() pg.TLI { return pg.TLI(number(w.name[:8])) }

// parseWALName reads the name of a WAL file of any kind.
func parseWALName(name string) (walName, bool) {
	w, rest, ok := cutWALName(name)
	return w, ok && rest == ""
}

// cutWALName splits a base name into the WAL file's name and what follows it, which is not looked at.
func cutWALName(base string) (w walName, rest string, ok bool) {
	if len(base) >= 8+len(".history") && isUpperHex(base[:8]) && strings.HasPrefix(base[8:], ".history") {
		n := 8 + len(".history")
		return walName{base[:n], History}, base[n:], true
	}
	const n = pg.SegmentNameLen
	if len(base) < n || !pg.IsSegmentName(base[:n]) {
		return walName{}, "", false
	}
	rest = base[n:]
	const partial, backup = len(".partial"), len(".00000028.backup")
	switch {
	case strings.HasPrefix(rest, ".partial"):
		return walName{base[:n+partial], Partial}, rest[partial:], true
	case len(rest) >= backup && rest[0] == '.' && isUpperHex(rest[1:9]) && rest[9:backup] == ".backup":
		return walName{base[:n+backup], Backup}, rest[backup:], true
	}
	return walName{base[:n], Segment}, rest, true
}

// objectName is what the name of an object in an archive says.
type objectName struct {
	walName
	sha1 string // of the decoded bytes, 40 lower-case hexadecimal digits; only pgBackRest's segments have it
	ext  string // of a codec
}

// parseObjectName reads an object's base name. hashed: a SHA-1 belongs into the name of segments (pgBackRest), which then
// alone may be compressed.
func parseObjectName(base string, hashed bool) (objectName, bool) {
	w, rest, ok := cutWALName(base)
	if !ok {
		return objectName{}, false
	}
	o := objectName{walName: w}
	if hashed {
		if w.kind == History || w.kind == Backup {
			return o, rest == ""
		}
		if len(rest) < 41 || rest[0] != '-' || !isLowerHex(rest[1:41]) {
			return objectName{}, false
		}
		o.sha1, rest = rest[1:41], rest[41:]
	}
	o.ext = rest
	return o, knownExtension(rest)
}

func isUpperHex(s string) bool { return only(s, "0123456789ABCDEF") }
func isLowerHex(s string) bool { return only(s, "0123456789abcdef") }

// isFolder reports whether name is that of a folder for the segments of one timeline and log file.
func isFolder(name string) bool { return len(name) == 16 && isUpperHex(name) }

func only(s, set string) bool { return strings.Trim(s, set) == "" && s != "" }

// number is that of up to eight hexadecimal digits, which have been looked at before.
func number(digits string) uint32 {
	var n uint32
	for _, c := range []byte(digits) {
		switch {
		case c <= '9':
			n = n<<4 | uint32(c-'0')
		default:
			n = n<<4 | uint32(c-'A'+10)
		}
	}
	return n
}
