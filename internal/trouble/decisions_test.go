package trouble

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// play is a pair of servers that come apart, for one decision.
type play struct {
	*testing.T
	env *pgtest.Env
	bin pgtest.Binaries
	old *pgtest.Cluster // runs, on timeline 1, with a table v
}

func newPlay(t *testing.T) *play {
	t.Helper()
	if testing.Short() {
		t.Skip("starts servers")
	}
	t.Parallel()
	d := &play{T: t, bin: pgtest.BuildFastrewind(t)}
	o := inMemory()
	o.Timeout = 40 * time.Second // one of the starts is to fail
	d.env = pgtest.New(t, o)
	d.old = d.env.Init("old", pgtest.InitOptions{SegSizeMB: 1, Checksums: true})
	d.old.Start()
	d.old.InstallAmCheck()
	d.old.SQL("postgres", "CREATE TABLE v AS SELECT i, repeat('v', 100) AS t FROM generate_series(1, 5000) i")
	return d
}

// promoted is a standby that had everything of the old primary, and was promoted.
func (d *play) promoted(name string) *pgtest.Cluster {
	d.Helper()
	c := d.old.Standby(name)
	c.Start()
	d.old.WaitReplay(c)
	c.Promote()
	return c
}

// follows checks that a rewound target follows its primary, and has its data.
func (d *play) follows(target, primary *pgtest.Cluster) {
	d.Helper()
	target.Follow(primary)
	target.Start()
	primary.FlushWAL()
	primary.WaitStreaming(target)
	primary.WaitReplay(target)
	pgtest.SameData(d, primary, target)
	target.AmCheck()
	target.Stop(pgtest.Fast)
	target.Checksums()
}

// cannotFollow checks that a target, as it is, cannot become a standby, for a reason that its log gives.
func (d *play) cannotFollow(target, primary *pgtest.Cluster, reason string) {
	d.Helper()
	target.Follow(primary)
	if err := target.TryStart(); err == nil {
		for deadline := time.Now().Add(patience); !strings.Contains(target.Log(), reason) && time.Now().Before(deadline); {
			time.Sleep(50 * time.Millisecond)
		}
		target.Kill9()
	}
	if !strings.Contains(target.Log(), reason) {
		d.Errorf("%q was expected in its log:\n%s", reason, target.Log())
	}
}

func (d *play) mustSay(res *pgtest.Result, text string) {
	d.Helper()
	if !strings.Contains(res.Stderr, text) {
		d.Errorf("it was to say %q: %s", text, res)
	}
}

// TestSameNumber: both sides were promoted from timeline 1 by themselves, and both are on a timeline 2, but not on the same.
// Stock sees nothing to do, and leaves a server that cannot follow.
func TestSameNumber(t *testing.T) {
	d := newPlay(t)
	target, source := d.old.Standby("target"), d.old.Standby("source")
	target.Start()
	d.old.WaitReplay(target)
	target.Promote()
	target.SQL("postgres", "UPDATE v SET t = 'target'; CREATE TABLE only_target AS SELECT 1")
	source.Start()
	d.old.Pgbench("-i", "-q") // the other one gets more of timeline 1
	d.old.WaitReplay(source)
	source.Promote()
	source.SQL("postgres", "UPDATE v SET t = 'source' WHERE i % 2 = 0; CREATE TABLE only_source AS SELECT 1; CHECKPOINT")
	target.Stop(pgtest.Fast)
	if a, b := target.Timeline(), source.Timeline(); a != 2 || b != 2 {
		t.Fatalf("timelines %d and %d", a, b)
	}
	stock := target.Copy("stock")
	d.mustSay(stock.StockRewind(pgtest.FromServer(source)), "no rewind required")
	if got := d.shownAlone(stock); got != "target" {
		t.Errorf("stock's target was to show its own data, not %q", got)
	}

	d.mustSay(target.MustRewind(d.bin.Fastrewind, pgtest.FromServer(source)), "servers diverged at WAL location")
	d.follows(target, source)
}

// TestSameNumberSamePlace: the same, and both were promoted at the very same place, so that even their histories are equal.
func TestSameNumberSamePlace(t *testing.T) {
	d := newPlay(t)
	target := d.old.Standby("target")
	target.Start()
	d.old.WaitReplay(target)
	target.Stop(pgtest.Fast)
	source := target.Copy("source")
	d.old.Kill9() // neither gets more
	for _, c := range []*pgtest.Cluster{target, source} {
		c.Start()
		c.Promote()
		c.SQL("postgres", fmt.Sprintf("UPDATE v SET t = '%s'; CREATE TABLE only_%[1]s AS SELECT 1; CHECKPOINT", c.Name))
	}
	target.Stop(pgtest.Fast)
	a, errA := os.ReadFile(target.Path("pg_wal", "00000002.history"))
	b, errB := os.ReadFile(source.Path("pg_wal", "00000002.history"))
	if errA != nil || errB != nil || string(a) != string(b) {
		t.Fatalf("histories %q, %v and %q, %v", a, errA, b, errB)
	}
	stock := target.Copy("stock")
	d.mustSay(stock.StockRewind(pgtest.FromServer(source)), "no rewind required")
	if got := d.shownAlone(stock); got != "target" {
		t.Errorf("stock's target was to show its own data, not %q", got)
	}
	d.mustSay(target.MustRewind(d.bin.Fastrewind, pgtest.FromServer(source)), "servers diverged at WAL location")
	d.follows(target, source)

	// Now they are on the same timeline, and a second rewind knows that.
	d.mustSay(target.MustRewind(d.bin.Fastrewind, pgtest.FromServer(source)), "no rewind required")
}

// shownAlone is what a server has in v, started by itself.
func (d *play) shownAlone(c *pgtest.Cluster) string {
	d.Helper()
	_ = os.Remove(c.Path("standby.signal"))
	c.Start()
	defer c.Stop(pgtest.Fast)
	return c.Query("postgres", "SELECT string_agg(DISTINCT t, ',') FROM v")
}

// TestIdlePrimary: the source's WAL ends exactly with a page, and nothing more is written. The insert position, which stock
// takes for the consistency point, is then behind the next page's header, where no WAL is: its server waits for ever.
func TestIdlePrimary(t *testing.T) {
	d := newPlay(t)
	if d.env.Major == 13 {
		t.Skip("pg_rewind 13 makes a temporary table in the source, which then is not idle")
	}
	source := d.promoted("source")
	d.old.SQL("postgres", "UPDATE v SET t = 'old'")
	d.old.Stop(pgtest.Fast)
	source.Quiesce()
	// A message is a record of 24 + 2 or 5 + 21 + 1 + n bytes (xlogrecord.h, xl_logical_message), aligned to 8.
	for try := 0; ; try++ {
		at := source.Query("postgres", "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint % 8192")
		var used int
		if _, err := fmt.Sscan(at, &used); err != nil {
			t.Fatal(err)
		}
		if used == 24 || used == 40 {
			break
		}
		if try == 200 {
			t.Fatalf("no record ends with a page")
		}
		// Each leaves room for one that fits, or is that one.
		room := 8192 - used
		length := room - 24 - 2 - 24 - 1
		if length > 255-24 {
			length -= 3
		}
		if room < 64 || try%2 == 1 {
			length = 1000 + 8*try
		}
		source.SQL("postgres", fmt.Sprintf("SELECT pg_logical_emit_message(false, '', repeat('x', greatest(%d, 0)))", length))
		source.SQL("postgres", "SELECT pg_sleep(0.3)") // the WAL writer flushes it
	}
	stock := d.old.Copy("stock")
	stock.StockRewind(pgtest.FromServer(source))
	d.old.MustRewind(d.bin.Fastrewind, pgtest.FromServer(source))
	ours, theirs := d.old.Control().MinRecoveryPoint, stock.Control().MinRecoveryPoint
	t.Logf("minRecoveryPoint: ours %X, stock's %X", ours, theirs)
	if ours%8192 != 0 || theirs%8192 == 0 {
		t.Errorf("ours was to be at the page's end, and stock's behind the header: %X, %X", ours, theirs)
	}
	for _, c := range []*pgtest.Cluster{stock, d.old} {
		c.Follow(source)
	}
	if err := d.old.TryStart(); err != nil {
		t.Errorf("ours: %v", err)
	}
	if err := stock.TryStart(); err == nil {
		t.Error("stock's server has become consistent: nothing is shown")
	}
}

// TestBenignCheckpoint: all that the target wrote after the other one was promoted is the checkpoint of its shutdown. No block
// differs, but the rewind is not in vain: the target's control file is beyond the fork, and no server follows from there.
func TestBenignCheckpoint(t *testing.T) {
	d := newPlay(t)
	source := d.old.Standby("source")
	source.Start()
	d.old.Freeze("background writer")
	d.old.Checkpoint()
	d.old.WaitReplay(source)
	source.Stop(pgtest.Fast) // it does not get the shutdown
	d.old.Thaw()
	d.old.Stop(pgtest.Fast)
	source.Start()
	source.Promote()
	source.SQL("postgres", "CREATE TABLE w AS SELECT 1; CHECKPOINT")
	asIs, stock := d.old.Copy("as-is"), d.old.Copy("stock")
	d.cannotFollow(asIs, source, "before current recovery point")
	d.mustSay(stock.StockRewind(pgtest.FromServer(source)), "rewinding from last common checkpoint")
	res := d.old.MustRewind(d.bin.Fastrewind, pgtest.FromServer(source))
	d.mustSay(res, "change 0 blocks")
	d.follows(d.old, source)
}

// TestMovedDatabase: the target moves a database to another tablespace and back, and changes it in between. The changes come
// back in a copy of files, under names that no record of theirs has. Stock leaves them there; the source has no record that
// would replace them.
func TestMovedDatabase(t *testing.T) {
	d := newPlay(t)
	d.old.Tablespace("away")
	d.old.SQL("postgres", "CREATE DATABASE moved")
	d.old.SQL("moved", "CREATE TABLE m AS SELECT i, repeat('m', 100) AS t FROM generate_series(1, 5000) i")
	source := d.promoted("source")
	d.old.SQL("postgres", "ALTER DATABASE moved SET TABLESPACE away")
	d.old.SQL("moved", "UPDATE m SET t = 'old'; SELECT count(*) FROM m")
	d.old.SQL("postgres", "ALTER DATABASE moved SET TABLESPACE pg_default")
	d.old.Stop(pgtest.Fast)
	source.SQL("postgres", "UPDATE v SET t = 'source' WHERE i % 2 = 0; CHECKPOINT")

	stock := d.old.Copy("stock")
	stock.StockRewind(pgtest.FromServer(source))
	stock.Follow(source)
	stock.Start()
	source.WaitReplay(stock)
	const rows = "SELECT count(*) FROM m WHERE t = repeat('m', 100)"
	if n := stock.Query("moved", rows); n == "5000" {
		t.Error("stock has no such fault any more: say so in the documentation")
	}
	stock.Stop(pgtest.Immediate)

	d.old.MustRewind(d.bin.Fastrewind, pgtest.FromServer(source))
	d.follows(d.old, source)
	d.old.Start()
	if n := d.old.Query("moved", rows); n != "5000" {
		t.Errorf("%s rows are the source's, of 5000", n)
	}
}

// TestLabelInTarget: a backup_label lies in the target. Stock puts its own in its place without a word, and what the label said
// is lost: that the directory is a backup nobody has recovered. Ours refuses, and touches nothing.
func TestLabelInTarget(t *testing.T) {
	d := newPlay(t)
	source := d.promoted("source")
	d.old.SQL("postgres", "UPDATE v SET t = 'old'")
	d.old.Stop(pgtest.Fast)
	source.Checkpoint()
	d.env.WriteFile(d.old.Path("backup_label"), []byte("START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n"), 0o600)
	stock, before := d.old.Copy("stock"), d.old.Copy("before")
	stock.StockRewind(pgtest.FromServer(source))
	res := d.old.Rewind(d.bin.Fastrewind, pgtest.FromServer(source))
	if res.ExitCode != exitRefused {
		t.Errorf("exit status %d was expected: %s", exitRefused, res)
	}
	d.mustSay(res, "backup_label")
	pgtest.SameTrees(d, before, d.old)
}

// bigRecord makes a server write one record that goes on over several segments, and returns the names of the first and the
// last of them.
func (d *play) bigRecord(c *pgtest.Cluster) (first, last string) {
	d.Helper()
	names := strings.Split(c.Query("postgres", `
		SELECT pg_walfile_name(pg_current_wal_insert_lsn());
		SELECT pg_walfile_name(pg_logical_emit_message(false, '', repeat('x', 3000000)) - 1)`), "\n")
	c.FlushWAL()
	if len(names) != 2 || names[0] == names[1] {
		d.Fatalf("the record is in %v", names)
	}
	return names[0], names[1]
}

// TestOverwrittenContrecord: the target's machine died in the middle of a record, and its recovery wrote on where the record's rest
// should have been.
func TestOverwrittenContrecord(t *testing.T) {
	d := newPlay(t)
	source := d.promoted("source")
	source.SQL("postgres", "UPDATE v SET t = 'source' WHERE i % 2 = 0; CHECKPOINT")
	d.old.SQL("postgres", "UPDATE v SET t = 'old'")
	_, last := d.bigRecord(d.old)
	d.old.Kill9()
	if err := os.Remove(d.old.Path("pg_wal", last)); err != nil { // what had not reached the disk
		t.Fatal(err)
	}
	stock, again := d.old.Copy("stock"), d.old.Copy("again")
	stock.StockRewind(pgtest.FromServer(source))
	d.old.MustRewind(d.bin.Fastrewind, pgtest.FromServer(source))
	d.follows(stock, source)
	d.follows(d.old, source)

	// The same, and it has worked for a while since.
	again.Start()
	d.mustBeOverwritten(again)
	again.SQL("postgres", "DELETE FROM v WHERE i % 3 = 0")
	again.Stop(pgtest.Fast)
	again.MustRewind(d.bin.Fastrewind, pgtest.FromServer(source))
	d.follows(again, source)
}

func (d *play) mustBeOverwritten(c *pgtest.Cluster) {
	d.Helper()
	seg := c.Query("postgres", "SELECT pg_walfile_name(pg_current_wal_flush_lsn())")
	out := d.env.Exec(pgtest.Cmd{Path: "pg_waldump", Args: []string{"--rmgr", "XLOG", "--path", c.Path("pg_wal"), seg}})
	if !strings.Contains(out.Stdout, "OVERWRITE_CONTRECORD") {
		d.Fatalf("no overwritten record: %s", out)
	}
}

// TestForkAtOverwrittenRecord: the server that was promoted had got the beginning of a record only. Its timeline begins where that
// record does, and there the target has a record that it finished, or one that its own recovery has overwritten.
func TestForkAtOverwrittenRecord(t *testing.T) {
	d := newPlay(t)
	source := d.old.Standby("source")
	source.Start()
	d.old.Checkpoint()
	d.old.FlushWAL()
	d.old.WaitReplay(source)
	source.Stop(pgtest.Fast)
	first, last := d.bigRecord(d.old)
	d.old.SQL("postgres", "UPDATE v SET t = 'old'; CREATE TABLE only_old AS SELECT 1")
	// All but the last of its segments had reached the standby.
	names := d.segments(d.old, first, last)
	for _, name := range names {
		data, err := os.ReadFile(d.old.Path("pg_wal", name))
		if err != nil {
			t.Fatal(err)
		}
		d.env.WriteFile(source.Path("pg_wal", name), data, 0o600)
	}
	d.old.Kill9()
	finished, overwritten := d.old.Copy("finished"), d.old
	for _, name := range d.segments(overwritten, last, "000000020000000000000000") {
		if err := os.Remove(overwritten.Path("pg_wal", name)); err != nil {
			t.Fatal(err)
		}
	}
	source.Start()
	source.Promote()
	source.SQL("postgres", "UPDATE v SET t = 'source' WHERE i % 2 = 0; CREATE TABLE only_source AS SELECT 1; CHECKPOINT")

	for _, target := range []*pgtest.Cluster{finished, overwritten} {
		stock := target.Copy(target.Name + "-stock")
		t.Logf("%s: stock: %s", target.Name, stock.Rewind(d.env.Bin("pg_rewind"), pgtest.FromServer(source)))
		target.MustRewind(d.bin.Fastrewind, pgtest.FromServer(source))
		d.follows(target, source)
	}
}

// segments are the names of a server's segments from one to before another.
func (d *play) segments(c *pgtest.Cluster, from, to string) []string {
	d.Helper()
	entries, err := os.ReadDir(c.Path("pg_wal"))
	if err != nil {
		d.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if len(e.Name()) == len(from) && e.Name() >= from && e.Name() < to {
			names = append(names, e.Name())
		}
	}
	return names
}

// TestStandbyAtFork: the source is a standby that has come to the new timeline, and to no page of it yet: its control file still
// speaks of the old one alone. Stock, of any major, sees one timeline and nothing to do.
func TestStandbyAtFork(t *testing.T) {
	d := newPlay(t)
	promoted, source := d.old.Standby("promoted"), d.old.Standby("source")
	promoted.Start()
	source.Start()
	d.old.WaitReplay(promoted)
	d.old.WaitReplay(source)
	source.Stop(pgtest.Fast)
	d.old.FlushWAL()
	d.old.WaitReplay(promoted)
	promoted.Promote()
	promoted.SQL("postgres", "UPDATE v SET t = 'source' WHERE i % 2 = 0; CHECKPOINT")
	source.Follow(promoted)
	source.AppendConf("recovery_min_apply_delay = '1h'") // it replays no commit
	source.Start()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(source.Path("pg_wal", "00000002.history")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not find the new timeline")
		}
	}
	if c := source.Control(); c.TimeLineID != 1 || c.MinRecoveryPointTLI > 1 {
		t.Fatalf("its control file knows already: %+v", c)
	}
	d.old.SQL("postgres", "UPDATE v SET t = 'old'")
	d.old.Stop(pgtest.Fast)

	stock := d.old.Copy("stock")
	d.mustSay(stock.StockRewind(pgtest.FromServer(source)), "no rewind required")
	d.cannotFollow(stock, promoted, "before current recovery point")
	d.mustSay(d.old.MustRewind(d.bin.Fastrewind, pgtest.FromServer(source)), "servers diverged at WAL location")
	d.old.AppendConf("recovery_min_apply_delay = 0")
	d.follows(d.old, promoted)
}
