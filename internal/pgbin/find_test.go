package pgbin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// Fakes are of a major that nobody has installed.
const fakeMajor = 99

// fake puts a postgres into a new directory that answers -V with the given line, and returns the directory.
func fake(t *testing.T, dir, script string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "postgres"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func says(major any) string { return fmt.Sprintf("echo 'postgres (PostgreSQL) %v (Fake 1)'", major) }

// program puts an empty executable in place of our own.
func program(t *testing.T, path string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func opts(t *testing.T, data, line string) {
	t.Helper()
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "postmaster.opts"), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFindOrder(t *testing.T) {
	top := t.TempDir()
	at := func(name string) string { return filepath.Join(top, name) }
	data := at("data")
	own := program(t, at("real/fastrewind"))
	if err := os.MkdirAll(at("linked"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(own, at("linked/pg_rewind")); err != nil {
		t.Fatal(err)
	}
	opts(t, data, at("old server/postgres")+` "-D" "`+data+`"`+"\n")
	t.Setenv("PATH", "relative:"+at("path")+":/usr/bin:/bin")
	o := Options{DataDir: data, Major: fakeMajor, BinDir: at("given"), ProgramPath: at("linked/pg_rewind"), ProgramName: "pg_rewind"}

	// The last place first: each place added afterwards has to win over it.
	for _, dir := range []string{"path", "old server", "linked", "real", "given"} {
		fake(t, at(dir), says("99.4"))
		p, err := Find(t.Context(), o)
		if err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		if p.Path != at(dir+"/postgres") || p.Major != fakeMajor || p.Version != "postgres (PostgreSQL) 99.4 (Fake 1)" {
			t.Errorf("%s: found %+v", dir, p)
		}
	}

	// One of another major is passed over, wherever it is.
	fake(t, at("given"), says("98.1"))
	if p, err := Find(t.Context(), o); err != nil || p.Path != at("real/postgres") {
		t.Errorf("wrong major in --pg-bindir: %v, %v", p, err)
	}

	// A name without slash is looked for as the shell did.
	program(t, at("path/rewinder"))
	o.BinDir, o.ProgramPath = "", "rewinder"
	if p, err := Find(t.Context(), o); err != nil || p.Path != at("path/postgres") {
		t.Errorf("by PATH: %v, %v", p, err)
	}
}

func TestBeside(t *testing.T) {
	top := t.TempDir()
	at := func(name string) string { return filepath.Join(top, name) }
	own := program(t, at("real/fastrewind"))
	if err := os.MkdirAll(at("linked"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(own, at("linked/pg_rewind")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", fake(t, at("path"), says(17))+":/usr/bin:/bin")
	if p, ok := Beside(t.Context(), at("linked/pg_rewind")); ok {
		t.Errorf("found %+v, which is not beside it", p)
	}
	// The last place first.
	for _, tt := range []struct {
		dir   string
		major int
	}{{"real", 13}, {"linked", 18}} {
		fake(t, at(tt.dir), says(tt.major))
		if p, ok := Beside(t.Context(), at("linked/pg_rewind")); !ok || p.Path != at(tt.dir+"/postgres") || p.Major != tt.major {
			t.Errorf("%s: found %+v, %v", tt.dir, p, ok)
		}
	}
	// What says nothing is no server.
	fake(t, at("linked"), "exit 1")
	if p, ok := Beside(t.Context(), at("linked/pg_rewind")); !ok || p.Major != 13 {
		t.Errorf("found %+v, %v", p, ok)
	}
	if p, ok := Beside(t.Context(), "/does/not/exist/pg_rewind"); ok {
		t.Errorf("found %+v", p)
	}
}

func TestIn(t *testing.T) {
	top := t.TempDir()
	t.Chdir(top)
	fake(t, filepath.Join(top, "one"), says("14.1"))
	for _, dir := range []string{filepath.Join(top, "one"), "one", "./one/"} {
		if p, ok := In(t.Context(), dir); !ok || p.Path != filepath.Join(top, "one", "postgres") || p.Major != 14 {
			t.Errorf("%s: found %+v, %v", dir, p, ok)
		}
	}
	fake(t, filepath.Join(top, "two"), "exit 1")
	for _, dir := range []string{"two", "three", filepath.Join(top, "one", "postgres")} {
		if p, ok := In(t.Context(), dir); ok {
			t.Errorf("%s: found %+v", dir, p)
		}
	}
}

func TestFindNothing(t *testing.T) {
	top := t.TempDir()
	own := program(t, filepath.Join(top, "bin", "pg_rewind"))
	given := fake(t, filepath.Join(top, "given"), "exit 3")
	data := filepath.Join(top, "data")
	opts(t, data, filepath.Join(top, "gone", "postgres")+"\n")
	t.Setenv("PATH", fake(t, filepath.Join(top, "path"), says("15.18"))+":/usr/bin:/bin")
	o := Options{DataDir: data, Major: fakeMajor, BinDir: given, ProgramPath: own, ProgramName: "pg_rewind"}

	_, err := Find(t.Context(), o)
	var f *fault.Error
	if !errors.As(err, &f) {
		t.Fatalf("got %v", err)
	}
	if want := fmt.Sprintf("program \"postgres\" is needed by pg_rewind but was not found in the same directory as %q", own); f.Text != want {
		t.Errorf("text %s, want %s", f.Text, want)
	}
	for _, want := range []string{
		given + "/postgres (--pg-bindir): asked for its version: child process exited with exit code 3\n",
		top + "/bin/postgres (beside this program): not there\n",
		top + "/gone/postgres (the target's postmaster.opts): not there\n",
		"/usr/lib/postgresql/99/bin/postgres (a usual place): not there\n",
		"/usr/local/pgsql/bin/postgres (a usual place): ",
		top + `/path/postgres (PATH): its version is "postgres (PostgreSQL) 15.18 (Fake 1)"`,
		"--pg-bindir",
	} {
		if !strings.Contains(f.Advice, want) {
			t.Errorf("advice lacks %q:\n%s", want, f.Advice)
		}
	}

	// Stock's other text: there is one beside the program, of another version.
	fake(t, filepath.Join(top, "bin"), says("15.18"))
	_, err = Find(t.Context(), o)
	if want := fmt.Sprintf("program \"postgres\" was found by %q but was not the same version as pg_rewind", own); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}

	// Where we are ourselves cannot be found out: the name has to do.
	o.ProgramPath = "no-such-program"
	if _, err = Find(t.Context(), o); err == nil || !strings.HasSuffix(err.Error(), `same directory as "pg_rewind"`) {
		t.Errorf("got %v", err)
	}
}

func TestFindStrangePrograms(t *testing.T) {
	tests := []struct{ what, script string }{
		{"says nothing", "true"},
		{"never stops talking", "exec yes 'postgres (PostgreSQL)'"},
		{"another product", "echo 'postgres (EnterpriseDB) 99.3'"},
		{"no number", "echo 'postgres (PostgreSQL) x99'"},
		{"a huge number", "echo 'postgres (PostgreSQL) 99999999999999999999999'"},
		{"fails after its answer", says(99) + "; exit 1"},
	}
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			p := place{path: filepath.Join(fake(t, t.TempDir(), tt.script), "postgres")}
			if found, err := p.try(ctx, fakeMajor); err == nil {
				t.Errorf("taken for %+v", found)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := fake(t, t.TempDir(), says(99))
	if _, err := Find(ctx, Options{Major: fakeMajor, BinDir: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestParseVersion(t *testing.T) {
	for line, want := range map[string]int{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)": 15,
		"postgres (PostgreSQL) 19rc1":                          19,
		"postgres (PostgreSQL) 16devel":                        16,
		"postgres (PostgreSQL) 9.6.24":                         9,
	} {
		if got, ok := parseVersion(line); !ok || got != want {
			t.Errorf("%s: %d, %v", line, got, ok)
		}
	}
}

// TestOptsDistrusted: what a file of the target names is run only if nobody else could have put it there.
func TestOptsDistrusted(t *testing.T) {
	top := t.TempDir()
	data := filepath.Join(top, "data")
	dir := fake(t, filepath.Join(top, "bin"), says(99))
	path := filepath.Join(dir, "postgres")

	for what, line := range map[string]string{
		"relative":           "bin/postgres",
		"another program":    "/bin/sh \"-c\" \"x\"",
		"not clean":          filepath.Dir(dir) + "/x/../bin/postgres",
		"empty":              "",
		"endless":            "/" + strings.Repeat("x/", 100000) + "postgres",
		"arguments unquoted": path + " -D x",
	} {
		opts(t, data, line)
		if got := fromOpts(data); got != "" {
			t.Errorf("%s: %q", what, got)
		}
	}

	opts(t, data, path+` "-D" "x"`)
	p := place{path: fromOpts(data), distrusted: true}
	if _, err := p.try(t.Context(), fakeMajor); err != nil {
		t.Errorf("a good one: %v", err)
	}
	chmod := func(path string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	chmod(path, 0o777)
	if _, err := p.try(t.Context(), fakeMajor); err == nil || !strings.Contains(err.Error(), path+" can be written by everybody") {
		t.Errorf("a file anybody can write: %v", err)
	}
	chmod(path, 0o755)
	chmod(dir, 0o777)
	if _, err := p.try(t.Context(), fakeMajor); err == nil || !strings.Contains(err.Error(), dir+" can be written by everybody") {
		t.Errorf("a directory anybody can write: %v", err)
	}
	chmod(dir, 0o777|os.ModeSticky)
	if _, err := p.try(t.Context(), fakeMajor); err != nil {
		t.Errorf("a sticky directory: %v", err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if _, err := p.try(t.Context(), fakeMajor); err == nil || !strings.Contains(err.Error(), "owned by neither root nor this user") {
			t.Errorf("another user's file: %v", err)
		}
	}
}

func TestShellWord(t *testing.T) {
	for in, want := range map[string]string{
		"/var/lib/pg-15_a.b:c": "/var/lib/pg-15_a.b:c",
		"":                     "''",
		"a b":                  "'a b'",
		"it's":                 `'it'"'"'s'`,
		"ä":                    "'ä'",
		"$x":                   "'$x'",
	} {
		if got := shellWord(in); got != want {
			t.Errorf("shellWord(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestMajorOf(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "PG_VERSION")
	if _, err := MajorOf(dir); !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), `could not open file "`+path) {
		t.Errorf("missing: %v", err)
	}
	for text, want := range map[string]int{"15\n": 15, "9.6\n": 0, "": 0, "x\n": 0, "-15\n": 0, strings.Repeat("1", 1000): 0} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := MajorOf(dir)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("%.20q: %d, %v", text, got, err)
		}
	}
}
