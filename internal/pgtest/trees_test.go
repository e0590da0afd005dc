package pgtest

import (
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// miniature makes something with a data directory's shape: relations, WAL, a tablespace with a link, pg_control.
func miniature(t *testing.T) string {
	t.Helper()
	top := t.TempDir()
	data := filepath.Join(top, "data")
	for _, dir := range []string{"data/base/5", "data/global", "data/pg_tblspc", "data/pg_wal", "ts/one/PG_15_202209061/5"} {
		must(t, os.MkdirAll(filepath.Join(top, dir), 0o700))
	}
	put(t, data, "base/5/100", slices.Repeat([]byte{7}, 5*treeBlock))
	put(t, data, "base/5/101", nil)
	put(t, data, "PG_VERSION", []byte("15\n"))
	put(t, data, "backup_label", []byte("START WAL LOCATION: 0/1\nSTART TIME: 2026-01-01 00:00:00 UTC\n"))
	put(t, data, "pg_wal/000000010000000000000002", make([]byte, 1<<20))
	put(t, data, "pg_wal/000000010000000000000003", make([]byte, 1<<20))
	control := make([]byte, 8192)
	binary.LittleEndian.PutUint32(control[8:], 1300)
	binary.LittleEndian.PutUint64(control[controlOffsets[1300].minRec:], 2<<20+3*treeBlock+100) // in segment 2
	binary.LittleEndian.PutUint32(control[228:], 1<<20)
	put(t, data, "global/pg_control", control)
	must(t, os.Symlink(filepath.Join(top, "ts/one"), filepath.Join(data, "pg_tblspc/16400")))
	put(t, top, "ts/one/PG_15_202209061/5/200", make([]byte, treeBlock))
	return data
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, dir, path string, data []byte) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(dir, path), data, 0o600))
}

// poke changes the byte at an offset of a file.
func poke(t *testing.T, dir, path string, offset int) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, path))
	must(t, err)
	data[offset] ^= 0xFF
	put(t, dir, path, data)
}

func TestCompareTreesSame(t *testing.T) {
	differences, allowed, err := CompareTrees(miniature(t), miniature(t))
	if err != nil || len(differences) > 0 || len(allowed) > 0 {
		t.Errorf("two equal trees: %v, %v, %v", differences, allowed, err)
	}
}

// TestCompareTreesDetects changes one thing in the second tree; the only difference reported must be the one named, also
// with the allowances of a rewind in force.
func TestCompareTreesDetects(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(t *testing.T, dir string)
		want   string
	}{
		{"file missing", func(t *testing.T, d string) { must(t, os.Remove(filepath.Join(d, "base/5/101"))) },
			"base/5/101: only in the first: regular file of 0 bytes"},
		{"file more", func(t *testing.T, d string) { put(t, d, "base/5/102", []byte("x")) },
			"base/5/102: only in the second: regular file of 1 bytes"},
		{"directory missing", func(t *testing.T, d string) { must(t, os.RemoveAll(filepath.Join(d, "base"))) },
			"base: only in the first: directory"},
		{"link missing", func(t *testing.T, d string) { must(t, os.Remove(filepath.Join(d, "pg_tblspc/16400"))) },
			"pg_tblspc/16400: only in the first: symbolic link"},
		{"other type", func(t *testing.T, d string) {
			must(t, os.Remove(filepath.Join(d, "base/5/101")))
			must(t, os.Mkdir(filepath.Join(d, "base/5/101"), 0o600))
		}, "base/5/101: type: regular file and directory"},
		{"special file", func(t *testing.T, d string) {
			must(t, os.Remove(filepath.Join(d, "base/5/101")))
			must(t, syscall.Mkfifo(filepath.Join(d, "base/5/101"), 0o600))
		}, "base/5/101: type: regular file and special file p---------"},
		{"link instead of directory", func(t *testing.T, d string) {
			must(t, os.Rename(filepath.Join(d, "base"), filepath.Join(d, "../base")))
			must(t, os.Symlink("../base", filepath.Join(d, "base")))
		}, "base: type: directory and symbolic link"},
		{"mode of a file", func(t *testing.T, d string) { must(t, os.Chmod(filepath.Join(d, "base/5/100"), 0o640)) },
			"base/5/100: mode: -rw------- and -rw-r-----"},
		{"mode of a directory", func(t *testing.T, d string) { must(t, os.Chmod(filepath.Join(d, "base"), 0o750)) },
			"base: mode: drwx------ and drwxr-x---"},
		{"mode of the data directory", func(t *testing.T, d string) { must(t, os.Chmod(d, 0o750)) },
			": mode: drwx------ and drwxr-x---"},
		{"longer", func(t *testing.T, d string) { put(t, d, "base/5/100", slices.Repeat([]byte{7}, 6*treeBlock)) },
			"base/5/100: size: 40960 and 49152 bytes"},
		{"first byte", func(t *testing.T, d string) { poke(t, d, "base/5/100", 0) },
			"base/5/100: content: 1 blocks, the first is block 0, its first differing byte is at offset 0 of the file"},
		{"two blocks", func(t *testing.T, d string) {
			poke(t, d, "base/5/100", 2*treeBlock+5)
			poke(t, d, "base/5/100", 5*treeBlock-1)
		},
			"base/5/100: content: 2 blocks, the first is block 2, its first differing byte is at offset 16389 of the file"},
		{"in a tablespace", func(t *testing.T, d string) { poke(t, d, "../ts/one/PG_15_202209061/5/200", 9) },
			"pg_tblspc/16400/PG_15_202209061/5/200: content: 1 blocks, the first is block 0, its first differing byte is at offset 9 of the file"},
		{"missing in a tablespace", func(t *testing.T, d string) {
			must(t, os.Remove(filepath.Join(d, "../ts/one/PG_15_202209061/5/200")))
		}, "pg_tblspc/16400/PG_15_202209061/5/200: only in the first: regular file of 8192 bytes"},
		{"link target", func(t *testing.T, d string) {
			must(t, os.Rename(filepath.Join(d, "../ts/one"), filepath.Join(d, "../ts/two")))
			must(t, os.Remove(filepath.Join(d, "pg_tblspc/16400")))
			must(t, os.Symlink(filepath.Join(d, "../ts/two"), filepath.Join(d, "pg_tblspc/16400")))
		}, "pg_tblspc/16400: link target: "},
		{"state in pg_control", func(t *testing.T, d string) { poke(t, d, "global/pg_control", 16) },
			"global/pg_control: content: 1 blocks, the first is block 0, its first differing byte is at offset 16 of the file"},
		{"padding of pg_control", func(t *testing.T, d string) { poke(t, d, "global/pg_control", 8191) },
			"global/pg_control: content: 1 blocks, the first is block 0, its first differing byte is at offset 8191 of the file"},
		{"start in backup_label", func(t *testing.T, d string) { poke(t, d, "backup_label", 22) },
			"backup_label: content: "},
		{"WAL before minRecoveryPoint", func(t *testing.T, d string) {
			poke(t, d, "pg_wal/000000010000000000000002", 3*treeBlock+99)
		}, "pg_wal/000000010000000000000002: content: "},
		{"WAL segment before minRecoveryPoint missing", func(t *testing.T, d string) {
			must(t, os.Remove(filepath.Join(d, "pg_wal/000000010000000000000002")))
		}, "pg_wal/000000010000000000000002: only in the first: regular file of 1048576 bytes"},
		{"WAL segment of another size", func(t *testing.T, d string) {
			must(t, os.Truncate(filepath.Join(d, "pg_wal/000000010000000000000003"), 100))
		}, "pg_wal/000000010000000000000003: size: 1048576 and 100 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := miniature(t), miniature(t)
			c.change(t, b)
			for _, allow := range [][]Allow{nil, RewindDifferences(true)} {
				differences, _, err := CompareTrees(a, b, allow...)
				must(t, err)
				if len(differences) != 1 || !strings.HasPrefix(differences[0].String(), c.want) {
					t.Errorf("with %d allowances: got %q, expected one difference %q", len(allow), differences, c.want)
				}
			}
		})
	}
}

func TestCompareTreesDetectsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	a, b := miniature(t), miniature(t)
	must(t, os.Lchown(filepath.Join(b, "base/5/100"), 1, 2))
	differences, _, err := CompareTrees(a, b, RewindDifferences(true)...)
	must(t, err)
	if len(differences) != 1 || differences[0].String() != "base/5/100: owner: 0:0 and 1:2" {
		t.Errorf("got %q", differences)
	}
}

// TestCompareTreesAllows: each expected difference is found, and allowed only by the rules that are about it.
func TestCompareTreesAllows(t *testing.T) {
	for _, c := range []struct {
		name     string
		change   func(t *testing.T, dir string)
		liveOnly bool
	}{
		{"time in pg_control", func(t *testing.T, d string) { poke(t, d, "global/pg_control", ctlTime+2) }, false},
		{"checksum of pg_control", func(t *testing.T, d string) { poke(t, d, "global/pg_control", controlOffsets[1300].crc+3) }, false},
		{"minRecoveryPoint", func(t *testing.T, d string) { poke(t, d, "global/pg_control", controlOffsets[1300].minRec+2) }, true},
		{"minRecoveryPointTLI", func(t *testing.T, d string) { poke(t, d, "global/pg_control", controlOffsets[1300].minRecTLI) }, true},
		{"time in backup_label", func(t *testing.T, d string) { poke(t, d, "backup_label", 22+16) }, false},
		{"WAL beyond minRecoveryPoint", func(t *testing.T, d string) {
			poke(t, d, "pg_wal/000000010000000000000002", 3*treeBlock+100)
		}, true},
		{"WAL segment beyond", func(t *testing.T, d string) { poke(t, d, "pg_wal/000000010000000000000003", 0) }, true},
		{"WAL segment beyond missing", func(t *testing.T, d string) {
			must(t, os.Remove(filepath.Join(d, "pg_wal/000000010000000000000003")))
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := miniature(t), miniature(t)
			c.change(t, b)
			for live, want := range map[bool]bool{true: true, false: !c.liveOnly} {
				differences, allowed, err := CompareTrees(a, b, RewindDifferences(live)...)
				must(t, err)
				if got := len(allowed) == 1; got != want || len(differences)+len(allowed) != 1 {
					t.Errorf("live source %t: differences %q, allowed %q", live, differences, allowed)
				}
			}
			differences, _, err := CompareTrees(a, b)
			must(t, err)
			if len(differences) != 1 {
				t.Errorf("without allowances: %q", differences)
			}
		})
	}
}

func TestAllowSourceBlocks(t *testing.T) {
	a, b := miniature(t), miniature(t)
	source := &Cluster{env: &Env{Root: t.TempDir()}, Name: "source"}
	must(t, os.Rename(filepath.Dir(miniature(t)), filepath.Join(source.env.Root, "source")))
	for _, dir := range []string{a, source.DataDir()} { // as if the program had copied block 3 from the source
		poke(t, dir, "base/5/100", 3*treeBlock)
	}
	differences, allowed, err := CompareTrees(a, b, AllowSourceBlocks(source))
	must(t, err)
	if len(differences) != 0 || len(allowed) != 1 {
		t.Errorf("a block of the source: differences %q, allowed %q", differences, allowed)
	}
	poke(t, a, "base/5/100", 4*treeBlock) // not what the source has
	differences, _, err = CompareTrees(a, b, AllowSourceBlocks(source))
	must(t, err)
	if len(differences) != 1 {
		t.Errorf("a block that is not the source's: %q", differences)
	}
}

func TestAllowPath(t *testing.T) {
	a, b := miniature(t), miniature(t)
	poke(t, b, "base/5/100", 1)
	poke(t, b, "PG_VERSION", 0)
	differences, allowed, err := CompareTrees(a, b, AllowPath("base/*/100", "because"))
	must(t, err)
	if len(differences) != 1 || differences[0].Path != "PG_VERSION" || len(allowed) != 1 {
		t.Errorf("differences %q, allowed %q", differences, allowed)
	}
}

// TestCompareTreesPrivateTablespace: the same text in both links means another directory for each.
func TestCompareTreesPrivateTablespace(t *testing.T) {
	a, b := miniature(t), miniature(t)
	for _, dir := range []string{a, b} {
		link := filepath.Join(dir, "pg_tblspc/16400")
		must(t, os.Remove(link))
		must(t, os.Symlink(privatePrefix+"one", link))
	}
	differences, _, err := CompareTrees(a, b)
	must(t, err)
	if len(differences) != 0 {
		t.Errorf("equal: %q", differences)
	}
	poke(t, b, "../ts/one/PG_15_202209061/5/200", 1)
	differences, _, err = CompareTrees(a, b)
	must(t, err)
	if len(differences) != 1 || differences[0].Path != "pg_tblspc/16400/PG_15_202209061/5/200" {
		t.Errorf("got %q", differences)
	}
}

// TestCompareTreesManyBlocks: block numbers stay right beyond the comparison's buffer.
func TestCompareTreesManyBlocks(t *testing.T) {
	a, b := miniature(t), miniature(t)
	big := make([]byte, 3<<20+treeBlock/2)
	put(t, a, "base/5/300", big)
	want := map[int64]bool{0: true, 127: true, 128: true, 300: true, 384: true}
	for block := range want {
		big[block*treeBlock+17] = 1
	}
	put(t, b, "base/5/300", big)
	differences, _, err := CompareTrees(a, b)
	must(t, err)
	if len(differences) != 1 || !slices.Equal(differences[0].Blocks, slices.Sorted(maps.Keys(want))) {
		t.Errorf("got %q", differences)
	}
}

func TestCompareTreesErrors(t *testing.T) {
	if _, _, err := CompareTrees(miniature(t), filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no error for a directory that is not there")
	}
	a, b := miniature(t), miniature(t)
	poke(t, b, "global/pg_control", ctlTime)
	must(t, os.Truncate(filepath.Join(a, "global/pg_control"), 100))
	if _, _, err := CompareTrees(a, b, RewindDifferences(false)...); err == nil {
		t.Error("no error for a pg_control that is cut short")
	}
}
