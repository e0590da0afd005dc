package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/rewind"
)

var (
	ownProgram   = program{path: "/x/fastrewind", name: "fastrewind"}
	stockProgram = program{path: "/x/pg_rewind", name: stockName, stock: true}
)

// fakeClock stands still until it is moved.
type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *fakeClock {
	return &fakeClock{now: time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)}
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) move(d time.Duration) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return c.now
}

// silent makes a reporter whose progress is drawn only when the test calls tick.
func silent(t *testing.T, self program, how reporting, columns int) (*reporter, *fakeClock, *bytes.Buffer) {
	t.Helper()
	c := newClock()
	var out bytes.Buffer
	how.now = c.Now
	if how.format == "" {
		how.format = textFormat
	}
	style := how.progress
	how.progress = noProgress
	r := newReporter(self, newScreen(&out, func() int { return columns }), how)
	r.progress = style
	r.show = newDisplay(style, r.log, r.screen)
	t.Cleanup(r.Close)
	return r, c, &out
}

// say uses every kind of message.
func say(r *reporter) {
	r.Info("info %d%%", 1)
	r.Progress("progress %s", "p")
	r.Note("note")
	r.Warn("careful", "do this")
	r.Warn("careful again", "")
	r.Debug("debug %X", 255)
}

func TestMessagesAsText(t *testing.T) {
	for _, c := range []struct {
		self program
		how  reporting
		want string
	}{
		{stockProgram, reporting{}, "P: info 1%\nP: warning: careful\nP: warning: careful again\n"},
		{stockProgram, reporting{progress: stockProgress},
			"P: info 1%\nP: progress p\nP: warning: careful\nP: warning: careful again\n"},
		{stockProgram, reporting{debug: true}, "P: info 1%\nP: warning: careful\nP: warning: careful again\nP: debug FF\n"},
		{ownProgram, reporting{}, "P: info 1%\nP: note\nP: warning: careful\nP: advice: do this\nP: warning: careful again\n"},
		{ownProgram, reporting{progress: lineProgress, debug: true},
			"P: info 1%\nP: progress p\nP: note\nP: warning: careful\nP: advice: do this\nP: warning: careful again\nP: debug FF\n"},
	} {
		r, _, out := silent(t, c.self, c.how, 0)
		say(r)
		if want := strings.ReplaceAll(c.want, "P:", c.self.name+":"); out.String() != want {
			t.Errorf("%s %+v:\n got %q\nwant %q", c.self.name, c.how, out, want)
		}
		if r.DebugEnabled() != c.how.debug {
			t.Errorf("DebugEnabled is %v", r.DebugEnabled())
		}
	}
}

// objects reads a line of JSON each, and takes out ts, which must be the clock's.
func objects(t *testing.T, out string, at time.Time) []string {
	t.Helper()
	var list []string
	for line := range strings.Lines(out) {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if o["ts"] != at.Format(time.RFC3339Nano) {
			t.Errorf("ts is %v, want %v", o["ts"], at)
		}
		delete(o, "ts")
		again, err := json.Marshal(o) // keys in order
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, string(again))
	}
	return list
}

func sameLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestMessagesAsJSON(t *testing.T) {
	r, c, out := silent(t, ownProgram, reporting{format: jsonFormat, debug: true}, 0)
	r.Info("before")
	scan := r.Start(rewind.PhaseScan, 0, rewind.Bytes)
	r.Info("two\nlines")
	listing := r.Start(rewind.PhaseListing, 0, rewind.Files)
	r.Warn("careful", "do this")
	listing.Done()
	r.Debug("deep")
	scan.Done()
	r.Fail(fault.New("no").WithDetail("d").WithHint("h").Advise("a"))
	sameLines(t, objects(t, out.String(), c.Now()),
		`{"level":"info","msg":"before"}`,
		`{"level":"info","msg":"two\nlines","phase":"scanning WAL"}`,
		`{"advice":"do this","level":"warn","msg":"careful","phase":"listing files"}`,
		`{"level":"debug","msg":"deep","phase":"scanning WAL"}`,
		`{"advice":"a","detail":"d","hint":"h","level":"error","msg":"no"}`)
}

func TestFail(t *testing.T) {
	cause := errors.New("cause")
	full := fault.Because(cause, "text").WithDetail("d").WithHint("h").Advise("a1\na2")
	for _, c := range []struct {
		err         error
		stock, ours string // ours: what comes after stock's, or all of it after =
	}{
		{nil, "", ""},
		{cause, "P: error: cause\n", ""},
		{fault.New("100%% of %s", "it"), "P: error: 100% of it\n", ""},
		{full, "P: error: text\nP: detail: d\nP: hint: h\n", "P: advice: a1\na2\n"},
		{fmt.Errorf("outer: %w", full), "P: error: outer: text\nP: detail: d\nP: hint: h\n", "P: advice: a1\na2\n"},
		{fault.New("connection to server failed\n\tIs it running?\n"), "P: error: connection to server failed\n\tIs it running?\n", ""},
		{errors.Join(fault.New("one"), fault.New("two")), "P: error: one\nP: error: two\n", ""},
		{rewind.Failed.Of(errors.Join(fault.New("one"), fault.New("two"))), "P: error: one\nP: error: two\n", ""},
		{fmt.Errorf("%w and %w", cause, cause), "P: error: cause and cause\n", ""},
		{complaint{"bad"}, "/x/P: bad\nP: hint: Try \"P --help\" for more information.\n", ""},
		{complaint{}, "P: hint: Try \"P --help\" for more information.\n", ""},
	} {
		for _, self := range []program{stockProgram, ownProgram} {
			r, _, out := silent(t, self, reporting{}, 0)
			r.Fail(c.err)
			want := c.stock
			if !self.stock {
				want += c.ours
			}
			want = strings.ReplaceAll(strings.ReplaceAll(want, "P:", self.name+":"), "P --", self.name+" --")
			if out.String() != want {
				t.Errorf("%s, %#v:\n got %q\nwant %q", self.name, c.err, out, want)
			}
		}
	}
	for _, c := range []struct {
		err         error
		ours, stock int
	}{
		{nil, 0, 0},
		{full, 1, 1},
		{complaint{}, 1, 1},
		{rewind.Interrupted.Of(full), 3, 1},
		{rewind.Resumable.Of(full), 4, 1},
		{rewind.Refused.Of(full), 5, 1},
		{fmt.Errorf("wrapped: %w", rewind.SourceLost.Of(full)), 6, 1},
		{rewind.NotRewindable.Of(full), 7, 1},
		{rewind.Resumable.Of(rewind.SourceLost.Of(full)), 6, 1},
	} {
		if ours, stock := exitStatus(ownProgram, c.err), exitStatus(stockProgram, c.err); ours != c.ours || stock != c.stock {
			t.Errorf("%v: exit status %d and %d, want %d and %d", c.err, ours, stock, c.ours, c.stock)
		}
	}
}

// TestAdviceUnderStockName: on an error that stock does not have, the advice is the hint, in the form that each major gives to
// hints; on others there is none. JSON, which stock does not have either, has all of it.
func TestAdviceUnderStockName(t *testing.T) {
	cause := errors.New("cause")
	for _, c := range []struct {
		err            error
		before15, from string // 13 and 14; 15
		json           string
	}{
		{
			fault.New("t").Advise("do this"),
			"P: fatal: t\n", "P: error: t\n",
			`{"advice":"do this","level":"error","msg":"t"}`,
		},
		{
			fault.New("t").Advise("do this\nand that").Ours(),
			"P: fatal: t\ndo this\nand that\n", "P: error: t\nP: hint: do this\nand that\n",
			`{"advice":"do this\nand that","level":"error","msg":"t"}`,
		},
		{
			fmt.Errorf("w: %w", fault.Because(cause, "t").WithDetail("d").WithHint("h").Advise("do this").Ours()),
			"P: error: w: t\nP: error: d\nh\ndo this\n", "P: error: w: t\nP: detail: d\nP: hint: h\ndo this\n",
			`{"advice":"do this","detail":"d","hint":"h","level":"error","msg":"w: t"}`,
		},
		{
			fault.New("t").WithHint("h").Ours(),
			"P: fatal: t\nh\n", "P: error: t\nP: hint: h\n",
			`{"hint":"h","level":"error","msg":"t"}`,
		},
		{
			errors.Join(fault.New("one").Advise("a"), fault.New("two").Advise("b").Ours()),
			"P: error: one\nP: fatal: two\nb\n", "P: error: one\nP: error: two\nP: hint: b\n",
			`{"advice":"a","level":"error","msg":"one"}` + "\n" + `{"advice":"b","level":"error","msg":"two"}`,
		},
	} {
		for major, want := range map[int]string{13: c.before15, 14: c.before15, 15: c.from, 19: c.from} {
			speech := func() *dialect { return dialectOf(major) }
			r, _, out := silent(t, stockProgram, reporting{speech: speech}, 0)
			r.Fail(c.err)
			if want = strings.ReplaceAll(want, "P:", "pg_rewind:"); out.String() != want {
				t.Errorf("%d, %v:\n got %q\nwant %q", major, c.err, out, want)
			}
			r, clock, out := silent(t, stockProgram, reporting{speech: speech, format: jsonFormat}, 0)
			r.Fail(c.err)
			sameLines(t, objects(t, out.String(), clock.Now()), c.json)
		}
	}
	r, clock, out := silent(t, stockProgram, reporting{format: jsonFormat}, 0)
	r.Warn("careful", "do this")
	sameLines(t, objects(t, out.String(), clock.Now()), `{"advice":"do this","level":"warn","msg":"careful"}`)
}

// TestConcurrentUse has something to find for the race detector only.
func TestConcurrentUse(t *testing.T) {
	for _, style := range []progressStyle{barProgress, lineProgress, jsonProgress, stockTerminal} {
		var out bytes.Buffer
		format := textFormat
		if style == jsonProgress {
			format = jsonFormat
		}
		r := newReporter(ownProgram, newScreen(&out, func() int { return 80 }),
			reporting{format: format, progress: style, debug: true, now: time.Now})
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				m := r.Start(rewind.PhaseCopy, 100, rewind.Bytes)
				for range 100 {
					m.Add(2)
					r.tick(time.Now())
					r.Info("line")
				}
				m.SetTotal(300)
				m.Done()
			})
		}
		all.Wait()
		r.Close()
		if n := strings.Count(out.String(), "line"); n != 800 {
			t.Errorf("%d lines of 800", n)
		}
	}
}

// TestNobodyListens: a rewind goes on when stderr is gone.
func TestNobodyListens(t *testing.T) {
	r := newReporter(ownProgram, newScreen(brokenWriter{}, func() int { return 80 }),
		reporting{format: textFormat, progress: barProgress, now: time.Now})
	defer r.Close()
	m := r.Start(rewind.PhaseCopy, 10, rewind.Bytes)
	r.tick(time.Now())
	say(r)
	m.Done()
	r.Fail(errors.New("x"))
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }
