package settings

import (
	"strings"

	"github.com/fastrewind/fastrewind/archive/location"
)

// readers are programs that copy or decompress the file that they are given, or that a redirection gives them.
var readers = set("cp", "ln", "mv", "install", "cat", "dd", "rsync", "pv", "gunzip", "gzip", "zcat", "pigz", "unpigz",
	"zstd", "unzstd", "zstdcat", "pzstd", "lz4", "unlz4", "lz4cat", "xz", "unxz", "xzcat", "lzma", "unlzma", "lzcat",
	"bzip2", "bunzip2", "bzcat", "pbzip2", "lbzip2", "lzop", "brotli", "snzip", "7z")

// reader is cp /dir/%f "%p", gunzip < /dir/%f.gz > "%p", cat /dir/%f.zst | zstd -d > "%p".
func (s *shell) reader(c simple, origin string) {
	files := append([]word{c.stdin}, c.args...)
	dark := false
	for i, f := range files {
		if !f.known {
			dark = dark || i > 0
			continue
		}
		name := strings.TrimPrefix(f.text, "if=") // dd's
		if !strings.Contains(name, markFile) {
			continue
		}
		if host, _, remote := strings.Cut(name, ":"); remote && !strings.Contains(host, "/") {
			s.out.note("%s reads from another machine", origin)
			return
		}
		dir, ext, ok := splitFile(name)
		if !ok {
			s.out.note("%s reads \"%s\", in which no WAL file's name with a known ending is recognised", origin, unmarked(name))
			return
		}
		if dir == "" {
			dir = "."
		}
		if dir = c.vars.abs(dir); dir == "" {
			s.out.note("%s reads from a directory that is not named in full", origin)
			return
		}
		s.out.add(location.Archive{Origin: origin, Dir: dir, Layout: location.Plain, Extension: ext})
		return
	}
	if dark {
		s.out.note("%s has arguments that only a shell can find out", origin)
	}
}
