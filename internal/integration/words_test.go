package integration

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// TestWords holds that under the name pg_rewind the program says, line by line, what pg_rewind of the target's major says: when
// all is well, and of what a caller may have got wrong.
func TestWords(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	var compared atomic.Int32
	t.Cleanup(func() {
		if compared.Load() == 0 {
			t.Error("no major has a pg_rewind to compare with")
		}
	})
	for _, major := range pgtest.Majors(t) {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			r := newRehearsal(t, scenario{init: pgtest.InitOptions{SegSizeMB: 1, Checksums: true}, major: major})
			if r.env.HasStock() { // 14 and 16 come without
				compared.Add(1)
				r.compareWords()
			}
		})
	}
}

func (r *rehearsal) compareWords() {
	target, source := r.pair()
	source.Promote()
	target.SQL("postgres", "CREATE TABLE of_the_target AS SELECT generate_series(1, 1000)")
	target.Kill9()
	crashed := target.Copy("crashed")
	target.Start()
	target.Stop(pgtest.Fast)
	source.Checkpoint()
	source.Quiesce()

	from := "--source-server=" + source.ConnString()
	at := "--target-pgdata="
	major := r.env.Major
	// Where both cannot work on the same directory, each gets its own of the same name.
	both := func(what string, args ...string) {
		r.Helper()
		r.compare(what, args, args)
	}
	eachOwn := func(what string, of *pgtest.Cluster, args ...string) {
		r.Helper()
		a, b := of.Copy("theirs"), of.Copy("ours")
		r.compare(what, append(args, at+a.DataDir()), append(args, at+b.DataDir()))
		a.Remove()
		b.Remove()
	}

	// The command line.
	is := at + target.DataDir()
	both("no source", is)
	both("operand", is, from, "operand")
	both("unknown option", is, "--bogus")
	both("target is not there", at+"/does/not/exist", from)
	if major >= 17 {
		both("sync method", is, from, "--sync-method=none")
	}

	// What is found.
	empty := r.env.Dir("empty")
	r.env.WriteFile(filepath.Join(empty, "PG_VERSION"), fmt.Appendln(nil, major), 0o600)
	both("source is not there", is, "--source-pgdata=/does/not/exist", "-n")
	both("source is no data directory", is, "--source-pgdata="+empty, "-n")
	both("target is no data directory", at+empty, from, "-n")
	if major >= 15 { // libpq's own words are the same on all majors, those of 14 and later
		both("nobody listens", is, "--source-server=host=/does/not/exist", "-n")
		both("no such database", is, from+" dbname=nosuch", "-n")
	}
	both("restore_command is not set", is, from, "-n", "-c")
	both("crashed, dry run", at+crashed.DataDir(), from, "-n")
	both("crashed, left as it is", at+crashed.DataDir(), from, "--no-ensure-shutdown")
	eachOwn("crashed", crashed, from, "-P", "--no-sync")

	other := target.Copy("other")
	r.patchControl(other, 0, 1) // the system identifier
	both("another system", at+other.DataDir(), from, "-n")
	r.patchControl(other, 0, ^uint32(0))
	r.patchControl(other, 12, 1)
	both("an unknown catalog version", at+other.DataDir(), from, "-n")
	// Our hint is not compared. It is there, and is the last line, marked as the major marks hints.
	hint := regexp.MustCompile("\n" + map[bool]string{true: "pg_rewind: hint: "}[major >= 15] + unknownVersion + "$")
	if res := r.env.Exec(pgtest.Cmd{Path: r.bin.PgRewind, Args: []string{at + other.DataDir(), from, "-n"}}); !hint.MatchString(res.Stderr) {
		r.Errorf("no hint in the form of %d: %s", major, res)
	}

	r.step("full_page_writes")
	source.SQL("postgres", "ALTER SYSTEM SET full_page_writes = off")
	source.Reload()
	both("full_page_writes", is, from, "-n")
	source.SQL("postgres", "ALTER SYSTEM RESET full_page_writes")
	source.Reload()

	r.step("quiet")
	source.Quiesce()
	both("dry run, progress", is, from, "-n", "-P")
	eachOwn("rewind, progress", target, from, "-P")
	both("debug", is, from, "-n", "--debug")
	source.Stop(pgtest.Fast)
	dir := "--source-pgdata=" + source.DataDir()
	eachOwn("rewind, directory, progress", target, dir, "-P")
	both("debug, directory", is, dir, "-n", "--debug")
	same := source.Copy("same")
	both("no rewind required", at+same.DataDir(), dir, "-P")
	both("no rewind required, dry run", at+same.DataDir(), dir, "-n")
	r.env.WriteFile(same.Path("pg_wal", "00000002.history"), []byte("one\t0/0\n"), 0o600)
	both("history without timeline", is, "--source-pgdata="+same.DataDir(), "-n")
	r.env.WriteFile(same.Path("pg_wal", "00000002.history"), []byte("1\tnowhere\n"), 0o600)
	both("history without location", is, "--source-pgdata="+same.DataDir(), "-n")
	r.env.WriteFile(same.Path("pg_wal", "00000002.history"), []byte("3\t0/3000000\n"), 0o600)
	both("history of a younger one", is, "--source-pgdata="+same.DataDir(), "-n")

	// WAL that is missing, or no WAL.
	wal, err := filepath.Glob(target.Path("pg_wal", "00000001*"))
	if err != nil || len(wal) == 0 {
		r.Fatalf("%v %v", wal, err)
	}
	hurt := target.Copy("hurt")
	last := r.checkpointSegment(hurt)
	r.env.WriteFile(last, make([]byte, 1<<20), 0o600)
	both("zeros for WAL", at+hurt.DataDir(), dir, "-n")
	if err := os.Remove(last); err != nil {
		r.Fatalf("%v", err)
	}
	both("WAL is missing", at+hurt.DataDir(), dir, "-n")
}

// checkpointSegment is the file of the last checkpoint's record.
func (r *rehearsal) checkpointSegment(c *pgtest.Cluster) string {
	control := c.Control()
	seg := control.Checkpoint / uint64(control.SegSize)
	return c.Path("pg_wal", fmt.Sprintf("%08X%08X%08X", control.TimeLineID, seg>>12, seg&0xfff))
}

// patchControl adds to four bytes of a control file, and makes its checksum right again.
func (r *rehearsal) patchControl(c *pgtest.Cluster, offset int, more uint32) {
	r.Helper()
	path := c.Path("global", "pg_control")
	data := read(r, path)
	table := crc32.MakeTable(crc32.Castagnoli)
	for at := 224; at < 512; at += 4 {
		if binary.LittleEndian.Uint32(data[at:]) == crc32.Checksum(data[:at], table) {
			binary.LittleEndian.PutUint32(data[offset:], binary.LittleEndian.Uint32(data[offset:])+more)
			binary.LittleEndian.PutUint32(data[at:], crc32.Checksum(data[:at], table))
			r.env.WriteFile(path, data, 0o600)
			return
		}
	}
	r.Fatalf("no checksum in %s", path)
}

// compare runs stock and ours, and compares what they say.
func (r *rehearsal) compare(what string, theirArgs, ourArgs []string) {
	r.Helper()
	r.step("%s", what)
	theirs := r.env.Exec(pgtest.Cmd{Path: r.env.Bin("pg_rewind"), Args: theirArgs})
	ours := r.env.Exec(pgtest.Cmd{Path: r.bin.PgRewind, Args: ourArgs})
	if theirs.ExitCode != ours.ExitCode {
		r.Errorf("stock: %s\nours: %s", theirs, ours)
		return
	}
	they, we := r.comparable(theirs), r.comparable(ours)
	if slices.Contains(ourArgs, "--debug") { // both have an order of their own for what is excluded
		slices.Sort(they)
		slices.Sort(we)
	}
	if !slices.Equal(they, we) {
		r.Errorf("stock says what ours does not\n%sours says what stock does not\n%s", without(they, we), without(we, they))
	}
}

// without are the lines of one that the other has not; all, if it is the order that differs.
func without(one, other []string) string {
	rest := slices.Clone(other)
	var only []string
	for _, line := range one {
		if i := slices.Index(rest, line); i >= 0 {
			rest = slices.Delete(rest, i, i+1)
		} else {
			only = append(only, line)
		}
	}
	if len(only)+len(rest) == 0 {
		only = one
	}
	return strings.Join(only, "")
}

// comparable is what a program said, but for what is the program's own: where it lies, and how much it has copied.
func (r *rehearsal) comparable(res *pgtest.Result) []string {
	said := strings.NewReplacer(r.env.Bin("pg_rewind")+":", "PROGRAM:", r.bin.PgRewind+":", "PROGRAM:",
		"/theirs/", "/target/", "/ours/", "/target/").Replace(res.Stderr)
	for _, own := range ownWords {
		said = own.pattern.ReplaceAllString(said, own.is)
	}
	return slices.Collect(strings.Lines(said))
}

// unknownVersion is what is to be done about a version that this program does not know, on which stock has nothing to say.
const unknownVersion = `The target \S+ has pg_control version \d+ and catalog version \d+.* Use a newer fastrewind, or .*\n`

var ownWords = []struct {
	pattern *regexp.Regexp
	is      string
}{
	{regexp.MustCompile(`(?m)^(pg_rewind: hint: )?` + unknownVersion), ""},
	{regexp.MustCompile(`(?m)^.*kB \(\d+%\) copied\n`), ""}, // once a second
	{regexp.MustCompile(`need to copy \d+ MB \(total source directory size is \d+ MB\)`), "need to copy"},
	// The server that recovers the target; stock lets it write some of its words to standard output.
	{regexp.MustCompile(`(?m)^(backend> )?\d{4}-\d\d-\d\d .*\n|^PostgreSQL stand-alone backend .*\n|^(backend> )?\n`), ""},
	// Of --debug: a dry run of stock fetches everything, to throw it away. 19 says of each WAL segment what becomes of it, and
	// ours skips and keeps more segments than older majors.
	{regexp.MustCompile(`(?m)^pg_rewind: (getting (\d+ )?file chunks|received chunk for file .*|fetched file "global/pg_control", .*|.*pg_wal/[0-9A-F]{24}.*)\n`), ""},
	// 13 lists the control file, and forgets about the source's history.
	{regexp.MustCompile(`(?m)^pg_rewind: (global/pg_control \(COPY\)|\d+: \S+ - \S+)\n`), ""},
}
