package pgtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// known are the majors the tests know, ascending. preferred is the one they use if nobody asks for another: what they
// expect in detail was written down from it.
var known = []int{13, 14, 15, 16, 17, 18, 19}

const preferred = 15

// stockProgram is what fastrewind is compared with.
const stockProgram = "pg_rewind"

// serverPrograms must be there for a directory to be taken for PostgreSQL's. Some packages hold no more.
var serverPrograms = []string{"postgres", "initdb"}

// bare are the majors whose packages may come without pg_rewind (see scripts/install-postgres).
var bare = []int{14, 16}

// borrowed are the programs that may be another major's where a package has only the server's. The clients speak with
// every server older than themselves; what reads pg_control must be of a major whose control version is the same. Not
// pg_checksums: it looks for tablespaces under its own catalog version.
var borrowed = map[string]bool{ // name: reads pg_control
	"psql": false, "pgbench": false, "pg_basebackup": false, "pg_amcheck": false,
	"pg_controldata": true,
}

// systemDirs are where distributions have their programs; %d is the major.
var systemDirs = []string{"/usr/lib/postgresql/%d/bin", "/usr/pgsql-%d/bin"}

// majorsVariable lists majors, separated by blanks or commas, that have to be tested.
const majorsVariable = "FASTREWIND_TEST_MAJORS"

// Majors are the majors to test, ascending: those in $FASTREWIND_TEST_MAJORS, of which each must be installed, with a
// pg_rewind to compare with but for 14 and 16, or else all that are. There is at least one, or the test ends.
func Majors(tb TB) []int {
	tb.Helper()
	list, err := majors()
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	return list
}

func majors() ([]int, error) {
	listed, err := listedMajors()
	if err != nil {
		return nil, err
	}
	if listed != nil {
		for _, major := range listed {
			dir, err := installed(major)
			if err == nil && !slices.Contains(bare, major) {
				err = hasStock(dir, major)
			}
			if err != nil {
				return nil, fmt.Errorf("$%s: %w", majorsVariable, err)
			}
		}
		return listed, nil
	}
	var found []int
	for _, major := range known {
		if _, err := installed(major); err == nil {
			found = append(found, major)
		}
	}
	if len(found) == 0 {
		_, err := installed(preferred)
		return nil, err
	}
	return found, nil
}

// hasStock fails where there is no pg_rewind of the major's own. Without this check a broken installation would go
// unseen: tests leave the comparison with stock out where it is not there.
func hasStock(dir string, major int) error {
	if isThere(filepath.Join(dir, stockProgram)) {
		return nil
	}
	return fmt.Errorf("PostgreSQL %d in %s has no %s to compare with: install it with the server", major, dir, stockProgram)
}

// listedMajors is $FASTREWIND_TEST_MAJORS, sorted, without repetitions; nil if it is empty.
func listedMajors() ([]int, error) {
	words := strings.FieldsFunc(os.Getenv(majorsVariable), func(r rune) bool { return r == ' ' || r == ',' })
	var listed []int
	for _, word := range words {
		major, err := strconv.Atoi(word)
		if err != nil || !slices.Contains(known, major) {
			return nil, fmt.Errorf("$%s: %q is none of %v", majorsVariable, word, known)
		}
		listed = append(listed, major)
	}
	slices.Sort(listed)
	return slices.Compact(listed), nil
}

// FindBinDir finds the directory with the programs of the major that tests use unless they ask for another: $PG_BINDIR if
// it is set, else 15's, else, if that is not installed or not listed in $FASTREWIND_TEST_MAJORS, the newest that is.
func FindBinDir() (string, error) {
	dir, _, err := findPostgres("", 0)
	return dir, err
}

// FindMajor finds the directory with the programs of a major: $PG_BINDIR if it holds that major, else a usual place, else
// where scripts/install-postgres puts them.
func FindMajor(major int) (string, error) { return installed(major) }

// findPostgres finds the programs in a given directory, or of a given major, or those of FindBinDir.
func findPostgres(given string, major int) (dir string, found int, err error) {
	if given == "" && major == 0 {
		given = os.Getenv("PG_BINDIR")
	}
	switch {
	case given != "":
		found, err = checkBinDir(given)
		if err == nil && major != 0 && found != major {
			err = fmt.Errorf("%s holds PostgreSQL %d, not %d", given, found, major)
		}
		return given, found, err
	case major != 0:
		dir, err = installed(major)
		return dir, major, err
	}
	all, err := majors()
	if err != nil {
		return "", 0, err
	}
	major = all[len(all)-1]
	if slices.Contains(all, preferred) {
		major = preferred
	}
	dir, err = installed(major)
	return dir, major, err
}

// installed finds the programs of a major: in $PG_BINDIR, where distributions have them, where scripts/install-postgres
// puts them ($PG_PREFIX, default /opt/pg), and in PATH.
func installed(major int) (string, error) {
	prefix := os.Getenv("PG_PREFIX")
	if prefix == "" {
		prefix = "/opt/pg"
	}
	dirs := []string{os.Getenv("PG_BINDIR")}
	for _, format := range systemDirs {
		dirs = append(dirs, fmt.Sprintf(format, major))
	}
	dirs = append(dirs, filepath.Join(prefix, strconv.Itoa(major), "bin"))
	if initdb, err := exec.LookPath("initdb"); err == nil {
		if initdb, err = filepath.EvalSymlinks(initdb); err == nil {
			dirs = append(dirs, filepath.Dir(initdb))
		}
	}
	var tried []string
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		found, err := checkBinDir(dir)
		if err == nil && found == major {
			return dir, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		tried = append(tried, dir)
	}
	how := fmt.Sprintf("scripts/install-postgres %d", major)
	if major == preferred {
		how = "scripts/install-deps"
	}
	return "", fmt.Errorf("no PostgreSQL %d found in %s: run %s, or set PG_BINDIR", major, strings.Join(tried, ", "), how)
}

// checkBinDir makes sure that a directory holds the server's programs, and says of which major they are.
func checkBinDir(dir string) (int, error) {
	for _, name := range serverPrograms {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return 0, err
		}
	}
	out, err := exec.Command(filepath.Join(dir, "postgres"), "-V").Output()
	if err != nil {
		return 0, fmt.Errorf("%s/postgres -V: %w", dir, err)
	}
	// "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", "postgres (PostgreSQL) 19rc1"
	fields := strings.Fields(string(out))
	if len(fields) < 3 {
		return 0, fmt.Errorf("%s/postgres -V says %q", dir, out)
	}
	number := fields[2][:strings.IndexFunc(fields[2]+"x", func(r rune) bool { return r < '0' || r > '9' })]
	major, err := strconv.Atoi(number)
	if err != nil {
		return 0, fmt.Errorf("%s/postgres -V says %q", dir, out)
	}
	if !slices.Contains(known, major) {
		return 0, fmt.Errorf("%s holds PostgreSQL %d; the tests know %v", dir, major, known)
	}
	return major, nil
}

// Bin is the path of one of PostgreSQL's programs: the major's own, or one that can stand in for it (see borrowed), or, if
// there is none, where it should be.
func (e *Env) Bin(program string) string {
	own := filepath.Join(e.BinDir, program)
	if isThere(own) {
		return own
	}
	readsControl, ok := borrowed[program]
	if !ok {
		return own
	}
	for _, major := range slices.Backward(known) {
		if major < e.Major && !readsControl || readsControl && controlVersions[major] != controlVersions[e.Major] {
			continue
		}
		if dir, err := installed(major); err == nil && isThere(filepath.Join(dir, program)) {
			return filepath.Join(dir, program)
		}
	}
	return own
}

// HasStock reports whether the major has a pg_rewind of its own to compare with. Another major's would refuse.
func (e *Env) HasStock() bool { return isThere(e.Bin(stockProgram)) }

func isThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
