package s3test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// NewBucket makes a bucket.
func (s *Server) NewBucket(name string) {
	s.tb.Helper()
	if err := s.do(s.tb.Context(), http.MethodPut, "/"+name, nil, nil); err != nil {
		s.tb.Fatalf("s3test: bucket %s: %v", name, err)
	}
}

// Put stores an object as a client does: it has an ETag then. Further headers come in pairs; they must not need escapes.
func (s *Server) Put(bucket, key string, data []byte, header ...string) {
	s.tb.Helper()
	h := http.Header{}
	for pair := range slices.Chunk(header, 2) {
		h.Set(pair[0], pair[1])
	}
	if err := s.do(s.tb.Context(), http.MethodPut, "/"+bucket+"/"+key, data, h); err != nil {
		s.tb.Fatalf("s3test: object %s/%s: %v", bucket, key, err)
	}
}

// Delete removes an object.
func (s *Server) Delete(bucket, key string) {
	s.tb.Helper()
	if err := s.do(s.tb.Context(), http.MethodDelete, "/"+bucket+"/"+key, nil, nil); err != nil {
		s.tb.Fatalf("s3test: object %s/%s: %v", bucket, key, err)
	}
}

// CopyTree stores all regular files below a directory, under prefix and their paths. Where objects are plain files, they are
// copied, and have no ETag then.
func (s *Server) CopyTree(bucket, prefix, dir string) {
	s.tb.Helper()
	var g errgroup.Group
	g.SetLimit(copiers)
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		g.Go(func() error { return s.copy(bucket, path.Join(prefix, filepath.ToSlash(name)), file) })
		return nil
	})
	if err := errors.Join(err, g.Wait()); err != nil {
		s.tb.Fatalf("s3test: %s into bucket %s: %v", dir, bucket, err)
	}
}

// copiers is how many objects CopyTree stores at once.
const copiers = 8

func (s *Server) copy(bucket, key, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if s.Root == "" {
		return s.do(s.tb.Context(), http.MethodPut, "/"+bucket+"/"+key, data, nil)
	}
	to := filepath.Join(s.Root, bucket, key)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644)
}

// do makes a request and expects success.
func (s *Server) do(ctx context.Context, method, name string, body []byte, header http.Header) error {
	u, err := url.Parse(s.URL)
	if err != nil {
		return err
	}
	u.Path, u.RawPath = name, escape(name)
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	s.sign(req, body, time.Now().UTC())
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 4000))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s\n%s", method, name, resp.Status, answer)
	}
	return nil
}

// escape is the form of a path in S3's signatures: all but letters, digits, "-._~" and slashes is escaped.
func escape(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~/", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// sign signs a request without query (AWS Signature Version 4 in the Authorization header).
func (s *Server) sign(req *http.Request, body []byte, now time.Time) {
	sum := sha256.Sum256(body)
	stamp, day := now.Format("20060102T150405Z"), now.Format("20060102")
	req.Header.Set("X-Amz-Date", stamp)
	req.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))
	names := []string{"host"}
	for name := range req.Header {
		names = append(names, strings.ToLower(name))
	}
	slices.Sort(names)
	var headers strings.Builder
	for _, name := range names {
		value := req.Header.Get(name)
		if name == "host" {
			value = req.URL.Host
		}
		fmt.Fprintf(&headers, "%s:%s\n", name, strings.TrimSpace(value))
	}
	signed := strings.Join(names, ";")
	canonical := strings.Join([]string{req.Method, req.URL.EscapedPath(), "", headers.String(), signed, hex.EncodeToString(sum[:])}, "\n")
	scope := day + "/" + s.Region + "/s3/aws4_request"
	hash := sha256.Sum256([]byte(canonical))
	key := []byte("AWS4" + s.SecretKey)
	for _, part := range []string{day, s.Region, "s3", "aws4_request"} {
		key = mac(key, part)
	}
	signature := mac(key, "AWS4-HMAC-SHA256\n"+stamp+"\n"+scope+"\n"+hex.EncodeToString(hash[:]))
	req.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%x", s.AccessKey, scope, signed, signature))
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = io.WriteString(h, text) // a hash never fails
	return h.Sum(nil)
}
