package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// findStock finds the pg_rewind of the major that tests use unless they ask for another: 15 where that is installed.
var findStock = sync.OnceValues(func() (string, error) {
	dir, err := pgtest.FindBinDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, stockName)
	_, err = os.Stat(path)
	return path, err
})

// unlikeStock are command lines on which we do not follow a major's pg_rewind (docs/pg_rewind.md, "What is not copied").
var unlikeStock = []struct {
	lines       []string
	first, last int
}{
	{[]string{"--config-file", "--=x", "--re --w --c x --p --no-e --no-s --dr --de --bogus"}, 13, 14}, // without --config-file
	{[]string{"-n --version", "--vers"}, 13, 13},                                                      // --version is ignored there
	{[]string{"--s", "--=x"}, 17, 19},                                                                 // --sync-method among the candidates
}

// TestSameAsStock compares stdout, stderr and exit status with those of pg_rewind, of each major that is installed, for every way
// to call it that ends before it looks at a file.
func TestSameAsStock(t *testing.T) {
	eachStock(t, sameAsStock)
}

func sameAsStock(t *testing.T, major int, stock string) {
	path := "PATH=" + filepath.Dir(stock) + ":/usr/bin:/bin"
	lines := []string{
		"",
		// what is missing or too much, and which complaint comes first
		"--source-pgdata=s",
		"--source-server=s",
		"-D t",
		"-R",
		"--source-pgdata=s --source-server=c",
		"--source-pgdata=s --source-server=c -D t",
		"--source-pgdata=s -R",
		"--source-pgdata=s -D t -R",
		"--source-pgdata=s -D t -R extra",
		"--source-pgdata=s -D t extra more",
		"extra --source-pgdata=s more -D t",
		"--source-pgdata=s -D t -- -x",
		"--source-pgdata=s -D t - -n",
		"extra",
		"-- --help",
		"__complete x",
		"help",
		"completion",
		// unknown
		"--bogus",
		"--bogus=1",
		"-Z",
		"-nPZ",
		"-Zn",
		"-h",
		"-n -Z --bogus",
		"--bogus -Z",
		"--source-pgdata=s --bogus -D t",
		"-:",
		"-;",
		"-n-",
		"-=",
		"-\xc3\xa4",
		"---n",
		// values missing, or where none belongs
		"-D",
		"-nD",
		"--target-pgdata",
		"--source-pgdata",
		"--source-server",
		"--config-file",
		"--targ",
		"--dry-run=1",
		"--dry-r=1",
		"--debug=",
		"--no-s=x",
		"--help=x",
		"-n --help=x",
		// shortened names
		"--source",
		"--source=x",
		"--s",
		"--no",
		"--no-",
		"--d",
		"--",
		"--=x",
		"--re --w --c x --p --no-e --no-s --dr --de --bogus",
		"--target=t --source-p=s extra",
		"--p --re --bogus",
		// --help and --version anywhere but first, and shortened
		"-n --help",
		"-n -?",
		"-n?",
		"-nV",
		"-n -V",
		"-n --version",
		"--hel",
		"--vers",
		"-?n",
		"-Vn",
		// options that take the next argument, whatever it is
		"-D -n --source-pgdata --bogus -R",
		"-D --source-pgdata --source-pgdata -- extra",
		"-Dt -D u --source-pgdata=s extra",
		"-D= --source-pgdata= extra",
		// --version wins only as the first argument
		"--version --bogus",
		"-V",
		"-V x",
	}
	for i, line := range lines {
		name := []string{stockName, stock}[i%2] // getopt's complaints start with argv[0], others with its end
		argv := append([]string{name}, strings.Fields(line)...)
		differ := false
		for _, u := range unlikeStock {
			differ = differ || u.first <= major && major <= u.last && slices.Contains(u.lines, line)
		}
		want := call(t, stock, argv, path)
		if got := call(t, binary, argv, path); (got != want) != differ {
			t.Errorf("%q, differ: %v\n got %+v\nwant %+v", argv, differ, got, want)
		}
	}
	// An operand may be empty.
	argv := []string{"pg_rewind", "--source-pgdata=s", "-D", "t", ""}
	if got, want := call(t, binary, argv, path), call(t, stock, argv, path); got != want {
		t.Errorf("%q\n got %+v\nwant %+v", argv, got, want)
	}
}

func TestPosixlyCorrectAsStock(t *testing.T) {
	eachStock(t, func(t *testing.T, _ int, stock string) {
		for _, line := range []string{"extra --bogus", "-n extra -Z", "--source-pgdata=s -D t -- x", "--source-pgdata=s x -D t"} {
			argv := append([]string{stock}, strings.Fields(line)...)
			want := call(t, stock, argv, "POSIXLY_CORRECT=1")
			if got := call(t, binary, argv, "POSIXLY_CORRECT=1"); got != want {
				t.Errorf("%q\n got %+v\nwant %+v", argv, got, want)
			}
		}
	})
}

func TestRootAsStock(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be refused")
	}
	eachStock(t, func(t *testing.T, _ int, stock string) {
		for _, line := range []string{"--source-pgdata=s -D t", "--source-server=s -D t", "--source-pgdata=s -D t x", "", "-V", "--bogus"} {
			argv := append([]string{stock}, strings.Fields(line)...)
			want := callAs(t, nil, stock, argv)
			if got := callAs(t, nil, binary, argv); got != want {
				t.Errorf("%q\n got %+v\nwant %+v", argv, got, want)
			}
		}
	})
}

// TestSyncMethodAs17 has 17's text, as older majors do not know the option.
func TestSyncMethodAs17(t *testing.T) {
	got := call(t, binary, []string{"pg_rewind", "--sync-method=foo", "--bogus"}, "FASTREWIND_TARGET_PGDATA="+targetOf(t, 17))
	want := result{"", "pg_rewind: error: unrecognized sync method: foo\n", 1}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
