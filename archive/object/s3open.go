package object

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// Open implements Bucket. The body lives as long as ctx. Where the store keeps a checksum of the whole object, the last
// Read fails if what came is something else (ErrChecksum).
func (b *s3Bucket) Open(ctx context.Context, key string) (io.ReadCloser, Object, error) {
	if !validKey(key) {
		return nil, Object{}, badKey(b.Path(key))
	}
	body := &s3Body{b: b, ctx: ctx, key: key, tries: attempts{b: b, path: b.Path(key)}}
	out, err := b.client.GetObject(ctx, b.get(key), body.tries.with, withChecksum)
	if err != nil {
		return nil, Object{}, b.explain(ctx, "could not read", b.Path(key), err)
	}
	if out.ContentLength == nil || *out.ContentLength < 0 {
		_ = out.Body.Close() // nothing was read
		return nil, Object{}, fault.New("%s: the server does not say how large it is", b.could("could not read", b.Path(key))).
			Advise("Is this server, or a proxy before it, compatible with Amazon S3?")
	}
	body.rc, body.size = out.Body, *out.ContentLength
	body.etag, body.modified, body.sum = aws.ToString(out.ETag), out.LastModified, newChecksum(out)
	return body, Object{Key: key, Size: body.size}, nil
}

// withChecksum asks for the checksum that the store keeps, for newChecksum.
func withChecksum(o *s3.Options) {
	o.APIOptions = append(o.APIOptions, smithyhttp.SetHeaderValue("X-Amz-Checksum-Mode", "ENABLED"))
}

// enough is how many bytes have to come for an attempt to count as a success: a server that breaks off after each byte
// must not keep us for ever.
const enough = 64 << 10

// s3Body is an object's bytes, over as many requests as it takes.
type s3Body struct {
	b     *s3Bucket
	ctx   context.Context
	key   string
	tries attempts

	rc       io.ReadCloser // nil: to be opened again at off
	skip     int64         // bytes to be read from rc before those at off
	off      int64
	size     int64
	mark     int64 // where off was when tries began
	etag     string
	modified *time.Time
	sum      *checksum // nil: there is none
	err      error     // what every further Read returns
}

// Read implements io.Reader.
func (r *s3Body) Read(p []byte) (int, error) {
	if r.err != nil || len(p) == 0 {
		return 0, r.err
	}
	for r.off < r.size {
		if r.rc == nil {
			if err := r.reopen(); err != nil {
				return 0, r.end(err)
			}
		}
		if err := r.passOver(); err != nil {
			if err := r.broken(err); err != nil {
				return 0, r.end(err)
			}
			continue
		}
		n, err := r.rc.Read(p[:min(int64(len(p)), r.size-r.off)])
		if n > 0 {
			if r.sum != nil {
				_, _ = r.sum.Write(p[:n]) // a hash never fails
			}
			if r.off += int64(n); r.off-r.mark >= enough {
				r.mark, r.tries.used = r.off, 0
			}
			return n, nil // if there was an error, the next Read has it again
		}
		if err != nil {
			if err := r.broken(err); err != nil {
				return 0, r.end(err)
			}
		}
	}
	return 0, r.end(r.verify())
}

func (r *s3Body) end(err error) error {
	if r.rc != nil {
		_ = r.rc.Close() // what it has to say came with Read
		r.rc = nil
	}
	r.err = err
	return err
}

// verify is what is to be said after the last byte.
func (r *s3Body) verify() error {
	if r.sum == nil {
		return io.EOF
	}
	if got := r.sum.Sum(nil); !bytes.Equal(got, r.sum.want) {
		return fault.Because(ErrChecksum, "%s: its %s checksum is %x, and what was read has %x",
			r.b.could("could not read", r.b.Path(r.key)), r.sum.name, r.sum.want, got).
			Advise("It was damaged in the store or on the way.")
	}
	return io.EOF
}

// passOver reads what a server sends that knows nothing of ranges.
func (r *s3Body) passOver() error {
	n, err := io.CopyN(io.Discard, r.rc, r.skip)
	r.skip -= n
	return err
}

// broken takes note of a connection that broke, and waits.
func (r *s3Body) broken(err error) error {
	_ = r.rc.Close() // broken anyway
	r.rc, r.skip = nil, 0
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if r.ctx.Err() != nil {
		return r.fail(err)
	}
	err = &errBroken{r.off, r.size, err}
	wait, ok := r.tries.failed(err)
	if !ok {
		return r.fail(err)
	}
	if pause(r.ctx, wait) != nil {
		return r.fail(err)
	}
	return nil
}

func (r *s3Body) fail(err error) error {
	return r.b.explain(r.ctx, "could not read", r.b.Path(r.key), err)
}

// errBroken is a body that ended before its end.
type errBroken struct {
	off, size int64
	err       error
}

func (e *errBroken) Error() string { return e.err.Error() }
func (e *errBroken) Unwrap() error { return e.err }

// reopen asks for the rest of the object, of the same one.
func (r *s3Body) reopen() error {
	in := r.b.get(r.key)
	in.Range = aws.String(fmt.Sprintf("bytes=%d-", r.off))
	if r.etag != "" {
		in.IfMatch = &r.etag
	}
	out, err := r.b.client.GetObject(r.ctx, in, r.tries.with)
	if err != nil {
		var status interface{ HTTPStatusCode() int }
		if errors.As(err, &status) {
			switch status.HTTPStatusCode() {
			case http.StatusPreconditionFailed:
				return r.changed("it has another ETag now")
			case http.StatusRequestedRangeNotSatisfiable:
				return r.changed("it is shorter now")
			case http.StatusNotFound:
				return r.changed("it is gone")
			}
		}
		return r.fail(err)
	}
	err = r.same(out)
	if err != nil {
		_ = out.Body.Close() // nothing was read
		return err
	}
	r.rc = out.Body
	return nil
}

// same checks that an answer is the rest of what was begun. Servers that store files as they find them have no ETag for
// some; then the time of the last change must do.
func (r *s3Body) same(out *s3.GetObjectOutput) error {
	switch etag := aws.ToString(out.ETag); {
	case etag != r.etag:
		return r.changed("it has another ETag now")
	case etag == "" && r.modified != nil && out.LastModified != nil && !r.modified.Equal(*out.LastModified):
		return r.changed("it has another time of its last change now")
	}
	length := aws.ToInt64(out.ContentLength)
	if out.ContentRange == nil {
		if length != r.size {
			return r.changed(fmt.Sprintf("it has %d bytes now, not %d", length, r.size))
		}
		r.skip = r.off // the server knows nothing of ranges
		return nil
	}
	var first, last, total int64
	if n, err := fmt.Sscanf(*out.ContentRange, "bytes %d-%d/%d", &first, &last, &total); n != 3 || err != nil || first != r.off {
		return fault.New("%s: asked for its bytes from %d on, the server sent \"%s\"",
			r.b.could("could not read", r.b.Path(r.key)), r.off, clean(*out.ContentRange)).
			Advise("Is this server, or a proxy before it, compatible with Amazon S3?")
	}
	if total != r.size {
		return r.changed(fmt.Sprintf("it has %d bytes now, not %d", total, r.size))
	}
	return nil // should it send less than it could, that is one more broken connection
}

func (r *s3Body) changed(how string) error {
	return fault.New("%s: the object changed while it was read: %s", r.b.could("could not read", r.b.Path(r.key)), how).
		Advise("The connection broke at byte %d of %d, and the rest would be of another object. Who writes to a WAL archive twice?", r.off, r.size)
}

// Close implements io.Closer.
func (r *s3Body) Close() error {
	if r.err == nil {
		_ = r.end(fault.New("%s: it was closed", r.b.could("could not read", r.b.Path(r.key))))
	}
	return nil
}
