package datadir

import (
	"os"
	"strings"
	"sync"
)

// Root opens files of a data directory by their listed paths. A path can lead out of the directory only where List
// would have followed: through pg_wal and through the entries of pg_tblspc. Everywhere else ".." and links that point
// outside fail, whoever made them and when. Safe for concurrent use.
type Root struct {
	dir string
	top *os.Root

	mu       sync.Mutex
	followed map[string]*os.Root // by path: pg_wal, pg_tblspc/N
}

// OpenRoot opens the data directory dir. The error is the operating system's.
func OpenRoot(dir string) (*Root, error) {
	top, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Root{dir: dir, top: top, followed: make(map[string]*os.Root)}, nil
}

// Full is path as messages show it: with the data directory before it.
func (r *Root) Full(path string) string { return r.dir + "/" + path }

// Open opens the file with a listed path for reading. The error is the operating system's or os.Root's; the caller
// knows which of stock's messages it belongs to.
func (r *Root) Open(path string) (*os.File, error) {
	link, rest := followedPrefix(path)
	if link == "" {
		return r.top.Open(path)
	}
	root, err := r.follow(link)
	if err != nil {
		return nil, err
	}
	return root.Open(rest)
}

// Close closes the directories, not the files opened in them.
func (r *Root) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.top.Close()
	for _, root := range r.followed {
		err = firstError(err, root.Close())
	}
	clear(r.followed)
	return err
}

func (r *Root) follow(link string) (*os.Root, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if root, ok := r.followed[link]; ok {
		return root, nil
	}
	root, err := os.OpenRoot(r.Full(link))
	if err != nil {
		return nil, err
	}
	r.followed[link] = root
	return root, nil
}

// followedPrefix splits off the leading part of path that may be a link List follows; link is "" if there is none.
func followedPrefix(path string) (link, rest string) {
	if rest, ok := strings.CutPrefix(path, "pg_wal/"); ok {
		return "pg_wal", rest
	}
	if below, ok := strings.CutPrefix(path, "pg_tblspc/"); ok {
		// A name of "." or ".." must not become a root of its own.
		if name, rest, ok := strings.Cut(below, "/"); ok && name != "" && name != "." && name != ".." {
			return path[:len(path)-len(rest)-1], rest
		}
	}
	return "", path
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
