package pgtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// majors are the PostgreSQL versions the tests know, best first.
var majors = []int{15}

// needed are the programs a directory must hold to be taken for PostgreSQL's.
var needed = []string{"postgres", "initdb", "pg_basebackup", "pg_rewind", "psql", "pgbench"}

// FindBinDir finds the directory with PostgreSQL's programs: $PG_BINDIR if it is set, else the distribution's
// /usr/lib/postgresql/MAJOR/bin, else where initdb is found in PATH. The version must be one the tests know.
func FindBinDir() (string, error) {
	dir, _, err := findPostgres("")
	return dir, err
}

func findPostgres(given string) (dir string, major int, err error) {
	if given == "" {
		given = os.Getenv("PG_BINDIR")
	}
	if given != "" {
		major, err := checkBinDir(given)
		return given, major, err
	}
	var tried []string
	try := func(dir string) bool {
		tried = append(tried, dir)
		major, err = checkBinDir(dir)
		return err == nil
	}
	for _, m := range majors {
		dir := fmt.Sprintf("/usr/lib/postgresql/%d/bin", m)
		if try(dir) {
			return dir, major, nil
		}
	}
	if initdb, err := exec.LookPath("initdb"); err == nil {
		if initdb, err = filepath.EvalSymlinks(initdb); err == nil && try(filepath.Dir(initdb)) {
			return filepath.Dir(initdb), major, nil
		}
	}
	return "", 0, fmt.Errorf("no PostgreSQL of a known version (%v) found in %s: run scripts/install-deps, or set PG_BINDIR",
		majors, strings.Join(tried, ", "))
}

func checkBinDir(dir string) (int, error) {
	for _, name := range needed {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return 0, err
		}
	}
	out, err := exec.Command(filepath.Join(dir, "postgres"), "-V").Output()
	if err != nil {
		return 0, fmt.Errorf("%s/postgres -V: %w", dir, err)
	}
	// "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
	fields := strings.Fields(string(out))
	if len(fields) < 3 {
		return 0, fmt.Errorf("%s/postgres -V says %q", dir, out)
	}
	number := fields[2][:strings.IndexFunc(fields[2]+"x", func(r rune) bool { return r < '0' || r > '9' })]
	major, err := strconv.Atoi(number)
	if err != nil {
		return 0, fmt.Errorf("%s/postgres -V says %q", dir, out)
	}
	if !slices.Contains(majors, major) {
		return 0, fmt.Errorf("%s holds PostgreSQL %d; the tests know %v", dir, major, majors)
	}
	return major, nil
}
