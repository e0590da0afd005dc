package rewind

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/crashtest"
	"github.com/fastrewind/fastrewind/internal/fsx"
	"github.com/fastrewind/fastrewind/internal/fsx/crashfs"
)

// mount makes a small file system of its own.
func mount(t *testing.T, bytes int64) string {
	t.Helper()
	dir := t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size="+strconv.FormatInt(bytes, 10))
	if err != nil {
		t.Fatalf("this test has to mount a tmpfs, which takes root (CAP_SYS_ADMIN): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// bytesOf is how much a tree takes on a disk, and some more.
func bytesOf(tree crashfs.Tree) (n int64) {
	for _, node := range tree {
		n += int64(len(node.Data)+4095)&^4095 + 4096
	}
	return n
}

// fills takes all space that is left.
func fills(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	some := make([]byte, 64<<10)
	for len(some) > 0 {
		if _, err := f.Write(some); err != nil {
			some = some[:len(some)/2]
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// interloper does something once, before the first write to one file.
type interloper struct {
	targetFS
	path string
	once *sync.Once
	do   func()
}

func (i *interloper) OpenFile(name string, how fsx.Open, mode fs.FileMode) (fsx.File, error) {
	f, err := i.targetFS.OpenFile(name, how, mode)
	if err == nil && name == i.path {
		i.once.Do(i.do)
	}
	return f, err
}

// Wrap makes an interloper of a crashfs.World's kind.
func (i *interloper) Wrap(inner crashfs.Target) crashfs.Target {
	j := *i
	j.targetFS = inner
	return &j
}

// Somebody else fills the disk while the rewind is at work, at one place or another. The error says so; no server starts;
// and once there is space again, the same command goes on.
func TestDiskFillsUp(t *testing.T) {
	b := newBench(t, 2, Config{Jobs: 2})
	for _, path := range []string{
		"pg_wal/000000020000000000000004",         // a whole file that is new
		"base/5/16385",                            // a tail
		"base/5/16389",                            // a relation that is new
		"pg_tblspc/16500/PG_15_202209061/5/16601", // in a tablespace
		"global/pg_control.fastrewind.tmp",        // guard, or end
		"backup_label.fastrewind.tmp",             // guard, or end
	} {
		t.Run(strings.ReplaceAll(path, "/", "_"), func(t *testing.T) {
			disk := mount(t, 2*bytesOf(b.pair.Source)+bytesOf(b.pair.Target))
			root, filler := filepath.Join(disk, "target"), filepath.Join(disk, "filler")
			if err := b.pair.Target.Write(root); err != nil {
				t.Fatal(err)
			}
			cfg := b.configIn(root)
			full := &interloper{path: path, once: new(sync.Once), do: func() { fills(t, filler) }}
			err := b.runWith(t.Context(), cfg, full, silent{})
			switch {
			case err == nil:
				t.Error("a full disk was not noticed")
			case !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "No space left on device"):
				t.Errorf("the error does not say that the disk is full: %v", err)
			}
			t.Log(err)
			left := load(t, root)
			if err := b.guarded(left); err != nil {
				t.Error(err)
			}
			// Still full.
			if err := b.runWith(t.Context(), cfg, nil, silent{}); err == nil && b.differs(load(t, root)) != nil {
				t.Error("success on a full disk, but another tree")
			} else if err != nil && !errors.Is(err, syscall.ENOSPC) && !strings.Contains(err.Error(), "space") {
				t.Errorf("on a disk that is still full: %v", err)
			}
			if err := b.guarded(load(t, root)); err != nil {
				t.Error(err)
			}
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			if b.differs(load(t, root)) != nil {
				if err := b.runWith(t.Context(), cfg, nil, silent{}); err != nil {
					t.Fatalf("with space again: %v", err)
				}
			}
			if d := b.differs(load(t, root)); d != nil {
				t.Errorf("with space again: %s", first(d))
			}
		})
	}
}

// A target on a read-only file system is refused, whole or half rewound; and once it is writable, the rewind goes on.
func TestReadOnlyDisk(t *testing.T) {
	b := newBench(t, 3, Config{Jobs: 2})
	n := b.log.Len()
	for name, left := range map[string]int{"whole": 0, "half": n / 2, "nearly": n - 8} {
		t.Run(name, func(t *testing.T) {
			disk := mount(t, 2*bytesOf(b.pair.Source)+bytesOf(b.pair.Target))
			remount := func(flags uintptr) {
				t.Helper()
				if err := unix.Mount("", disk, "", unix.MS_REMOUNT|flags, ""); err != nil {
					t.Fatal(err)
				}
			}
			root := filepath.Join(disk, "target")
			tree, err := b.log.Crash(b.pair.Target, crashtest.DataDir, left, crashfs.All())
			if err != nil {
				t.Fatal(err)
			}
			if err := tree.Write(root); err != nil {
				t.Fatal(err)
			}
			cfg := b.configIn(root)
			remount(unix.MS_RDONLY)
			err = b.runWith(t.Context(), cfg, nil, silent{})
			if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "Read-only file system") {
				t.Errorf("the error does not say that the file system is read-only: %v", err)
			}
			t.Log(err)
			if d := load(t, root).Diff(tree); d != nil {
				t.Errorf("a read-only file system has changed: %s", first(d))
			}
			remount(0)
			if err := b.runWith(t.Context(), cfg, nil, silent{}); err != nil {
				t.Fatalf("writable again: %v", err)
			}
			if d := b.differs(load(t, root)); d != nil {
				t.Errorf("writable again: %s", first(d))
			}
		})
	}
}

func load(t *testing.T, root string) crashfs.Tree {
	t.Helper()
	tree, err := crashfs.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}
