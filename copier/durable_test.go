package copier

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fastrewind/fastrewind/internal/fsx"
)

func TestWriteDurably(t *testing.T) {
	dir, spy := newTarget(t, map[string]string{"global/pg_control": "old", "global/pg_control" + TempSuffix: "left behind by a crash"})
	must(t, WriteDurably(spy, SyncFsync, "global/pg_control", []byte("new"), 0o640))
	if got := contents(t, dir); len(got) != 1 || got["global/pg_control"] != "new" {
		t.Errorf("%v", got)
	}
	temp := "global/pg_control" + TempSuffix
	want := []string{"remove " + temp, "open " + temp, "write " + temp + " 0+3", "sync " + temp, "close " + temp,
		"rename " + temp + " global/pg_control", "syncdir global"}
	if !slices.Equal(spy.ops, want) {
		t.Errorf("operations %q\nwant %q", spy.ops, want)
	}

	spy.ops = nil
	must(t, WriteDurably(spy, SyncNone, "backup_label", []byte("new"), 0o600))
	for _, op := range spy.ops {
		if op == "sync backup_label"+TempSuffix || op == "syncdir ." {
			t.Errorf("synced with SyncNone: %q", spy.ops)
		}
	}
}

// Whatever fails, the file is the old one or the new one, and without an fsync error nothing is left beside it.
func TestWriteDurablyFails(t *testing.T) {
	for n := 1; ; n++ {
		dir, spy := newTarget(t, map[string]string{"f": "old"})
		var failed string
		spy.before = func(i int, op string) error {
			if i == n {
				failed = op
				return &fs.PathError{Op: op, Path: op, Err: errInjected}
			}
			return nil
		}
		err := WriteDurably(spy, SyncFsync, "f", []byte("new"), 0o600)
		got := contents(t, dir)
		if failed == "" {
			must(t, err)
			if got["f"] != "new" || n < 8 {
				t.Errorf("%d operations, %v", n-1, got)
			}
			return
		}
		if !errors.Is(err, errInjected) {
			t.Errorf("%s: %v", failed, err)
		}
		if len(got) != 1 || (got["f"] != "old") != (failed == "syncdir .") {
			t.Errorf("%s: %v", failed, got)
		}
	}
}

func TestWriteDurablyUnsafe(t *testing.T) {
	outside := t.TempDir()
	dir, spy := newTarget(t, nil)
	must(t, os.Symlink(outside, filepath.Join(dir, "global")))
	for _, name := range []string{"global/pg_control", "../f", "/f", ""} {
		if err := WriteDurably(spy, SyncFsync, name, nil, 0o600); !errors.Is(err, fsx.ErrUnsafe) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if got := contents(t, outside); len(got) != 0 {
		t.Errorf("outside changed: %v", got)
	}
}
