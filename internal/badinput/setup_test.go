package badinput

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"syscall"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// pair is a case's target and source. Both are shared, and have to stay as they are, until the case asks for its own.
type pair struct {
	t         *testing.T
	env       *pgtest.Env
	templates *templates

	target, source *pgtest.Cluster
	args           []string // the first four: --target-pgdata, its value, a source's option, its value
}

// templates are the clusters all cases copy.
type templates struct {
	target, source *pgtest.Cluster

	spoiltTarget, spoiltSource *scratch // copies for the cases to spoil

	relation                    string // path of table t
	checkpoint, divergence, end uint64 // segment numbers in the target's WAL, one after the other with others between
}

const (
	segBytes  = 1 << 20
	segsPerID = 1 << 32 / segBytes
)

// makeTemplates makes the clusters: segments of 1 MB, so that a few megabytes of WAL are many files.
func makeTemplates(t *testing.T, env *pgtest.Env) *templates {
	target := env.Init("target", pgtest.InitOptions{SegSizeMB: 1})
	target.Start()
	target.SQL("postgres", "create table t (id int primary key, v text); insert into t select g, repeat('x', 200) from generate_series(1, 5000) g")
	target.Checkpoint()
	m := &templates{target: target, relation: target.Query("postgres", "select pg_relation_filepath('t')")}
	source := target.Standby("source")
	source.Start()
	target.SQL("postgres", "checkpoint")
	m.source, m.checkpoint = source, lsn(target)/segBytes
	target.SQL("postgres", "update t set v = repeat('y', 200); update t set v = repeat('z', 200)")
	target.WaitReplay(source)
	m.divergence = lsn(target) / segBytes
	source.Promote()
	target.SQL("postgres", "update t set v = repeat('a', 200); update t set v = repeat('b', 200)")
	source.SQL("postgres", "insert into t select g, repeat('s', 200) from generate_series(10001, 12000) g; create role rewinder login")
	source.Checkpoint()
	target.Stop(pgtest.Fast)
	source.Stop(pgtest.Fast)
	m.end = target.Control().Checkpoint / segBytes
	m.spoiltTarget, m.spoiltSource = newScratch(t, target), newScratch(t, source)
	return m
}

func lsn(c *pgtest.Cluster) uint64 {
	var hi, lo uint64
	if _, err := fmt.Sscanf(c.LSN(), "%X/%X", &hi, &lo); err != nil {
		panic(err)
	}
	return hi<<32 | lo
}

// newTarget and newSource give the case a cluster of its own to spoil.
func (p *pair) newTarget() *pgtest.Cluster {
	p.target = p.templates.spoiltTarget.fresh(p.t)
	p.args[1] = p.target.DataDir()
	return p.target
}

func (p *pair) newSource() *pgtest.Cluster {
	p.source = p.templates.spoiltSource.fresh(p.t)
	p.args[3] = p.source.DataDir()
	return p.source
}

// scratch is a copy of a cluster that one case after the other spoils. What a case has changed is copied anew, which is
// much less than all of it.
type scratch struct {
	original, copied *pgtest.Cluster
	state            map[string]string // of the copy, as it was when it was fresh
}

func newScratch(t *testing.T, c *pgtest.Cluster) *scratch {
	copied := c.Copy("spoilt-" + c.Name)
	return &scratch{c, copied, snapshot(t, copied.DataDir())}
}

func (s *scratch) fresh(t *testing.T) *pgtest.Cluster {
	t.Helper()
	now := snapshot(t, s.copied.DataDir())
	var changed []string
	for path, was := range s.state {
		if now[path] != was {
			changed = append(changed, path)
		}
	}
	for path := range now {
		if _, ok := s.state[path]; !ok {
			changed = append(changed, path)
		}
	}
	sort.Strings(changed) // directories before what is in them
	for _, path := range changed {
		if err := s.restore(path); err != nil {
			t.Fatal(err)
		}
	}
	s.state = snapshot(t, s.copied.DataDir())
	return s.copied
}

func (s *scratch) restore(path string) error {
	rel, err := filepath.Rel(s.copied.DataDir(), path)
	if err != nil {
		return err
	}
	original := s.original.Path(rel)
	want, err := os.Lstat(original)
	if errors.Is(err, fs.ErrNotExist) {
		return os.RemoveAll(path)
	}
	if err != nil {
		return err
	}
	if have, err := os.Lstat(path); err == nil && want.IsDir() && have.IsDir() {
		return os.Chmod(path, want.Mode().Perm()) // its files are dealt with one by one
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return exec.Command("cp", "-a", "--", original, path).Run()
}

// server makes the source a running one.
func (p *pair) server(conninfo string) { p.args[2], p.args[3] = "--source-server", conninfo }

func (p *pair) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// segment is the file of a segment of the target's WAL.
func (p *pair) segment(n uint64) string {
	return p.target.Path("pg_wal", fmt.Sprintf("%08X%08X%08X", 1, n/segsPerID, n%segsPerID))
}

// edit changes a file in place.
func (p *pair) edit(path string, f func(b []byte) []byte) {
	p.t.Helper()
	b, err := os.ReadFile(path)
	p.must(err)
	p.must(os.WriteFile(path, f(b), 0o600))
}

// control changes a cluster's pg_control, and gives it the right checksum.
func (p *pair) control(c *pgtest.Cluster, f func(b []byte)) {
	p.t.Helper()
	p.edit(c.Path("global", "pg_control"), func(b []byte) []byte {
		table := crc32.MakeTable(crc32.Castagnoli)
		at := 288 // from 18 on it lies a little further behind
		for binary.LittleEndian.Uint32(b[at:]) != crc32.Checksum(b[:at], table) {
			if at += 4; at > 400 {
				p.t.Fatal("the control file has no checksum")
			}
		}
		f(b)
		binary.LittleEndian.PutUint32(b[at:], crc32.Checksum(b[:at], table))
		return b
	})
}

// snapshot is the state of everything below a directory, down to the time of the last change of whatever kind: nobody
// can set that one back.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("%s: no inode", path)
		}
		out[path] = fmt.Sprintf("%v, %d bytes, inode %d, changed %d.%09d", fi.Mode(), st.Size, st.Ino, st.Ctim.Sec, st.Ctim.Nsec)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// changes lists what differs between two snapshots.
func changes(before, after map[string]string) (out []string) {
	for path, what := range before {
		if now, ok := after[path]; !ok {
			out = append(out, path+" is gone")
		} else if now != what {
			out = append(out, fmt.Sprintf("%s was %s, is %s", path, what, now))
		}
	}
	for path := range after {
		if _, ok := before[path]; !ok {
			out = append(out, path+" is new")
		}
	}
	sort.Strings(out)
	return out
}

// unfatal gives the errors of 13 and 14 that end the program the name they have from 15 on.
func unfatal(r *pgtest.Result) *pgtest.Result {
	r.Stderr = regexp.MustCompile(`(?m)^pg_rewind: fatal: `).ReplaceAllString(r.Stderr, "pg_rewind: error: ")
	return r
}

// said is a program's stderr, with its own name taken out.
func said(r *pgtest.Result) string {
	b := []byte(r.Stderr)
	for _, name := range []string{"fastrewind", "pg_rewind"} {
		b = regexp.MustCompile(`(?m)^`+name+`: `).ReplaceAll(b, nil)
	}
	return string(bytes.TrimSpace(b))
}

// kinship says how close stock comes to what we say.
type kinship int

const (
	same      kinship = iota // the very same lines
	sameError                // the same error, or the same first of two
	differs                  // it has no such check, or words it otherwise
)

// refused is the exit status for what would have failed later.
const refused = 5

// bad is a case.
type bad struct {
	name  string
	spoil func(p *pair) // spoils p.newTarget() or p.newSource(), or changes p.args
	args  []string
	want  []string // parts of what we say, in this order
	exit  int      // status under our own name; 0 stands for 1, which it always is as pg_rewind
	stock kinship
}

// unlikeBefore15 are the cases of which 13 has its own words (docs/pg_rewind.md), and for 14 we have no stock to ask.
var unlikeBefore15 = map[string]bool{
	"unreadable directory of the target": true, "directory here, file there": true, "directory here, another file there": true,
	"nobody listens": true, "no such role": true, "no such database": true, // libpq's
}

// run gives the case to all three programs. Only ours are held to leave the target alone; stock comes last.
func (c *bad) run(t *testing.T, env *pgtest.Env, m *templates) {
	bin := pgtest.BuildFastrewind(t)
	p := &pair{t: t, env: env, templates: m, target: m.target, source: m.source}
	p.args = []string{"--target-pgdata", m.target.DataDir(), "--source-pgdata", m.source.DataDir()}
	if c.spoil != nil {
		c.spoil(p)
	}
	args := append(p.args, c.args...)
	var ours string
	for _, program := range []string{bin.Fastrewind, bin.PgRewind} {
		before := snapshot(t, p.target.DataDir())
		r := unfatal(env.Exec(pgtest.Cmd{Path: program, Args: args}))
		exit := 1
		if program == bin.Fastrewind && c.exit != 0 {
			exit = c.exit
		}
		if r.ExitCode != exit || r.Stdout != "" {
			t.Errorf("exit status %d and nothing on stdout were expected: %s", exit, r)
		}
		rest := r.Stderr
		for _, want := range c.want {
			_, after, ok := strings.Cut(rest, want)
			if !ok {
				t.Errorf("%s does not say %q:\n%s", filepath.Base(program), want, r.Stderr)
				break
			}
			rest = after
		}
		if c.exit == refused && !strings.Contains(r.Stderr, "othing was changed") { // stock does not look; ours says so under both names
			t.Errorf("%s does not say that nothing was changed:\n%s", filepath.Base(program), r.Stderr)
		}
		if diffs := changes(before, snapshot(t, p.target.DataDir())); len(diffs) > 0 {
			t.Errorf("%s changed the target: %s and %d others; it said\n%s", filepath.Base(program), diffs[0], len(diffs)-1, r.Stderr)
		}
		ours = said(r)
	}
	if c.stock != differs && (env.Major >= 15 || !unlikeBefore15[c.name]) {
		r := unfatal(env.Exec(pgtest.Cmd{Path: env.Bin("pg_rewind"), Args: args}))
		stock, mine := said(r), ours
		if c.stock == sameError {
			stock, mine = firstError(stock), firstError(ours)
		}
		if mine != stock || r.ExitCode != 1 {
			t.Errorf("as pg_rewind it says:\n%s\nstock, with exit status %d, says:\n%s", ours, r.ExitCode, said(r))
		}
	}
}

func firstError(text string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "error: ") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// owner is the user id that owns a path.
func owner(path string) int {
	fi, err := os.Stat(path)
	if err != nil {
		return -1
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return -1
	}
	return int(st.Uid)
}
