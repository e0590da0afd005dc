package scan_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/wal"
	"github.com/fastrewind/fastrewind/internal/wal/waltest"
	"github.com/fastrewind/fastrewind/scan"
)

const (
	page   = pg.WALBlockSize
	segLen = 64 << 10 // bytes of a segment in most tests; no server has so small ones, the scan does not mind
)

// logSegments gives the segments of a log that was written for a test.
type logSegments struct {
	*waltest.Log
	opened func(pg.SegNo) error // asked first, if set
}

func (l logSegments) Open(ctx context.Context, tli pg.TLI, seg pg.SegNo) (scan.Segment, error) {
	if l.opened != nil {
		if err := l.opened(seg); err != nil {
			return nil, err
		}
	}
	name := pg.SegmentName(tli, seg, l.Format.SegSize)
	data, ok := l.Files[name]
	if !ok {
		return nil, fault.Because(fs.ErrNotExist, "could not open file \"pg_wal/%s\": No such file or directory", name)
	}
	return struct {
		io.ReaderAt
		io.Closer
	}{bytes.NewReader(data), io.NopCloser(nil)}, nil
}

// stock reads a log the way stock pg_rewind does (parsexlog.c): back along the links from the divergence to the last
// checkpoint before it, one record at a time, then forward from there to the end. It is what the scan is held against.
func stock(l *waltest.Log, divergence, end pg.LSN) (checkpoint pg.LSN, refs map[ref]bool, records int64, err error) {
	fork := wal.SkipPageHeader(divergence, l.Format.SegSize)
	r := wal.NewReader(l.Format, l)
	var rec wal.Record
	for search := fork; ; search = rec.Prev {
		r.Seek(search)
		if err := r.Next(&rec); err != nil {
			return 0, nil, 0, fmt.Errorf("could not find previous WAL record at %v: %w", search, err)
		}
		if search < fork && rec.IsCheckpoint() {
			checkpoint = search
			break
		}
	}
	refs = make(map[ref]bool)
	r.Seek(checkpoint)
	for rec.End = 0; rec.End < end; records++ {
		if err := r.Next(&rec); err != nil {
			return 0, nil, 0, fmt.Errorf("could not read WAL record at %v: %w", r.Pos(), err)
		}
		if rec.Info&wal.InfoSpecialRelUpdate != 0 {
			return 0, nil, 0, fmt.Errorf("WAL record modifies a relation, but record type is not recognized: lsn: %v", rec.LSN)
		}
		for _, b := range rec.Blocks {
			if b.Fork == pg.MainFork {
				refs[ref{pg.RelFile{Rel: b.Rel, Segment: uint32(b.Block) / pg.RelSegBlocks}, uint32(b.Block) % pg.RelSegBlocks}] = true
			}
		}
	}
	if rec.End != end {
		return 0, nil, 0, fmt.Errorf("end pointer %v is not a valid end point; expected %v", end, rec.End)
	}
	return checkpoint, refs, records, nil
}

func run(l *waltest.Log, divergence, end pg.LSN, shardBytes int64, jobs int) (*scan.Result, error) {
	return scan.Run(context.Background(), logSegments{Log: l}, scan.Input{
		Format: l.Format, History: l.History, Divergence: divergence, End: end, Jobs: jobs, ShardBytes: shardBytes,
	})
}

// randomLog writes n records on up to four timelines.
func randomLog(rng *rand.Rand, segSize uint32, n int) *waltest.Writer {
	w := waltest.New(segSize)
	w.Checkpoint()
	tli := pg.TLI(1)
	for range n {
		if rng.IntN(n/2) == 0 && w.Pos() > w.History[len(w.History)-1].Begin {
			tli += 1 + pg.TLI(rng.IntN(3))
			w.Promote(tli)
			w.Checkpoint()
		}
		waltest.RandomRecord(w, rng)
	}
	return w
}

// randomShard is a length for shards: of a page, of some pages, of a segment, of several, of everything.
func randomShard(rng *rand.Rand, segSize uint32) int64 {
	switch rng.IntN(5) {
	case 0:
		return page
	case 1:
		return page * (1 + rng.Int64N(2*int64(segSize)/page))
	case 2:
		return 0
	case 3:
		return int64(segSize) * (1 + rng.Int64N(4))
	default:
		return page * (1 + rng.Int64N(400))
	}
}

// TestAgainstModel cuts random logs at random places into random shards: what is found is what stock would find.
func TestAgainstModel(t *testing.T) {
	rounds := uint64(150)
	if testing.Short() {
		rounds = 15
	}
	found := 0
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(seed, 1))
		segSize := []uint32{16 << 10, segLen, 1 << 20}[seed%3]
		w := randomLog(rng, segSize, 50+rng.IntN(400))
		for range 8 {
			at := 1 + rng.IntN(len(w.Records)-1)
			divergence := w.Records[at-1].End
			end := w.Records[at+rng.IntN(len(w.Records)-at)].End
			checkpoint, refs, records, wantErr := stock(w.Log, divergence, end)
			shard, jobs := randomShard(rng, segSize), 1+rng.IntN(6)
			what := fmt.Sprintf("seed %d: divergence %v, end %v, segments of %d, shards of %d, %d jobs", seed, divergence, end, segSize, shard, jobs)
			res, err := run(w.Log, divergence, end, shard, jobs)
			switch {
			case wantErr != nil && err != nil:
				continue
			case wantErr != nil || err != nil:
				t.Fatalf("%s: %v, stock says %v", what, err, wantErr)
			case res.Checkpoint != checkpoint || res.Redo != checkpoint:
				t.Fatalf("%s: checkpoint %v, redo %v, stock finds %v", what, res.Checkpoint, res.Redo, checkpoint)
			case res.Records != records:
				t.Fatalf("%s: %d records, stock reads %d", what, res.Records, records)
			}
			if got := refsOf(res.Blocks); !maps.Equal(got, refs) {
				t.Fatalf("%s: %d blocks, stock notes %d: %s", what, len(got), len(refs), difference(got, refs))
			}
			found++
		}
	}
	if found < int(rounds) {
		t.Errorf("only %d runs of %d came to a result", found, 8*rounds)
	}
}

// damage spoils a log in one of many ways, and says how, and from where on.
func damage(rng *rand.Rand, l *waltest.Log, from, to pg.LSN) (how string, first pg.LSN) {
	size := pg.LSN(l.Format.SegSize)
	somewhere := func() pg.LSN { return from + pg.LSN(rng.Uint64N(uint64(to-from))) }
	at := somewhere()
	seg := at.Seg(l.Format.SegSize)
	other := somewhere().Seg(l.Format.SegSize)
	file := l.File(seg)
	switch rng.IntN(10) {
	case 0, 1, 2:
		bit := rng.IntN(8)
		l.At(at)[0] ^= 1 << bit
		return fmt.Sprintf("bit %d at %v", bit, at), at
	case 3:
		p := at &^ (page - 1)
		clear(l.At(p)[:page])
		return fmt.Sprintf("page %v zeroed", p), p
	case 4:
		p, q := at&^(page-1), somewhere()&^(page-1)
		copy(l.At(p)[:page], l.At(q)[:page])
		return fmt.Sprintf("page %v is a copy of %v", p, q), p
	case 5:
		l.Files[l.Name(seg)] = l.File(other)
		return fmt.Sprintf("segment %d is a copy of %d", seg, other), seg.Start(l.Format.SegSize)
	case 6:
		a, b := l.Name(seg), l.Name(other)
		l.Files[a], l.Files[b] = l.Files[b], l.Files[a]
		return fmt.Sprintf("segments %d and %d swapped", seg, other), min(seg, other).Start(l.Format.SegSize)
	case 7:
		delete(l.Files, l.Name(seg))
		return fmt.Sprintf("segment %d missing", seg), seg.Start(l.Format.SegSize)
	case 8:
		n := at & (size - 1)
		l.Files[l.Name(seg)] = file[:n]
		return fmt.Sprintf("segment %d cut at %d", seg, n), at
	default:
		// A page's header, where damage does the most subtle harm.
		p := at &^ (page - 1)
		i := rng.IntN(24)
		l.At(p)[i] ^= 1 << rng.IntN(8)
		return fmt.Sprintf("byte %d of the header of page %v", i, p), p
	}
}

// TestDamagedAgainstModel spoils random logs. Whenever the scan says that a log is good, stock says the same and finds
// the same; and what stock finds good may only be refused here for damage before the checkpoint, in segments stock had
// no reason to read as a whole.
func TestDamagedAgainstModel(t *testing.T) {
	rounds := uint64(1500)
	if testing.Short() {
		rounds = 100
	}
	var good, refused, stricter int
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(seed, 2))
		segSize := []uint32{16 << 10, segLen}[seed%2]
		w := randomLog(rng, segSize, 40+rng.IntN(60))
		at := len(w.Records)/3 + rng.IntN(len(w.Records)/2)
		divergence, end := w.Records[at-1].End, w.Last().End
		intact, _, _, err := stock(w.Log, divergence, end)
		if err != nil {
			continue
		}
		l := w.Clone()
		how, damaged := damage(rng, l, intact&^(pg.LSN(segSize)-1), end)
		checkpoint, refs, _, wantErr := stock(l, divergence, end)
		for range 3 {
			shard, jobs := randomShard(rng, segSize), 1+rng.IntN(4)
			what := fmt.Sprintf("seed %d: %s: divergence %v, end %v, segments of %d, shards of %d, %d jobs", seed, how, divergence, end, segSize, shard, jobs)
			res, err := run(l, divergence, end, shard, jobs)
			if err != nil {
				refused++
				if wantErr == nil {
					stricter++
					var f *fault.Error
					if !errors.As(err, &f) || damaged >= checkpoint {
						t.Fatalf("%s: %v; stock finds a checkpoint at %v and nothing wrong", what, err, checkpoint)
					}
				}
				continue
			}
			good++
			if wantErr != nil {
				t.Fatalf("%s: no error; stock says: %v", what, wantErr)
			}
			if got := refsOf(res.Blocks); res.Checkpoint != checkpoint || !maps.Equal(got, refs) {
				t.Fatalf("%s: checkpoint %v, stock finds %v; %d blocks, stock notes %d: %s", what, res.Checkpoint, checkpoint, len(got), len(refs), difference(got, refs))
			}
		}
	}
	t.Logf("%d good, %d refused, of these %d stricter than stock", good, refused, stricter)
	if good == 0 || refused == 0 {
		t.Error("the damage was not what it was meant to be")
	}
}
