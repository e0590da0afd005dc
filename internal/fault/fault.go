// Package fault is the one error type of fastrewind: what a DBA reads at three in the morning.
//
// Texts that stock pg_rewind also prints are used word for word, so that scripts and HA managers that look for them find
// them; what fastrewind adds goes into Advice. As lines of text under the name pg_rewind it is left out, but for errors that
// stock never comes to: see Ours.
// Errors are made once, where the fault is seen, and printed once, by cmd/fastrewind.
package fault

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"unicode"
)

// Error is a message in the four parts PostgreSQL's frontends print: the error itself, a detail, a hint, and, ours
// alone, advice. Err, if set, is the cause, for errors.Is and errors.As; it is not printed, since Text already says it.
type Error struct {
	Text   string // without prefix, without final newline; may hold several lines
	Detail string // stock's detail line, or empty
	Hint   string // stock's hint line, or empty
	Advice string // ours: what was found where, and what to do next; empty if Text says it all
	Own    bool   // see Ours
	Err    error  // the cause, or nil

	message Message // Text before it was formatted
}

// Message is a text before it is formatted. Its format also names it, as a msgid does in gettext: who prints it may put
// another in its place that takes the same arguments, as pg_rewind of one major words things otherwise than that of another.
type Message struct {
	Format string
	Args   []any // not to be changed
}

func (m Message) String() string { return fmt.Sprintf(m.Format, m.Args...) }

func (e *Error) Error() string { return e.Text }
func (e *Error) Unwrap() error { return e.Err }

// ErrFatal is in the chain of errors at which stock ends on the spot (pg_fatal), without a second message about what it
// wanted the thing for.
var ErrFatal = errors.New("fatal")

// ErrSourceSize is in the chain of the error that a file of a source directory has another size than listed. PostgreSQL's own
// tests (009_growing_files.pl) want it to be the last thing said under the name pg_rewind.
var ErrSourceSize = errors.New("size of a source file")

// New makes an Error whose text is formatted as by fmt.Sprintf.
func New(format string, args ...any) *Error {
	return &Error{Text: fmt.Sprintf(format, args...), message: Message{format, args}}
}

// Because makes an Error with a cause. The text does not show the cause by itself: end it with M(cause) where stock
// prints %m.
func Because(cause error, format string, args ...any) *Error {
	return &Error{Text: fmt.Sprintf(format, args...), Err: cause, message: Message{format, args}}
}

// Message is Text before it was formatted. Of an error that says no more than its cause, it is the cause's.
func (e *Error) Message() Message {
	if inner := (*Error)(nil); e.message.Format == "%s" && errors.As(e.Err, &inner) && inner.Text == e.Text {
		return inner.Message()
	}
	if e.message.String() != e.Text { // it was set, or an argument has changed
		return Message{"%s", []any{e.Text}}
	}
	return e.message
}

// WithDetail sets the detail line and returns e.
func (e *Error) WithDetail(format string, args ...any) *Error {
	e.Detail = fmt.Sprintf(format, args...)
	return e
}

// WithHint sets the hint line and returns e.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// Advise sets the advice and returns e.
func (e *Error) Advise(format string, args ...any) *Error {
	e.Advice = fmt.Sprintf(format, args...)
	return e
}

// Ours says that stock never comes to this error, whatever its text, and returns e: there is no output of stock's that ours
// would have to be like, so the advice is said under the name pg_rewind, too, as a hint.
func (e *Error) Ours() *Error {
	e.Own = true
	return e
}

// M is C's strerror for a Go error: the text of the errno inside, with the capital letter the C library gives it, or
// the error's own text if there is no errno.
func M(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		text := errno.Error()
		r := []rune(text)
		return string(unicode.ToUpper(r[0])) + string(r[1:])
	}
	if err == nil {
		return "Success"
	}
	return strings.TrimSpace(err.Error())
}
