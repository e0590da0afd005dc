package integration

import (
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// scenario is one way in which two servers come apart.
type scenario struct {
	name string
	init pgtest.InitOptions
	// before is what both have in common, on the primary, before there is a standby.
	before func(p *pgtest.Cluster)
	// diverge is given the old primary and the promoted standby, both running.
	diverge func(old, promoted *pgtest.Cluster)
}

// golden runs a scenario and rewinds the old primary twice from either kind of source, with stock pg_rewind and with
// fastrewind: the trees must be the same, and ours must start, stream and hold the same data.
func golden(t *testing.T, s scenario) {
	env := pgtest.New(t)
	s.init.Checksums = s.init.Checksums || !s.init.NoHints
	old := env.Init("old", s.init)
	old.Start()
	if s.before != nil {
		s.before(old)
	}
	old.InstallAmCheck()
	promoted := old.Standby("promoted")
	promoted.Start()
	old.WaitReplay(promoted)
	promoted.Promote()
	s.diverge(old, promoted)
	promoted.Quiesce()
	old.Stop(pgtest.Fast)
	compareFromServer(t, old, promoted)
	promoted.Stop(pgtest.Fast)
	compareFromDirectory(t, old, promoted)
}

func compareFromServer(t *testing.T, old, promoted *pgtest.Cluster) {
	t.Helper()
	bin := pgtest.BuildFastrewind(t)
	stock, ours := old.Copy("stock-server"), old.Copy("ours-server")
	stock.StockRewind(pgtest.FromServer(promoted))
	ours.MustRewind(bin.Fastrewind, pgtest.FromServer(promoted), "-P", "-j", "3")
	pgtest.SameTrees(t, ours, stock, pgtest.RewindDifferences(true)...)
	ours.Follow(promoted)
	ours.Start()
	promoted.WaitStreaming(ours)
	promoted.WaitReplay(ours)
	pgtest.SameData(t, ours, promoted)
	ours.AmCheck()
	ours.Stop(pgtest.Fast)
	ours.Checksums()
}

func compareFromDirectory(t *testing.T, old, promoted *pgtest.Cluster) {
	t.Helper()
	bin := pgtest.BuildFastrewind(t)
	stock, ours := old.Copy("stock-dir"), old.Copy("ours-dir")
	stock.StockRewind(pgtest.FromDir(promoted))
	ours.MustRewind(bin.Fastrewind, pgtest.FromDir(promoted), "-P", "-j", "3")
	pgtest.SameTrees(t, ours, stock, pgtest.RewindDifferences(false)...)
	promoted.Start()
	ours.Follow(promoted)
	ours.Start()
	promoted.WaitStreaming(ours)
	promoted.WaitReplay(ours)
	pgtest.SameData(t, ours, promoted)
	ours.Stop(pgtest.Fast)
}

func TestGolden(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	for _, s := range []scenario{
		{
			name:   "pgbench load",
			before: func(p *pgtest.Cluster) { p.Pgbench("-i", "-s", "5") },
			diverge: func(old, promoted *pgtest.Cluster) {
				old.Pgbench("-c", "2", "-t", "500")
				promoted.Pgbench("-c", "2", "-t", "300")
			},
		},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			golden(t, s)
		})
	}
}
