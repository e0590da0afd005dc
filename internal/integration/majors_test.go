package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// TestMajors plays one failover on every major that is installed, or that FASTREWIND_TEST_MAJORS demands. The target has
// crashed, the source has removed WAL, there are tablespaces, and the archive has what is missing:
//
//   - first from the running source, as a role with the four grants, with -R, the target still to be recovered;
//   - then from the source's directory, the target recovered, but without WAL that the archive has: a dry run, and with -c.
//
// Each time the tree must be what stock pg_rewind of that major leaves, where there is one, and the server must stream,
// hold the same data and be sound.
func TestMajors(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	majors := pgtest.Majors(t)
	covered := make([]string, len(majors))
	for i, major := range majors {
		covered[i] = fmt.Sprintf("%d: not at all", major)
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			r := newRehearsal(t, onMajor(major))
			covered[i] = r.playMajor()
		})
	}
	t.Cleanup(func() { // after all of them; scripts/test repeats it at its end
		all := strings.Join(covered, "; ")
		var others []string
		for major := 13; major <= 19; major++ {
			if !slices.Contains(majors, major) {
				others = append(others, strconv.Itoa(major))
			}
		}
		if len(others) > 0 {
			all += "; not installed, or not asked for: " + strings.Join(others, ", ")
		}
		t.Logf("majors covered: %s", all)
	})
}

func onMajor(major int) scenario {
	compression := "on" // pglz, which every build has
	switch major {
	case 15, 18:
		compression = "lz4"
	case 17, 19:
		compression = "zstd"
	}
	// Without checksums where there is no pg_checksums, and once where there is.
	checksums := major != 14 && major != 16 && major != 17
	return scenario{
		major: major,
		init: pgtest.InitOptions{SegSizeMB: 1, Checksums: checksums,
			Conf: []string{"wal_compression = " + compression, "log_checkpoints = on"}}, // on by default only from 15
		loads:           append([]load{tablespaces}, everything...),
		part:            uncleanArchived,
		role:            "rewinder",
		beforeDirectory: dropNewTablespaces,
	}
}

// playMajor says what it has compared with what.
func (r *rehearsal) playMajor() string {
	s := r.part(r)
	var differs []pgtest.Allow
	if r.env.HasStock() {
		differs = []pgtest.Allow{keptFromRedo}
	}
	if r.major == 13 {
		differs = append(differs, versionOfNewDatabase)
		r.may = []pgtest.Allow{unflushed}
	}

	r.serverArgs, r.differs = []string{writeRecoveryConf}, differs
	r.fromServer(s)

	r.step("recovery")
	s.target.Start()
	s.target.Stop(pgtest.Fast)
	r.lose, r.loserArgs, r.dryRun = loseWAL, []string{"--restore-target-wal"}, true
	if r.env.HasStock() {
		r.differs = append(differs, neededFromArchive)
	}
	r.fromDirectory(s)
	if r.env.HasStock() {
		return fmt.Sprintf("%d: trees and data", r.major)
	}
	return fmt.Sprintf("%d: data", r.major)
}

// versionOfNewDatabase: 13 takes PG_VERSION for a file that both sides have in any case.
var versionOfNewDatabase = pgtest.Allow{
	Reason: "PG_VERSION of a new database",
	Match: func(d pgtest.Difference) (bool, error) {
		return d.Kind == pgtest.OnlyInA && filepath.Base(d.Path) == "PG_VERSION", nil
	},
}

// unflushed is WAL just before stock's minRecoveryPoint. 13 makes a temporary table in the source, and its copy of the WAL is
// from before that has been written to disk.
var unflushed = pgtest.Allow{
	Reason: "WAL of stock's own temporary table",
	Match: func(d pgtest.Difference) (bool, error) {
		if d.Kind != pgtest.ContentDiff {
			return false, nil
		}
		seg, control, err := segmentOf(d, strings.TrimSuffix(d.PathB, "/"+d.Path))
		if err != nil || control == nil {
			return false, err
		}
		const own = 64 << 10
		return uint64(seg.Start(control.SegSize))+uint64(d.Blocks[0]+1)*8192+own > control.MinRecoveryPoint, nil
	},
}

// uncleanArchived: the old primary's machine dies, a while after a checkpoint. Where its recovery begins, the archive has all
// that is needed to find the last common checkpoint.
func uncleanArchived(r *rehearsal) sides {
	old, source := r.archivedPair()
	r.diverge(old, source)
	r.step("crash")
	old.SQL("postgres", "SELECT pg_switch_wal(); CHECKPOINT")
	old.Pgbench("-t", "100")
	r.waitArchived(old)
	old.Kill9()
	r.shortOfWAL(source)
	return r.quiet(old, source)
}

// TestMajorsAhead holds that what only newer stock can do works on every major: a standby as source; a source that has not
// had a checkpoint since its promotion, of which only minRecoveryPoint tells the timeline; tablespaces in place; a
// configuration file elsewhere; syncfs.
func TestMajorsAhead(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	for _, major := range pgtest.Majors(t) {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			for _, s := range []scenario{
				{name: "source a standby", part: sourceStandby},
				{name: "source promoted, no checkpoint yet", part: crashedWithConfigElsewhere},
			} {
				t.Run(s.name, func(t *testing.T) {
					s.major, s.loads = major, []load{pgbench, growAndShrink, inPlace}
					s.init.Conf = []string{"allow_in_place_tablespaces = on"} // for recovery, too
					r := newRehearsal(t, s)
					sides := s.part(r)
					r.rewind("server", sides, nil, sides.target, r.bin.PgRewind, pgtest.FromServer(sides.source), nil)
					r.verify("server", sides, sides.target)
				})
			}
		})
	}
}

// crashedWithConfigElsewhere: a source promoted without a checkpoint, and a target that needs recovery, for which its server
// must be told where its configuration is.
func crashedWithConfigElsewhere(r *rehearsal) sides {
	old, source := r.pair()
	old.Pgbench("-t", "200") // for the source's checkpoint to take its time
	old.WaitReplay(source)
	source.PromoteWithoutCheckpoint()
	source.Freeze("background writer") // not before: 19's promotion waits for it
	r.diverge(old, source)
	old.Kill9()
	conf := filepath.Join(r.env.Dir("etc"), "postgresql.conf")
	if err := os.Rename(old.Path("postgresql.conf"), conf); err != nil {
		r.Fatalf("%v", err)
	}
	r.args = []string{"--config-file", conf, "--sync-method", "syncfs"}
	return sides{target: old, source: source, primary: source}
}
