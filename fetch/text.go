package fetch

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxServerText is how much of a text of the server's is shown, in bytes.
const maxServerText = 4 << 10

// printable makes a text that came from the other side fit for a terminal: a source must not be able to move the
// cursor, set colours, forge lines of ours by overwriting them or turn the direction of writing. What is not a visible
// character of Unicode is shown as \xNN or \uNNNN, except for the newlines and tabs of PostgreSQL's own messages.
func printable(s string) string {
	cut := len(s) > maxServerText
	if cut {
		s = s[:maxServerText]
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\n' || r == '\t' || unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += size
	}
	if cut {
		b.WriteString(" [...]")
	}
	return b.String()
}

// printableLine is printable for what must stay within a line, such as a path.
func printableLine(s string) string {
	return strings.NewReplacer("\n", `\x0a`, "\t", `\x09`).Replace(printable(s))
}
