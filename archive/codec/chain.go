package codec

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// Chain is how an object is written: encrypted with Key after it was compressed with Codec. It may be used by several
// goroutines at once.
type Chain struct {
	Key   Key // nil: not encrypted
	Codec Codec
}

// maxTrailing is how many bytes after the end of a tolerant format are passed over.
const maxTrailing = 64 << 10

// Copy decodes all of src into dst and returns how many bytes it wrote to it: never more than limit. An object that decodes
// to more is ErrTooLarge, after limit bytes were written.
//
// What is in dst is good for nothing unless err is nil: some formats can tell only at their end whether they were damaged.
// src is read to its end then, and at any time at most about twice the limit of it.
//
// An error of src or dst is returned as it is, whatever the decoders made of it. All others are *fault.Error with
// ErrDamaged, ErrTooLarge or ErrKey as cause. Decoders that panic are ErrDamaged.
func (c Chain) Copy(dst io.Writer, src io.Reader, limit int64) (n int64, err error) {
	limit = max(limit, 0)
	in := &source{r: src, left: stored(limit), limit: limit}
	out := &sink{w: dst, left: limit, limit: limit}
	defer func() {
		if p := recover(); p != nil {
			if in.busy || out.busy {
				panic(p) // not a decoder's: the caller's own reader or writer
			}
			err = damaged("it does not decode as %s: the decoder gave up (%v)", c, p)
		}
		n = out.n
	}()
	return 0, c.copy(out, in, limit)
}

// String names the formats, for messages: "lz4", "lz4 within OpenPGP".
func (c Chain) String() string {
	if c.Key == nil {
		return c.Codec.String()
	}
	return c.Codec.String() + " within " + c.Key.String()
}

// stored is the most bytes that can reasonably stand for limit ones. It keeps an endless object that decodes to nothing
// from being read forever.
func stored(limit int64) int64 {
	const slack = 1 << 20
	return limit + min(limit, 1<<62-limit-slack) + slack
}

// copy is Copy, less what must be done however it ends.
func (c Chain) copy(out *sink, in *source, limit int64) error {
	plain := in
	var crypt *bufio.Reader
	if c.Key != nil {
		crypt = getBuffer(in)
		defer putBuffer(crypt)
		r, err := c.Key.open(crypt)
		if err != nil {
			return first(out.err, in.err, err)
		}
		plain = &source{r: r, left: stored(limit), limit: limit}
	}
	br := getBuffer(plain)
	defer putBuffer(br)

	err := c.begins(br)
	if err == nil {
		err = c.Codec.decode(out, br, limit)
	}
	if err == nil {
		err = c.Codec.end(br)
	}
	if err == nil && crypt != nil {
		// The key has seen the end of what it protects; what comes after an OpenPGP message is passed over.
		err = passOver(crypt, c.Key)
	}
	// The first to fail is the cause, and those behind it have only been told so in their own words.
	return first(out.err, in.err, plain.err, c.explain(err, out.n))
}

// first returns the first error there is.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// begins confirms by the first bytes what the name has said.
func (c Chain) begins(br *bufio.Reader) error {
	head, err := br.Peek(maxMagic)
	if err != nil && err != io.EOF {
		return err
	}
	if c.Key == nil && bytes.HasPrefix(head, []byte(saltedMagic)) {
		return fault.Because(errKeyOrDamage, "it is encrypted by pgBackRest, and no passphrase is known").Advise(adviseKey)
	}
	f := c.Codec.f
	if f == nil || len(f.magic) == 0 || f.begins(head) {
		return nil
	}
	if len(head) == 0 {
		return damaged("it is empty, and not %s", c)
	}
	if c.Key != nil {
		return misfit("it is not %s: decrypted, it does not begin as %s does", c, f.name)
	}
	if like := looksLike(head); like != "" {
		return damaged("it is not %s: it begins as %s does", c, like)
	}
	return damaged("it is not %s: it begins with bytes %x", c, head[:min(len(head), 8)])
}

// decode copies what br decodes to.
func (c Codec) decode(out *sink, br *bufio.Reader, limit int64) error {
	if c.f == nil {
		_, err := br.WriteTo(out)
		return err
	}
	r, done, err := c.f.open(br, limit)
	if err != nil {
		return noEOF(err)
	}
	// Some write what they have decoded from where they decoded it to.
	if w, ok := r.(io.WriterTo); ok {
		_, err = w.WriteTo(out)
	} else {
		err = pump(out, r)
	}
	if err == nil {
		done()
	}
	return err
}

// noEOF is for steps whose end would be too early.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// pump is io.Copy with a buffer that is used again, and with an end to empty reads.
func pump(out *sink, r io.Reader) error {
	buf := copyBuffers.Get().(*[copyBuffer]byte) //nolint:errcheck // nothing else is ever put there
	defer copyBuffers.Put(buf)
	for empty := 0; empty < 100; empty++ {
		n, err := r.Read(buf[:])
		if n > 0 {
			empty = 0
			if _, err := out.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// end reads br to its end, so that whoever reads from a network sees the end, and an authenticating key the final tag.
func (c Codec) end(br *bufio.Reader) error {
	if c.f == nil || !c.f.tolerant {
		if _, err := br.Peek(1); err != io.EOF {
			return first(err, damaged("bytes follow the end of the %s", c))
		}
		return nil
	}
	return passOver(br, c)
}

// passOver reads what follows the end of what, to its own end.
func passOver(br *bufio.Reader, what fmt.Stringer) error {
	_, err := io.CopyN(io.Discard, br, maxTrailing+1)
	if err == nil {
		return damaged("more than %d bytes follow the end of the %s", maxTrailing, what)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// explain makes an error of ours from a decoder's, which came after n decoded bytes.
func (c Chain) explain(err error, n int64) error {
	var ours *fault.Error
	switch {
	case err == nil || errors.As(err, &ours):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return damaged("it does not decode as %s: it ends too early, after %d decoded bytes", c, n)
	default:
		return damaged("it does not decode as %s: after %d decoded bytes, %s", c, n, fault.M(err))
	}
}

// source is a reader whose failure is remembered, since decoders say it in their own words, or not at all.
type source struct {
	r     io.Reader
	left  int64 // bytes that may still come
	limit int64 // decoded bytes, for the message
	err   error // other than io.EOF
	busy  bool  // a panic now would be r's
}

func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	s.busy = true
	n, err := s.r.Read(p)
	s.busy = false
	if s.left -= int64(n); s.left < 0 {
		err = fault.Because(ErrTooLarge, "it is larger than %d decoded bytes can be", s.limit).Advise(adviseTooLarge)
	}
	if err != nil && err != io.EOF { //nolint:errorlint // a failure that wraps io.EOF is not the end
		s.err = err
	}
	return n, err
}

// sink is a writer that takes no more than it may, and remembers that it failed.
type sink struct {
	w     io.Writer
	n     int64 // bytes written
	left  int64 // bytes that may still be written
	limit int64
	err   error
	busy  bool // a panic now would be w's
}

func (s *sink) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	over := int64(len(p)) > s.left
	if over {
		p = p[:s.left]
	}
	s.busy = true
	n, err := s.w.Write(p)
	s.busy = false
	s.n += int64(n)
	s.left -= int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	if err == nil && over {
		err = tooLarge(s.limit)
	}
	s.err = err
	return n, err
}

const adviseTooLarge = "It is not what its name says, or WAL of a cluster with larger segments."

func tooLarge(limit int64) error {
	return fault.Because(ErrTooLarge, "it decodes to more than %d bytes", limit).Advise(adviseTooLarge)
}

// Buffers are used again: an object needs up to three.
const (
	readBuffer = 64 << 10
	copyBuffer = 128 << 10
)

var (
	readBuffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readBuffer) }}
	copyBuffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}
)

func getBuffer(r io.Reader) *bufio.Reader {
	br := readBuffers.Get().(*bufio.Reader) //nolint:errcheck // nothing else is ever put there
	br.Reset(r)
	return br
}

func putBuffer(br *bufio.Reader) {
	br.Reset(nil)
	readBuffers.Put(br)
}
