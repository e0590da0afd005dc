// Package fsx is the small file-system seam through which the target is written, and nothing else is. Everything that
// must survive a crash, fail cleanly, or stay inside the target is testable because it goes through FS.
//
//	fsx.go           the interface, and what its users may rely on
//	target.go        the real target: a data directory, its pg_wal and its tablespaces, none of them ever left
//	file.go          an open file of the real target
//	sync_linux.go    sync_file_range and syncfs
//	sync_other.go    the same where they do not exist
package fsx

import (
	"errors"
	"io/fs"
	"strings"
)

// ErrUnsafe is in the chain of every error that says: this name would lead out of the target, or through a symbolic link
// that may not be followed. Nothing was touched.
var ErrUnsafe = errors.New("path leads outside the target")

// Open says what OpenFile expects of the name.
type Open uint8

// The ways to open a file. None of them cuts the file.
const (
	Existing  Open = iota // it must exist
	Create                // made with the mode given if it does not exist; otherwise content and mode stay
	CreateNew             // it must not exist
)

// FS is a target as its writers see it. Names are relative to the data directory, joined by '/', as in pg.Entry; they must
// satisfy Local. Errors are *fs.PathError or *os.LinkError, with the errno inside.
//
// All methods may be called from several goroutines at once. What order they take effect in after a crash is only what
// Sync, SyncDir and SyncFS promise: data and size of a file are durable after its Sync, a name made, renamed or removed
// is durable after the SyncDir of the directory that holds it.
type FS interface {
	// Path is the name as a user knows it, for messages.
	Path(name string) string
	// OpenFile opens a regular file for writing. A last component that is a symbolic link is never followed.
	OpenFile(name string, how Open, mode fs.FileMode) (File, error)
	Mkdir(name string, mode fs.FileMode) error
	// Symlink makes name a link that holds target, whatever target is.
	Symlink(target, name string) error
	Readlink(name string) (string, error)
	// Lstat does not follow a link that is the last component.
	Lstat(name string) (fs.FileInfo, error)
	// Rename moves within one directory, replacing newname if it exists.
	Rename(oldname, newname string) error
	// Remove removes a file, a link (not what it points to) or an empty directory.
	Remove(name string) error
	// SyncDir makes the names in a directory durable; "." is the data directory itself.
	SyncDir(name string) error
	// SyncFS makes durable all that was written, on every file system that was written to. errors.ErrUnsupported where
	// the operating system cannot.
	SyncFS() error
}

// File is one open file. WriteAt may be called from several goroutines at once, and with any of the others; none may be
// called after Close.
type File interface {
	// WriteAt writes all of p at offset (bytes), or fails. It does not keep p.
	WriteAt(p []byte, offset int64) (int, error)
	Truncate(size int64) error
	// Size is the size in bytes now.
	Size() (int64, error)
	// StartWriteback asks the kernel to begin writing n bytes from offset to disk, and does not wait. It promises
	// nothing, reports no failure of the disk (Sync does) and does nothing where there is no such call.
	StartWriteback(offset, n int64) error
	// Sync makes data and size durable. After an error the state of the file is not known, and calling it again would
	// prove nothing: the kernel may have dropped the pages and marked them clean (PostgreSQL's commit 9ccdd7f66e).
	Sync() error
	Close() error
}

// Local reports whether a name can be joined to the data directory without leaving it by its spelling alone: not empty,
// not absolute, no empty component, none that is "." or "..", no zero byte. What links on the disk do to it is seen when
// it is used.
func Local(name string) bool {
	if strings.IndexByte(name, 0) >= 0 {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return true
}
