package main

import (
	"io"
	"sync"
)

// clearLine brings the cursor to the start of its line and empties the line (ECMA-48).
const clearLine = "\r\x1b[K"

// screen is the only writer of stderr. Messages are written whole; on a terminal one more line, the live line, stands
// below them without a newline and is drawn anew after each message. Safe for concurrent use.
//
// Errors of writing are dropped on purpose: nobody is left to hear of them, and a rewind goes on without an audience.
type screen struct {
	mu    sync.Mutex
	out   io.Writer
	width func() int // columns; 0 if no live line can be drawn
	live  string     // what drew the live line; empty if there is none
}

func newScreen(out io.Writer, width func() int) *screen { return &screen{out: out, width: width} }

// Write writes one or more whole lines, above the live line.
func (s *screen) Write(lines []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == "" {
		_, _ = s.out.Write(lines)
		return len(lines), nil
	}
	all := make([]byte, 0, len(clearLine)+len(lines)+len(s.live))
	all = append(all, clearLine...)
	all = append(all, lines...)
	all = append(all, s.live...)
	_, _ = s.out.Write(all)
	return len(lines), nil
}

// Sync is for zap; nothing is buffered here.
func (s *screen) Sync() error { return nil }

// draw replaces the live line. The text brings its own control characters, so that stock's line can be stock's to the
// byte; it must not be wider than the terminal.
func (s *screen) draw(live string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = live
	_, _ = io.WriteString(s.out, live)
}

// erase removes the live line.
func (s *screen) erase() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live != "" {
		s.live = ""
		_, _ = io.WriteString(s.out, clearLine)
	}
}

// settle ends the live line with a last text, which stays.
func (s *screen) settle(last string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = ""
	_, _ = io.WriteString(s.out, last)
}
