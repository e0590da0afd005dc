package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cheggaaa/pb/v3"
	"go.uber.org/zap"

	"github.com/fastrewind/fastrewind/internal/rewind"
)

// progressStyle is a way to show progress.
type progressStyle uint8

const (
	noProgress    progressStyle = iota
	barProgress                 // a bar on the terminal for the phase begun last, and a line for each phase that ended
	lineProgress                // lines of text, at most one a second for each phase, and one at its end
	jsonProgress                // the same as JSON objects
	stockProgress               // stock's line for the copy, newlines between
	stockTerminal               // stock's line for the copy, drawn over itself
)

// styleOf chooses the style for what was asked and where the messages go.
func styleOf(o *options, self program, p *process) progressStyle {
	switch {
	case !o.progress:
		return noProgress
	case o.logFormat == jsonFormat:
		return jsonProgress
	case self.stock && p.tty:
		return stockTerminal
	case self.stock:
		return stockProgress
	case p.width() > 0:
		return barProgress
	default:
		return lineProgress
	}
}

// display shows meters. It is called with the reporter's mutex held, so never by two goroutines at once.
type display interface {
	tick(running []*meter, now time.Time) // a few times a second; running is in the order of start, never empty
	end(m *meter, now time.Time)          // the meter is done; called once
}

func newDisplay(style progressStyle, log *zap.Logger, s *screen) display {
	switch style {
	case barProgress:
		return &barDisplay{screen: s, lines: lineDisplay{log: log}}
	case lineProgress:
		return &lineDisplay{log: log}
	case jsonProgress:
		return &lineDisplay{log: log, json: true}
	case stockProgress:
		return &stockDisplay{screen: s}
	case stockTerminal:
		return &stockDisplay{screen: s, terminal: true}
	default: // noProgress
		return nil
	}
}

// stockDisplay is progress_report of pg_rewind.c: the copy only, at most once in a second of the clock and at the end.
type stockDisplay struct {
	screen   *screen
	terminal bool
	last     int64 // second of the last report, since 1970
}

func (d *stockDisplay) tick(running []*meter, now time.Time) {
	for _, m := range running {
		// Stock reports when data arrives, so not before any did.
		if m.phase != rewind.PhaseCopy || m.done.Load() == 0 || now.Unix() == d.last {
			continue
		}
		d.last = now.Unix()
		if d.terminal {
			d.screen.draw(stockLine(m.done.Load(), m.total.Load()) + "\r")
		} else {
			d.screen.settle(stockLine(m.done.Load(), m.total.Load()) + "\n")
		}
	}
}

func (d *stockDisplay) end(m *meter, _ time.Time) {
	if m.phase == rewind.PhaseCopy {
		d.screen.settle(stockLine(m.done.Load(), m.total.Load()) + "\n")
	}
}

// stockLine is the line itself, for bytes. The percentage is taken before the total grows to what is done, and is 0
// of nothing.
func stockLine(done, total int64) string {
	percent := uint64(0)
	if total > 0 {
		percent = min(uint64(done)*100/uint64(total), 100)
	}
	total = max(total, done)
	size := strconv.FormatInt(total/1024, 10)
	return fmt.Sprintf("%*s/%s kB (%d%%) copied", len(size), strconv.FormatInt(done/1024, 10), size, percent)
}

// lineDisplay writes progress as messages.
type lineDisplay struct {
	log  *zap.Logger
	json bool
	last time.Time // when lines were written, or a phase was first seen
}

const lineInterval = time.Second

func (d *lineDisplay) tick(running []*meter, now time.Time) {
	newest := running[len(running)-1]
	if d.last.Before(newest.start) {
		d.last = newest.start // a phase shorter than a second has only its last line
	}
	due := now.Sub(d.last) >= lineInterval
	for _, m := range running {
		rate := m.rate(now)
		if !due {
			continue
		}
		d.last = now
		if d.json {
			d.object(m, now, rate, false)
		} else {
			d.log.Info(string(m.phase) + ": " + strings.Join(parts(m, now, rate), ", "))
		}
	}
}

func (d *lineDisplay) end(m *meter, now time.Time) {
	average := perSecond(m.done.Load(), now.Sub(m.start))
	if d.json {
		d.object(m, now, average, true)
		return
	}
	took := now.Sub(m.start).Round(100 * time.Millisecond)
	if m.unit == rewind.None {
		d.log.Info(fmt.Sprintf("%s: %s", m.phase, took))
		return
	}
	line := fmt.Sprintf("%s: %s in %s", m.phase, amount(m), took)
	if average > 0 {
		line += " (" + pace(m.unit, average) + ")"
	}
	d.log.Info(line)
}

// object writes progress as a JSON object, numbers as numbers.
func (d *lineDisplay) object(m *meter, now time.Time, rate float64, final bool) {
	fields := []zap.Field{
		zap.String("phase", string(m.phase)),
		zap.Float64("elapsed_s", roundMilli(now.Sub(m.start).Seconds())),
		zap.Bool("final", final),
	}
	if unit, ok := unitNames[m.unit]; ok {
		done, total := m.counts()
		fields = append(fields, zap.String("unit", unit), zap.Int64("done", done))
		if total > 0 {
			fields = append(fields, zap.Int64("total", total))
		}
		fields = append(fields, zap.Int64("per_second", int64(rate)))
		if left, ok := m.left(rate); ok && !final {
			fields = append(fields, zap.Float64("eta_s", left.Seconds()))
		}
	}
	d.log.Info("progress", fields...)
}

func roundMilli(x float64) float64 { return float64(int64(x*1000+0.5)) / 1000 }

var unitNames = map[rewind.Unit]string{rewind.Bytes: "bytes", rewind.Files: "files"}

// parts are the pieces of a line of progress: how much, how fast, how long yet; for phases that count nothing, how
// long so far.
func parts(m *meter, now time.Time, rate float64) []string {
	if m.unit == rewind.None {
		return []string{now.Sub(m.start).Round(time.Second).String()}
	}
	how := amount(m)
	if done, total := m.counts(); total > 0 {
		how += fmt.Sprintf(" (%d%%)", int64(float64(done)/float64(total)*100))
	}
	list := []string{how}
	if rate > 0 {
		list = append(list, pace(m.unit, rate))
	}
	if left, ok := m.left(rate); ok {
		list = append(list, left.String()+" left")
	}
	return list
}

// amount says what is done, and of what total unless all is done.
func amount(m *meter) string {
	done, total := m.counts()
	switch {
	case m.unit == rewind.Bytes && total > done:
		return size(done) + " of " + size(total)
	case m.unit == rewind.Bytes:
		return size(done)
	case total > done:
		return fmt.Sprintf("%d of %d files", done, total)
	case done == 1:
		return "1 file"
	default:
		return fmt.Sprintf("%d files", done)
	}
}

func pace(unit rewind.Unit, rate float64) string {
	if unit == rewind.Bytes {
		return size(int64(rate)) + "/s"
	}
	return fmt.Sprintf("%d files/s", int64(rate))
}

// size writes bytes as pg_size_pretty does: powers of 1024, and the next unit from 10240 on.
func size(n int64) string {
	units := []string{"bytes", "kB", "MB", "GB", "TB"}
	i := 0
	for ; n >= 10*1024 && i < len(units)-1; i++ {
		n /= 1024
	}
	return fmt.Sprintf("%d %s", n, units[i])
}

// barDisplay draws a bar for the phase begun last. pb lays the line out; the screen puts it on the terminal, since only
// the screen knows about messages.
type barDisplay struct {
	screen *screen
	lines  lineDisplay
}

// The bar's line with a known total, and without: %phase amount [====>   ] 42% rate, time left%.
const (
	barKnown   = `{{string . "phase"}}: {{string . "amount"}} {{bar . "[" "=" ">" " " "]"}} {{percent . "%3.0f%%"}} {{string . "rest"}}`
	barUnknown = `{{string . "phase"}}: {{string . "amount"}} {{cycle . "|" "/" "-" "\\"}}`

	barMaxWidth = 110 // columns; a longer bar tells no more
)

func (d *barDisplay) tick(running []*meter, now time.Time) {
	for _, m := range running[:len(running)-1] {
		m.rate(now)
	}
	if width := d.screen.width(); width > 1 {
		// The last column stays free: some terminals wrap when it is written.
		d.screen.draw("\r" + bar(running[len(running)-1], now, min(width-1, barMaxWidth)) + "\x1b[K")
	}
}

// bar is one line without control characters, at most width columns wide.
func bar(m *meter, now time.Time, width int) string {
	if m.bar == nil {
		m.bar = new(pb.ProgressBar).Set("phase", string(m.phase))
	}
	done, total := m.counts()
	list := parts(m, now, m.rate(now))
	if total > 0 {
		m.bar.SetTemplateString(barKnown)
		m.bar.Set("amount", amount(m)).Set("rest", strings.Join(list[1:], ", "))
	} else {
		m.bar.SetTemplateString(barUnknown)
		m.bar.Set("amount", strings.Join(list, ", "))
	}
	line := m.bar.SetTotal(total).SetCurrent(done).SetWidth(width).String()
	return strings.TrimRight(pb.StripString(line, width), " ")
}

func (d *barDisplay) end(m *meter, now time.Time) {
	d.screen.erase()
	d.lines.end(m, now)
}
