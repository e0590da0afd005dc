package archive

import (
	"strings"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// expand replaces the placeholders of a restore_command: %p by the path to restore to, %f by the file's name, %% by one
// percent sign. Anything else after a percent sign, and one at the end, stay as they are; %r cannot be answered before
// the rewind knows its checkpoint (BuildRestoreCommand, src/common/archive.c of 13 to 15). Nothing is quoted: that is for
// whoever wrote the command.
func expand(command, path, name string) (string, error) {
	var b strings.Builder
	for {
		i := strings.IndexByte(command, '%')
		if i < 0 || i+1 == len(command) {
			b.WriteString(command)
			return b.String(), nil
		}
		b.WriteString(command[:i])
		switch c := command[i+1]; c {
		case 'p':
			b.WriteString(path)
		case 'f':
			b.WriteString(name)
		case '%':
			b.WriteByte('%')
		case 'r':
			return "", fault.New("cannot use restore_command with %%r placeholder").
				Advise("The target's restore_command uses %%r, the file that holds the last restart point; nothing can be said for it here. " +
					"Make a command without it for the time of the rewind, or copy the missing WAL into pg_wal.")
		default:
			// Only the percent sign is done with: as for stock, what follows may begin no placeholder either.
			b.WriteByte('%')
			command = command[i+1:]
			continue
		}
		command = command[i+2:]
	}
}
