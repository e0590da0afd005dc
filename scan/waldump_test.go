package scan_test

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/pgtest"
	"github.com/fastrewind/fastrewind/internal/wal"
	"github.com/fastrewind/fastrewind/scan"
)

// walDir is a pg_wal directory as the scan's segments; it counts how often each is opened.
type walDir struct {
	dir     string
	segSize uint32
	opens   atomic.Int64
}

func (d *walDir) Open(_ context.Context, tli pg.TLI, seg pg.SegNo) (scan.Segment, error) {
	d.opens.Add(1)
	f, err := os.Open(filepath.Join(d.dir, pg.SegmentName(tli, seg, d.segSize)))
	if err != nil {
		return nil, err
	}
	return f, nil
}

// firstSegment is the oldest segment that initdb has left: with small segments not the first that there was.
func firstSegment(t *testing.T, segs *walDir) pg.SegNo {
	t.Helper()
	names, err := os.ReadDir(segs.dir) // sorted
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if _, seg, ok := pg.ParseSegmentName(name.Name(), segs.segSize); ok {
			return seg
		}
	}
	t.Fatal("no segment in pg_wal")
	return 0
}

type ref struct {
	file  pg.RelFile
	block uint32
}

// waldumpRecord is what pg_waldump says of one record.
type waldumpRecord struct {
	lsn        pg.LSN
	checkpoint bool
	refs       []ref // of main forks
}

var (
	lsnPattern = regexp.MustCompile(`lsn: ([0-9A-F]+/[0-9A-F]+), prev`)
	refPattern = regexp.MustCompile(`blkref #\d+: rel (\d+)/(\d+)/(\d+)( fork \w+)? blk (\d+)`)
)

// waldump reads the records of a range of one timeline with pg_waldump.
func waldump(t *testing.T, env *pgtest.Env, dir string, tli pg.TLI, start, end pg.LSN) []waldumpRecord {
	t.Helper()
	res := env.MustExec(pgtest.Cmd{
		Path: env.Bin("pg_waldump"),
		Args: []string{"-p", dir, "-t", strconv.Itoa(int(tli)), "-s", start.String(), "-e", end.String()},
	})
	var out []waldumpRecord
	lines := bufio.NewScanner(strings.NewReader(res.Stdout))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		line := lines.Text()
		m := lsnPattern.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("pg_waldump printed %q", line)
		}
		lsn, err := pg.ParseLSN(m[1])
		if err != nil {
			t.Fatal(err)
		}
		rec := waldumpRecord{
			lsn:        lsn,
			checkpoint: strings.Contains(line, "desc: CHECKPOINT_SHUTDOWN") || strings.Contains(line, "desc: CHECKPOINT_ONLINE"),
		}
		for _, m := range refPattern.FindAllStringSubmatch(line, -1) {
			if m[4] != "" {
				continue
			}
			number := func(s string) uint32 {
				n, err := strconv.ParseUint(s, 10, 32)
				if err != nil {
					t.Fatal(err)
				}
				return uint32(n)
			}
			block := number(m[5])
			rec.refs = append(rec.refs, ref{
				file: pg.RelFile{
					Rel:     pg.Rel{Tablespace: pg.Oid(number(m[1])), Database: pg.Oid(number(m[2])), Number: pg.RelNumber(number(m[3]))},
					Segment: block / pg.RelSegBlocks,
				},
				block: block % pg.RelSegBlocks,
			})
		}
		out = append(out, rec)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func refsOf(m *scan.BlockMap) map[ref]bool {
	out := make(map[ref]bool)
	for f := range m.Files() {
		for b := range m.Blocks(f) {
			out[ref{f, b}] = true
		}
	}
	return out
}

// TestAgainstWaldump holds the block map against pg_waldump's reading of the same log, for every place in it where the
// servers could have parted that is tried, and for every way of cutting it into shards.
func TestAgainstWaldump(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	for _, c := range []struct {
		segSizeMB int
		conf      []string
	}{
		{1, []string{"wal_compression=lz4"}},
		{16, []string{"wal_compression=off"}},
		{64, []string{"wal_compression=pglz"}},
		{16, []string{"wal_compression=zstd", "wal_level=logical"}},
	} {
		t.Run(fmt.Sprintf("%d MB, %s", c.segSizeMB, strings.Join(c.conf, " ")), func(t *testing.T) {
			t.Parallel()
			againstWaldump(t, c.segSizeMB, c.conf)
		})
	}
}

func againstWaldump(t *testing.T, segSizeMB int, conf []string) {
	env := pgtest.New(t)
	if env.Major < 15 { // it was on or off
		conf[0] = strings.NewReplacer("lz4", "on", "pglz", "on", "zstd", "on").Replace(conf[0])
	}
	p := env.Init("primary", pgtest.InitOptions{SegSizeMB: segSizeMB, Conf: append(conf, "max_prepared_transactions=10")})
	p.Start()
	mixedLoad(p)
	p.Stop(pgtest.Fast)

	data, err := os.ReadFile(p.Path("global", "pg_control"))
	if err != nil {
		t.Fatal(err)
	}
	ctl, err := pg.DecodeControl(data)
	if err != nil {
		t.Fatal(err)
	}
	segs := &walDir{dir: p.Path("pg_wal"), segSize: ctl.SegSize}
	format := wal.Format{Version: ctl.Version, SegSize: ctl.SegSize, SystemID: ctl.SystemID}
	history := pg.History{{TLI: 1}}
	end, err := scan.RecordEnd(context.Background(), segs, format, history, ctl.CheckPoint)
	if err != nil {
		t.Fatal(err)
	}
	first := firstSegment(t, segs).Start(ctl.SegSize)
	records := waldump(t, env, segs.dir, 1, first, end)
	if len(records) < 10000 {
		t.Fatalf("only %d records in the log", len(records))
	}

	rng := rand.New(rand.NewPCG(1, uint64(segSizeMB)))
	t.Logf("%d records, %v to %v", len(records), first, end)
	for round := range 12 {
		// Any record may be the first that only the target has.
		at := len(records)/3 + rng.IntN(len(records)*2/3-1)
		if round == 0 {
			at = len(records) - 1
		}
		divergence := records[at].lsn
		checkpoint := at - 1
		for checkpoint >= 0 && !records[checkpoint].checkpoint {
			checkpoint--
		}
		if checkpoint < 0 {
			t.Fatalf("no checkpoint before record %d of %d", at, len(records))
		}
		want := make(map[ref]bool)
		for _, rec := range records[checkpoint:] {
			for _, r := range rec.refs {
				want[r] = true
			}
		}
		// The default, and any others. One shard for everything is tried where all the log is there.
		whole := int64(0)
		if firstSegment(t, segs) == 1 {
			whole = int64(end) + pg.WALBlockSize - int64(end)%pg.WALBlockSize
		}
		for _, shard := range []int64{whole, 0, (1 + rng.Int64N(2000)) * pg.WALBlockSize, (20 + rng.Int64N(200)) * pg.WALBlockSize} {
			jobs := 1 + rng.IntN(5)
			res, err := scan.Run(context.Background(), segs, scan.Input{
				Format: format, History: history, Divergence: divergence, End: end, Jobs: jobs, ShardBytes: shard,
			})
			if err != nil {
				t.Fatalf("divergence %v, shards of %d bytes, %d jobs: %v", divergence, shard, jobs, err)
			}
			if res.Checkpoint != records[checkpoint].lsn {
				t.Errorf("divergence %v, shards of %d bytes: checkpoint %v, want %v", divergence, shard, res.Checkpoint, records[checkpoint].lsn)
			}
			if res.Records != int64(len(records)-checkpoint) {
				t.Errorf("divergence %v, shards of %d bytes: %d records, want %d", divergence, shard, res.Records, len(records)-checkpoint)
			}
			got := refsOf(res.Blocks)
			maps.DeleteFunc(got, func(r ref, _ bool) bool { return r.file.IsRemade() })
			if !maps.Equal(got, want) {
				t.Errorf("divergence %v, shards of %d bytes: %d blocks, want %d: %s", divergence, shard, len(got), len(want), difference(got, want))
			}
		}
	}
}

func difference(got, want map[ref]bool) string {
	for r := range got {
		if !want[r] {
			return fmt.Sprintf("%+v is too much", r)
		}
	}
	for r := range want {
		if !got[r] {
			return fmt.Sprintf("%+v is missing", r)
		}
	}
	return "no difference"
}

// mixedLoad writes WAL of every common kind, with checkpoints, segment switches and long records in it.
func mixedLoad(p *pgtest.Cluster) {
	p.Pgbench("-i", "-s", "2")
	p.Checkpoint()
	p.Pgbench("-c", "2", "-t", "500", "-N")
	p.SQL("postgres", `
create table t (id int primary key, v text, a int[], p point);
create index t_hash on t using hash (v);
create index t_gin on t using gin (a);
create index t_gist on t using gist (p);
create index t_spgist on t using spgist (p);
create index t_brin on t using brin (id);
insert into t select g, md5(g::text), array[g % 7, g % 11], point(g, -g) from generate_series(1, 6000) g;
select pg_switch_wal();
update t set v = v || 'x' where id % 3 = 0;
checkpoint;
delete from t where id % 5 = 0;
vacuum t;
create sequence s; select nextval('s') from generate_series(1, 100);
select lo_from_bytea(0, decode(repeat('ab', 300000), 'hex'));
create table big as select g, repeat(md5(g::text), 300) from generate_series(1, 500) g;
select pg_logical_emit_message(false, 'long', repeat('x', 3000000));
select pg_logical_emit_message(false, 'short', 'x') from generate_series(1, 500);
truncate big; cluster t using t_pkey; reindex table t; vacuum full t;
checkpoint;
`)
	p.SQL("postgres", "begin; insert into t values (100001, 'prepared'); prepare transaction 'x';")
	p.SQL("postgres", "commit prepared 'x'; select pg_switch_wal();")
	walLog, fileCopy := "strategy wal_log", "strategy file_copy"
	if p.Env().Major < 15 { // there was only the latter
		walLog, fileCopy = "", ""
	}
	p.SQL("postgres", "create database d1 "+walLog)
	p.SQL("postgres", "create database d2 "+fileCopy)
	p.SQL("postgres", "drop database d1; drop database d2;")
	p.Pgbench("-c", "2", "-t", "500")
	p.SQL("postgres", "select pg_logical_emit_message(false, 'longer than a segment', repeat('y', 20000000));")
	p.Pgbench("-c", "2", "-t", "300", "-S", "-N")
	p.SQL("postgres", "update t set v = v || 'y';")
}
