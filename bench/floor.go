package main

import (
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// floor is the least work with which a part of a rewind could be done on this machine.
type floor struct {
	name  string
	about string
	// bytes says from what fastrewind reported how many bytes that work has.
	bytes func(counts) int64
	// run does it and returns the seconds it took.
	run func(tb pgtest.TB, p *pair, s scenario, bytes int64) float64
}

// scanFloor reads and checksums as many bytes of WAL as were scanned, with so many goroutines.
func scanFloor(workers int) floor {
	return floor{
		name:  fmt.Sprintf("read+crc x%d", workers),
		about: fmt.Sprintf("pread of 256 kB and CRC-32C of the same WAL, %d goroutine(s)", workers),
		bytes: func(c counts) int64 { return c.Scanned },
		run: func(tb pgtest.TB, p *pair, _ scenario, bytes int64) float64 {
			segments, err := lastSegments(p.work, bytes)
			if err != nil {
				tb.Fatalf("bench: %v", err)
			}
			start := time.Now()
			if err := checksumAll(segments, workers, bytes); err != nil {
				tb.Fatalf("bench: %v", err)
			}
			return time.Since(start).Seconds()
		},
	}
}

// lastSegments are the paths of the target's last WAL segments, newest first, as many as hold so many bytes.
func lastSegments(c *pgtest.Cluster, bytes int64) ([]string, error) {
	ctl, err := pgtest.ReadControl(c.DataDir())
	if err != nil {
		return nil, err
	}
	perID := uint64(1<<32) / uint64(ctl.SegSize)
	var paths []string
	for seg := ctl.Checkpoint / uint64(ctl.SegSize); bytes > 0 && seg > 0; seg-- {
		paths = append(paths, c.Path("pg_wal", fmt.Sprintf("%08X%08X%08X", ctl.TimeLineID, seg/perID, seg%perID)))
		bytes -= int64(ctl.SegSize)
	}
	return paths, nil
}

// checksumAll reads the files, in all so many bytes of them.
func checksumAll(paths []string, workers int, bytes int64) error {
	table := crc32.MakeTable(crc32.Castagnoli)
	work := make(chan string, len(paths))
	for _, path := range paths {
		work <- path
	}
	close(work)
	var left budget
	left.n = bytes
	errs := make([]error, workers)
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() {
			buf := make([]byte, 256<<10)
			for path := range work {
				if errs[i] = checksum(path, buf, table, &left); errs[i] != nil {
					return
				}
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// budget is how many bytes may still be read.
type budget struct {
	mu sync.Mutex
	n  int64
}

func (b *budget) take(n int64) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	n = min(n, b.n)
	b.n -= n
	return n
}

func checksum(path string, buf []byte, table *crc32.Table, left *budget) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read from
	var crc uint32
	for off := int64(0); ; {
		want := left.take(int64(len(buf)))
		if want == 0 {
			return nil
		}
		n, err := f.ReadAt(buf[:want], off)
		crc = crc32.Update(crc, table, buf[:n])
		off += int64(n)
		if err == io.EOF {
			left.take(-(want - int64(n)))
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// copyFloor reads as many bytes as were copied from the source's largest files, one after the other, writes them over
// files that are as long already, as most of what a rewind writes to is, and syncs each.
func copyFloor() floor {
	return floor{
		name:  "read+write+fsync",
		about: "sequential copy of as many bytes over existing files, 1 MB at a time, one goroutine, fsync of each",
		bytes: func(c counts) int64 { return c.Copied },
		run: func(tb pgtest.TB, p *pair, s scenario, bytes int64) float64 {
			files, dir := toCopy(tb, p, bytes)
			buf := make([]byte, 1<<20)
			copyAll := func() float64 {
				start := time.Now()
				for i, f := range files {
					if err := copyAndSync(f, filepath.Join(dir, fmt.Sprint(i)), buf); err != nil {
						tb.Fatalf("bench: %v", err)
					}
				}
				return time.Since(start).Seconds()
			}
			copyAll() // makes the files
			if err := settle(dir); err != nil {
				tb.Fatalf("bench: %v", err)
			}
			if s.cold {
				if _, err := chill(p.source.DataDir(), dir); err != nil {
					tb.Fatalf("bench: %v", err)
				}
			}
			took := copyAll()
			if err := os.RemoveAll(dir); err != nil {
				tb.Fatalf("bench: %v", err)
			}
			return took
		},
	}
}

// toCopy is so many bytes of the source's largest files, and a new directory to copy them to.
func toCopy(tb pgtest.TB, p *pair, bytes int64) (files []part, dir string) {
	files, err := largestFiles(p.source.DataDir(), bytes)
	if err == nil {
		dir, err = os.MkdirTemp(p.env.Root, "floor")
	}
	if err != nil {
		tb.Fatalf("bench: %v", err)
	}
	return files, dir
}

// blocksFloor is copyFloor in blocks of 8 kB, first every other one, then those between, by so many goroutines with a file
// each: what two system calls for each scattered block cost at least.
func blocksFloor(workers int) floor {
	f := copyFloor()
	f.name = fmt.Sprintf("8 kB blocks x%d", workers)
	f.about = fmt.Sprintf("as many bytes read and written in blocks of 8 kB, every other one of a file of 64 MB at most, then those "+
		"between, over existing files, %d goroutine(s) with a file each, fsync of each", workers)
	f.run = func(tb pgtest.TB, p *pair, s scenario, bytes int64) float64 {
		files, dir := toCopy(tb, p, bytes)
		files = cutParts(files, 64<<20)
		buf := make([]byte, 1<<20)
		var err error
		for i, f := range files {
			err = errors.Join(err, copyAndSync(f, filepath.Join(dir, fmt.Sprint(i)), buf))
		}
		if err = errors.Join(err, settle(dir)); err != nil {
			tb.Fatalf("bench: %v", err)
		}
		start := time.Now()
		var g errgroup.Group
		g.SetLimit(workers)
		for i, f := range files {
			g.Go(func() error { return copyBlocks(f, filepath.Join(dir, fmt.Sprint(i))) })
		}
		err = g.Wait()
		took := time.Since(start).Seconds()
		if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
			tb.Fatalf("bench: %v", err)
		}
		return took
	}
	return f
}

func copyBlocks(from part, to string) error {
	const block = 8192
	in, err := os.Open(from.full)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read from
	out, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	var buf [block]byte
	for _, at := range []int64{0, block} {
		for ; err == nil && at < from.bytes; at += 2 * block {
			var n int
			if n, err = in.ReadAt(buf[:min(block, from.bytes-at)], from.begin+at); err == nil || errors.Is(err, io.EOF) {
				_, err = out.WriteAt(buf[:n], at)
			}
		}
	}
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// part is a part of a file, mostly its beginning.
type part struct {
	path  string // relative to the data directory
	full  string
	begin int64
	bytes int64
}

// cutParts cuts parts into parts of most bytes at most.
func cutParts(parts []part, most int64) (cut []part) {
	for _, p := range parts {
		for ; p.bytes > most; p.begin, p.bytes = p.begin+most, p.bytes-most {
			cut = append(cut, part{p.path, p.full, p.begin, most})
		}
		cut = append(cut, p)
	}
	return cut
}

// largestFiles are the largest relation files of a data directory, cut to so many bytes in all.
func largestFiles(dataDir string, bytes int64) ([]part, error) {
	var all []part
	err := filepath.WalkDir(filepath.Join(dataDir, "base"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dataDir, path)
		all = append(all, part{rel, path, 0, info.Size()})
		return err
	})
	slices.SortStableFunc(all, func(a, b part) int { return cmp.Compare(b.bytes, a.bytes) })
	for i := range all {
		all[i].bytes = min(all[i].bytes, bytes)
		if bytes -= all[i].bytes; bytes == 0 {
			return all[:i+1], err
		}
	}
	return all, err // a cluster smaller than what was copied: WAL is part of that
}

func copyAndSync(from part, to string, buf []byte) error {
	in, err := os.Open(from.full)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read from
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	// Hidden behind plain interfaces, lest the kernel copies by itself what a rewind has to see.
	_, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{io.NewSectionReader(in, from.begin, from.bytes)}, buf)
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// serverFloor lets the source server send as many bytes as were copied, by COPY in binary, 1 MB a row, over so many
// connections, to nowhere.
func serverFloor(conns int) floor {
	return sendFloor(conns, fmt.Sprintf("raw COPY x%d", conns), "1 MB a row", 1<<20, []int64{0})
}

// serverBlocksFloor is serverFloor in rows of one block of 8 kB, first every other one, then those between.
func serverBlocksFloor(conns int) floor {
	return sendFloor(conns, fmt.Sprintf("8 kB COPY x%d", conns), "8 kB a row, every other block of a file, then those between",
		8192, []int64{0, 8192})
}

// sendFloor cuts files into rows of piece bytes, as many apart as there are passes, each of which begins where it says.
func sendFloor(conns int, name, how string, piece int64, passes []int64) floor {
	var begins []string
	for _, at := range passes {
		begins = append(begins, fmt.Sprintf("(%d::bigint)", at))
	}
	return floor{
		name: name,
		about: fmt.Sprintf("COPY (SELECT pg_read_binary_file ...) TO STDOUT (FORMAT binary) of as many bytes, %s, "+
			"to /dev/null, %d connection(s)", how, conns),
		bytes: func(c counts) int64 { return c.Copied },
		run: func(tb pgtest.TB, p *pair, s scenario, bytes int64) float64 {
			files, err := largestFiles(p.source.DataDir(), bytes)
			if err != nil {
				tb.Fatalf("bench: %v", err)
			}
			var values []string
			for _, f := range files {
				values = append(values, fmt.Sprintf("('%s', %d)", f.path, f.bytes))
			}
			_, conninfo := s.from(p)
			var script strings.Builder
			for i := range conns {
				fmt.Fprintf(&script, `"$0" -X -q "$1" -c "COPY (
SELECT pg_catalog.pg_read_binary_file(path, at, least(%d, size - at), true)
FROM (VALUES %s) AS f(path, size), (VALUES %s) AS b(begin), generate_series(begin, size - 1, %d) AS at
WHERE at / %d %% %d = %d
) TO STDOUT (FORMAT binary)" & pid%d=$!
`, piece, strings.Join(values, ", "), strings.Join(begins, ", "), piece*int64(len(passes)),
					piece*int64(len(passes)), conns, i, i)
			}
			for i := range conns {
				fmt.Fprintf(&script, "wait $pid%d || exit\n", i)
			}
			null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
			if err != nil {
				tb.Fatalf("bench: %v", err)
			}
			defer func() { _ = null.Close() }() // nothing is in it
			return p.env.MustExec(pgtest.Cmd{
				Path:   "/bin/sh",
				Args:   []string{"-c", script.String(), p.env.Bin("psql"), conninfo},
				Stdout: null,
			}).Wall.Seconds()
		},
	}
}
