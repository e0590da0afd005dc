package archive

import (
	"strings"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// strictPlaceholders is the major from which on restore_command must not contain a percent sign that begins no
// placeholder (replace_percent_placeholders, src/common/percentrepl.c, came with 16).
const strictPlaceholders = 16

// expand replaces the placeholders of a restore_command: %p by the path to restore to, %f by the file's name, %% by one
// percent sign. %r cannot be answered before the rewind knows its checkpoint. Nothing is quoted: that is for whoever
// wrote the command.
//
// Up to 15 anything else after a percent sign, and one at the end, stay as they are (BuildRestoreCommand,
// src/common/archive.c); from 16 on they are errors.
func expand(command, path, name string, major int) (string, error) {
	var b strings.Builder
	for rest := command; ; {
		i := strings.IndexByte(rest, '%')
		if i < 0 {
			b.WriteString(rest)
			return b.String(), nil
		}
		b.WriteString(rest[:i])
		rest = rest[i+1:]
		if rest == "" {
			if major >= strictPlaceholders {
				return "", badPlaceholder(command).WithDetail("String ends unexpectedly after escape character \"%%\".")
			}
			b.WriteByte('%')
			return b.String(), nil
		}
		switch c := rest[0]; {
		case c == 'p':
			b.WriteString(path)
		case c == 'f':
			b.WriteString(name)
		case c == '%':
			b.WriteByte('%')
		case major >= strictPlaceholders:
			return "", badPlaceholder(command).WithDetail("String contains unexpected placeholder \"%%%s\".", first(rest))
		case c == 'r':
			return "", fault.Because(errFinal, "cannot use restore_command with %%r placeholder").Advise("%s", noRestartPoint)
		default:
			// Only the percent sign is done with: as for stock, what follows may begin no placeholder either.
			b.WriteByte('%')
			continue
		}
		rest = rest[1:]
	}
}

const noRestartPoint = "The target's restore_command uses %r, the file that holds the last restart point; nothing can be said for it here. " +
	"Make a command without it for the time of the rewind, or copy the missing WAL into pg_wal."

func badPlaceholder(command string) *fault.Error {
	f := fault.Because(errFinal, "invalid value for parameter \"%s\": \"%s\"", "restore_command", command)
	if strings.Contains(strings.ReplaceAll(command, "%%", ""), "%r") {
		return f.Advise("%s", noRestartPoint)
	}
	return f.Advise("From version 16 on a percent sign that is to stay must be written twice.")
}

// first is the first character of s; of what is no UTF-8, the first byte.
func first(s string) string {
	for i := range s {
		if i > 0 {
			return s[:i]
		}
	}
	return s
}
