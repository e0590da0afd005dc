package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/fastrewind/fastrewind/internal/pgtest"
	"github.com/fastrewind/fastrewind/internal/s3test"
)

// s3Direct is an S3 server on this machine: fastrewind reads it, stock runs aws for each segment, as users do.
func s3Direct(missing int, compressor, ext string) *archiving {
	return &archiving{missing: missing, open: func(tb pgtest.TB, p *pair, segments []string) access {
		aws, tool := packaged(tb, "aws"), packaged(tb, compressor)
		server := s3test.Start(tb, s3test.Options{})
		server.NewBucket("wal")
		for _, name := range segments {
			data, err := exec.CommandContext(tb.Context(), tool, "-q", "-c", p.old.Path("pg_wal", name)).Output() //nolint:gosec // a fixed program
			if err != nil {
				tb.Fatalf("bench: %s: %v", tool, err)
			}
			server.Put("wal", compressor+"/"+name+ext, data)
		}
		a := access{
			command: fmt.Sprintf(`%s --endpoint-url %s s3 cp --only-show-errors "s3://wal/%s/%%f%s" - | %s -q -d -c > "%%p"`,
				aws, server.URL, compressor, ext, tool),
			stock: []string{"-c"},
			ours: []string{
				"--wal-archive=s3://wal/" + compressor, "--s3-endpoint=" + server.URL, "--s3-region=" + server.Region, "--s3-path-style",
			},
			env: server.Env(),
		}
		a.about = fmt.Sprintf("%s on this machine; pg_rewind -c with restore_command = 'aws s3 cp s3://wal/%s/%%f%s - | %s -d > %%p', "+
			"fastrewind --wal-archive=s3://wal/%s", server.Name, compressor, ext, compressor, compressor)
		return a
	}}
}

// packaged finds a program that scripts/install-archivers installs. What is in PATH before the distribution's directories
// may be a stub.
func packaged(tb pgtest.TB, program string) string {
	for _, dir := range []string{"/usr/bin", "/bin", "/usr/local/bin"} {
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o111 != 0 {
			return path
		}
	}
	tb.Fatalf("bench: there is no program %s in /usr/bin; scripts/install-archivers installs it", program)
	return ""
}
