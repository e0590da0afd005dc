package archivelive

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgtest"
	"github.com/fastrewind/fastrewind/internal/s3test"
)

const (
	segSize = 1 << 20
	bucket  = "wal"
	server  = "pgsrv" // Barman's name of the cluster
	stanza  = "main"  // pgBackRest's

	// patience is for machines that are busy: a server does not stop before it has archived everything.
	patience = 10 * time.Minute
)

// TestArchives makes one pair of clusters that came apart and whose WAL is in archives only, and rewinds copies of it.
// Starting what was rewound makes the source write, so that comes last.
func TestArchives(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	w := newWorld(t)
	t.Run("quiet", func(t *testing.T) { // side by side: some of them wait more than they work
		t.Run("faults", w.testFaults)
		t.Run("archivers", w.testArchivers)
		t.Run("flipped bits", w.testFlips)
		t.Run("wrong segments", w.testWrongSegments)
		t.Run("refusals", w.testRefusals)
	})
	t.Run("children", w.testChildren)
	t.Run("streaming", w.testStreaming)
}

// world is what all tests share. None of them changes it.
type world struct {
	env       *pgtest.Env
	bin       pgtest.Binaries
	s3        *s3test.Server // with TLS
	target    *pgtest.Cluster
	source    *pgtest.Cluster // running, and writing nothing
	reference *pgtest.Cluster // the target with all of its WAL, rewound by stock
	orig      string          // the directory with every file as the servers gave it to their archive_command
	tools     string          // scripts, and the directory of spies, which come first in PATH
	spied     string          // the file with the arguments of all programs that a rewind starts
	pass      string          // of the encrypted pgBackRest repository
	missing   []string        // the target's segments from the last common checkpoint on, in order; in archives only
	needed    []string        // segments that the rewound server needs first and that the source has removed; in archives only
	fork      string          // the target's segment in which the histories part

	rewound map[string]*pgtest.Cluster // by archiver, to be started
	copies  atomic.Int64
}

func newWorld(t *testing.T) *world {
	w := &world{
		env: pgtest.New(t, pgtest.Options{Timeout: patience}), bin: pgtest.BuildFastrewind(t), s3: s3test.Start(t, s3test.Options{TLS: true}),
		pass: rand.Text(), rewound: map[string]*pgtest.Cluster{},
	}
	if w.env.Major == 13 {
		t.Skip("pg_rewind 13 makes a temporary table in the source: what it leaves is nothing to compare with")
	}
	w.s3.NewBucket(bucket)
	w.orig, w.tools = w.env.Dir("orig"), w.env.Dir("tools")
	w.writeTools()
	// WAL that does not compress to nothing, so that there are bytes to damage.
	const load = `INSERT INTO t SELECT g, md5(random()::text) || md5(random()::text) FROM generate_series(1, %d) g;
		UPDATE t SET b = md5(random()::text) WHERE a %% 7 = 0`
	start := time.Now()
	step := func(what string) { t.Logf("%7.2fs %s", time.Since(start).Seconds(), what) }

	step("clusters")
	w.target = w.env.Init("old", pgtest.InitOptions{SegSizeMB: segSize >> 20, Checksums: true, Conf: []string{
		"archive_mode = on", "archive_timeout = 0", fmt.Sprintf("archive_command = '%s/archive %%p %%f'", w.tools),
	}})
	w.target.Start()
	w.target.InstallAmCheck()
	w.target.SQL("postgres", "CREATE TABLE t (a int, b text); CREATE INDEX ON t (a); "+fmt.Sprintf(load, 2000))
	w.source = w.target.Standby("source")
	w.source.Start()
	// Which archiver uses which codec for a segment follows from its number.
	for w.segNo(w.target.LSN())%codecs != codecs-1 {
		w.target.SQL("postgres", "SELECT pg_logical_emit_message(true, '', ''), pg_switch_wal()")
	}
	w.target.SQL("postgres", "SELECT pg_logical_emit_message(true, '', ''), pg_switch_wal()")

	step("archivers")
	w.createStanzas(t)
	w.env.WriteFile(filepath.Join(w.tools, "on"), nil, 0o600)
	w.target.SQL("postgres", fmt.Sprintf(load, 500))
	w.target.Checkpoint()
	w.target.SQL("postgres", fmt.Sprintf(load, 6000))
	w.target.WaitReplay(w.source)
	fork := w.segNo(w.target.LSN())
	w.source.Promote()
	w.target.SQL("postgres", fmt.Sprintf(load, 7000)+"; SELECT pg_switch_wal()")
	w.source.SQL("postgres", fmt.Sprintf(load, 6000)+"; SELECT pg_switch_wal()")
	w.target.Stop(pgtest.Fast)
	step("target stopped")
	w.source.SQL("postgres", "ALTER SYSTEM SET wal_keep_size = 0; ALTER SYSTEM SET max_wal_size = '2MB'; ALTER SYSTEM SET min_wal_size = '2MB'")
	w.source.Reload()
	for range 2 {
		w.source.SQL("postgres", "SELECT pg_logical_emit_message(true, '', ''), pg_switch_wal(); CHECKPOINT")
		w.waitArchived(t, w.source)
	}
	w.source.Quiesce()

	step("reference")
	w.reference = w.target.Copy("reference")
	res := w.reference.StockRewind(pgtest.FromServer(w.source))
	redo := pg.LSN(w.commonRedo(t, res))
	w.fork = pg.SegmentName(1, pg.SegNo(fork), segSize)
	w.loseWAL(t, redo.Seg(segSize))
	step("ready")
	return w
}

// codecs is how many codecs the archivers take turns with.
const codecs = 3

func (w *world) segNo(lsn string) uint64 {
	var hi, lo uint64
	if _, err := fmt.Sscanf(lsn, "%X/%X", &hi, &lo); err != nil {
		panic(err) // the server's own format
	}
	return (hi<<32 | lo) / segSize
}

// commonRedo is where replay begins: the reference's backup_label says it.
func (w *world) commonRedo(t *testing.T, res *pgtest.Result) uint64 {
	label := read(t, w.reference.Path("backup_label"))
	var hi, lo uint64
	if _, err := fmt.Sscanf(string(label), "START WAL LOCATION: %X/%X", &hi, &lo); err != nil {
		t.Fatalf("%v in backup_label after %s", err, res)
	}
	return hi<<32 | lo
}

// loseWAL removes from the target's pg_wal all that the archives have, and checks that the tests will be worth something:
// every codec serves a segment that is missing, and the source lacks WAL, too.
func (w *world) loseWAL(t *testing.T, first pg.SegNo) {
	entries, err := os.ReadDir(w.orig)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		tli, seg, ok := pg.ParseSegmentName(e.Name(), segSize)
		if !ok || seg < first {
			continue
		}
		switch {
		case tli == 1:
			if err := os.Remove(w.target.Path("pg_wal", e.Name())); err != nil {
				t.Fatal(err)
			}
			w.missing = append(w.missing, e.Name())
		case !exists(w.source.Path("pg_wal", e.Name())):
			w.needed = append(w.needed, e.Name())
		}
	}
	if len(w.missing) < codecs+1 || len(w.needed) < codecs || exists(w.source.Path("pg_wal", w.missing[0])) {
		t.Fatalf("the target misses %v and the source %v of %v", w.missing, w.needed, entries)
	}
	t.Logf("missing: %v; removed by the source: %v; fork in %s", w.missing, w.needed, w.fork)
}

func (w *world) waitArchived(t *testing.T, c *pgtest.Cluster) {
	const pending = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
	for deadline := time.Now().Add(patience); c.Query("postgres", pending) != "0"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not archive:\n%s", c.Name, c.Log())
		}
	}
}

// copy is a copy of the target, with nothing else in the directory around it but what pgtest puts there.
func (w *world) copy(name string) *pgtest.Cluster {
	return w.target.Copy(fmt.Sprintf("%s-%d", name, w.copies.Add(1)))
}

func remove(t *testing.T, c *pgtest.Cluster) {
	if t.Failed() {
		return
	}
	if err := os.RemoveAll(filepath.Dir(c.DataDir())); err != nil {
		t.Error(err)
	}
}

// rewind runs fastrewind on a copy of the target, with debug output, in a small environment to which env is added.
func (w *world) rewind(t *testing.T, c *pgtest.Cluster, env []string, args ...string) *pgtest.Result {
	t.Helper()
	res := w.env.Exec(w.command(c, env, args))
	w.noSecrets(t, res.String())
	return res
}

func (w *world) command(c *pgtest.Cluster, env, args []string) pgtest.Cmd {
	return pgtest.Cmd{
		Path: w.bin.Fastrewind,
		Args: append([]string{
			"--debug", "--target-pgdata", c.DataDir(), "--source-server", w.source.ConnString(), "--pg-bindir", filepath.Join(w.tools, "bin"),
		}, args...),
		Env: append([]string{
			"PATH=" + filepath.Join(w.tools, "spies") + ":/usr/bin:/bin", "AWS_EC2_METADATA_DISABLED=true",
			"AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent",
		}, env...),
	}
}

// noSecrets fails the test if a secret is in a text.
func (w *world) noSecrets(t *testing.T, text string) {
	t.Helper()
	for what, secret := range map[string]string{"the secret key": w.s3.SecretKey, "the passphrase": w.pass, "a wrong secret key": wrongSecret} {
		if strings.Contains(text, secret) {
			t.Errorf("%s is shown in:\n%s", what, text)
		}
	}
}

// sameAsReference compares a rewound copy with the reference. What may differ between two rewinds from the same running
// source may differ here (pgtest.RewindDifferences). Beyond that, only WAL: the rewind from archives leaves the segments that
// it had to fetch and that the server will replay first, and stock removes what comes before the checkpoint's record although
// replay begins at its redo point. They must be as they were archived.
func (w *world) sameAsReference(t *testing.T, c *pgtest.Cluster) {
	t.Helper()
	fetched := pgtest.Allow{Reason: "WAL from the archive, as it was archived", Match: func(d pgtest.Difference) (bool, error) {
		name, ok := strings.CutPrefix(d.Path, "pg_wal/")
		if !ok || d.Kind != pgtest.OnlyInA {
			return false, nil
		}
		got, err := os.ReadFile(d.PathA)
		if err != nil {
			return false, err
		}
		want, err := os.ReadFile(filepath.Join(w.orig, name))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return bytes.Equal(got, want), err
	}}
	allowed := pgtest.SameTrees(t, c, w.reference, append(pgtest.RewindDifferences(true), fetched)...)
	have := map[string]bool{}
	for _, d := range allowed {
		have[strings.TrimPrefix(d.Path, "pg_wal/")] = true
	}
	for _, name := range w.needed {
		if !have[name] {
			t.Errorf("%s, which the source has removed, was not fetched", name)
		}
	}
}

// untouched compares a copy with the target, and looks beside it.
func (w *world) untouched(t *testing.T, c *pgtest.Cluster) {
	t.Helper()
	pgtest.SameTrees(t, c, w.target)
	beside, err := os.ReadDir(filepath.Dir(c.DataDir()))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range beside {
		if name := e.Name(); name != "data" && name != "ts" { // of pgtest
			t.Errorf("left behind beside the target: %s", name)
		}
	}
}

// mustFail runs a rewind that has to fail for each of the reasons in want, before it touches anything.
func (w *world) mustFail(t *testing.T, c *pgtest.Cluster, env, args []string, want ...string) {
	t.Helper()
	res := w.rewind(t, c, env, args...)
	if res.ExitCode != 1 {
		t.Errorf("exit status 1 was expected: %s", res)
	}
	said := complaints(res.Stderr)
	for _, text := range want {
		if !strings.Contains(said, text) {
			t.Errorf("%q is not in the error message:\n%s", text, said)
		}
	}
	if t.Failed() {
		t.Logf("%s", res)
	}
	w.untouched(t, c)
}

// complaints are the errors and warnings in a run's output, with all that belongs to them.
func complaints(stderr string) string {
	for _, level := range []string{": warning: ", ": error: ", ": fatal: "} {
		if i := strings.Index(stderr, level); i >= 0 {
			stderr = stderr[i:]
			break
		}
	}
	return stderr
}

// setRestoreCommand sets it in a copy of the target.
func (w *world) setRestoreCommand(c *pgtest.Cluster, command string) {
	w.env.WriteFile(c.Path("postgresql.auto.conf"), []byte("restore_command = '"+strings.ReplaceAll(command, "'", "''")+"'\n"), 0o600)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
