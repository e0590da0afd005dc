package pgtest

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestLifecycle is the package's promise: primary, standby, promotion, divergence, stock rewind, streaming, same data.
func TestLifecycle(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	t.Parallel()
	env := New(t)
	old := env.Init("old", InitOptions{Checksums: true})
	old.Start()
	old.InstallAmCheck()
	old.Tablespace("before")
	old.Pgbench("-i", "-s", "1")
	old.SQL("postgres", `CREATE TABLE "strange | name" (t int) TABLESPACE before; INSERT INTO "strange | name" VALUES (1)`)
	standby := old.Standby("standby")
	standby.Start()
	old.WaitStreaming(standby)
	old.WaitReplay(standby)
	for _, d := range CompareData(old, standby) {
		t.Errorf("before the divergence: %s", d)
	}

	standby.Promote()
	standby.Checkpoint()
	old.Pgbench("-t", "50")
	standby.Pgbench("-t", "20")
	standby.PrivateTablespace("after", old)
	standby.SQL("postgres", "CREATE TABLE moved TABLESPACE after AS SELECT generate_series(1, 1000) AS i")
	if len(CompareData(old, standby)) == 0 {
		t.Error("CompareData finds no difference between diverged servers")
	}
	if tli := standby.Timeline(); tli != 2 {
		t.Errorf("timeline after promotion is %d", tli)
	}
	old.Kill9()
	if state := old.Control().State; state != 6 {
		t.Errorf("after kill -9 pg_control says state %d, expected 6, in production", state)
	}
	standby.Quiesce()

	twin := old.Copy("twin")
	if diffs, _, err := CompareTrees(old.DataDir(), twin.DataDir()); err != nil || len(diffs) > 0 {
		t.Fatalf("a copy differs: %v %v", diffs, err)
	}
	res := old.StockRewind(FromServer(standby))
	if !strings.Contains(res.Stderr, "Done!") {
		t.Errorf("unexpected output: %s", res)
	}
	twin.StockRewind(FromConn(standby.SocketConnString()))
	if env.Major > 13 { // whose pg_rewind makes a temporary table in the source, so that the second finds another one
		SameTrees(t, old, twin, RewindDifferences(true)...)
	}
	for _, c := range []*Cluster{old, twin} {
		if dirs, err := filepath.Glob(fmt.Sprintf("%s/%s/ts/after/PG_%d_*", c.env.Root, c.Name, c.env.Major)); err != nil || len(dirs) != 1 {
			t.Errorf("the rewind did not fill the cluster's own private tablespace: %v %v", dirs, err)
		}
	}

	old.Follow(standby)
	old.Start()
	standby.Thaw()
	standby.WaitStreaming(old)
	standby.WaitReplay(old)
	SameData(t, old, standby)
	old.AmCheck()
	standby.AmCheck()
	old.Stop(Fast)
	old.Checksums()
	standby.Stop(Immediate)
	if standby.Running() || old.Running() {
		t.Error("stopped servers are said to run")
	}
}
