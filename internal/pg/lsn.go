package pg

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the write-ahead log: bytes since the cluster's first possible record
// (XLogRecPtr, src/include/access/xlogdefs.h). 0 is "no position" (InvalidXLogRecPtr).
type LSN uint64

// String prints the two 32-bit halves as stock does up to 18: %X/%X.
func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l))
}

// Wide prints it as 19 does: %X/%08X.
func (l LSN) Wide() string {
	return fmt.Sprintf("%X/%08X", uint32(l>>32), uint32(l))
}

// ParseLSN reads what String and Wide print.
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok || !isHex(hi) || !isHex(lo) {
		return 0, fmt.Errorf("invalid LSN %q: expected two hexadecimal numbers of at most 8 digits joined by a slash", s)
	}
	h, err := strconv.ParseUint(hi, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("invalid LSN %q: %w", s, err)
	}
	l, err := strconv.ParseUint(lo, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("invalid LSN %q: %w", s, err)
	}
	return LSN(h<<32 | l), nil
}

func isHex(s string) bool {
	if len(s) == 0 || len(s) > 8 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'F') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// TLI is a timeline identifier; 0 is "none".
type TLI uint32

// SegNo counts WAL segments since LSN 0; the LSN of its first byte is SegNo × segment size.
type SegNo uint64

// WAL segment sizes PostgreSQL allows, in bytes (IsValidWalSegSize, xlog_internal.h); always a power of two.
const (
	MinSegSize = 1 << 20
	MaxSegSize = 1 << 30
)

// ValidSegSize reports whether size bytes is a segment size PostgreSQL could have been initialised with.
func ValidSegSize(size uint32) bool {
	return size >= MinSegSize && size <= MaxSegSize && size&(size-1) == 0
}

// Seg is the segment that holds the byte at l, for a segment size in bytes.
func (l LSN) Seg(segSize uint32) SegNo { return SegNo(uint64(l) / uint64(segSize)) }

// SegOfEnd is the segment that holds the last byte before l: the one a record ending at l ends in (XLByteToPrevSeg).
func (l LSN) SegOfEnd(segSize uint32) SegNo {
	if l == 0 {
		return 0
	}
	return SegNo((uint64(l) - 1) / uint64(segSize))
}

// Start is the LSN of the segment's first byte, for a segment size in bytes.
func (s SegNo) Start(segSize uint32) LSN { return LSN(uint64(s) * uint64(segSize)) }

// SegmentNameLen is the length of a WAL segment's file name: three times eight hexadecimal digits.
const SegmentNameLen = 24

// SegmentName is the file name of a segment on a timeline (XLogFileName).
func SegmentName(tli TLI, seg SegNo, segSize uint32) string {
	perID := SegNo(uint64(1<<32) / uint64(segSize))
	return fmt.Sprintf("%08X%08X%08X", uint32(tli), uint64(seg/perID), uint64(seg%perID))
}

// IsSegmentName reports whether name has the form of a full WAL segment's name: 24 upper-case hexadecimal digits
// (IsXLogFileName). Partial segments, history and backup files do not.
func IsSegmentName(name string) bool {
	if len(name) != SegmentNameLen {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}

// ParseSegmentName takes a segment's file name apart, for a segment size in bytes. ok is false if it is not a name
// that SegmentName could have made with this size.
func ParseSegmentName(name string, segSize uint32) (tli TLI, seg SegNo, ok bool) {
	if !IsSegmentName(name) {
		return 0, 0, false
	}
	var part [3]uint64
	for i := range part {
		v, err := strconv.ParseUint(name[8*i:8*i+8], 16, 32)
		if err != nil {
			return 0, 0, false
		}
		part[i] = v
	}
	perID := uint64(1<<32) / uint64(segSize)
	if part[2] >= perID {
		return 0, 0, false
	}
	return TLI(part[0]), SegNo(part[1]*perID + part[2]), true
}
