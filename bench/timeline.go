package main

import (
	"bytes"
	"sync"
	"time"
)

// timeline notes when a program wrote which line. It is the program's output.
type timeline struct {
	mu    sync.Mutex
	start time.Time
	rest  []byte // of a line that has not ended
	lines []stampedLine
}

type stampedLine struct {
	at   float64 // seconds since the start
	text string
}

func newTimeline() *timeline { return &timeline{start: time.Now()} }

// Write implements io.Writer.
func (t *timeline) Write(p []byte) (int, error) {
	at := time.Since(t.start).Seconds()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rest = append(t.rest, p...)
	for {
		line, rest, ended := bytes.Cut(t.rest, []byte("\n"))
		if !ended {
			return len(p), nil
		}
		t.lines = append(t.lines, stampedLine{at, string(line)})
		t.rest = append(t.rest[:0], rest...)
	}
}

func (t *timeline) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b bytes.Buffer
	for _, l := range t.lines {
		b.WriteString(l.text + "\n")
	}
	b.Write(t.rest)
	return b.String()
}
