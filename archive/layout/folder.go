package layout

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/fastrewind/fastrewind/archive/object"
	"github.com/fastrewind/fastrewind/internal/fault"
)

const (
	// maxCached is how many folders are remembered. One has 256 segments of 16 MB, or 4096 of 1 MB.
	maxCached = 32
	// maxListed is how many WAL files one folder may have, in all encodings, before it is something else.
	maxListed = 1 << 16
	// stale is how old a listing may be to prove that something is missing: archiving goes on meanwhile.
	stale = 15 * time.Second
)

// listed is an object that is a WAL file by its name.
type listed struct {
	objectName
	key  string
	size int64 // bytes as stored; -1 if not known
}

// folder is the listing of the WAL files directly below a prefix, by the names PostgreSQL gave them. It never changes once
// done is closed.
type folder struct {
	done  chan struct{}
	taken time.Time // when the listing began
	files map[string][]listed
	err   error
}

// folderCache remembers listings. A folder that several want at once is listed once.
type folderCache struct {
	bucket object.Bucket
	hashed bool
	now    func() time.Time

	mu    sync.Mutex
	all   map[string]*folder // by prefix
	order []string           // the keys of all, the one listed first in front
}

func newFolderCache(bucket object.Bucket, hashed bool) *folderCache {
	return &folderCache{bucket: bucket, hashed: hashed, now: time.Now, all: map[string]*folder{}}
}

// find returns the objects directly below prefix's last slash, beginning with prefix, that are the WAL file w. It lists
// again if what it remembers does not have it and is older than stale, or, if fresh, in any case.
func (c *folderCache) find(ctx context.Context, prefix string, w walName, fresh bool) ([]listed, error) {
	oldest := time.Time{}
	if fresh {
		oldest = c.now()
	}
	for {
		f, err := c.get(ctx, prefix, oldest)
		if err != nil {
			return nil, err
		}
		found := f.files[w.name]
		limit := c.now().Add(-stale)
		if len(found) > 0 || !f.taken.Before(limit) {
			return found, nil
		}
		oldest = limit
	}
}

// get returns the listing of a prefix that was begun at oldest or later.
func (c *folderCache) get(ctx context.Context, prefix string, oldest time.Time) (*folder, error) {
	for {
		c.mu.Lock()
		f := c.all[prefix]
		if f == nil || f.taken.Before(oldest) {
			f = c.begin(prefix)
			c.mu.Unlock()
			f.files, f.err = c.list(ctx, prefix)
			if f.err != nil {
				c.forget(prefix, f) // an error is not remembered
			}
			close(f.done)
			return f, f.err
		}
		c.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		// Whoever listed may have been told to stop; we were not.
		if f.err == nil || ctx.Err() == nil && !errors.Is(f.err, context.Canceled) && !errors.Is(f.err, context.DeadlineExceeded) {
			return f, f.err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// begin makes the entry of a listing that the caller is about to do. c.mu is held.
func (c *folderCache) begin(prefix string) *folder {
	f := &folder{done: make(chan struct{}), taken: c.now()}
	if c.all[prefix] == nil {
		if len(c.order) == maxCached {
			delete(c.all, c.order[0])
			c.order = append(c.order[:0], c.order[1:]...)
		}
		c.order = append(c.order, prefix)
	}
	c.all[prefix] = f
	return f
}

// forget removes f, unless something newer is in its place.
func (c *folderCache) forget(prefix string, f *folder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all[prefix] != f {
		return
	}
	delete(c.all, prefix)
	for i, p := range c.order {
		if p == prefix {
			c.order = append(c.order[:i], c.order[i+1:]...)
			break
		}
	}
}

func (c *folderCache) list(ctx context.Context, prefix string) (map[string][]listed, error) {
	files, n := map[string][]listed{}, 0
	dir := prefix[:strings.LastIndexByte(prefix, '/')+1]
	err := c.bucket.List(ctx, prefix, func(o object.Object) error {
		base, ok := strings.CutPrefix(o.Key, dir)
		if !ok || strings.Contains(base, "/") {
			return nil
		}
		name, ok := parseObjectName(base, c.hashed)
		if !ok {
			return nil
		}
		if n++; n > maxListed {
			return fault.New("\"%s\" has more than %d WAL files", c.bucket.Path(prefix), maxListed).
				Advise("No folder of a WAL archive is as large. Is the archive's address right?")
		}
		files[name.name] = append(files[name.name], listed{name, o.Key, o.Size})
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return files, nil // a folder that is missing has nothing in it
	}
	return files, err
}
