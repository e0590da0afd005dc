package pg

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// TimelineSpan is one timeline of a cluster's history and the part of it that the cluster went through.
type TimelineSpan struct {
	TLI   TLI
	Begin LSN // where this timeline begins for this cluster; 0 for the first
	End   LSN // where the next one forks off; 0 for the last: still open
}

// History is the way a cluster took through the timelines, oldest first; the last one is the current one. Never empty.
type History []TimelineSpan

// HistoryName is the file name of a timeline's history, in pg_wal (TLHistoryFileName).
func HistoryName(tli TLI) string { return fmt.Sprintf("%08X.history", uint32(tli)) }

// HistoryError is a syntax error in a history file, in stock's words (rewind_parseTimeLineHistory, timeline.c).
type HistoryError struct{ Text, Detail string }

func (e *HistoryError) Error() string { return e.Text }

// MaxHistoryBytes bounds what is read of a history file: some 200,000 timelines.
const MaxHistoryBytes = 8 << 20

// ParseHistory parses the content of the history file of timeline tli. Timeline 1 has no file: give it nil data.
func ParseHistory(data []byte, tli TLI) (History, error) {
	var h History
	var last TLI
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, "\r\n")
		fields := strings.FieldsFunc(line, isBlank)
		if len(fields) == 0 || fields[0][0] == '#' {
			continue
		}
		// C's %u: decimal digits, and what follows does not matter.
		id, ok := leadingNumber(fields[0])
		if !ok {
			return nil, &HistoryError{"syntax error in history file: " + line, "Expected a numeric timeline ID."}
		}
		// C's %X/%X: hexadecimal halves; a reason after them is a comment. A number followed by something else is where
		// sscanf would stop, short of the switchpoint.
		if len(fields) < 2 || strings.TrimLeft(fields[0], "0123456789") != "" {
			return nil, &HistoryError{
				"syntax error in history file: " + line, "Expected a write-ahead log switchpoint location.",
			}
		}
		end, err := ParseLSN(fields[1])
		if err != nil {
			return nil, &HistoryError{
				"syntax error in history file: " + line, "Expected a write-ahead log switchpoint location.",
			}
		}
		if len(h) > 0 && id <= last {
			return nil, &HistoryError{
				"invalid data in history file: " + line, "Timeline IDs must be in increasing sequence.",
			}
		}
		if end == 0 {
			// Not checked by stock. The timeline would seem to be still open, and two servers that parted there never to
			// have parted.
			return nil, &HistoryError{
				"invalid data in history file: " + line, "A timeline cannot end at 0/0.",
			}
		}
		last = id
		h = append(h, TimelineSpan{TLI: id, End: end})
	}
	if len(h) > 0 && tli <= last {
		return nil, &HistoryError{
			"invalid data in history file", "Timeline IDs must be less than child timeline's ID.",
		}
	}
	h = append(h, TimelineSpan{TLI: tli})
	// Recovery along one timeline that ended before that one begins leaves a history that goes back (writeTimeLineHistory
	// names the timeline that was recovered along, not the one on which recovery ended): of what lies between, this cluster
	// went through nothing.
	for i := len(h) - 3; i >= 0; i-- {
		h[i].End = min(h[i].End, h[i+1].End)
	}
	for i := 1; i < len(h); i++ {
		h[i].Begin = h[i-1].End
	}
	return h, nil
}

// isBlank is C's isspace.
func isBlank(r rune) bool { return strings.ContainsRune(" \t\n\v\f\r", r) }

func leadingNumber(s string) (TLI, bool) {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	n, err := strconv.ParseUint(s[:i], 10, 32)
	return TLI(n), err == nil
}

// TLI is the current timeline.
func (h History) TLI() TLI { return h[len(h)-1].TLI }

// endOrInfinity makes an open end comparable.
func (s TimelineSpan) endOrInfinity() LSN {
	if s.End == 0 {
		return math.MaxUint64
	}
	return s.End
}

// CommonAncestor finds where two histories part: the last index at which both are on the same timeline that began at
// the same place, and the LSN up to which both went along it. ok is false if they have nothing in common
// (findCommonAncestorTimeline, pg_rewind.c).
func CommonAncestor(a, b History) (index int, divergence LSN, ok bool) {
	n := 0
	for n < len(a) && n < len(b) && a[n].TLI == b[n].TLI && a[n].Begin == b[n].Begin {
		n++
	}
	if n == 0 {
		return 0, 0, false
	}
	return n - 1, min(a[n-1].endOrInfinity(), b[n-1].endOrInfinity()), true
}

// SegmentTLI says on which timeline's file segment seg is to be read: the first whose span reaches the segment's end.
// The timeline that took over within a segment copied its beginning, so the newest file has all of it
// (SimpleXLogPageRead, parsexlog.c).
func (h History) SegmentTLI(seg SegNo, segSize uint32) TLI {
	end := (seg + 1).Start(segSize)
	for _, s := range h {
		if s.endOrInfinity() >= end {
			return s.TLI
		}
	}
	return h.TLI()
}

// TLIAt says on which timeline the byte at l was written.
func (h History) TLIAt(l LSN) TLI {
	for _, s := range h {
		if l < s.endOrInfinity() {
			return s.TLI
		}
	}
	return h.TLI()
}
