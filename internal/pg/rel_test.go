package pg

import (
	"math"
	"math/rand/v2"
	"testing"
)

const tablespaceDir = "PG_15_202209061"

func TestRelFilePath(t *testing.T) {
	for path, f := range map[string]RelFile{
		"global/1262":         {Rel: Rel{GlobalTablespace, 0, 1262}},
		"global/1262.1":       {Rel{GlobalTablespace, 0, 1262}, 1},
		"base/5/16384":        {Rel: Rel{DefaultTablespace, 5, 16384}},
		"base/5/16384.32767":  {Rel{DefaultTablespace, 5, 16384}, MaxRelSegment},
		"base/1/4294967295":   {Rel: Rel{DefaultTablespace, 1, math.MaxUint32}},
		"base/4294967295/1":   {Rel: Rel{DefaultTablespace, math.MaxUint32, 1}},
		"base/5/16384.10":     {Rel{DefaultTablespace, 5, 16384}, 10},
		"base/0/0":            {Rel: Rel{DefaultTablespace, 0, 0}},
		"base/5/16384.131072": {Rel{DefaultTablespace, 5, 16384}, 131072}, // more than there can be, and still the name of one
		"pg_tblspc/16385/" + tablespaceDir + "/5/16386":   {Rel: Rel{16385, 5, 16386}},
		"pg_tblspc/16385/" + tablespaceDir + "/5/16386.2": {Rel{16385, 5, 16386}, 2},
	} {
		if got := f.Path(tablespaceDir); got != path {
			t.Errorf("%+v: %s, want %s", f, got, path)
		}
		if got, ok := ParseRelFile(path, tablespaceDir); !ok || got != f {
			t.Errorf("%s: %+v, %v, want %+v", path, got, ok, f)
		}
	}
}

// TestNotRelFiles are names that look like a relation's and are not: taken for one, a file would be patched by blocks
// instead of being copied whole.
func TestNotRelFiles(t *testing.T) {
	const spc = "pg_tblspc/16385/" + tablespaceDir
	for _, path := range []string{
		"", "/", "global", "global/", "base", "base/", "base/5", "base/5/", "base//16384", "base/5//16384", "/base/5/16384",
		"base/5/16384_fsm", "base/5/16384_vm", "base/5/16384_init", "base/5/16384_fsm.1", "base/5/16384.1_fsm", "global/1262_fsm",
		"base/5/t3_16384", "base/5/t3_16384.1", "base/5/t3_16384_fsm",
		"base/5/016384", "base/05/16384", "base/5/16384.0", "base/5/16384.01", "base/5/16384.", "base/5/.1", "base/5/16384.1.1",
		"base/5/16384 ", " base/5/16384", "base/5/ 16384", "base/5/+16384", "base/+5/16384", "base/5/-1", "base/5/16384.-1", "base/5/16384.+1",
		"base/5/16384x", "base/5/0x4000", "base/5/16_384", "base/5/16384.1x", "base/5/4294967296", "base/4294967296/1", "base/5/1.4294967296",
		"base/5/18446744073709551616", "base/5/pg_filenode.map", "base/5/pg_internal.init", "base/5/PG_VERSION", "global/pg_control",
		"base/pgsql_tmp/16384", "base/5/16384/1", "global/5/16384", "global/01262",
		"pg_tblspc/16385", "pg_tblspc/16385/5/16386", "pg_tblspc/16385/PG_14_202107181/5/16386", spc, spc + "/5", spc + "/16386",
		"pg_tblspc/016385/" + tablespaceDir + "/5/16386", "pg_tblspc/1663/" + tablespaceDir + "/5/16386", "pg_tblspc/1664/" + tablespaceDir + "/5/16386",
		spc + "/5/16386_fsm", spc + "x/5/16386", "pg_wal/000000010000000000000001", "../base/5/16384", "base/../5/16384", "base/5/٣",
	} {
		if f, ok := ParseRelFile(path, tablespaceDir); ok {
			t.Errorf("%q is taken for %+v", path, f)
		}
	}
}

func TestRelFileRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20000 {
		f := RelFile{Rel{Oid(rng.Uint32() >> rng.IntN(32)), Oid(rng.Uint32() >> rng.IntN(32)), RelNumber(rng.Uint32() >> rng.IntN(32))}, rng.Uint32() >> rng.IntN(32)}
		switch rng.IntN(3) {
		case 0:
			f.Tablespace = DefaultTablespace
		case 1:
			f.Tablespace, f.Database = GlobalTablespace, 0
		}
		path := f.Path(tablespaceDir)
		if got, ok := ParseRelFile(path, tablespaceDir); !ok || got != f {
			t.Fatalf("%+v: %s is read as %+v, %v", f, path, got, ok)
		}
	}
}

// FuzzRelFile: what is taken for a relation's file has exactly the name that Path gives it.
func FuzzRelFile(f *testing.F) {
	for _, s := range []string{"base/5/16384.1", "global/1262", "pg_tblspc/16385/" + tablespaceDir + "/5/16386", "base/5/16384_fsm"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if rel, ok := ParseRelFile(path, tablespaceDir); ok && rel.Path(tablespaceDir) != path {
			t.Errorf("%q is taken for %+v, whose path is %q", path, rel, rel.Path(tablespaceDir))
		}
	})
}
