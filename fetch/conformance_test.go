package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/fastrewind/fastrewind/internal/datadir"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// grants is what stock pg_rewind's documentation gives a role, and nothing else.
const grants = `CREATE ROLE rewinder LOGIN;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean) TO rewinder;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO rewinder;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text) TO rewinder;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO rewinder`

// contract is what both sources promise.
type contract interface {
	List(ctx context.Context, jobs int, progress func(entries int64)) ([]pg.Entry, error)
	ReadFile(ctx context.Context, path string, maxBytes int64) ([]byte, error)
	ControlFile(ctx context.Context) ([]byte, error)
	Fetch(ctx context.Context, ranges []pg.FileRange, emit func(i int, c pg.FileChunk) error) error
	Close() error
}

// sampleCluster is a running cluster with something of everything a listing can meet.
func sampleCluster(t *testing.T) *pgtest.Cluster {
	if testing.Short() {
		t.Skip("needs a PostgreSQL server")
	}
	t.Helper()
	p := pgtest.New(t).Init("source", pgtest.InitOptions{Checksums: true, Conf: []string{"allow_in_place_tablespaces = on"}})
	p.Start()
	p.Tablespace("ts1")
	p.SQL("postgres", grants)
	p.SQL("postgres", `CREATE TABLE big AS SELECT g, repeat(md5(g::text), 8) AS x FROM generate_series(1, 20000) AS g`)
	p.SQL("postgres", `CREATE TABLE elsewhere TABLESPACE ts1 AS SELECT g FROM generate_series(1, 1000) AS g`)
	p.SQL("postgres", `SET allow_in_place_tablespaces = on; CREATE TABLESPACE here LOCATION ''`)
	p.SQL("postgres", `CREATE TABLE inside TABLESPACE here AS SELECT 1`)
	p.SQL("postgres", `CREATE UNLOGGED TABLE u AS SELECT 1`)
	env := p.Env()
	env.WriteFile(p.Path("odd name, 'quoted\" and \\ ä"), []byte("odd"), 0o600)
	env.WriteFile(p.Path("empty"), nil, 0o600)
	p.Quiesce()
	return p
}

func TestConformance(t *testing.T) {
	p := sampleCluster(t)
	t.Run("server", func(t *testing.T) {
		for name, conn := range map[string]string{
			"tcp":    p.ConnStringAs("rewinder"),
			"socket": p.SocketConnString() + " user=rewinder",
		} {
			t.Run(name, func(t *testing.T) {
				s, err := Connect(t.Context(), conn, Options{Conns: 3, ProgramName: "fastrewind"})
				if err != nil {
					t.Fatal(err)
				}
				conformance(t, s, p.DataDir(), true)
			})
		}
	})
	p.Stop(pgtest.Fast)
	t.Run("directory", func(t *testing.T) {
		d, err := OpenDir(p.DataDir())
		if err != nil {
			t.Fatal(err)
		}
		conformance(t, d, p.DataDir(), false)
	})
}

// conformance holds a source of the cluster in dir, which nobody changes, against the contract, and closes it.
func conformance(t *testing.T, src contract, dir string, live bool) {
	defer func() {
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	}()
	ctx := t.Context()
	var (
		entries []pg.Entry
		files   []pg.Entry
	)
	version, err := os.ReadFile(filepath.Join(dir, "PG_VERSION"))
	if err != nil {
		t.Fatal(err)
	}
	major := strings.TrimSpace(string(version)) // two digits
	t.Run("list", func(t *testing.T) {
		for _, jobs := range []int{0, 1, 2, 100} {
			var told atomic.Int64
			got, err := src.List(ctx, jobs, func(n int64) { told.Add(n) })
			if err != nil {
				t.Fatal(err)
			}
			want, err := datadir.List(ctx, dir, 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("jobs %d: %s", jobs, firstDifference(got, want))
			}
			if told.Load() != int64(len(got)) {
				t.Errorf("jobs %d: progress was told of %d entries, there are %d", jobs, told.Load(), len(got))
			}
			entries = got
		}
		if _, err := src.List(ctx, 1, nil); err != nil {
			t.Error(err)
		}
		kinds := make(map[pg.EntryType]int)
		for _, e := range entries {
			kinds[e.Type]++
			if e.Type == pg.RegularFile {
				files = append(files, e)
			}
		}
		if kinds[pg.RegularFile] < 900 || kinds[pg.Directory] < 20 || kinds[pg.SymbolicLink] != 1 || len(kinds) != 3 {
			t.Errorf("listed: %v", kinds)
		}
	})
	t.Run("contents", func(t *testing.T) { sameContents(t, src, files, dir) })
	t.Run("end of file", func(t *testing.T) {
		ranges := []pg.FileRange{
			{Path: "PG_VERSION", Offset: 0, Length: 2},
			{Path: "PG_VERSION", Offset: 1, Length: 100},
			{Path: "PG_VERSION", Offset: 3, Length: 1},
			{Path: "PG_VERSION", Offset: 1 << 40, Length: MaxChunk},
			{Path: "empty", Offset: 0, Length: MaxChunk},
			{Path: "PG_VERSION", Offset: 0, Length: MaxChunk},
		}
		want := []string{major, major[1:] + "\n", "", "", "", major + "\n"}
		var got []string
		err := src.Fetch(ctx, ranges, func(i int, c pg.FileChunk) error {
			if i != len(got) || c.Gone {
				t.Errorf("chunk %d is number %d, gone %v", i, len(got), c.Gone)
			}
			got = append(got, string(c.Data))
			return nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("missing file", func(t *testing.T) {
		ranges := []pg.FileRange{{Path: "PG_VERSION", Length: 2}, {Path: "base/none", Length: 5}, {Path: "PG_VERSION", Length: 1}}
		var got []string
		err := src.Fetch(ctx, ranges, func(_ int, c pg.FileChunk) error {
			got = append(got, fmt.Sprintf("%s %v", c.Data, c.Gone))
			return nil
		})
		if live {
			if err != nil || !slices.Equal(got, []string{major + " false", " true", "1 false"}) {
				t.Errorf("got %q, %v", got, err)
			}
		} else if want := `could not open source file "` + dir + `/base/none": No such file or directory`; err == nil || err.Error() != want || len(got) != 1 {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("no ranges", func(t *testing.T) {
		if err := src.Fetch(ctx, nil, nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("bad ranges", func(t *testing.T) {
		for _, r := range []pg.FileRange{
			{Path: "PG_VERSION", Length: MaxChunk + 1}, {Path: "PG_VERSION", Length: 0}, {Path: "PG_VERSION", Offset: -1, Length: 1},
			{Path: "../x", Length: 1}, {Path: "/etc/passwd", Length: 1}, {Path: "", Length: 1},
		} {
			err := src.Fetch(ctx, []pg.FileRange{{Path: "PG_VERSION", Length: 1}, r}, func(int, pg.FileChunk) error {
				t.Errorf("%+v: something was fetched", r)
				return nil
			})
			if err == nil {
				t.Errorf("%+v: accepted", r)
			}
		}
	})
	t.Run("read file", func(t *testing.T) {
		b, err := src.ReadFile(ctx, "PG_VERSION", 3)
		if err != nil || string(b) != major+"\n" {
			t.Errorf("%q, %v", b, err)
		}
		if b, err := src.ReadFile(ctx, "empty", 0); err != nil || len(b) != 0 {
			t.Errorf("%q, %v", b, err)
		}
		_, err = src.ReadFile(ctx, "pg_wal/00000009.history", 1000)
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "No such file or directory") {
			t.Errorf("missing: %v", err)
		}
		if _, err := src.ReadFile(ctx, "PG_VERSION", 2); err == nil || !strings.Contains(err.Error(), "too large") {
			t.Errorf("too large: %v", err)
		}
		if _, err := src.ReadFile(ctx, "../PG_VERSION", 2); err == nil || !strings.Contains(err.Error(), "unsafe") {
			t.Errorf("unsafe: %v", err)
		}
	})
	t.Run("control file", func(t *testing.T) {
		b, err := src.ControlFile(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pg.DecodeControl(b); err != nil {
			t.Error(err)
		}
	})
	t.Run("stopped by emit", func(t *testing.T) {
		stop := errors.New("enough")
		ranges := manyRanges(files, 200)
		for at := range 3 {
			n := 0
			err := src.Fetch(ctx, ranges, func(i int, _ pg.FileChunk) error {
				if n++; i == at {
					return stop
				}
				return nil
			})
			if !errors.Is(err, stop) || n != at+1 {
				t.Errorf("after %d chunks: %v", n, err)
			}
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		cctx, cancel := context.WithCancel(ctx)
		n := 0
		err := src.Fetch(cctx, manyRanges(files, 5000), func(int, pg.FileChunk) error {
			n++
			cancel()
			return nil
		})
		if !errors.Is(err, context.Canceled) || n > 1000 {
			t.Errorf("after %d chunks: %v", n, err)
		}
		if _, err := src.List(cctx, 2, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("list: %v", err)
		}
		if _, err := src.ReadFile(cctx, "PG_VERSION", 10); !errors.Is(err, context.Canceled) {
			t.Errorf("read file: %v", err)
		}
	})
	t.Run("many at once", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := src.List(ctx, 2, nil); err != nil {
					t.Error(err)
				}
				sameContents(t, src, files[:min(100, len(files))], dir)
			})
		}
		wg.Wait()
	})
}

// manyRanges are n ranges over the files, one after the other.
func manyRanges(files []pg.Entry, n int) []pg.FileRange {
	ranges := make([]pg.FileRange, n)
	for i := range ranges {
		ranges[i] = pg.FileRange{Path: files[i%len(files)].Path, Length: 8192}
	}
	return ranges
}

// sameContents fetches files whole, in ranges of many lengths and several calls at a time, and compares them with the
// files in dir.
func sameContents(t *testing.T, src contract, files []pg.Entry, dir string) {
	lengths := []int64{8192, MaxChunk, 1, 65536, 100000, 1 << 18}
	var g errgroup.Group
	g.SetLimit(4)
	for part := range slices.Chunk(files, 40) {
		g.Go(func() error {
			var ranges []pg.FileRange
			for i, f := range part {
				length := max(lengths[i%len(lengths)], f.Size/2000)
				for off := int64(0); off < f.Size; off += length {
					ranges = append(ranges, pg.FileRange{Path: f.Path, Offset: off, Length: length})
				}
			}
			contents := make(map[string][]byte)
			next := 0
			err := src.Fetch(t.Context(), ranges, func(i int, c pg.FileChunk) error {
				if i != next || c.Gone {
					return fmt.Errorf("%s: chunk %d came as number %d, gone %v", ranges[i].Path, i, next, c.Gone)
				}
				next++
				contents[ranges[i].Path] = append(contents[ranges[i].Path], c.Data...)
				return nil
			})
			if err != nil {
				return err
			}
			if next != len(ranges) {
				return fmt.Errorf("%d chunks of %d ranges", next, len(ranges))
			}
			for _, f := range part {
				want, err := os.ReadFile(filepath.Join(dir, f.Path))
				if err != nil {
					return err
				}
				if !bytes.Equal(contents[f.Path], want) {
					return fmt.Errorf("%s: %d bytes, not the %d of the file", f.Path, len(contents[f.Path]), len(want))
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func firstDifference(got, want []pg.Entry) string {
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			return fmt.Sprintf("missing %+v", want[i])
		case i >= len(want):
			return fmt.Sprintf("extra %+v", got[i])
		case got[i] != want[i]:
			return fmt.Sprintf("got %+v, want %+v", got[i], want[i])
		}
	}
	return "none"
}
