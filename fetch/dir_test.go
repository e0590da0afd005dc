package fetch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/pg"
)

// A stopped cluster that changes after it was listed is found out, wherever the change is.
func TestDirChanges(t *testing.T) {
	const size = 3 << 20
	whole := []pg.FileRange{{Path: "f", Length: MaxChunk}, {Path: "f", Offset: MaxChunk, Length: MaxChunk}, {Path: "f", Offset: 2 * MaxChunk, Length: MaxChunk}}
	for name, c := range map[string]struct {
		change func(path string) error // after listing
		during func(path string) error // in the first emit
		ranges []pg.FileRange
		want   string // error; %s is the file
	}{
		"unchanged":          {nil, nil, whole, ""},
		"grown":              {func(p string) error { return os.Truncate(p, size+1) }, nil, whole, fmt.Sprintf(`size of source file "%%s" changed concurrently: %d bytes expected, %d copied`, size, size+1)},
		"shrunk":             {func(p string) error { return os.Truncate(p, 5) }, nil, whole, fmt.Sprintf(`size of source file "%%s" changed concurrently: %d bytes expected, 5 copied`, size)},
		"vanished":           {os.Remove, nil, whole, `could not open source file "%s": No such file or directory`},
		"grown meanwhile":    {nil, func(p string) error { return os.Truncate(p, size+1) }, whole, fmt.Sprintf(`size of source file "%%s" changed concurrently: %d bytes expected, %d copied`, size, size+1)},
		"shrunk meanwhile":   {nil, func(p string) error { return os.Truncate(p, MaxChunk+7) }, whole, `unexpected EOF while reading file "%s"`},
		"a range meanwhile":  {nil, func(p string) error { return os.Truncate(p, 8192) }, []pg.FileRange{{Path: "f", Length: 8192}, {Path: "f", Offset: 8192, Length: 8192}}, `unexpected EOF while reading file "%s"`},
		"more asked than is": {nil, nil, []pg.FileRange{{Path: "f", Offset: size - 1, Length: MaxChunk}, {Path: "f", Offset: size + 9, Length: 1}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "f")
			if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := OpenDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if _, err := d.List(t.Context(), 1, nil); err != nil {
				t.Fatal(err)
			}
			if c.change != nil {
				if err := c.change(path); err != nil {
					t.Fatal(err)
				}
			}
			err = d.Fetch(t.Context(), c.ranges, func(i int, _ pg.FileChunk) error {
				if i == 0 && c.during != nil {
					return c.during(path)
				}
				return nil
			})
			want := strings.ReplaceAll(c.want, "%s", path)
			if (err == nil) != (want == "") || err != nil && err.Error() != want {
				t.Errorf("got %v\nwant %s", err, want)
			}
		})
	}
}

// A file that was never listed is read as it is.
func TestDirUnlisted(t *testing.T) {
	dir := t.TempDir()
	d, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.List(t.Context(), 1, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "new"), []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got string
	err = d.Fetch(t.Context(), []pg.FileRange{{Path: "new", Length: 100}}, func(_ int, c pg.FileChunk) error {
		got = string(c.Data)
		return nil
	})
	if err != nil || got != "abc" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := OpenDir(dir + "/none"); !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "could not open directory ") {
		t.Errorf("no directory: %v", err)
	}
}

// BenchmarkDirFetch reads a file in ranges of one size, all of it or every tenth of them, from the page cache and from
// the disk.
func BenchmarkDirFetch(b *testing.B) {
	dir := b.TempDir()
	const total = 256 << 20
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, bytes.Repeat([]byte("0123456789abcdef"), total/16), 0o600); err != nil {
		b.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	if err := file.Sync(); err != nil {
		b.Fatal(err)
	}
	d, err := OpenDir(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	if _, err := d.List(b.Context(), 1, nil); err != nil {
		b.Fatal(err)
	}
	for _, cache := range []string{"warm", "cold"} {
		for _, every := range []int64{1, 10} {
			for _, size := range []int64{8 << 10, 256 << 10, MaxChunk} {
				b.Run(fmt.Sprintf("%s/every=%d/size=%d", cache, every, size), func(b *testing.B) {
					var ranges []pg.FileRange
					for off := int64(0); off < total; off += every * size {
						ranges = append(ranges, pg.FileRange{Path: "f", Offset: off, Length: size})
					}
					b.SetBytes(int64(len(ranges)) * size)
					for b.Loop() {
						if cache == "cold" {
							b.StopTimer()
							if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
								b.Fatal(err)
							}
							b.StartTimer()
						}
						if err := d.Fetch(b.Context(), ranges, func(int, pg.FileChunk) error { return nil }); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}
