package wal

import (
	"fmt"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// Kind tells apart the three ways in which reading WAL can stop.
type Kind uint8

// The kinds.
const (
	// EndOfWAL: there is no record at this place and nothing that looks like one: zeros, or what a recycled segment
	// still holds of its former life.
	EndOfWAL Kind = iota + 1
	// Corrupt: there is something, and it is wrong.
	Corrupt
	// Unreadable: the bytes could not be had. Reason is empty; Err says why.
	Unreadable
)

// Error is returned by Reader. Its text is what PostgreSQL's reader would say.
type Error struct {
	Kind   Kind
	LSN    pg.LSN // of the record that was to be read
	Reason string // PostgreSQL's words; empty if Unreadable
	Err    error  // the cause, if Unreadable

	message fault.Message // Reason before it was formatted
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("could not read WAL at %v: %v", e.LSN, e.Err)
	}
	return e.Reason
}

func (e *Error) Unwrap() error { return e.Err }

// Message is Reason as it was before it was formatted, for who says it in the words of another major; or, if there is none,
// in the form of one.
func (e *Error) Message() fault.Message {
	if e.message.Format == "" {
		return fault.Message{Format: "%s", Args: []any{e.Reason}}
	}
	return e.message
}

func corrupt(at pg.LSN, format string, args ...any) *Error {
	return &Error{Kind: Corrupt, LSN: at, Reason: fmt.Sprintf(format, args...), message: fault.Message{Format: format, Args: args}}
}

func endOfWAL(at pg.LSN, format string, args ...any) *Error {
	return &Error{Kind: EndOfWAL, LSN: at, Reason: fmt.Sprintf(format, args...), message: fault.Message{Format: format, Args: args}}
}
