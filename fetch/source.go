package fetch

import (
	"strings"
	"unicode/utf8"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// Limits of the contract.
const (
	// MaxChunk is the most bytes one range may ask for (MAX_CHUNK_SIZE, libpq_source.c).
	MaxChunk = 1 << 20
	// MaxWholeFile is the most bytes ReadFile can be asked to accept.
	MaxWholeFile = 32 << 20
)

// Limits that no data directory comes near, against a source that lies.
const (
	maxPath      = 1023    // bytes: the server's own paths end there (MAXPGPATH)
	maxComponent = 255     // bytes: NAME_MAX
	maxEntries   = 1 << 24 // files and directories of one listing; about 2 GB of memory here
	maxListBytes = 2 << 30 // bytes: of all paths of one listing
	maxFileSize  = 1 << 44 // bytes: 16 TiB, more than PostgreSQL's file systems allow a file
)

// VerifyPath checks that a path names something below a data directory, in the one form listings use: not empty, not
// absolute, components that are neither empty nor "." nor "..", no control characters, valid UTF-8, not longer than
// PostgreSQL itself can handle. A rogue source could otherwise have any file of ours written or removed
// (CVE-2026-6475).
func VerifyPath(path string) error {
	switch {
	case path == "":
		return badPath(path, "it is empty")
	case len(path) > maxPath:
		return badPath(path[:64]+"...", "it is longer than PostgreSQL's limit of %d bytes", maxPath)
	case path[0] == '/':
		return badPath(path, "it is absolute")
	case !utf8.ValidString(path):
		return badPath(path, "it is not valid UTF-8; rename the file in the source")
	}
	for rest, more := path, true; more; {
		var name string
		name, rest, more = strings.Cut(rest, "/")
		switch {
		case name == "":
			return badPath(path, "it has an empty component")
		case name == "." || name == "..":
			return badPath(path, "it has the component %q", name)
		case len(name) > maxComponent:
			return badPath(path, "it has a component of more than %d bytes", maxComponent)
		}
	}
	for i := range len(path) {
		if path[i] < ' ' || path[i] == 0x7f {
			return badPath(path, "it has the control character %#02x", path[i])
		}
	}
	return nil
}

func badPath(path, why string, args ...any) error {
	return fault.New("source path is unsafe: %q", path).
		Advise("Nothing was done with this path, because "+why+".", args...).Ours()
}

// verifySpelling checks that a path cannot lead out of a directory by its spelling. A local directory may hold names that
// a server could not be asked for, and stock copies them.
func verifySpelling(path string) error {
	if path == "" || path[0] == '/' || strings.IndexByte(path, 0) >= 0 {
		return badPath(path, "it is empty, absolute or has a zero byte")
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." || name == ".." {
			return badPath(path, "it has the component %q", name)
		}
	}
	return nil
}

// checkRanges refuses a call that breaks the contract, before anything is fetched. verify checks a path.
func checkRanges(ranges []pg.FileRange, verify func(path string) error) error {
	last := ""
	for i := range ranges {
		r := &ranges[i]
		if r.Length < 1 || r.Length > MaxChunk || r.Offset < 0 || r.Offset > maxFileSize {
			return fault.New("invalid range of source file \"%s\": offset %d, length %d", r.Path, r.Offset, r.Length).
				Advise("A range has 1 to %d bytes. This is a bug: please report it.", MaxChunk)
		}
		if r.Path == last { // ranges of one file come together
			continue
		}
		if err := verify(r.Path); err != nil {
			return err
		}
		last = r.Path
	}
	return nil
}
