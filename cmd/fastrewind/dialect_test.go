package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgtest"
	"github.com/fastrewind/fastrewind/internal/rewind"
)

// eachStock runs f for every installed major that has a pg_rewind.
func eachStock(t *testing.T, f func(t *testing.T, major int, stock string)) {
	t.Helper()
	if testing.Short() {
		t.Skip("compares with installed PostgreSQLs")
	}
	compared := 0
	for _, major := range pgtest.Majors(t) {
		dir, err := pgtest.FindMajor(major)
		if err != nil {
			t.Fatal(err)
		}
		stock := filepath.Join(dir, stockName)
		if _, err := os.Stat(stock); errors.Is(err, fs.ErrNotExist) {
			continue // 14 and 16 may come without
		}
		compared++
		t.Run(strconv.Itoa(major), func(t *testing.T) { f(t, major, stock) })
	}
	if compared == 0 {
		t.Error("no major has a pg_rewind to compare with")
	}
}

// TestCommandLinesAsStock compares what is said about command lines with each major's pg_rewind, called from where that lies:
// so 15's words on 15, and 13's on 13. TestSameAsStock has more of them.
func TestCommandLinesAsStock(t *testing.T) {
	eachStock(t, func(t *testing.T, _ int, stock string) {
		for _, line := range []string{
			"", "-n", "--help", "-?", "--help --bogus", "-n --help",
			"--source-pgdata=s", "-D t --source-pgdata=s --source-server=c", "-D t --source-pgdata=s -R", "-D t --source-pgdata=s extra",
			"--bogus", "-Z", "-D", "--dry-run=1",
			"-D /does/not/exist --source-pgdata=s x",
			"--version", "-V", "--version --bogus", "-V x", "-n -V", "-nV",
		} {
			argv := append([]string{stock}, strings.Fields(line)...)
			want := call(t, stock, argv)
			if got := call(t, binary, argv); got != want {
				t.Errorf("%q\n got %+v\nwant %+v", argv, got, want)
			}
		}
	})
}

// TestVersionAsStock: wherever the program lies, here even beside a postgres that may be of another major, it has the version and
// the help of the major that is meant: of the target, if the environment names one, or of the postgres that it names.
func TestVersionAsStock(t *testing.T) {
	elsewhere, err := findStock()
	if err != nil {
		t.Fatal(err)
	}
	eachStock(t, func(t *testing.T, major int, stock string) {
		byTarget, byBinDir := "FASTREWIND_TARGET_PGDATA="+targetOf(t, major), "FASTREWIND_PG_BINDIR="+filepath.Dir(stock)
		for _, env := range [][]string{
			{byTarget, "PATH=" + filepath.Dir(stock) + ":/usr/bin:/bin"}, // where that major's postgres is found
			{byTarget, byBinDir},
			{byBinDir},
		} {
			for _, order := range []string{"--version", "-V", "--help", "-?"} {
				want := call(t, stock, []string{stock, order})
				if got := call(t, binary, []string{elsewhere, order}, env...); got != want {
					t.Errorf("%s %v\n got %+v\nwant %+v", order, env, got, want)
				}
			}
		}
	})
}

// targetOf makes a directory that is a cluster of a major as far as its PG_VERSION goes. The user whom call runs programs as can
// read it.
func targetOf(t *testing.T, major int) string {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(binary), "target")
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), os.WriteFile(filepath.Join(dir, "PG_VERSION"), fmt.Appendln(nil, major), 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestDialectOfTarget: which major is meant is the target's affair, wherever the program lies, as soon as it is named.
func TestDialectOfTarget(t *testing.T) {
	for major, want := range map[string]string{
		"12": "bare", "13": "bare", "14": "bare", "15": "hint", "19": "hint", "20": "hint",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "PG_VERSION"), []byte(major+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		said := map[string]string{
			"bare": "pg_rewind: error: no source specified (--source-pgdata or --source-server)\n" +
				"Try \"pg_rewind --help\" for more information.\n",
			"hint": "pg_rewind: error: no source specified (--source-pgdata or --source-server)\n" +
				"pg_rewind: hint: Try \"pg_rewind --help\" for more information.\n",
		}[want]
		for _, env := range []map[string]string{nil, {"FASTREWIND_TARGET_PGDATA": "/does/not/exist"}} {
			if _, got := inProcess(t, env, "pg_rewind", "-D", dir); got.stderr != said || got.status != 1 {
				t.Errorf("%s: got %+v", major, got)
			}
		}
		if _, got := inProcess(t, map[string]string{"FASTREWIND_TARGET_PGDATA": dir}, "pg_rewind"); got.stderr != said {
			t.Errorf("%s, by the environment: got %+v", major, got)
		}
		// Under any other name nothing changes.
		if _, got := inProcess(t, nil, "fastrewind", "-D", dir); !strings.HasSuffix(got.stderr, "\nfastrewind: hint: Try \"fastrewind --help\" for more information.\n") {
			t.Errorf("%s, our own name: got %+v", major, got)
		}
	}
}

// TestDialects: one message of each kind, in every dialect.
func TestDialects(t *testing.T) {
	at := pg.LSN(0x2_0000_0A28)
	reason := fault.Message{Format: "invalid record length at %v: wanted %d, got %d", Args: []any{at, 24, 0}}
	for _, tt := range []struct {
		major   int // 0: our own name
		say     func(r rewind.Reporter)
		fail    error
		written string
	}{
		{0, func(r rewind.Reporter) { r.Info("executing in dry-run mode") }, nil, "pg_rewind: executing in dry-run mode\n"},
		{18, func(r rewind.Reporter) { r.Info("executing in dry-run mode") }, nil, ""},
		{
			19, func(r rewind.Reporter) { r.Info("executing in dry-run mode") }, nil,
			"pg_rewind: executing in dry-run mode\npg_rewind: detail: The target directory will not be modified.\n",
		},
		{
			18, func(r rewind.Reporter) { r.Info("servers diverged at WAL location %v on timeline %d", at, 1) }, nil,
			"pg_rewind: servers diverged at WAL location 2/A28 on timeline 1\n",
		},
		{
			19, func(r rewind.Reporter) { r.Info("servers diverged at WAL location %v on timeline %d", at, 1) }, nil,
			"pg_rewind: servers diverged at WAL location 2/00000A28 on timeline 1\n",
		},
		{
			0, func(r rewind.Reporter) { r.Info("servers diverged at WAL location %v on timeline %d", at, 1) }, nil,
			"pg_rewind: servers diverged at WAL location 2/A28 on timeline 1\n",
		},
		{13, func(r rewind.Reporter) { r.Debug("getting %d file chunks", 5) }, nil, "pg_rewind: getting file chunks\n"},
		{14, func(r rewind.Reporter) { r.Debug("getting %d file chunks", 5) }, nil, "pg_rewind: getting 5 file chunks\n"},
		{
			14, nil, fault.New("could not read WAL record at %v: %s", at, reason),
			"pg_rewind: fatal: could not read WAL record at 2/A28: invalid record length at 2/A28: wanted 24, got 0\n",
		},
		{
			19, nil, fmt.Errorf("%w", fault.New("could not read WAL record at %v: %s", at, reason)),
			"pg_rewind: error: could not read WAL record at 2/00000A28: invalid record length at 2/00000A28: expected at least 24, got 0\n",
		},
		{ // what was wrapped in other words is not put into others again
			19, nil, fmt.Errorf("wrapped: %w", fault.New("%v", at)), "pg_rewind: error: wrapped: 2/A28\n",
		},
		{
			13, nil, fault.New("postgres single-user mode in target cluster failed").WithDetail("Command was: %s", "x"),
			"pg_rewind: error: postgres single-user mode in target cluster failed\npg_rewind: fatal: Command was: x\n",
		},
		{
			13, nil, fault.New("syntax error in history file: %s", "x").WithDetail("Expected a numeric timeline ID."),
			"pg_rewind: error: syntax error in history file: x\npg_rewind: error: Expected a numeric timeline ID.\n",
		},
		{
			14, nil, errors.Join(fault.New("could not open file \"%s\": %s", "x", "y"), fault.New("could not find previous WAL record at %v", at)),
			"pg_rewind: error: could not open file \"x\": y\npg_rewind: fatal: could not find previous WAL record at 2/A28\n",
		},
		{
			17, nil, fault.New("WAL segment size must be a power of two between 1 MB and 1 GB, but the control file specifies %d byte%s", 5, "s"),
			"pg_rewind: error: invalid WAL segment size in control file (5 bytes)\n" +
				"pg_rewind: detail: The WAL segment size must be a power of two between 1 MB and 1 GB.\n",
		},
		{
			14, nil, fault.New("WAL record modifies a relation, but record type is not recognized: "+
				"lsn: %v, rmid: %d, rmgr: %s, info: %02X", at, 10, "Heap", 2),
			"pg_rewind: fatal: WAL record modifies a relation, but record type is not recognized: lsn: 2/A28, rmgr: Heap, info: 02\n",
		},
		{
			16, nil, fault.New("unexpected pageaddr %[1]v in log segment %[2]s, offset %[4]d", at, "S", at, 8192),
			"pg_rewind: error: unexpected pageaddr 2/A28 in WAL segment S, LSN 2/A28, offset 8192\n",
		},
	} {
		var speech *dialect
		if tt.major != 0 {
			speech = dialectOf(tt.major)
		}
		var out bytes.Buffer
		r := newReporter(thisProgram([]string{stockName}), newScreen(&out, func() int { return 0 }), reporting{
			format: textFormat, debug: true, now: time.Now, speech: func() *dialect { return speech },
		})
		if tt.say != nil {
			tt.say(r)
		}
		r.Fail(tt.fail)
		r.Close()
		if out.String() != tt.written {
			t.Errorf("%d: got %q\nwant %q", tt.major, out.String(), tt.written)
		}
	}
}

// TestWordingsAreSaid holds that the messages in the tables are messages of the program: texts that somebody changed would not
// be found in them any more.
func TestWordingsAreSaid(t *testing.T) {
	said := map[string]bool{}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || d.Name() == "dialect.go" {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if e, ok := n.(ast.Expr); ok {
				if text, ok := constant(e); ok {
					said[text] = true
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wordings {
		if !said[w.format] {
			t.Errorf("nobody says %q", w.format)
		}
	}
	for format := range errorsBefore15 {
		if !said[format] {
			t.Errorf("nobody says %q", format)
		}
	}
}

// constant is a string literal, or several put together.
func constant(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if text, err := strconv.Unquote(e.Value); e.Kind == token.STRING && err == nil {
			return text, true
		}
	case *ast.BinaryExpr:
		a, ok1 := constant(e.X)
		b, ok2 := constant(e.Y)
		return a + b, ok1 && ok2 && e.Op == token.ADD
	}
	return "", false
}

// verb is a conversion, of ours or of C's. A position in the log is two for C.
var verb = regexp.MustCompile(`%X/%(08)?X|%[0-9.*]*(\[\d+\])?(ll|l|z)?[a-zA-Z]`)

// unseen are texts that are not in a program as they are in the table.
var unseen = []unseenText{
	{"executing in dry-run mode", oldest, 18},                      // ours
	{"could not read restore_command from target cluster", 13, 16}, // ours
	{"neither BKPIMAGE_HAS_HOLE nor", 18, newest},                  // the compiler took it apart
}

type unseenText struct {
	text        string
	first, last int
}

// TestWordingsAreStocks holds that the words for a major are in its pg_rewind.
func TestWordingsAreStocks(t *testing.T) {
	eachStock(t, func(t *testing.T, major int, stock string) {
		program, err := os.ReadFile(stock)
		if err != nil {
			t.Fatal(err)
		}
		has := map[string]bool{}
		for text := range bytes.SplitSeq(program, []byte{0}) {
			has[verb.ReplaceAllString(string(text), "%")] = true
		}
		d := dialectOf(major)
		for _, w := range wordings {
			words := []string{w.format}
			if theirs := d.theirs[w.format]; theirs != nil && theirs.theirs != "" {
				words = []string{theirs.theirs, theirs.detail}
			}
			for _, text := range words {
				if slices.ContainsFunc(unseen, func(u unseenText) bool { return u.first <= major && major <= u.last && strings.HasPrefix(text, u.text) }) {
					continue
				}
				if text = verb.ReplaceAllString(strings.Replace(text, "byte%s", "bytes", 1), "%"); !has[text] {
					t.Errorf("it does not say %q", text)
				}
			}
		}
		for format := range errorsBefore15 {
			if text := verb.ReplaceAllString(strings.Replace(format, ": %s", ": %m", 1), "%"); major == 13 && !has[text] {
				t.Errorf("it does not say %q", text)
			}
		}
	})
}
