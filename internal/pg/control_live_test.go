package pg_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// TestControlAgainstServer writes the control file of a real cluster and asks pg_controldata and the server itself what
// they think of it.
func TestControlAgainstServer(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	env := pgtest.New(t)
	p := env.Init("primary", pgtest.InitOptions{SegSizeMB: 64, NoHints: true})
	path := p.Path("global", "pg_control")
	said := func() string {
		return env.MustExec(pgtest.Cmd{Path: env.Bin("pg_controldata"), Args: []string{p.DataDir()}, Env: []string{"TZ=UTC", "LC_ALL=C"}}).Stdout
	}
	read := func() *pg.Control {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		c, err := pg.DecodeControl(data)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	p.Start()
	running := read()
	if running.State != pg.StateInProduction || running.SegSize != 64<<20 || running.WALLogHints || running.ChecksumVersion != 0 {
		t.Errorf("of a running server: %+v", running)
	}
	p.Stop(pgtest.Fast)
	c := read()
	if c.State != pg.StateShutdowned || c.SystemID != running.SystemID {
		t.Errorf("of a stopped server: %+v", c)
	}

	original := c.Encode()
	c.State, c.MinRecoveryPoint, c.MinRecoveryPointTLI, c.Time = pg.StateInArchiveRecovery, 0x7_0000ABC8, 5, time.Unix(1700000000, 0)
	env.WriteFile(path, c.Encode(), 0o600)
	text := said()
	for _, want := range []string{
		"in archive recovery\n", "Tue Nov 14 22:13:20 2023\n", "Minimum recovery ending location:     7/ABC8\n", "Min recovery ending loc's timeline:   5\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("pg_controldata does not say %q", want)
		}
	}
	if strings.Contains(text, "WARNING") {
		t.Errorf("pg_controldata warns:\n%s", text)
	}
	env.WriteFile(path, original, 0o600)
	p.Start()
	p.Stop(pgtest.Fast)
}
