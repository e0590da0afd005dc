package scan

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/wal"
)

// Input says what to scan.
type Input struct {
	Format     wal.Format
	History    pg.History // of the target
	Divergence pg.LSN     // end of the last record that source and target have in common
	End        pg.LSN     // end of the target's last record
	Jobs       int        // shards scanned at once; at least 1
	// ShardBytes is the length of a shard, a multiple of the page size; 0: a segment, or 16 MiB of a larger one.
	ShardBytes int64
	// MaxMapBytes bounds the block map's memory; 0: DefaultMaxMapBytes.
	MaxMapBytes int64
	// Progress, if set, is told of bytes scanned and of bytes that turn out to have to be scanned. It is called from
	// several goroutines at once.
	Progress func(done, total int64)
}

// Result is what the target's WAL says. It is finished and read-only.
type Result struct {
	Checkpoint    pg.LSN // of the last checkpoint record before the divergence
	Redo          pg.LSN // where replay from that checkpoint starts
	CheckpointTLI pg.TLI // in that checkpoint record
	Blocks        *BlockMap
	Records       int64 // from the checkpoint to the end
	Bytes         int64 // of log read
}

// defaultShardBytes keeps all workers busy on clusters with large segments.
const defaultShardBytes = 16 << 20

// Run finds the last checkpoint before the divergence and notes every block that was changed from that checkpoint
// record on to the end.
func Run(ctx context.Context, segs Segments, in Input) (*Result, error) {
	s := newSearch(segs, in)
	g, ctx := errgroup.WithContext(ctx)
	// Waiting workers must notice that another one has failed.
	stop := context.AfterFunc(ctx, s.wake)
	defer stop()
	for range max(1, in.Jobs) {
		g.Go(func() error { return s.work(ctx) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return s.conclude()
}

// search is the state shared by the workers of one Run.
//
// Shards are handed out from the last to the first. Those that begin at or after the divergence are all wanted: their
// blocks go into the common map at once. Of those before it, only the ones from the checkpoint on are wanted, and which
// these are is known only after they were scanned: each keeps its blocks to itself until every later shard has been
// found to contain no checkpoint.
type search struct {
	in         Input
	segs       Segments
	size       pg.LSN // bytes of a shard
	divergence pg.LSN // where the first record after the divergence begins
	end        pg.LSN // where the record after the last would begin
	firstPost  uint64 // the first shard that begins at or after the divergence
	blocks     *BlockMap

	mu       sync.Mutex
	moved    sync.Cond // frontier has moved, or the context is done
	next     uint64    // one more than the shard to hand out next
	frontier uint64    // all shards from here up to firstPost are in results, and none has the checkpoint
	found    bool      // the shard at frontier has the checkpoint: the search is over
	results  map[uint64]*shard
}

// aheadShards is how many shards per worker may be scanned before it is known that they are wanted. Their blocks are
// held apart, so this bounds memory.
const aheadShards = 4

func newSearch(segs Segments, in Input) *search {
	size := in.ShardBytes
	if size <= 0 {
		size = min(int64(in.Format.SegSize), defaultShardBytes)
	}
	s := &search{
		in:         in,
		segs:       segs,
		size:       pg.LSN(size),
		divergence: wal.SkipPageHeader(in.Divergence, in.Format.SegSize),
		end:        wal.SkipPageHeader(in.End, in.Format.SegSize),
		blocks:     NewBlockMap(in.MaxMapBytes),
		results:    make(map[uint64]*shard),
	}
	s.moved.L = &s.mu
	s.firstPost = uint64((in.Divergence + s.size - 1) / s.size)
	last := uint64((s.in.End - 1) / s.size)
	s.next = last + 1
	s.frontier = min(s.firstPost, s.next)
	s.progress(0, int64(s.in.End)-int64(s.frontier)*size)
	return s
}

func (s *search) progress(done, total int64) {
	if s.in.Progress != nil {
		s.in.Progress(done, total)
	}
}

func (s *search) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved.Broadcast()
}

// take hands out the next shard, or says that there is nothing left to do.
func (s *search) take(ctx context.Context) (index uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ahead := uint64(aheadShards * max(1, s.in.Jobs))
	for {
		if ctx.Err() != nil || s.found || s.next == 0 {
			return 0, false
		}
		if s.next+ahead > s.frontier {
			break
		}
		s.moved.Wait()
	}
	s.next--
	if s.next < s.firstPost {
		sh := s.newShard(s.next)
		s.progress(0, int64(sh.end-sh.start))
	}
	return s.next, true
}

// put stores what was found in a shard before the divergence and moves the frontier over all that is known now. The
// blocks of the shards that turn out to be wanted go into the common map.
func (s *search) put(sh *shard, common *Inserter) error {
	wanted, err := s.advance(sh)
	if err != nil {
		return err
	}
	for _, blocks := range wanted {
		for i, b := range blocks {
			if common.Add(b.rel, b.block); i&0xFFFF == 0xFFFF {
				if err := common.Err(); err != nil {
					return err
				}
			}
		}
	}
	return common.Err()
}

// advance gives the blocks of the shards that the frontier has moved over: without the lock, other workers can go on
// while they are noted.
func (s *search) advance(sh *shard) (wanted []blockList, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results[sh.index] = sh
	defer s.moved.Broadcast()
	for !s.found && s.frontier > 0 {
		sh := s.results[s.frontier-1]
		if sh == nil {
			return wanted, nil
		}
		if sh.err != nil {
			return nil, s.shardError(sh)
		}
		s.frontier--
		wanted = append(wanted, sh.blocks)
		sh.blocks = nil
		s.found = sh.checkpoint != 0
	}
	if !s.found && s.frontier == 0 {
		return nil, fault.New("could not find previous WAL record at %v", s.in.Divergence)
	}
	return wanted, nil
}

// shardError words the failure of a shard that begins before the divergence. Behind the divergence, stock would have
// met it while reading forward; before, while following links back, from the first record behind what could not be read.
func (s *search) shardError(sh *shard) error {
	if sh.at > s.divergence {
		return readError("could not read WAL record", sh.at, sh.err)
	}
	var we *wal.Error
	if errors.As(sh.err, &we) && we.Kind != wal.Unreadable {
		return readError("could not find previous WAL record", sh.at, sh.err)
	}
	at := s.in.Divergence
	for i := sh.index + 1; ; i++ {
		later := s.results[i]
		if later == nil {
			break
		}
		if later.first != 0 {
			at = later.firstPrev
			break
		}
	}
	return readError("could not find previous WAL record", at, sh.err)
}

func (s *search) work(ctx context.Context) error {
	src := &stretch{ctx: ctx, segs: s.segs, history: s.in.History, segSize: s.in.Format.SegSize}
	defer src.Close()
	r := wal.NewReader(s.in.Format, src)
	common := s.blocks.NewInserter()
	var rec wal.Record
	for {
		index, ok := s.take(ctx)
		if !ok {
			return ctx.Err()
		}
		sh := s.newShard(index)
		into := noter(common)
		if index < s.firstPost {
			into = &sh.blocks
		}
		r.Reset(src)
		err := s.scan(ctx, sh, r, &rec, into)
		s.progress(int64(min(sh.end, s.in.End))-int64(sh.start), 0)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && index >= s.firstPost {
			return readError("could not read WAL record", sh.at, err)
		}
		sh.err = err
		if index < s.firstPost {
			err = s.put(sh, common)
		} else {
			s.mu.Lock()
			s.results[index] = sh
			s.mu.Unlock()
			err = s.blocks.overflow()
		}
		if err != nil {
			return err
		}
	}
}

// newShard says where a shard lies. No log was ever written to segment 0.
func (s *search) newShard(index uint64) *shard {
	end := pg.LSN(index+1) * s.size
	return &shard{index: index, start: min(end, max(pg.LSN(index)*s.size, pg.LSN(s.in.Format.SegSize))), end: end}
}

// conclude proves that the shards are one sequence and hands over the result.
func (s *search) conclude() (*Result, error) {
	if !s.found {
		return nil, errors.New("scan ended without a checkpoint") // cannot be: put returns an error before
	}
	if err := s.checkSeams(); err != nil {
		return nil, err
	}
	cp := s.results[s.frontier]
	res := &Result{Checkpoint: cp.checkpoint, Redo: cp.redo, CheckpointTLI: cp.checkpointTLI, Blocks: s.blocks}
	for i, sh := range s.results {
		if i >= s.frontier {
			res.Records += sh.records
			res.Bytes += int64(min(sh.end, s.in.End) - sh.start)
		}
	}
	return res, nil
}
