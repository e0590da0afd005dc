package codec

import "errors"

var errLZO = errors.New("invalid LZO1X data")

// decodeLZO1X decodes one block into dst, which must be as long as the block decoded. All of src must be used.
//
// A block is a sequence of instructions. Each copies a match from the bytes decoded so far, 0 to 3 literals after it, or a
// longer run of literals. What the smallest instructions mean depends on how many literals the one before has copied. L are
// bits of a length, D of a distance, S the number of literals that follow a match, H the byte behind the instruction:
//
//	0000LLLL             after a match with S = 0: 3 + L literals; L = 0: 18 + more
//	0000DDSS H           after S literals: 2 bytes from 1 + D + 4H back
//	0000DDSS H           after a run: 3 bytes from 2049 + D + 4H back
//	0001HLLL DDDDDDSS D  2 + L bytes (L = 0: 9 + more) from 16384 + H*16384 + D back; none back: the end
//	001LLLLL DDDDDDSS D  2 + L bytes (L = 0: 33 + more) from 1 + D back
//	01LDDDSS H           3 + L bytes from 1 + D + 8H back
//	1LLDDDSS H           5 + L bytes from 1 + D + 8H back
//
// "More" is 255 for each zero byte that follows, and the byte that is not zero. The first byte of a block, if above 17, is
// a run of that many literals less 17. (Described in Linux, Documentation/staging/lzo.rst.)
func decodeLZO1X(dst, src []byte) error {
	const run = 4 // in place of S: the instruction before was a run
	in, out := 0, 0
	literals := 0 // that the instruction before has copied, or run

	// copyLiterals copies n bytes from src.
	copyLiterals := func(n int) bool {
		if n > len(src)-in || n > len(dst)-out {
			return false
		}
		copy(dst[out:], src[in:in+n])
		in, out = in+n, out+n
		return true
	}
	// more is the length after an instruction whose own bits are all zero.
	more := func(base int) (int, bool) {
		for in < len(src) {
			b := src[in]
			in++
			if b != 0 {
				return base + int(b), true
			}
			base += 255
			if base > len(dst) {
				break // and so base does not overflow
			}
		}
		return 0, false
	}

	if len(src) > 0 && src[0] > 17 {
		n := int(src[0]) - 17
		in++
		if !copyLiterals(n) {
			return errLZO
		}
		literals = min(n, run)
	}
	for in < len(src) {
		op := int(src[in])
		in++

		var length, distance, next int // next literals follow the match
		switch {
		case op >= 0x40:
			if in >= len(src) {
				return errLZO
			}
			if length = 3 + op>>5&1; op >= 0x80 {
				length = 5 + op>>5&3
			}
			distance = 1 + op>>2&7 + int(src[in])<<3
			next = op & 3
			in++

		case op >= 0x10:
			mask, base := 0x1f, 31
			if op < 0x20 {
				mask, base = 0x07, 7
			}
			if length = op & mask; length == 0 {
				var ok bool
				if length, ok = more(base); !ok {
					return errLZO
				}
			}
			length += 2
			if len(src)-in < 2 {
				return errLZO
			}
			low := int(src[in]) | int(src[in+1])<<8
			in += 2
			distance = 1 + low>>2
			next = low & 3
			if op < 0x20 {
				distance = op&8<<11 + low>>2
				if distance == 0 {
					if length != 3 || in != len(src) || out != len(dst) {
						return errLZO
					}
					return nil
				}
				distance += 16384
			}

		case literals == 0:
			n := op
			if n == 0 {
				var ok bool
				if n, ok = more(15); !ok {
					return errLZO
				}
			}
			if !copyLiterals(n + 3) {
				return errLZO
			}
			literals = run
			continue

		default:
			if in >= len(src) {
				return errLZO
			}
			length, distance = 2, 1+op>>2+int(src[in])<<2
			if literals == run {
				length, distance = 3, distance+2048
			}
			next = op & 3
			in++
		}

		if distance > out || length > len(dst)-out {
			return errLZO
		}
		// A match may reach into what it copies: then it repeats, and each copy doubles what there is to repeat.
		for match := dst[out-distance : out+length]; length > 0; {
			n := copy(dst[out:out+length], match[:distance])
			out, length, distance = out+n, length-n, distance+n
		}
		if !copyLiterals(next) {
			return errLZO
		}
		literals = next
	}
	return errLZO // without the end
}
