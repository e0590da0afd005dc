package main

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/rewind"
)

// reporting is how a reporter reports.
type reporting struct {
	format   logFormat
	debug    bool
	progress progressStyle
	now      func() time.Time
	speech   func() *dialect // nil: our own; called when there is something to say
}

// reporter is the rewind.Reporter of the program. It also prints the error the program ends with.
type reporter struct {
	reporting
	self   program
	screen *screen
	log    *zap.Logger
	show   display // nil if progress is not asked for

	mu      sync.Mutex // held while progress is drawn; taken before the screen's
	running []*meter   // in the order of their start

	quit, finished chan struct{} // of the goroutine that draws; nil without one
}

// drawInterval is how often the bar moves. Lines come more seldom.
const drawInterval = 200 * time.Millisecond

// newReporter makes a reporter. With progress it runs a goroutine, which Close ends.
func newReporter(self program, s *screen, how reporting) *reporter {
	level := zapcore.InfoLevel
	if how.debug {
		level = zapcore.DebugLevel
	}
	var core zapcore.Core = &lineCore{LevelEnabler: level, prog: self.name, out: s}
	if how.format == jsonFormat {
		core = jsonCore(s, level)
	}
	r := &reporter{
		reporting: how,
		self:      self,
		screen:    s,
		log:       zap.New(core, zap.WithClock(clock(how.now))),
	}
	r.show = newDisplay(how.progress, r.log, s)
	if r.show != nil {
		r.quit, r.finished = make(chan struct{}), make(chan struct{})
		go r.draw()
	}
	return r
}

// clock gives zap the reporter's time.
type clock func() time.Time

func (c clock) Now() time.Time                         { return c() }
func (c clock) NewTicker(d time.Duration) *time.Ticker { return time.NewTicker(d) }

// draw shows the running meters until Close.
func (r *reporter) draw() {
	defer close(r.finished)
	ticker := time.NewTicker(drawInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			r.tick(r.now())
		case <-r.quit:
			return
		}
	}
}

func (r *reporter) tick(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.running) > 0 {
		r.show.tick(r.running, now)
	}
}

// Close ends the drawing and removes what it left on the terminal. Messages can still be written.
func (r *reporter) Close() {
	if r.quit != nil {
		close(r.quit)
		<-r.finished
		r.quit = nil
	}
	r.screen.erase()
}

// say puts a message into the words that the caller expects.
func (r *reporter) say(m fault.Message) said {
	return r.dialect().say(m)
}

func (r *reporter) dialect() *dialect {
	if r.speech == nil {
		return nil
	}
	return r.speech()
}

func (r *reporter) Info(format string, args ...any) {
	if said := r.say(fault.Message{Format: format, Args: args}); !said.silent {
		r.log.Info(said.text, r.part(detailPart, said.detail), r.phase())
	}
}

func (r *reporter) Progress(format string, args ...any) {
	if r.progress != noProgress {
		r.Info(format, args...)
	}
}

func (r *reporter) Note(format string, args ...any) {
	if !r.self.stock {
		r.Info(format, args...)
	}
}

func (r *reporter) Warn(text, advice string) {
	r.log.Warn(text, r.part(advicePart, advice), r.phase())
}

func (r *reporter) Debug(format string, args ...any) {
	if r.debug {
		r.log.Debug(r.say(fault.Message{Format: format, Args: args}).text, r.phase())
	}
}

func (r *reporter) DebugEnabled() bool { return r.debug }

// Start implements rewind.Reporter. The meter's phase goes into JSON messages until Done.
func (r *reporter) Start(phase rewind.Phase, total int64, unit rewind.Unit) rewind.Meter {
	m := &meter{reporter: r, phase: phase, unit: unit, start: r.now()}
	m.total.Store(total)
	r.mu.Lock()
	r.running = append(r.running, m)
	r.mu.Unlock()
	return m
}

// Fail prints the error the program ends with, if there is one. Errors joined by errors.Join are printed one after
// the other: stock sometimes says first what it could not open and then what it wanted it for.
func (r *reporter) Fail(err error) { r.fail(err, false) }

// fail prints one error. more says that another follows.
func (r *reporter) fail(err error, more bool) {
	if err == nil {
		return
	}
	if list := joined(err); list != nil {
		for i, one := range list {
			r.fail(one, more || i < len(list)-1)
		}
		return
	}
	speech := r.dialect()
	if bad := (complaint{}); errors.As(err, &bad) {
		// getopt writes by itself, with argv[0] as it is and without "error: "; stock adds the hint.
		if bad.text != "" {
			_, _ = fmt.Fprintf(r.screen, "%s: %s\n", r.self.path, bad.text)
		}
		before := ""
		if speech.marksParts() {
			before = r.self.name + ": hint: "
		}
		_, _ = fmt.Fprintf(r.screen, "%s%s\n", before, tryHelp(r.self))
		return
	}
	words := fault.Error{Text: err.Error()}
	message := fault.Message{Format: "%s", Args: []any{err.Error()}}
	if inner := (*fault.Error)(nil); errors.As(err, &inner) {
		words.Detail, words.Hint, words.Advice, words.Own = inner.Detail, inner.Hint, inner.Advice, inner.Own
		if inner.Text == err.Error() {
			message = inner.Message()
		}
	}
	said := speech.say(message)
	words.Text = strings.TrimSuffix(said.text, "\n")
	if said.detail != "" {
		words.Detail = said.detail
	}
	if r.leavesOutAdvice() && words.Own {
		// Stock has no such error, and so no words of its own that must not be added to.
		words.Hint = strings.Trim(words.Hint+"\n"+words.Advice, "\n")
	}
	if r.format == textFormat && !speech.marksParts() {
		r.failBefore15(words, speech.severity(message, more || words.Detail != ""))
		return
	}
	r.log.Error(words.Text,
		r.part(detailPart, words.Detail), r.part(hintPart, words.Hint), r.part(advicePart, words.Advice), r.phase())
}

// failBefore15 prints an error as 13 and 14 do: a detail is an error of its own.
func (r *reporter) failBefore15(words fault.Error, severity string) {
	hint := zap.Skip()
	if words.Hint != "" {
		hint = zap.String(bareHintPart, words.Hint)
	}
	if words.Detail == "" {
		r.log.Error(words.Text, zap.String(severityPart, severity), hint)
		return
	}
	r.log.Error(words.Text, zap.String(severityPart, severity))
	if strings.HasPrefix(words.Detail, commandWas) {
		severity = "fatal"
	}
	r.log.Error(words.Detail, zap.String(severityPart, severity), hint)
}

// commandWas begins the one detail that ends 13 and 14.
const commandWas = "Command was: "

// joined returns the errors put together by errors.Join, also behind wrappers that say nothing of their own; and nil for
// any other error, such as one that was formatted with several causes.
func joined(err error) []error {
	for {
		if several, ok := err.(interface{ Unwrap() []error }); ok {
			if err.Error() != errors.Join(several.Unwrap()...).Error() {
				return nil
			}
			return several.Unwrap()
		}
		inner := errors.Unwrap(err)
		if inner == nil || inner.Error() != err.Error() {
			return nil
		}
		err = inner
	}
}

// leavesOutAdvice reports whether what is written is to be like stock's. Stock has no JSON.
func (r *reporter) leavesOutAdvice() bool { return r.self.stock && r.format == textFormat }

// part makes a field of a part of a message that is there and may be said here.
func (r *reporter) part(name, text string) zap.Field {
	if text == "" || name == advicePart && r.leavesOutAdvice() {
		return zap.Skip()
	}
	return zap.String(name, text)
}

// phase is the phase begun last of those still running.
func (r *reporter) phase() zap.Field {
	if r.format != jsonFormat {
		return zap.Skip()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.running) == 0 {
		return zap.Skip()
	}
	return zap.String("phase", string(r.running[len(r.running)-1].phase))
}
