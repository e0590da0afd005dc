package scan

import (
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// checkSeams proves that the shards from the checkpoint's on hold exactly the records that one reader would have read
// one after the other: each shard's first record is where the last one of the shard before ends, and links back to it;
// timelines do not go back; the divergence is between two records; and the last record ends where the target's WAL is
// supposed to end.
func (s *search) checkSeams() error {
	var before *shard // the last shard in which a record begins
	divergence := false
	last := uint64((s.in.End - 1) / s.size)
	for i := s.frontier; i <= last; i++ {
		sh := s.results[i]
		divergence = divergence || sh.divergence
		if before != nil && before.next >= sh.end {
			// The record before goes on over all of this shard, or switched to a later segment: whatever is here is
			// part of it, or filling.
			if sh.first != 0 {
				return corruptSeam(before.next, "a record begins at %v within the one before", sh.first)
			}
			continue
		}
		if sh.startErr != nil && (sh.first == 0 || before != nil && sh.first != before.next) {
			at := sh.start
			if before != nil {
				at = before.next
			}
			return readError("could not read WAL record", at, sh.startErr)
		}
		if sh.first == 0 {
			// Nothing begins here although something should: the log ends in this shard, with the record that is
			// still to be found complete.
			continue
		}
		if before != nil {
			switch {
			case sh.first != before.next:
				return corruptSeam(before.next, "the next record begins at %v", sh.first)
			case sh.firstPrev != before.last:
				return corruptSeam(sh.first, "record with incorrect prev-link %v at %v", sh.firstPrev, sh.first)
			case sh.firstTLI < before.lastTLI:
				return corruptSeam(sh.first, "out-of-sequence timeline ID %d (after %d) in log segment %s, offset %d",
					sh.firstTLI, before.lastTLI, s.segmentName(sh.start),
					uint64(sh.start)&uint64(s.in.Format.SegSize-1))
			}
		}
		before = sh
	}
	if before.next != s.end {
		return fault.New("end pointer %v is not a valid end point; expected %v", s.in.End, before.next).
			Advise("the target's control file says that its WAL ends at %v, but no record ends there; "+
				"start and stop the target once, or take a new base backup", s.in.End)
	}
	if !divergence && s.divergence != s.end {
		return fault.New("could not find previous WAL record at %v", s.in.Divergence).
			Advise("the source's history forks at %v, but no record of the target's WAL ends there: "+
				"the two servers do not share this piece of history", s.in.Divergence)
	}
	return nil
}

func (s *search) segmentName(at pg.LSN) string {
	seg := at.Seg(s.in.Format.SegSize)
	return pg.SegmentName(s.in.History.SegmentTLI(seg, s.in.Format.SegSize), seg, s.in.Format.SegSize)
}

func corruptSeam(at pg.LSN, format string, args ...any) error {
	return fault.New("could not read WAL record at %v: "+format, append([]any{at}, args...)...).
		Advise("two neighbouring stretches of the target's WAL do not fit together: a segment is damaged or from another history")
}
