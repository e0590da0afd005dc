package plan

import (
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
)

// A source that lies about a tablespace's location must not have our files written there.
func TestForeignFilesInTablespaces(t *testing.T) {
	link := pg.Entry{Path: "pg_tblspc/99", Type: pg.SymbolicLink, LinkTarget: "/home/somebody"}
	in := Input{SegSize: 16 << 20, TablespaceDir: "PG_15_202209061"}
	in.Source = []pg.Entry{
		{Path: "pg_tblspc", Type: pg.Directory},
		link,
		{Path: "pg_tblspc/99/PG_14_202107181", Type: pg.Directory},
		{Path: "pg_tblspc/99/PG_15_202209061", Type: pg.Directory},
		{Path: "pg_tblspc/99/PG_15_202209061/5", Type: pg.Directory},
		{Path: "pg_tblspc/99/PG_15_202209061/5/16384", Type: pg.RegularFile, Size: 8192},
		{Path: "pg_tblspc/99/authorized_keys", Type: pg.RegularFile, Size: 12},
	}
	in.Target = []pg.Entry{
		{Path: "pg_tblspc", Type: pg.Directory},
		{Path: "pg_tblspc/98", Type: pg.SymbolicLink, LinkTarget: "/home/nobody"},
		{Path: "pg_tblspc/98/PG_14_202107181", Type: pg.Directory}, // another cluster's
		{Path: "pg_tblspc/98/PG_14_202107181/5", Type: pg.Directory},
		{Path: "pg_tblspc/98/PG_14_202107181/5/16384", Type: pg.RegularFile, Size: 8192},
		{Path: "pg_tblspc/98/lost+found", Type: pg.Directory},
	}
	p, err := Make(in)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Kind{
		"pg_tblspc/99":                         Create,
		"pg_tblspc/99/PG_15_202209061":         Create,
		"pg_tblspc/99/PG_15_202209061/5":       Create,
		"pg_tblspc/99/PG_15_202209061/5/16384": Copy,
		"pg_tblspc/98":                         Remove,
	}
	for _, a := range p.Actions {
		if want[a.Path] != a.Kind {
			t.Errorf("%s %s", a.Kind, a.Path)
		}
		delete(want, a.Path)
	}
	for path, kind := range want {
		t.Errorf("missing: %s %s", kind, path)
	}

	link.Path = "pg_tblspc/somewhere"
	in.Source = []pg.Entry{{Path: "pg_tblspc", Type: pg.Directory}, link}
	if _, err := Make(in); err == nil || err.Error() != `target symlink path is unsafe for creation: "pg_tblspc/somewhere"` {
		t.Errorf("a link that no server makes: %v", err)
	}
}
