package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// sides are servers that came apart.
type sides struct {
	target  *pgtest.Cluster // not running
	source  *pgtest.Cluster // running, and writing nothing
	primary *pgtest.Cluster // whom the rewound server is to follow: the source, or its primary
}

// failover: the standby is promoted while the old primary goes on.
func failover(r *rehearsal) sides {
	old, source := r.pair()
	source.Promote()
	r.diverge(old, source)
	old.Stop(pgtest.Fast)
	return r.quiet(old, source)
}

// crashedFailover: the same, and the old primary's machine dies.
func crashedFailover(r *rehearsal) sides {
	old, source := r.pair()
	source.Promote()
	r.diverge(old, source)
	old.Kill9()
	return r.quiet(old, source)
}

// primary makes a primary with what the loads have in common.
func (r *rehearsal) primary(name string) *pgtest.Cluster {
	c := r.env.Init(name, r.init)
	c.Start()
	r.step("common load")
	run(c, r.loads, common)
	c.InstallAmCheck()
	return c
}

// pair is such a primary and a standby that has all of it.
func (r *rehearsal) pair() (old, source *pgtest.Cluster) {
	old = r.primary("old")
	return old, r.standby(old, "source")
}

func (r *rehearsal) standby(of *pgtest.Cluster, name string) *pgtest.Cluster {
	r.step("standby")
	s := of.Standby(name)
	s.Start()
	of.WaitReplay(s)
	return s
}

// sparseFailover: the standby was made by copying the primary while it was stopped, which leaves holes in files alone.
func sparseFailover(r *rehearsal) sides {
	old := r.primary("old")
	r.step("standby")
	old.Stop(pgtest.Fast)
	source := old.Copy("source")
	source.Follow(old)
	old.Start()
	source.Start()
	old.WaitReplay(source)
	source.Promote()
	r.diverge(old, source)
	old.Stop(pgtest.Fast)
	return r.quiet(old, source)
}

func (r *rehearsal) diverge(old, source *pgtest.Cluster) {
	r.step("load on the old primary")
	run(old, r.loads, onOld)
	r.step("load on the source")
	run(source, r.loads, onSource)
}

// quiet ends a separation: the source writes nothing any more.
func (r *rehearsal) quiet(target, source *pgtest.Cluster) sides {
	r.step("quiet")
	if r.role != "" {
		source.SQL("postgres", fmt.Sprintf(`CREATE ROLE %s LOGIN;
			GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean),
				pg_read_binary_file(text), pg_read_binary_file(text, bigint, bigint, boolean) TO %[1]s`, r.role))
	}
	source.Quiesce()
	return sides{target: target, source: source, primary: source}
}

// standbyAhead: of two standbys one, the target, has replayed WAL that the other, which was promoted, never got.
func standbyAhead(r *rehearsal) sides {
	old, source := r.pair()
	target := r.standby(old, "target")
	source.Stop(pgtest.Fast)
	r.step("load on the old primary")
	run(old, r.loads, onOld)
	old.WaitReplay(target)
	target.Checkpoint() // a restartpoint beyond the divergence
	old.Pgbench("-t", "100")
	old.WaitReplay(target)
	old.Kill9()
	target.Stop(pgtest.Fast)
	source.Start()
	source.Promote()
	r.step("load on the source")
	run(source, r.loads, onSource)
	return r.quiet(target, source)
}

// timelines: source and target had a primary's timeline 2 in common, which itself had left timeline 1. The target goes
// on with 2, and is restored and promoted to 3; the source is promoted to 4, since it knows of 3.
func timelines(r *rehearsal) sides {
	first := r.primary("first")
	target := r.standby(first, "target")
	target.Promote()
	first.Stop(pgtest.Fast)
	target.Pgbench("-t", "100")
	source := target.Standby("source")
	source.AppendConf("recovery_target_timeline = 'current'") // or it would follow the target
	source.Start()
	target.WaitReplay(source)
	source.Stop(pgtest.Fast)

	r.step("load on the target")
	target.Pgbench("-t", "100")
	target.Stop(pgtest.Fast)
	target.Follow(first) // which is gone
	target.Start()
	target.Promote()
	run(target, r.loads, onOld)
	target.Stop(pgtest.Fast)

	r.step("load on the source")
	source.Follow(first)
	source.Start()
	history, err := os.ReadFile(target.Path("pg_wal", "00000003.history"))
	if err != nil {
		r.Fatalf("%v", err)
	}
	r.env.WriteFile(source.Path("pg_wal", "00000003.history"), history, 0o600)
	source.Promote()
	source.AppendConf("recovery_target_timeline = 'latest'")
	run(source, r.loads, onSource)
	s := r.quiet(target, source)
	if tgt, src := target.Timeline(), source.Timeline(); tgt != 3 || src != 4 {
		r.Fatalf("the target is on timeline %d, the source on %d", tgt, src)
	}
	return s
}

// sourceStandby: the old primary is rewound from a standby of the promoted server. That standby once was the old primary's.
func sourceStandby(r *rehearsal) sides {
	old, promoted := r.pair()
	source := r.standby(old, "cascade")
	old.Pgbench("-t", "100")
	old.Checkpoint()
	old.WaitReplay(source)
	old.WaitReplay(promoted)
	promoted.Promote()
	source.Follow(promoted)
	source.Reload()
	source.Freeze("checkpointer", "background writer")
	r.diverge(old, promoted)
	old.Stop(pgtest.Fast)
	promoted.SQL("postgres", "CREATE TABLE short_lived AS SELECT 1; DROP TABLE short_lived")
	promoted.Quiesce()
	promoted.WaitReplay(source)
	return sides{target: old, source: source, primary: promoted}
}

// promotedWithoutCheckpoint: the source has been promoted, but its checkpoint takes its time.
func promotedWithoutCheckpoint(r *rehearsal) sides {
	old, source := r.pair()
	source.Freeze("background writer")
	source.PromoteWithoutCheckpoint()
	r.diverge(old, source)
	old.Stop(pgtest.Fast)
	return sides{target: old, source: source, primary: source}
}

// early rewinds from a source that has had no checkpoint (a standby: no restartpoint) on its timeline yet. Only its
// minRecoveryPoint tells on which it is, which stock 15 does not look at: it sees nothing to do, ours rewinds. Then the
// source has its checkpoint, stock rewinds as well, and must come to the same.
func early(r *rehearsal, s sides) {
	from := pgtest.FromServer(s.source)
	stock, ours := s.target.Copy("stock-early"), s.target.Copy("ours-early")
	r.step("early: stock")
	if res := stock.StockRewind(from); !strings.Contains(res.Stderr, "no rewind required") {
		r.Errorf("stock was expected to see nothing to do: %s", res)
	}
	pgtest.SameTrees(r, stock, s.target)
	r.step("early: ours")
	ours.MustRewind(r.bin.Fastrewind, from)
	checkpoint(s)
	stock.StockRewind(from)
	r.step("early: same trees")
	pgtest.SameTrees(r, stock, ours, append(r.allowed(s), append(writtenMeanwhile(s.source), pgtest.AllowDivergedSegment(pgtest.OnlyInA))...)...)
	r.remove(stock)
	r.verify("early", s, ours)
	ours.Stop(pgtest.Fast)
	r.checksums("early", ours)
	r.remove(ours)
	checkpoint(s)
}

// checkpoint gives the source a checkpoint of its newest timeline, and makes it quiet.
func checkpoint(s sides) {
	if s.primary != s.source {
		s.primary.Quiesce()
		s.primary.WaitReplay(s.source)
	}
	s.source.Thaw()
	s.source.Quiesce()
}

// archived: a failover with an archive that both servers write to and may restore from; and the last common checkpoint
// took so long that its record is segments away from its redo point. The source keeps as little WAL as it can.
func archived(r *rehearsal) sides {
	old, source := r.archivedPair()
	r.diverge(old, source)
	old.Stop(pgtest.Fast)
	r.shortOfWAL(source)
	return r.quiet(old, source)
}

// archivedPair is a primary and a promoted standby that share an archive, with a slow checkpoint as their last in common.
func (r *rehearsal) archivedPair() (old, source *pgtest.Cluster) {
	archive := r.env.Dir("archive")
	r.init.Conf = append(r.init.Conf, "archive_mode = on", "archive_timeout = 0",
		fmt.Sprintf("archive_command = 'test ! -f %s/%%f && cp %%p %[1]s/%%f'", archive),
		fmt.Sprintf("restore_command = 'cp %s/%%f %%p'", archive))
	old, source = r.pair()
	r.slowCheckpoint(old)
	old.WaitReplay(source)
	source.Promote()
	return old, source
}

// shortOfWAL makes a server keep as little WAL as it can.
func (r *rehearsal) shortOfWAL(source *pgtest.Cluster) {
	source.SQL("postgres", "ALTER SYSTEM SET wal_keep_size = 0; ALTER SYSTEM SET max_wal_size = '2MB'; ALTER SYSTEM SET min_wal_size = '2MB'")
	source.Reload()
	for range 2 {
		source.SQL("postgres", "SELECT pg_switch_wal(); CHECKPOINT")
		r.waitArchived(source)
	}
}

// slowCheckpoint makes a checkpoint of which redo point and record lie in different segments of 1 MB.
func (r *rehearsal) slowCheckpoint(c *pgtest.Cluster) {
	r.step("slow checkpoint")
	c.Checkpoint()
	c.Pgbench("-t", "5")
	before := c.Control()
	started := strings.Count(c.Log(), "checkpoint starting")
	start := "SELECT pg_backup_start('slow', fast => false)"
	if r.env.Major < 15 {
		start = "SELECT pg_start_backup('slow', fast => false, exclusive => false)"
	}
	done := make(chan *pgtest.Result, 1)
	go func() { // ends with the server at the latest
		done <- r.env.Exec(pgtest.Cmd{Path: "psql", Args: []string{
			"-X", "-d", c.SocketConnString(), "-c", start,
		}})
	}()
	for strings.Count(c.Log(), "checkpoint starting") == started {
		select {
		case res := <-done:
			r.Fatalf("no slow checkpoint: %s", res)
		case <-time.After(5 * time.Millisecond):
		}
	}
	c.SQL("postgres", "SELECT count(pg_logical_emit_message(false, '', repeat('x', 100000))) FROM generate_series(1, 30)")
	if res := <-done; res.ExitCode != 0 {
		r.Fatalf("%s", res)
	}
	now := c.Control()
	r.slow = pg.LSN(now.Checkpoint)
	if now.Checkpoint == before.Checkpoint || pg.LSN(now.Redo).Seg(now.SegSize) == pg.LSN(now.Checkpoint).Seg(now.SegSize) {
		r.Fatalf("no slow checkpoint: %+v, then %+v", before, now)
	}
}

// waitArchived waits until the server has archived all complete segments.
func (r *rehearsal) waitArchived(c *pgtest.Cluster) {
	const pending = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
	for deadline := time.Now().Add(time.Minute); c.Query("postgres", pending) != "0"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("%s does not archive:\n%s", c.Name, c.Log())
		}
	}
}

// loseWAL removes from the target's pg_wal what the archive has and the rewind must read: all from the slow checkpoint's
// record on but the segment with the shutdown. What is older is kept, for recovery begins there.
func loseWAL(r *rehearsal, target *pgtest.Cluster) {
	marks, err := filepath.Glob(target.Path("pg_wal", "archive_status", "*.done"))
	if err != nil {
		r.Fatalf("%v", err)
	}
	lost, segSize := 0, target.Control().SegSize
	for _, mark := range marks {
		name := strings.TrimSuffix(filepath.Base(mark), ".done")
		_, seg, ok := pg.ParseSegmentName(name, segSize)
		if !ok || seg < r.slow.Seg(segSize) {
			continue
		}
		if err := os.Remove(target.Path("pg_wal", name)); err == nil {
			lost++
		} else if !errors.Is(err, fs.ErrNotExist) {
			r.Fatalf("%v", err)
		}
	}
	if lost < 5 {
		r.Fatalf("only %d segments lost", lost)
	}
}
