package pgbin

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// place is one file that may be the postgres wanted.
type place struct {
	path string
	why  string // where the idea to look there came from, for messages
	// distrusted: the path was read from a file of the target, and must be the kind of file only root or we can change.
	distrusted bool
}

// besideProgram is why stock looks anywhere at all.
const besideProgram = "beside this program"

// places lists where to look, best first, none twice.
//
// Beside the program comes after a directory the user named, and before all that is only guessed, since a program that
// was installed among the server's own, as pg_rewind is, belongs to that server.
func places(o *Options, own string) []place {
	var list []place
	add := func(dir, why string) {
		if filepath.IsAbs(dir) {
			list = append(list, place{path: filepath.Join(dir, "postgres"), why: why})
		}
	}
	if o.BinDir != "" {
		dir, err := filepath.Abs(o.BinDir)
		if err != nil {
			dir = o.BinDir
		}
		add(dir, "--pg-bindir")
	}
	if own != "" {
		// Stock looks only where the last link ends. A link in the server's directory to a program elsewhere is just as
		// clear a hint.
		if end, err := filepath.EvalSymlinks(own); err == nil {
			add(filepath.Dir(end), besideProgram)
		}
		add(filepath.Dir(own), besideProgram)
	}
	if path := fromOpts(o.DataDir); path != "" {
		list = append(list, place{path: path, why: "the target's postmaster.opts", distrusted: true})
	}
	for _, format := range usualDirs {
		dir := format
		if strings.Contains(format, "%d") {
			dir = fmt.Sprintf(format, o.Major)
		}
		add(dir, "a usual place")
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		add(dir, "PATH")
	}

	seen := map[string]bool{}
	unique := list[:0]
	for _, p := range list {
		if !seen[p.path] {
			seen[p.path] = true
			unique = append(unique, p)
		}
	}
	return unique
}

// usualDirs are where distributions and builders put a server's programs; %d is the major.
var usualDirs = []string{
	"/usr/lib/postgresql/%d/bin",          // Debian, Ubuntu
	"/usr/pgsql-%d/bin",                   // the PostgreSQL project's RPMs
	"/usr/lib/postgresql%d/bin",           // SUSE
	"/usr/lib64/postgresql-%d/bin",        // Gentoo
	"/usr/libexec/postgresql%d",           // Alpine
	"/usr/local/pgsql/bin",                // make install
	"/usr/local/pgsql-%d/bin",             //
	"/opt/pgsql-%d/bin",                   //
	"/opt/pgsql/%d/bin",                   //
	"/opt/postgresql/%d/bin",              //
	"/opt/PostgreSQL/%d/bin",              // EnterpriseDB's installer
	"/Library/PostgreSQL/%d/bin",          // the same on macOS
	"/opt/bitnami/postgresql/bin",         // Bitnami's images
	"/opt/homebrew/opt/postgresql@%d/bin", // Homebrew
	"/usr/local/opt/postgresql@%d/bin",    //
	"/usr/local/bin",                      // FreeBSD, container images
}

// ownPath finds the file this program was started from, without resolving links: argv[0] itself if it has a slash, else
// the first of that name in PATH, as the shell has found it (find_my_exec, src/common/exec.c). Empty if there is none.
func ownPath(argv0 string) string {
	if argv0 == "" {
		return ""
	}
	if strings.ContainsRune(argv0, filepath.Separator) {
		path, err := filepath.Abs(argv0)
		if err != nil || executable(path) != nil {
			return ""
		}
		return path
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if path, err := filepath.Abs(filepath.Join(dir, argv0)); err == nil && executable(path) == nil {
			return path
		}
	}
	return ""
}

// executable checks that path is a regular file that this user may run (validate_exec, src/common/exec.c).
func executable(path string) error {
	fi, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case !fi.Mode().IsRegular():
		return fmt.Errorf("not a regular file")
	}
	return unix.Access(path, unix.X_OK)
}

// maxOptsBytes bounds what is read of postmaster.opts: the longest path there is, and then some.
const maxOptsBytes = 8192

// fromOpts reads which program last served the target: the first word of postmaster.opts, which the postmaster writes as
// its own full path, unquoted, followed by quoted arguments (CreateOptsFile, postmaster.c). Empty if the file says
// nothing usable.
func fromOpts(dataDir string) string {
	f, err := os.OpenFile(filepath.Join(dataDir, "postmaster.opts"), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	line, _ := bufio.NewReader(io.LimitReader(f, maxOptsBytes)).ReadString('\n')
	path, _, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ` "`)
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || filepath.Base(path) != "postgres" {
		return ""
	}
	return path
}

// trustworthy resolves path and checks that nobody but root and this user could have put the file there: a data directory
// is written to by whoever restores backups into it, and must not decide what is run. The file and every directory above
// it must be owned by root or us, and not writable by everybody, save sticky directories such as /tmp. It is the path
// returned, free of links, that may be run.
func trustworthy(path string) (string, error) {
	end, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	for at := end; ; at = filepath.Dir(at) {
		fi, err := os.Stat(at)
		if err != nil {
			return "", err
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		switch {
		case !ok || st.Uid != 0 && int(st.Uid) != os.Geteuid():
			return "", fmt.Errorf("not run, because %s is owned by neither root nor this user", at)
		case fi.Mode().Perm()&0o002 != 0 && (at == end || fi.Mode()&fs.ModeSticky == 0):
			return "", fmt.Errorf("not run, because %s can be written by everybody", at)
		}
		if at == filepath.Dir(at) {
			return end, nil
		}
	}
}
