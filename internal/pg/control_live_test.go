package pg_test

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// TestControlAgainstServer writes the control file of a real cluster and asks pg_controldata and the server itself what
// they think of it, on every major there is.
func TestControlAgainstServer(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	for _, major := range pgtest.Majors(t) {
		t.Run(strconv.Itoa(major), func(t *testing.T) { controlAgainstServer(t, major) })
	}
}

func controlAgainstServer(t *testing.T, major int) {
	env := pgtest.NewMajor(t, major)
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
	if running.Version.Major != major {
		t.Errorf("%d is taken for %d", major, running.Version.Major)
	}
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
	text, end := said(), "7/ABC8"
	if major >= 19 {
		end = "7/0000ABC8"
	}
	for _, want := range []string{
		"in archive recovery\n", "Tue Nov 14 22:13:20 2023\n", "Minimum recovery ending location:     " + end + "\n", "Min recovery ending loc's timeline:   5\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("pg_controldata does not say %q", want)
		}
	}
	if strings.Contains(text, "WARNING") {
		t.Errorf("pg_controldata warns:\n%s", text)
	}
	// A half-rewound cluster starts neither with its control file guarded, nor with a label that is no label.
	refuses := func(why string) {
		before := len(p.Log())
		if err := p.TryStart(); err == nil {
			t.Errorf("the server starts in spite of: %s", why)
			p.Stop(pgtest.Fast)
		} else if log := p.Log()[before:]; !strings.Contains(log, why) {
			t.Errorf("it does not say %q, but:\n%s", why, log)
		}
	}
	env.WriteFile(path, read().Guarded(), 0o600)
	if text := said(); !strings.Contains(text, "in archive recovery\n") {
		t.Errorf("of a guarded control file pg_controldata says:\n%s", text)
	}
	refuses("database files are incompatible with server")
	env.WriteFile(path, original, 0o600)
	label := p.Path("backup_label")
	env.WriteFile(label, []byte("This data directory is half rewound.\n"), 0o600)
	refuses("invalid data in file \"backup_label\"")
	if err := os.Remove(label); err != nil {
		t.Fatal(err)
	}
	p.Start()
	p.Stop(pgtest.Fast)
}
