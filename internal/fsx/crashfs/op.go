package crashfs

import (
	"fmt"
	"io/fs"
)

// Kind is the kind of an operation.
type Kind uint8

// The operations that are counted: those that change something, make something durable, or can be the first to meet
// trouble. Lstat, Readlink, Size and StartWriteback are not.
const (
	OpOpen Kind = iota + 1
	OpWrite
	OpTruncate
	OpMkdir
	OpSymlink
	OpRename
	OpRemove
	OpSync
	OpSyncDir
	OpSyncFS
	OpClose
)

// String is the system call's name.
func (k Kind) String() string {
	names := [...]string{
		"?", "open", "write", "truncate", "mkdir", "symlink", "rename", "remove", "fsync", "fsync-dir", "syncfs", "close",
	}
	if int(k) < len(names) {
		return names[k]
	}
	return names[0]
}

// Op is one operation. Names are as the target's writer gave them.
type Op struct {
	Kind    Kind
	Name    string
	To      string // new name of a rename, content of a link
	File    int    // the open file, counted from 1, of everything that is done to one
	Offset  int64  // of a write
	Length  int64  // bytes a write was asked for; size a truncation leaves
	Data    []byte // what a write has written
	Mode    fs.FileMode
	Created bool  // by an open
	Done    bool  // it took effect
	Partly  bool  // a write that failed after Data
	Err     error // what the caller was told
}

// String says what was done, in one line.
func (o Op) String() string {
	s := o.Kind.String() + " " + o.Name
	switch o.Kind {
	case OpWrite:
		s += fmt.Sprintf(" %d+%d", o.Offset, o.Length)
	case OpTruncate:
		s += fmt.Sprintf(" to %d", o.Length)
	case OpRename, OpSymlink:
		s += " to " + o.To
	case OpOpen:
		if o.Created {
			s += " (created)"
		}
	default:
	}
	if o.Err != nil {
		s += fmt.Sprintf(" = %v", o.Err)
	}
	return s
}

// Log is operations in the order in which they took effect. Operation n is Ops[n-1]. It is not changed once it was
// returned.
type Log struct {
	Ops []Op
}

// Len is how many operations there were.
func (l Log) Len() int { return len(l.Ops) }

// First is the log's first n operations.
func (l Log) First(n int) Log { return Log{Ops: l.Ops[:n:n]} }

// Then is what happened in a process that ended and in another one after it, on the same running machine: what the first
// has not made durable is still there for the second, and still not durable.
func (l Log) Then(next Log) Log {
	most := 0
	for _, op := range l.Ops {
		most = max(most, op.File)
	}
	joined := append(make([]Op, 0, len(l.Ops)+len(next.Ops)), l.Ops...)
	for _, op := range next.Ops {
		if op.File > 0 {
			op.File += most
		}
		joined = append(joined, op)
	}
	return Log{Ops: joined}
}
