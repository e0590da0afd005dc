package main

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/rewind"
)

func TestStockLine(t *testing.T) {
	for _, c := range []struct {
		done, total int64
		want        string
	}{
		{0, 0, "0/0 kB (0%) copied"},
		{0, 1 << 20, "   0/1024 kB (0%) copied"},
		{1023, 1 << 20, "   0/1024 kB (0%) copied"},
		{10 << 10, 1 << 20, "  10/1024 kB (0%) copied"},
		{512 << 10, 1 << 20, " 512/1024 kB (50%) copied"},
		{1<<20 - 1, 1 << 20, "1023/1024 kB (99%) copied"},
		{1 << 20, 1 << 20, "1024/1024 kB (100%) copied"},
		{3 << 20, 1 << 20, "3072/3072 kB (100%) copied"},
		{4096, 0, "4/4 kB (0%) copied"},
		{5 << 40, 10 << 40, " 5368709120/10737418240 kB (50%) copied"},
	} {
		if got := stockLine(c.done, c.total); got != c.want {
			t.Errorf("%d of %d: got %q, want %q", c.done, c.total, got, c.want)
		}
	}
}

// TestStockProgress: once in a second of the clock and at the end, the copy alone, no other phase.
func TestStockProgress(t *testing.T) {
	for _, c := range []struct {
		style progressStyle
		want  string
	}{
		{stockProgress, " 256/1024 kB (25%) copied\n" +
			" 768/1024 kB (75%) copied\n" +
			"pg_rewind: hello\n" +
			"2048/2048 kB (100%) copied\n"},
		{stockTerminal, " 256/1024 kB (25%) copied\r" +
			" 768/1024 kB (75%) copied\r" +
			"\r\x1b[Kpg_rewind: hello\n 768/1024 kB (75%) copied\r" +
			"2048/2048 kB (100%) copied\n"},
	} {
		r, clock, out := silent(t, stockProgram, reporting{progress: c.style}, 80)
		scan := r.Start(rewind.PhaseScan, 1<<20, rewind.Bytes)
		scan.Add(1000)
		r.tick(clock.move(time.Second))
		scan.Done()

		m := r.Start(rewind.PhaseCopy, 1<<20, rewind.Bytes)
		r.tick(clock.move(time.Second)) // no data yet
		m.Add(256 << 10)
		r.tick(clock.move(time.Second)) // the first
		m.Add(256 << 10)
		r.tick(clock.move(400 * time.Millisecond)) // the same second
		m.Add(256 << 10)
		r.tick(clock.move(600 * time.Millisecond)) // the next
		r.Info("hello")
		m.Add(1280 << 10)
		r.tick(clock.move(100 * time.Millisecond))
		m.Done()
		m.Done() // counts once
		r.tick(clock.move(time.Second))
		if out.String() != c.want {
			t.Errorf("style %d:\n got %q\nwant %q", c.style, out, c.want)
		}
	}
}

// aRun plays three phases to a reporter, ticking five times a second as the real one does.
func aRun(r *reporter, clock *fakeClock) {
	pass := func(d time.Duration, each func()) {
		for ; d > 0; d -= drawInterval {
			each()
			r.tick(clock.move(drawInterval))
		}
	}
	recovery := r.Start(rewind.PhaseRecovery, 0, rewind.None)
	pass(2*time.Second, func() {})
	recovery.Done()

	listing := r.Start(rewind.PhaseListing, 0, rewind.Files)
	pass(400*time.Millisecond, func() { listing.Add(500) })
	listing.Done()

	m := r.Start(rewind.PhaseCopy, 1000<<20, rewind.Bytes)
	pass(2*time.Second, func() { m.Add(20 << 20) })
	r.Info("hello")
	pass(time.Second, func() { m.Add(20 << 20) })
	m.Add(700 << 20)
	m.Done()
}

func TestLineProgress(t *testing.T) {
	r, clock, out := silent(t, ownProgram, reporting{progress: lineProgress}, 0)
	aRun(r, clock)
	want := `fastrewind: crash recovery: 1s
fastrewind: crash recovery: 2s
fastrewind: crash recovery: 2s
fastrewind: listing files: 1000 files in 400ms (2500 files/s)
fastrewind: copying: 100 MB of 1000 MB (10%), 100 MB/s, 9s left
fastrewind: copying: 200 MB of 1000 MB (20%), 100 MB/s, 8s left
fastrewind: hello
fastrewind: copying: 300 MB of 1000 MB (30%), 100 MB/s, 7s left
fastrewind: copying: 1000 MB in 3s (333 MB/s)
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
}

func TestJSONProgress(t *testing.T) {
	r, clock, out := silent(t, ownProgram, reporting{format: jsonFormat, progress: jsonProgress}, 0)
	m := r.Start(rewind.PhaseCopy, 1000, rewind.Bytes)
	m.Add(100)
	r.tick(clock.move(time.Second))
	sameLines(t, objects(t, out.String(), clock.Now()),
		`{"done":100,"elapsed_s":1,"eta_s":9,"final":false,"level":"info","msg":"progress","per_second":100,"phase":"copying","total":1000,"unit":"bytes"}`)
	out.Reset()
	m.Add(1000)
	clock.move(time.Second)
	m.Done()
	sameLines(t, objects(t, out.String(), clock.Now()),
		`{"done":1100,"elapsed_s":2,"final":true,"level":"info","msg":"progress","per_second":550,"phase":"copying","total":1100,"unit":"bytes"}`)
	out.Reset()
	r.Start(rewind.PhaseRecovery, 0, rewind.None).Done()
	sameLines(t, objects(t, out.String(), clock.Now()),
		`{"elapsed_s":0,"final":true,"level":"info","msg":"progress","phase":"crash recovery"}`)
}

// terminal plays what a terminal shows: \r, \n and "erase to the end of the line".
func terminal(t *testing.T, out string) (lines []string, current string) {
	t.Helper()
	row, column := []rune{}, 0
	for len(out) > 0 {
		if rest, ok := strings.CutPrefix(out, "\x1b[K"); ok {
			row, out = row[:min(column, len(row))], rest
			continue
		}
		c := []rune(out)[0]
		out = out[len(string(c)):]
		switch {
		case c == '\r':
			column = 0
		case c == '\n':
			lines, row, column = append(lines, string(row)), nil, 0
		case c < ' ':
			t.Fatalf("control character %q", c)
		case column < len(row):
			row[column] = c
			column++
		default:
			row, column = append(row, c), column+1
		}
	}
	return lines, string(row)
}

// TestBar looks at the terminal after each draw: messages stand whole above the bar, the bar is one line.
func TestBar(t *testing.T) {
	const columns = 80
	r, clock, out := silent(t, ownProgram, reporting{progress: barProgress}, columns)
	m := r.Start(rewind.PhaseCopy, 1000<<20, rewind.Bytes)
	for range 10 {
		m.Add(20 << 20)
		r.tick(clock.move(drawInterval))
	}
	if _, got := terminal(t, out.String()); !strings.HasPrefix(got, "copying: 200 MB of 1000 MB [==") || !strings.HasSuffix(got, "]  20% 100 MB/s, 8s left") || len(got) != columns-1 {
		t.Errorf("the bar is %q, %d columns", got, len(got))
	}

	_, before := terminal(t, out.String())
	r.Warn("something", "do this")
	lines, after := terminal(t, out.String())
	sameLines(t, lines, "fastrewind: warning: something", "fastrewind: advice: do this")
	if before != after {
		t.Errorf("the bar was %q and is %q after a message", before, after)
	}

	clock.move(8 * time.Second)
	m.Add(800 << 20)
	m.Done()
	listing := r.Start(rewind.PhaseListing, 0, rewind.Files)
	listing.Add(3)
	r.tick(clock.move(time.Second))
	lines, bar := terminal(t, out.String())
	sameLines(t, lines, "fastrewind: warning: something", "fastrewind: advice: do this",
		"fastrewind: copying: 1000 MB in 10s (100 MB/s)")
	if !strings.HasPrefix(bar, "listing files: 3 files, 3 files/s ") {
		t.Errorf("the bar of an unknown total is %q", bar)
	}
	listing.SetTotal(6)
	r.tick(clock.move(time.Second))
	if _, bar = terminal(t, out.String()); !strings.HasPrefix(bar, "listing files: 3 of 6 files [") {
		t.Errorf("the bar is %q after its total became known", bar)
	}
	r.Close()
	if _, bar = terminal(t, out.String()); bar != "" {
		t.Errorf("%q was left", bar)
	}
}

// TestBarFits: at every width there is one line, never wider than the terminal less one column.
func TestBarFits(t *testing.T) {
	for columns := range 130 {
		r, clock, out := silent(t, ownProgram, reporting{progress: barProgress}, columns)
		m := r.Start(rewind.PhaseScan, 1<<40, rewind.Bytes)
		r.Start(rewind.PhaseRecovery, 0, rewind.None)
		for i := range 10 {
			m.Add(1 << 36)
			if i == 5 {
				r.Start(rewind.PhaseSync, 123456, rewind.Files).Add(123)
			}
			out.Reset()
			r.tick(clock.move(drawInterval))
			if strings.Contains(out.String(), "\n") {
				t.Fatalf("%d columns: a newline in %q", columns, out)
			}
			if _, got := terminal(t, out.String()); len(got) > max(columns-1, 0) {
				t.Fatalf("%d columns: %q is %d wide", columns, got, len(got))
			}
		}
	}
}

func TestRateFollows(t *testing.T) {
	r, clock, _ := silent(t, ownProgram, reporting{progress: lineProgress}, 0)
	m := r.Start(rewind.PhaseCopy, 1<<30, rewind.Bytes).(*meter)
	for range 100 {
		m.Add(1000)
		m.rate(clock.move(drawInterval))
	}
	if got := m.rate(clock.Now()); got < 4500 || got > 5500 {
		t.Errorf("rate is %v, want 5000", got)
	}
	for range 100 {
		m.rate(clock.move(drawInterval))
	}
	if got := m.rate(clock.Now()); got != 0 {
		t.Errorf("rate is %v after 20 s of nothing", got)
	}
	if len(m.samples) > sampleCount {
		t.Errorf("%d samples", len(m.samples))
	}
	if left, ok := m.left(0); ok {
		t.Errorf("%v left at no rate", left)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 bytes", 10239: "10239 bytes", 10240: "10 kB", 10 << 20: "10 MB", 10<<20 - 1: "10239 kB",
		1000 << 20: "1000 MB", 10 << 30: "10 GB", 10 << 40: "10 TB", 1 << 60: "1048576 TB",
	} {
		if got := size(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

func TestStyleChoice(t *testing.T) {
	for _, c := range []struct {
		on    bool
		form  logFormat
		self  program
		tty   bool
		width int
		want  progressStyle
	}{
		{false, textFormat, ownProgram, true, 80, noProgress},
		{true, textFormat, ownProgram, true, 80, barProgress},
		{true, textFormat, ownProgram, true, 0, lineProgress}, // TERM=dumb
		{true, textFormat, ownProgram, false, 0, lineProgress},
		{true, textFormat, stockProgram, true, 80, stockTerminal},
		{true, textFormat, stockProgram, true, 0, stockTerminal},
		{true, textFormat, stockProgram, false, 0, stockProgress},
		{true, jsonFormat, ownProgram, true, 80, jsonProgress},
		{true, jsonFormat, stockProgram, false, 0, jsonProgress},
	} {
		p := &process{tty: c.tty, width: func() int { return c.width }}
		if got := styleOf(&options{progress: c.on, logFormat: c.form}, c.self, p); got != c.want {
			t.Errorf("%+v: got %d", c, got)
		}
	}
}

// TestDrawing runs the real goroutine: something is drawn without anybody calling tick.
func TestDrawing(t *testing.T) {
	var out lockedBuffer
	r := newReporter(ownProgram, newScreen(&out, func() int { return 80 }),
		reporting{format: textFormat, progress: barProgress, now: time.Now})
	r.Start(rewind.PhaseScan, 100, rewind.Bytes)
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(out.String(), "scanning WAL"); {
		if time.Now().After(deadline) {
			t.Fatal("nothing was drawn")
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.Close()
}

// lockedBuffer may be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
