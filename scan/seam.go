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
	var (
		next    pg.LSN // where the record after those seen so far begins; 0: none was seen yet
		last    pg.LSN // of those seen so far
		lastEnd pg.LSN // its end
		lastTLI pg.TLI // of the page on which it ends
	)
	divergence := false
	for i := s.frontier; i <= uint64((s.in.End-1)/s.size); i++ {
		sh := s.results[i]
		divergence = divergence || sh.divergence
		if next != 0 && (next >= sh.end || next == s.end) {
			// The record before goes on over all of this shard, or switched to a later segment, or was the last:
			// whatever is here is part of it, or filling.
			if sh.begins != 0 {
				return corruptSeam(next, "a record begins at %v within the one before", sh.begins)
			}
			continue
		}
		if sh.startErr != nil && (sh.begins == 0 || next != 0 && sh.begins != next) {
			at := sh.start
			if next != 0 {
				at = next
			}
			return readError("could not read WAL record", at, sh.startErr)
		}
		if sh.begins == 0 {
			// Nothing begins here although something should: the log ends in this shard, with the record that is
			// still to be found complete.
			continue
		}
		if next != 0 {
			switch {
			case sh.begins != next:
				return corruptSeam(next, "the next record begins at %v", sh.begins)
			case sh.first != 0 && sh.firstPrev != last:
				return corruptSeam(sh.first, "record with incorrect prev-link %v at %v", sh.firstPrev, sh.first)
			case sh.firstTLI < lastTLI && sh.start >= lastEnd: // up to lastEnd, that record's reader has seen to it
				return corruptSeam(sh.begins, "out-of-sequence timeline ID %d (after %d) in log segment %s, offset %d",
					sh.firstTLI, lastTLI, s.segmentName(sh.start),
					uint64(sh.start)&uint64(s.in.Format.SegSize-1))
			}
		}
		next = sh.next
		if sh.first != 0 {
			last, lastEnd, lastTLI = sh.last, sh.lastEnd, sh.lastTLI
		}
	}
	if next != s.end {
		return fault.New("end pointer %v is not a valid end point; expected %v", s.in.End, next).
			Advise("The target's control file says that its WAL ends at %v, but no record ends there. "+
				"Start and stop the target once, or take a new base backup.", s.in.End)
	}
	if !divergence && s.divergence != s.end {
		return fault.New("could not find previous WAL record at %v", s.in.Divergence).
			Advise("The source's history forks at %v, but no record of the target's WAL ends there: "+
				"the two servers do not share this piece of history.", s.in.Divergence)
	}
	return nil
}

func (s *search) segmentName(at pg.LSN) string {
	seg := at.Seg(s.in.Format.SegSize)
	return pg.SegmentName(s.in.History.SegmentTLI(seg, s.in.Format.SegSize), seg, s.in.Format.SegSize)
}

func corruptSeam(at pg.LSN, format string, args ...any) error {
	return fault.New("could not read WAL record at %v: "+format, append([]any{at}, args...)...).
		Advise("Two neighbouring stretches of the target's WAL do not fit together: a segment is damaged or from another history.")
}
