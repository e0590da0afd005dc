package pg

// EntryType is what a path in a data directory is.
type EntryType uint8

// The three types that PostgreSQL's data directories are made of. Sockets, devices and the like are never listed.
const (
	RegularFile EntryType = iota + 1
	Directory
	SymbolicLink
)

// String names the type in words, for messages.
func (t EntryType) String() string {
	switch t {
	case RegularFile:
		return "regular file"
	case Directory:
		return "directory"
	case SymbolicLink:
		return "symbolic link"
	default:
		return "unknown"
	}
}

// Entry is one path of a data directory's listing.
type Entry struct {
	Path       string // relative to the data directory, components joined by '/', never "." or ".."
	Type       EntryType
	Size       int64  // bytes, of a regular file; 0 for others
	LinkTarget string // of a symbolic link, as stored in it; empty for others
}

// FileRange is a piece of one file of a source.
type FileRange struct {
	Path   string // relative to the data directory
	Offset int64  // bytes from the file's start
	Length int64  // bytes; more than zero
}

// FileChunk is what a source gave for a FileRange.
type FileChunk struct {
	Data []byte // bytes from the range's Offset; shorter than Length if the file ends before. Valid only until the callback returns.
	Gone bool   // the file no longer exists in the source; Data is empty
}
