package fetch

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// TestKeywordsOfLibpq holds which keyword which major knows against the real libpq of every major. libpq refuses a keyword
// it does not know before it connects to anything.
func TestKeywordsOfLibpq(t *testing.T) {
	if testing.Short() {
		t.Skip("needs PostgreSQL's programs")
	}
	asked := make(map[int]bool)
	for _, major := range pgtest.Majors(t) {
		p, ok := psqlOf(t, major)
		if !ok {
			t.Logf("%d: not asked, its package has neither a psql nor a libpq that another's would take", major)
			continue
		}
		of := p.libpq(t)
		if of < major {
			t.Fatalf("%s of %d uses the libpq of %d", p.path, major, of)
		}
		if asked[of] { // distributions have a single one, of the newest major
			continue
		}
		asked[of] = true
		t.Run(fmt.Sprintf("libpq %d", of), func(t *testing.T) {
			known := ""
			for _, k := range keywords {
				one := k.name + "='' "
				if k.since <= of || k.since == never && of <= 13 {
					known += one
				} else if said := p.refuses(t, one); said != k.name {
					t.Errorf("%d knows %s, which is here from %d on", of, k.name, k.since)
				}
			}
			// All at once, until none is refused any more.
			for said := p.refuses(t, known); said != ""; said = p.refuses(t, known) {
				t.Errorf("%d does not know %s", of, said)
				before, after, found := strings.Cut(" "+known, " "+said+"='' ")
				if !found {
					t.Fatalf("%s was not in %s", said, known)
				}
				known = strings.TrimSpace(before+" "+after) + " "
			}
		})
	}
	switch {
	case len(asked) > 0:
	case os.Getenv("FASTREWIND_TEST_MAJORS") != "":
		t.Fatal("none of the majors in FASTREWIND_TEST_MAJORS has a psql")
	default:
		t.Skip("no major that is installed has a psql")
	}
}

// psql is a program that shows what a libpq says.
type psql struct{ path, preload string }

const nobodyKnows = "no_such_keyword"

// psqlOf is a major's psql; or another's with the major's libpq, where its package has that alone.
func psqlOf(t *testing.T, major int) (psql, bool) {
	t.Helper()
	bin, err := pgtest.FindMajor(major)
	if err != nil {
		t.Fatal(err)
	}
	own := psql{path: filepath.Join(bin, "psql")}
	if exists(own.path) {
		if out, said := own.ask(nobodyKnows + "=''"); said != nobodyKnows {
			t.Fatalf("%s: %s", own.path, out)
		}
		return own, true
	}
	lib := filepath.Join(bin, "..", "lib", "libpq.so.5")
	if !exists(lib) {
		return psql{}, false
	}
	for lender := 13; lender <= 19; lender++ { // any that is installed
		bin, err := pgtest.FindMajor(lender)
		if err != nil {
			continue
		}
		p := psql{filepath.Join(bin, "psql"), lib}
		if _, said := p.ask(nobodyKnows + "=''"); said == nobodyKnows {
			return p, true
		}
	}
	return psql{}, false
}

func (p psql) command(env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(p.path, args...)
	cmd.Env = append(env, "LC_ALL=C", "LD_PRELOAD="+p.preload)
	if v, ok := os.LookupEnv("LD_LIBRARY_PATH"); ok {
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+v)
	}
	return cmd
}

// libpq is the major of the libpq that is used.
func (p psql) libpq(t *testing.T) int {
	t.Helper()
	out, err := p.command([]string{"LD_TRACE_LOADED_OBJECTS=1"}).Output() // as ldd does
	if err != nil {
		t.Fatalf("the libraries of %s: %v", p.path, err)
	}
	libs := regexp.MustCompile(`(\S+/libpq\.so\.\S+) \(0x`).FindAllSubmatch(out, -1)
	if len(libs) != 1 {
		t.Fatalf("%s uses %d libpqs:\n%s", p.path, len(libs), out)
	}
	file, err := filepath.EvalSymlinks(string(libs[0][1]))
	if err != nil {
		t.Fatal(err)
	}
	// libpq.so.5.15 is that of 15 (SO_MINOR_VERSION, interfaces/libpq/Makefile).
	of, err := strconv.Atoi(file[strings.LastIndex(file, ".")+1:])
	if err != nil {
		t.Fatalf("%s uses %s, whose name does not say of which major it is", p.path, file)
	}
	return of
}

// ask gives what psql says to a connection string, and the keyword that its libpq does not know, or "". No server is there.
func (p psql) ask(conn string) (out []byte, unknown string) {
	cmd := p.command([]string{"HOME=/nonexistent", "PGSYSCONFDIR=/nonexistent"}, "--no-psqlrc", "-c", "", conn+" host=/nonexistent")
	out, err := cmd.CombinedOutput()
	if said := regexp.MustCompile(`invalid connection option "(.*)"`).FindSubmatch(out); said != nil {
		return out, string(said[1])
	}
	return fmt.Appendf(out, "(%v)", err), ""
}

// refuses is the keyword of a connection string that is refused as unknown, or "" if libpq went beyond its keywords.
func (p psql) refuses(t *testing.T, conn string) string {
	t.Helper()
	out, unknown := p.ask(conn)
	if unknown == "" && !bytes.HasPrefix(out, []byte("psql: ")) {
		t.Fatalf("%s %q: %s", p.path, conn, out)
	}
	return unknown
}
