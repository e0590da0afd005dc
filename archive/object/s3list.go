package object

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// List implements Bucket. Names that no Bucket could open (validKey) are left out, and so are the empty objects named
// "folder/" that some tools make.
func (b *s3Bucket) List(ctx context.Context, prefix string, fn func(Object) error) error {
	if !validPrefix(prefix) {
		return badKey(b.Path(prefix))
	}
	last := ""
	return b.pages(ctx, prefix, "", func(p *page) (bool, error) {
		for _, o := range p.objects {
			key, size := aws.ToString(o.Key), aws.ToInt64(o.Size)
			if err := b.checkName(prefix, last, key); err != nil {
				return false, err
			}
			last = key
			if !validKey(key) {
				continue
			}
			if size < 0 {
				return false, b.lies(prefix, "it gives object \"%s\" a size of %d bytes", clean(key), size)
			}
			if err := fn(Object{Key: key, Size: size}); err != nil {
				return false, err
			}
		}
		return true, nil
	})
}

// Folders implements Bucket.
func (b *s3Bucket) Folders(ctx context.Context, folder string, limit int) ([]string, error) {
	if !validFolder(folder) {
		return nil, badKey(b.Path(folder))
	}
	var names []string
	last := ""
	if limit <= 0 {
		return nil, nil
	}
	err := b.pages(ctx, folder, "/", func(p *page) (bool, error) {
		for _, common := range p.prefixes {
			name := aws.ToString(common.Prefix)
			if err := b.checkName(folder, last, name); err != nil {
				return false, err
			}
			last = name
			name, ok := strings.CutSuffix(strings.TrimPrefix(name, folder), "/")
			if !ok || strings.Contains(name, "/") {
				return false, b.lies(folder, "it names \"%s\" as a folder", clean(last))
			}
			if !validKey(folder + name) {
				continue
			}
			if names = append(names, name); len(names) == limit {
				return false, nil
			}
		}
		return true, nil
	})
	slices.Sort(names) // they came as they sort with a slash at their end
	return names, err
}

// checkName holds a listing to what was asked for. A server may lie, and a listing in no order might never end.
func (b *s3Bucket) checkName(prefix, last, name string) error {
	if !strings.HasPrefix(name, prefix) {
		return b.lies(prefix, "it names \"%s\"", clean(name))
	}
	if last != "" && name <= last {
		return b.lies(prefix, "it names \"%s\" after \"%s\"", clean(name), clean(last))
	}
	return nil
}

func (b *s3Bucket) lies(prefix, format string, args ...any) error {
	return fault.New("%s: the server's answer is not what was asked for: "+format,
		append([]any{b.could("could not list", b.Path(prefix))}, args...)...).
		Advise("Is this server, or a proxy before it, compatible with Amazon S3?")
}

// page is what is looked at of a page of a listing.
type page struct {
	objects  []types.Object
	prefixes []types.CommonPrefix
	more     bool
	next     string
}

// pages calls fn for each page until there are no more, or it returns false.
func (b *s3Bucket) pages(ctx context.Context, prefix, delimiter string, fn func(*page) (bool, error)) error {
	ctx = context.WithValue(ctx, wholeAnswer{}, true)
	token := ""
	for range b.opts.MaxPages {
		p, err := b.page(ctx, prefix, delimiter, token)
		if err != nil {
			return b.explain(ctx, "could not list", b.Path(prefix), err)
		}
		goOn, err := fn(p)
		if err != nil || !goOn || !p.more {
			return err
		}
		if p.next == "" || p.next == token {
			return b.lies(prefix, "it says that there is more, but not where to go on")
		}
		token = p.next
	}
	return fault.New("%s: still not at the end after %d pages", b.could("could not list", b.Path(prefix)), b.opts.MaxPages).
		Advise("Name the archive's own prefix, not one with other data below it.")
}

func (b *s3Bucket) page(ctx context.Context, prefix, delimiter, token string) (*page, error) {
	tries := &attempts{b: b, path: b.Path(prefix)}
	if b.set.ListV1 {
		out, err := b.client.ListObjects(ctx, &s3.ListObjectsInput{
			Bucket: &b.set.Bucket, Prefix: optional(prefix), Delimiter: optional(delimiter), Marker: optional(token), RequestPayer: b.payer(),
		}, tries.with)
		if err != nil {
			return nil, err
		}
		if out.IsTruncated == nil && out.Name == nil {
			return nil, errNotListing
		}
		p := &page{objects: out.Contents, prefixes: out.CommonPrefixes, more: aws.ToBool(out.IsTruncated), next: aws.ToString(out.NextMarker)}
		// Without delimiter, the next page begins after the last name of this one.
		if n := len(p.objects); p.next == "" && delimiter == "" && n > 0 {
			p.next = aws.ToString(p.objects[n-1].Key)
		}
		return p, nil
	}
	out, err := b.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{
		Bucket: &b.set.Bucket, Prefix: optional(prefix), Delimiter: optional(delimiter), ContinuationToken: optional(token), RequestPayer: b.payer(),
	}, tries.with)
	if err != nil {
		return nil, err
	}
	if out.IsTruncated == nil && out.Name == nil {
		return nil, errNotListing
	}
	return &page{
		objects: out.Contents, prefixes: out.CommonPrefixes, more: aws.ToBool(out.IsTruncated), next: aws.ToString(out.NextContinuationToken),
	}, nil
}

// errNotListing is an answer in which the SDK found nothing of what all listings have, not even that there is no more. A web
// server with a page for everything must not pass for an empty archive.
var errNotListing = errors.New("no listing")

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
