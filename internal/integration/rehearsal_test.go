package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// rehearsal is one scenario being played. It is the pgtest.TB of its servers, so that every failure says in which step
// it happened.
type rehearsal struct {
	*testing.T
	scenario
	env *pgtest.Env
	bin pgtest.Binaries

	slow pg.LSN // the record of slowCheckpoint

	now   string    // the step
	since time.Time // when it began
	times []string
}

func newRehearsal(t *testing.T, s scenario) *rehearsal {
	r := &rehearsal{T: t, scenario: s}
	t.Cleanup(func() {
		r.step("")
		t.Logf("seconds: %s", strings.Join(r.times, ", "))
	})
	r.step("build")
	r.bin = pgtest.BuildFastrewind(r)
	r.step("init")
	r.env = pgtest.New(r, pgtest.Options{Major: s.major})
	return r
}

// step names what comes next.
func (r *rehearsal) step(format string, args ...any) {
	if r.now != "" {
		r.times = append(r.times, fmt.Sprintf("%s %.1f", r.now, time.Since(r.since).Seconds()))
	}
	r.now, r.since = fmt.Sprintf(format, args...), time.Now()
}

// Errorf and Fatalf implement pgtest.TB.
func (r *rehearsal) Errorf(format string, args ...any) {
	r.Helper()
	r.T.Errorf("%s: %s", r.now, fmt.Sprintf(format, args...))
}

func (r *rehearsal) Fatalf(format string, args ...any) {
	r.Helper()
	r.T.Fatalf("%s: %s", r.now, fmt.Sprintf(format, args...))
}

// fromServer rewinds copies of the target, the source running.
func (r *rehearsal) fromServer(s sides) {
	from := pgtest.FromServer(s.source)
	if r.role != "" {
		from = pgtest.FromConn(s.source.ConnStringAs(r.role))
	}
	stock, ours := r.copyForStock(s.target, "stock-server"), s.target.Copy("ours-server")
	r.rewind("server", s, stock, ours, r.bin.Fastrewind, from, r.serverArgs)
	r.verify("server", s, ours)
	ours.Stop(pgtest.Fast)
	r.checksums("server", ours)
	r.remove(ours)
}

// fromDirectory rewinds a copy of the target, and, with ours under stock's name, the target itself.
func (r *rehearsal) fromDirectory(s sides) {
	r.step("directory: source")
	if r.beforeDirectory != nil {
		r.beforeDirectory(s.source)
	}
	s.source.Stop(pgtest.Fast)
	r.step("directory: copy")
	stock, ours := r.copyForStock(s.target, "stock-directory"), s.target
	r.rewind("directory", s, stock, ours, r.bin.PgRewind, pgtest.FromDir(s.source), nil)
	r.verify("directory", s, ours)
	ours.Stop(pgtest.Fast)
	r.checksums("directory", ours)
}

// copyForStock is nil where no stock program is installed.
func (r *rehearsal) copyForStock(c *pgtest.Cluster, name string) *pgtest.Cluster {
	if !r.env.HasStock() {
		return nil
	}
	return c.Copy(name)
}

// rewind rewinds with both programs and compares what they say and what they leave. Stock is spared the sync, which
// changes no byte.
func (r *rehearsal) rewind(kind string, s sides, stock, ours *pgtest.Cluster, program string, from pgtest.Source, args []string) {
	said := r.rewindStock(kind, stock, from, slices.Concat([]string{"--no-sync"}, r.args, args))
	if r.lose != nil {
		r.lose(r, ours)
	}
	args = slices.Concat([]string{"--progress", "--jobs", "3"}, r.args, args, r.loserArgs)
	if r.dryRun {
		r.step("%s: dry run", kind)
		r.rewindDry(ours, program, from, args)
	}
	r.step("%s: ours", kind)
	also := decisions(ours.MustRewind(program, from, args...))
	r.nothingBeside(ours)
	if stock == nil {
		if !strings.Contains(also, rewinding) {
			r.Errorf("ours did not rewind: %s", also)
		}
		return
	}
	if also != said {
		r.Errorf("stock says\n%sours says\n%s", said, also)
	}
	r.step("%s: same trees", kind)
	seen := pgtest.SameTrees(r, ours, stock, r.allowed(s)...)
	for _, rule := range r.differs {
		if !slices.ContainsFunc(seen, func(d pgtest.Difference) bool { ok, err := rule.Match(d); return ok && err == nil }) {
			r.Errorf("no difference of the kind that was to be shown: %s", rule.Reason)
		}
	}
	r.sameEnd(s, ours, stock)
	r.remove(stock)
}

// rewindStock rewinds with stock, where there is one, and returns what it says it will do.
func (r *rehearsal) rewindStock(kind string, stock *pgtest.Cluster, from pgtest.Source, args []string) string {
	if stock == nil {
		return ""
	}
	r.step("%s: stock", kind)
	said := decisions(stock.StockRewind(from, args...))
	if !strings.Contains(said, rewinding) {
		r.Fatalf("stock did not rewind: %s", said)
	}
	return said
}

// rewinding is how a rewind says that there is something to do.
const rewinding = "rewinding from last common checkpoint"

// sameEnd holds that ours must replay as far as stock's, as exactly as RewindDifferences does not.
func (r *rehearsal) sameEnd(s sides, ours, stock *pgtest.Cluster) {
	const pageHeader = 40 // the longest
	our, their := ours.Control(), stock.Control()
	o, t := our.MinRecoveryPoint, their.MinRecoveryPoint
	ok := o == t
	switch {
	case s.source.Running() && r.env.Major == 13: // stock has made a table of its own in the source meanwhile
		const enough = 1 << 20
		ok = max(o, t)-min(o, t) < enough
	case s.source.Running() && s.source == s.primary: // how far it had flushed, and where it would insert
		ok = o <= t && t-o <= pageHeader
	case !s.source.Running() && s.source != s.primary: // how far it had replayed, and its last restartpoint
		ok = o >= t
	}
	if !ok || our.MinRecoveryPointTLI != their.MinRecoveryPointTLI {
		r.Errorf("minRecoveryPoint is %v on timeline %d, stock says %v on timeline %d",
			pg.LSN(o), our.MinRecoveryPointTLI, pg.LSN(t), their.MinRecoveryPointTLI)
	}
}

// decisions are the lines in which a rewind says what it is about to do, without the program's name. 19 fills positions up
// with zeros, which is passed over.
func decisions(res *pgtest.Result) string {
	var said strings.Builder
	for line := range strings.Lines(res.Stderr) {
		for _, what := range []string{"servers diverged at", rewinding} {
			if _, after, ok := strings.Cut(line, ": "+what); ok {
				said.WriteString(what + leadingZeros.ReplaceAllString(after, "/"))
			}
		}
	}
	return said.String()
}

// leadingZeros are those of the second number of a position.
var leadingZeros = regexp.MustCompile(`/0+`)

// rewindDry holds that a dry run changes nothing.
func (r *rehearsal) rewindDry(ours *pgtest.Cluster, program string, from pgtest.Source, args []string) {
	before := ours.Copy(ours.Name + "-before")
	ours.MustRewind(program, from, append([]string{"--dry-run"}, args...)...)
	pgtest.SameTrees(r, ours, before)
	r.nothingBeside(ours)
	r.remove(before)
}

// nothingBeside holds that nothing is left of what a rewind keeps beside the data directory.
func (r *rehearsal) nothingBeside(c *pgtest.Cluster) {
	left, err := filepath.Glob(filepath.Join(filepath.Dir(c.DataDir()), ".fastrewind*"))
	if err != nil || len(left) > 0 {
		r.Errorf("left beside the data directory: %v %v", left, err)
	}
}

// startRewound starts the server, and once more if it ended by a race of PostgreSQL's own: while a restart point writes the
// state file of a prepared transaction, the startup process may read it, as yet empty, to replay a record of running
// transactions. Seen once, on 15.18, on a busy machine, with a tree that was equal to stock's.
func (r *rehearsal) startRewound(c *pgtest.Cluster) {
	err := c.TryStart()
	if err != nil && strings.Contains(c.Log(), `incorrect size of file "pg_twophase/`) {
		err = c.TryStart()
	}
	if err != nil {
		r.Fatalf("starting %s: %v\n%s", c.Name, err, c.Log())
	}
}

// verify starts the rewound server as a standby, lets it stream, and looks whether it is as its primary.
func (r *rehearsal) verify(kind string, s sides, ours *pgtest.Cluster) {
	r.step("%s: start", kind)
	if !s.source.Running() {
		s.source.Start()
	}
	s.source.Thaw()
	switch {
	case kind != "server" || !slices.Contains(r.serverArgs, writeRecoveryConf):
		ours.Follow(s.primary)
	case r.role != "":
		s.primary.SQL("postgres", fmt.Sprintf("ALTER ROLE %s REPLICATION", r.role)) // to rewind it needs less than to stream
	}
	r.startRewound(ours)
	r.step("%s: stream", kind)
	s.primary.SQL("postgres", "CREATE TABLE IF NOT EXISTS after_rewind (i int); INSERT INTO after_rewind VALUES (1)")
	s.primary.WaitStreaming(ours)
	s.primary.WaitReplay(ours)
	r.step("%s: same data", kind)
	pgtest.SameData(r, ours, s.primary)
	r.step("%s: amcheck", kind)
	ours.AmCheck()
}

func (r *rehearsal) checksums(kind string, c *pgtest.Cluster) {
	if r.init.Checksums {
		r.step("%s: checksums", kind)
		c.Checksums()
	}
}

// remove gives the space of a stopped cluster back before the test ends, unless somebody may want to look at it.
func (r *rehearsal) remove(c *pgtest.Cluster) {
	if r.Failed() {
		return
	}
	if err := os.RemoveAll(filepath.Dir(c.DataDir())); err != nil {
		r.Fatalf("%v", err)
	}
}
