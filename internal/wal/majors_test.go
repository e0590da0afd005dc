package wal_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgtest"
	"github.com/fastrewind/fastrewind/internal/wal"
)

// TestMajors reads the log that a server of each major there is has written, from its first record to its last, and holds
// every record against pg_waldump, where the major has it.
func TestMajors(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	for _, major := range pgtest.Majors(t) {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			readMajor(t, major)
		})
	}
}

func readMajor(t *testing.T, major int) {
	env := pgtest.NewMajor(t, major)
	compression := "on"
	if major >= 15 && env.HasStock() { // other packages may be built without
		compression = []string{"lz4", "zstd"}[major%2]
	}
	p := env.Init("primary", pgtest.InitOptions{SegSizeMB: 1, Conf: []string{
		"wal_level = logical", "wal_compression = " + compression, "track_commit_timestamp = on",
	}})
	p.Start()
	write(p)
	p.Stop(pgtest.Fast)

	data, err := os.ReadFile(p.Path("global", "pg_control"))
	if err != nil {
		t.Fatal(err)
	}
	ctl, err := pg.DecodeControl(data)
	if err != nil {
		t.Fatal(err)
	}
	first, end, got, seen := readLog(t, ctl, p.Path("pg_wal"))
	if len(got) < 5000 {
		t.Errorf("only %d records", len(got))
	}
	t.Logf("%d records from %v to %v: %s", len(got), first, end, seen)
	for _, what := range []string{"image", "initialised", "special", "split"} {
		if !strings.Contains(seen, what) {
			t.Errorf("no record of the kind %q: %s", what, seen)
		}
	}
	waldump := env.Bin("pg_waldump")
	if _, err := os.Stat(waldump); errors.Is(err, fs.ErrNotExist) && !env.HasStock() {
		return
	}
	res := env.MustExec(pgtest.Cmd{Path: waldump, Args: []string{"-p", p.Path("pg_wal"), "-s", first.String(), "-e", end.String()}})
	want := dumped(t, res.Stdout)
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("record %d:\n%s\npg_waldump says\n%s", i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d records, pg_waldump has %d", len(got), len(want))
	}
}

// write makes a log with records of every form: whole pages, compressed and not, with holes and without, pages made anew,
// several blocks in one record, top-level transactions in logical decoding's way, files made and removed, and records longer
// than a page and longer than a segment.
func write(p *pgtest.Cluster) {
	p.Pgbench("-i", "-q", "-s", "1")
	p.Checkpoint()
	p.Pgbench("-c", "2", "-t", "300")
	p.SQL("postgres", `
		CREATE TABLE t (id int PRIMARY KEY, v text, a int[], p point);
		CREATE INDEX ON t USING hash (v);
		CREATE INDEX ON t USING gin (a);
		CREATE INDEX ON t USING gist (p);
		CREATE INDEX ON t USING spgist (p);
		CREATE INDEX ON t USING brin (id);
		INSERT INTO t SELECT g, md5(g::text), array[g % 7, g % 11], point(g, -g) FROM generate_series(1, 2000) g;
		CHECKPOINT;
		UPDATE t SET v = v || 'x' WHERE id % 3 = 0;
		DELETE FROM t WHERE id % 5 = 0;
		VACUUM t;
		CREATE SEQUENCE s; SELECT nextval('s') FROM generate_series(1, 100);
		SELECT pg_logical_emit_message(true, 'long', repeat('x', 300000));
		SELECT pg_logical_emit_message(false, 'longer than a segment', repeat('y', 1500000));
		CLUSTER t USING t_pkey; TRUNCATE pgbench_history; VACUUM FULL t;
		BEGIN; SAVEPOINT a; INSERT INTO t VALUES (100001); SAVEPOINT b; INSERT INTO t VALUES (100002); ROLLBACK TO b; COMMIT;
		BEGIN; CREATE TABLE gone AS SELECT 1; ROLLBACK;
		BEGIN; INSERT INTO t VALUES (100003); PREPARE TRANSACTION 'x';
		COMMIT PREPARED 'x';
		SELECT pg_switch_wal();
		CREATE DATABASE d; DROP DATABASE d;
		UPDATE t SET v = v || 'z';`)
}

// pgWAL is a pg_wal directory as a Reader's source.
type pgWAL struct {
	dir  string
	size uint32
}

func (w pgWAL) SegmentName(seg pg.SegNo) string { return pg.SegmentName(1, seg, w.size) }

func (w pgWAL) ReadAt(p []byte, at pg.LSN) (int, error) {
	f, err := os.Open(filepath.Join(w.dir, w.SegmentName(at.Seg(w.size))))
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // only read from
	n, err := f.ReadAt(p, int64(uint64(at)%uint64(w.size)))
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// readLog reads every record up to the last checkpoint, in describe's form, and says how many there were of which kinds.
func readLog(t *testing.T, ctl *pg.Control, dir string) (first, end pg.LSN, records []string, seen string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "00000001*"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%v, %v", names, err)
	}
	slices.Sort(names)
	_, seg, ok := pg.ParseSegmentName(filepath.Base(names[0]), ctl.SegSize)
	if !ok {
		t.Fatal(names[0])
	}
	r := wal.NewReader(wal.Format{Version: ctl.Version, SegSize: ctl.SegSize, SystemID: ctl.SystemID}, pgWAL{dir, ctl.SegSize})
	if _, err := r.SeekFirst(seg.Start(ctl.SegSize), seg.Start(ctl.SegSize)+pg.LSN(ctl.SegSize)); err != nil {
		t.Fatal(err)
	}
	first = r.Pos()
	count := map[string]int{}
	var rec wal.Record
	for {
		if err := r.Next(&rec); err != nil {
			t.Fatalf("after %d records: %v", len(records), err)
		}
		records = append(records, describe(&rec))
		for _, b := range rec.Blocks {
			if b.HasImage {
				count["image"]++
			}
			if b.WillInit {
				count["initialised"]++
			}
		}
		if rec.Info&wal.InfoSpecialRelUpdate != 0 {
			count["special"]++
		}
		if rec.End-rec.LSN > pg.WALBlockSize {
			count["split"]++
		}
		if rec.IsCheckpoint() {
			if _, tli, ok := rec.Checkpoint(ctl.Version); !ok || tli != 1 {
				t.Errorf("the checkpoint at %v is not understood: %d bytes", rec.LSN, rec.MainLen)
			}
		}
		if rec.LSN >= ctl.CheckPoint {
			break
		}
	}
	if rec.LSN != ctl.CheckPoint || !rec.IsCheckpoint() {
		t.Errorf("the last record, at %v, is not the checkpoint at %v", rec.LSN, ctl.CheckPoint)
	}
	return first, rec.End, records, fmt.Sprint(count)
}

// describe is all that pg_waldump says of a record, too.
func describe(rec *wal.Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d bytes, tx %d, at %v, after %v", wal.RmgrName(rec.Rmgr), rec.TotalLen, rec.XID, rec.LSN, rec.Prev)
	for i := range rec.Blocks {
		ref := &rec.Blocks[i]
		fmt.Fprintf(&b, ", %d/%d/%d fork %s block %d", ref.Rel.Tablespace, ref.Rel.Database, ref.Rel.Number,
			[...]string{"main", "fsm", "vm", "init"}[ref.Fork], ref.Block)
		if ref.HasImage {
			b.WriteString(" image")
		}
	}
	return b.String()
}

var (
	recordLine = regexp.MustCompile(`^rmgr: (\w+) +len \(rec/tot\): +\d+/ *(\d+), tx: +(\d+), lsn: ([0-9A-F]+/[0-9A-F]+), prev ([0-9A-F]+/[0-9A-F]+), `)
	blockRef   = regexp.MustCompile(`blkref #\d+: rel (\d+)/(\d+)/(\d+)(?: fork (\w+))? blk (\d+)( \(?FPW\)?)?`)
)

// dumped is pg_waldump's output in describe's form.
func dumped(t *testing.T, text string) []string {
	t.Helper()
	var records []string
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		m := recordLine.FindStringSubmatch(lines.Text())
		if m == nil {
			t.Fatalf("pg_waldump printed %.500q", lines.Text())
		}
		at, err := pg.ParseLSN(m[4])
		if err != nil {
			t.Fatal(err)
		}
		prev, err := pg.ParseLSN(m[5])
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		fmt.Fprintf(&b, "%s %s bytes, tx %s, at %v, after %v", m[1], m[2], m[3], at, prev)
		for _, ref := range blockRef.FindAllStringSubmatch(lines.Text(), -1) {
			fork := ref[4]
			if fork == "" {
				fork = "main"
			}
			fmt.Fprintf(&b, ", %s/%s/%s fork %s block %s", ref[1], ref[2], ref[3], fork, ref[5])
			if ref[6] != "" {
				b.WriteString(" image")
			}
		}
		records = append(records, b.String())
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return records
}
