package main

import (
	"bytes"
	"io"
	"os"
	"sync"
)

// Output is where the programs that the rewind runs may write. They get our own standard error, so that nobody has to
// carry their words, unless a bar is drawn there or every line has to be JSON: then their lines come through us, whole.
func (r *reporter) Output() (w io.Writer, done func()) {
	if r.show == nil && r.format != jsonFormat {
		return os.Stderr, func() {}
	}
	lines := &lineWriter{emit: func(line []byte) {
		if r.format == jsonFormat {
			r.log.Info(string(line), r.phase())
			return
		}
		_, _ = r.screen.Write(append(line, '\n'))
	}}
	return lines, lines.flush
}

// maxLine bounds what is held of a line that does not end.
const maxLine = 8 << 10

// lineWriter passes on what is written to it line by line. Safe for concurrent use.
type lineWriter struct {
	mu   sync.Mutex
	part []byte
	emit func(line []byte) // without its newline; the slice is the callee's
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for rest := p; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte{'\n'})
		w.part = append(w.part, line...)
		rest = after
		if whole || len(w.part) > maxLine {
			w.emit(w.part)
			w.part = nil
		}
	}
	return len(p), nil
}

// flush passes on a last line without an end.
func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.part) > 0 {
		w.emit(w.part)
		w.part = nil
	}
}
