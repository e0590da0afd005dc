package fetch

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// listSQL lists some directories, each given as the server wants it and as a prefix of what is in it. $1 and $2 are
// arrays; the first column is the directory's position in them, from 1. A directory or file that has vanished gives no
// row, or nulls for size and isdir. There is no function for the target of links in general, so from a live source
// only those of tablespaces are known to be links (as with stock); the rest are what they lead to.
const (
	listSQL = `SELECT d.n, f.name, st.size, st.isdir, NULL::pg_catalog.text` + listFrom

	listTablespacesSQL = `SELECT d.n, f.name, st.size, st.isdir, pg_catalog.pg_tablespace_location(t.oid)` + listFrom + `
LEFT JOIN pg_catalog.pg_tablespace AS t ON t.oid::pg_catalog.text OPERATOR(pg_catalog.=) f.name`

	listFrom = `
FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) WITH ORDINALITY AS d(dir, prefix, n)
CROSS JOIN LATERAL pg_catalog.pg_ls_dir(d.dir, true, false) AS f(name)
CROSS JOIN LATERAL pg_catalog.pg_stat_file(d.prefix OPERATOR(pg_catalog.||) f.name, true) AS st`
)

// maxListAnswer is how many bytes one statement's part of a listing may have on the wire, with what has vanished.
const maxListAnswer = 4 << 30

const tablespaceDir = "pg_tblspc"

// maxDirsPerQuery is the most directories one statement lists: enough to make round trips cheap, few enough for the
// other connections to have something to do.
const maxDirsPerQuery = 32

// List lists the server's data directory, sorted by path in byte order. Up to jobs connections, as far as the Server
// has them, work on it, each with a handful of directories at a time; see datadir.List for progress.
//
// A statement whose connection broke is repeated. If another server answered meanwhile, or the same after a restart, the
// listing starts over: progress is then told a negative number, what it was told before.
func (s *Server) List(ctx context.Context, jobs int, progress func(entries int64)) ([]pg.Entry, error) {
	if progress == nil {
		progress = func(int64) {}
	}
	told := int64(0)
	for try := 1; ; try++ {
		before := s.Generation().Number
		entries, err := s.list(ctx, jobs, func(n int64) {
			atomic.AddInt64(&told, n)
			progress(n)
		})
		if err != nil || s.Generation().Number == before {
			return entries, err
		}
		if try == maxListings {
			return nil, fault.New("could not fetch file list: the source server was restarted %d times meanwhile", try)
		}
		progress(-atomic.SwapInt64(&told, 0))
	}
}

// maxListings is how often a listing is begun while the server restarts.
const maxListings = 5

func (s *Server) list(ctx context.Context, jobs int, progress func(entries int64)) ([]pg.Entry, error) {
	jobs = min(max(jobs, 1), s.pool.size())
	var (
		batches [][]pg.Entry
		total   listTotal
		level   = []string{""}
	)
	for len(level) > 0 {
		var (
			mu   sync.Mutex // guards batches, next
			next []string
		)
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(jobs)
		for dirs := range splitLevel(level, jobs*s.perConn()) {
			g.Go(func() error {
				entries, below, err := s.listDirs(gctx, dirs, &total)
				if err != nil {
					return err
				}
				progress(int64(len(entries)))
				mu.Lock()
				defer mu.Unlock()
				batches = append(batches, entries)
				next = append(next, below...)
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
		level = next
	}

	entries := make([]pg.Entry, 0, total.entries.Load())
	for i, b := range batches {
		entries = append(entries, b...)
		batches[i] = nil
	}
	slices.SortFunc(entries, func(a, b pg.Entry) int { return cmp.Compare(a.Path, b.Path) })
	// The server's readdir may give a name twice while files come and go in its directory; but not as different things.
	for i := 1; i < len(entries); i++ {
		a, b := &entries[i-1], &entries[i]
		if a.Path == b.Path && (a.Type != b.Type || a.LinkTarget != b.LinkTarget) {
			return nil, fault.New("unexpected result set while fetching file list").
				Advise("The source listed %q twice, as different things.", a.Path)
		}
	}
	return slices.CompactFunc(entries, func(a, b pg.Entry) bool { return a.Path == b.Path }), nil
}

// listTotal counts a whole listing, against its limits.
type listTotal struct {
	entries atomic.Int64
	bytes   atomic.Int64 // of their paths and link targets
}

func (t *listTotal) add(e *pg.Entry) error {
	if t.entries.Add(1) > maxEntries {
		return fault.New("could not fetch file list: the source has more than %d files and directories", maxEntries)
	}
	if t.bytes.Add(int64(len(e.Path)+len(e.LinkTarget))) > maxListBytes {
		return fault.New("could not fetch file list: the paths in the source have more than %d MB together", maxListBytes>>20)
	}
	return nil
}

// remove takes back an entry of an attempt that failed.
func (t *listTotal) remove(e *pg.Entry) {
	t.entries.Add(-1)
	t.bytes.Add(-int64(len(e.Path) + len(e.LinkTarget)))
}

// perConn is how many statements each connection is given for the directories of one depth: several, so that one big
// directory does not keep the others waiting; but only one where each of them takes a long way.
func (s *Server) perConn() int {
	if s.RoundTrip() > 2*time.Millisecond {
		return 1
	}
	return 4
}

// splitLevel cuts the directories of one depth into so many statements, about; pg_tblspc has one of its own.
func splitLevel(level []string, statements int) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		plain := make([]string, 0, len(level))
		for _, dir := range level {
			if dir != tablespaceDir {
				plain = append(plain, dir)
			} else if !yield([]string{dir}) {
				return
			}
		}
		size := min(max((len(plain)+statements-1)/statements, 1), maxDirsPerQuery)
		for dirs := range slices.Chunk(plain, size) {
			if !yield(dirs) {
				return
			}
		}
	}
}

// listDirs lists some directories in one statement; below are those found in them. total counts the whole listing.
func (s *Server) listDirs(ctx context.Context, dirs []string, total *listTotal) (entries []pg.Entry, below []string, err error) {
	names, prefixes := make([]string, len(dirs)), make([]string, len(dirs))
	for i, dir := range dirs {
		names[i], prefixes[i] = dir, dir+"/"
		if dir == "" {
			names[i], prefixes[i] = ".", ""
		}
	}
	sql := listSQL
	if dirs[0] == tablespaceDir {
		sql = listTablespacesSQL
	}
	params := [][]byte{textArray(names), textArray(prefixes)}
	err = s.ask(ctx, func(sess *session) (err error) {
		sess.begin(s.listAnswer, listPatience*sess.stall)
		for i := range entries {
			total.remove(&entries[i])
		}
		clear(entries)
		entries, below = entries[:0], nil // of an attempt that failed
		qctx, cancel := context.WithCancel(ctx)
		defer cancel()
		result := sess.conn.ExecParams(qctx, sql, params, []uint32{oidTextArray, oidTextArray}, binaryResult, binaryResult)
		for err == nil && result.NextRow() {
			var e pg.Entry
			var dir, listed bool
			if e, dir, listed, err = decodeListRow(result.Values(), prefixes); err != nil || !listed {
				continue
			}
			if err = total.add(&e); err != nil {
				continue
			}
			entries = append(entries, e)
			if dir {
				below = append(below, e.Path)
			}
		}
		if err != nil {
			cancel() // before Close, which would read the rest
		}
		if _, rerr := result.Close(); err == nil && rerr != nil {
			err = s.queryFailed(ctx, rerr, "could not fetch file list")
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return entries, below, nil
}

// decodeListRow makes an entry of one row of listSQL. listed is false if the file has vanished meanwhile. dir says that
// there is something below the entry, which is also true of the links of tablespaces. The row is not kept.
func decodeListRow(row [][]byte, prefixes []string) (e pg.Entry, dir, listed bool, err error) {
	unexpected := func(what string) (pg.Entry, bool, bool, error) {
		return pg.Entry{}, false, false, fault.New("unexpected result set while fetching file list").
			Advise("The source sent %s.", what)
	}
	if len(row) != 5 || len(row[0]) != 8 || row[1] == nil {
		return unexpected("a row of another form")
	}
	n := binary.BigEndian.Uint64(row[0])
	if n < 1 || n > uint64(len(prefixes)) {
		return unexpected("a file of a directory that was not asked for")
	}
	if row[2] == nil || row[3] == nil {
		return pg.Entry{}, false, false, nil
	}
	if len(row[2]) != 8 || len(row[3]) != 1 {
		return unexpected("a row of another form")
	}
	if len(row[1]) > maxPath || strings.IndexByte(string(row[1]), '/') >= 0 {
		return pg.Entry{}, false, false, badPath(string(row[1][:min(len(row[1]), 64)]), "it came as a file name, and is none")
	}
	e.Path = prefixes[n-1] + string(row[1])
	if err := VerifyPath(e.Path); err != nil {
		return pg.Entry{}, false, false, err
	}
	dir = row[3][0] != 0
	size := int64(binary.BigEndian.Uint64(row[2]))
	switch {
	case len(row[4]) > 0 && row[4][0] == '/':
		// A relative location means a tablespace in place, which is a directory.
		if prefixes[n-1] != tablespaceDir+"/" || !dir || !isOID(row[1]) {
			return unexpected("a symbolic link that is not a tablespace's")
		}
		e.Type, e.LinkTarget = pg.SymbolicLink, string(row[4])
		if err := verifyLink(e); err != nil {
			return pg.Entry{}, false, false, err
		}
	case dir:
		e.Type = pg.Directory
	case size < 0 || size > maxFileSize:
		return unexpected("an impossible file size")
	default:
		e.Type, e.Size = pg.RegularFile, size
	}
	return e, dir, true, nil
}

func isOID(name []byte) bool {
	if len(name) == 0 || len(name) > 10 {
		return false
	}
	for _, c := range name {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// verifyLink checks where the link of a tablespace leads: an absolute path of a form PostgreSQL could have stored.
func verifyLink(e pg.Entry) error {
	bad := len(e.LinkTarget) > maxPath || !utf8.ValidString(e.LinkTarget)
	for i := range len(e.LinkTarget) {
		bad = bad || e.LinkTarget[i] < ' ' || e.LinkTarget[i] == 0x7f
	}
	// The server stores locations without "..", and the root is no place for a tablespace.
	names := strings.Split(e.LinkTarget, "/")
	bad = bad || slices.Contains(names, "..") || slices.Contains(names, ".") || strings.Trim(e.LinkTarget, "/") == ""
	if bad {
		return fault.New("target of symbolic link \"%s\" in the source is unsafe", e.Path).
			Advise("It is %q: longer than %d bytes, the root, not valid UTF-8, or with control characters, \".\" or \"..\".",
				e.LinkTarget[:min(len(e.LinkTarget), 256)], maxPath).Ours()
	}
	return nil
}
