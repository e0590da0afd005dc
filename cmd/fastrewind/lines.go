package main

import (
	"strings"

	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
)

// Parts of a message beside its text; in JSON they are fields.
const (
	detailPart = "detail"
	hintPart   = "hint"
	advicePart = "advice" // ours; no line under stock's name

	// As 13 and 14 write: another word than error, and hints that are lines without anything before.
	severityPart = "severity"
	bareHintPart = "bare hint"
)

// lineCore is a zap core that writes messages as PostgreSQL's programs do (pg_log_generic, src/common/logging.c):
//
//	prog: [error: |warning: ]text
//	prog: detail: text
//	prog: hint: text
//	prog: advice: text
//
// Information and debug have no word before the text. Any field but the three parts is for JSON and left out here.
type lineCore struct {
	zapcore.LevelEnabler
	prog   string
	out    zapcore.WriteSyncer
	fields []zapcore.Field
}

var linePool = buffer.NewPool()

func (c *lineCore) With(fields []zapcore.Field) zapcore.Core {
	with := *c
	with.fields = append(c.fields[:len(c.fields):len(c.fields)], fields...)
	return &with
}

func (c *lineCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

// Write writes a message and its parts at once, so that nothing comes between them.
func (c *lineCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	buf := linePool.Get()
	defer buf.Free()
	word := ""
	switch {
	case e.Level >= zapcore.ErrorLevel:
		word = "error: "
	case e.Level == zapcore.WarnLevel:
		word = "warning: "
	}
	for _, f := range fields {
		if f.Key == severityPart {
			word = f.String + ": "
		}
	}
	c.line(buf, word, e.Message)
	for _, part := range []string{detailPart, hintPart, advicePart} {
		for _, list := range [][]zapcore.Field{c.fields, fields} {
			for _, f := range list {
				if f.Key == part && f.Type == zapcore.StringType {
					c.line(buf, part+": ", f.String)
				}
			}
		}
	}
	for _, f := range fields {
		if f.Key == bareHintPart {
			buf.AppendString(f.String + "\n")
		}
	}
	_, err := c.out.Write(buf.Bytes())
	return err
}

// line writes one part. Of a text with several lines only the first gets the prefix, as in stock; one final newline,
// which libpq's messages have, is dropped.
func (c *lineCore) line(buf *buffer.Buffer, word, text string) {
	buf.AppendString(c.prog)
	buf.AppendString(": ")
	buf.AppendString(word)
	buf.AppendString(strings.TrimSuffix(text, "\n"))
	buf.AppendByte('\n')
}

func (c *lineCore) Sync() error { return c.out.Sync() }

// jsonCore writes one JSON object a line: ts (RFC 3339), level, msg, and fields.
func jsonCore(out zapcore.WriteSyncer, level zapcore.LevelEnabler) zapcore.Core {
	return zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{
		TimeKey:        "ts",
		LevelKey:       "level",
		MessageKey:     "msg",
		LineEnding:     zapcore.DefaultLineEnding,
		EncodeTime:     zapcore.RFC3339NanoTimeEncoder,
		EncodeLevel:    zapcore.LowercaseLevelEncoder,
		EncodeDuration: zapcore.SecondsDurationEncoder,
	}), out, level)
}
