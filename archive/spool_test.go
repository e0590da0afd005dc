package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/pg"
)

// crowd is a place whose fetches wait until n of them run at once.
type crowd struct {
	n       int
	mu      sync.Mutex
	here    int
	arrived chan struct{} // closed when n are here
	most    int
	asked   map[pg.SegNo]int
}

func newCrowd(n int) *crowd {
	return &crowd{n: n, arrived: make(chan struct{}), asked: map[pg.SegNo]int{}}
}

func (c *crowd) fetch(ctx context.Context, seg pg.SegNo, path string) error {
	c.mu.Lock()
	c.here++
	c.asked[seg]++
	c.most = max(c.most, c.here)
	if c.most == c.n {
		select {
		case <-c.arrived:
		default:
			close(c.arrived)
		}
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.here--
	}()
	select {
	case <-c.arrived:
		return have(ctx, seg, path)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Commands run at once, as many as Jobs and no more: each waits until there are k of them.
func TestParallelCommands(t *testing.T) {
	const k = 5
	w := newWorld(t)
	here := filepath.Join(w.archive, "here")
	if err := os.Mkdir(here, 0o700); err != nil {
		t.Fatal(err)
	}
	for n := range pg.SegNo(2 * k) {
		put(t, w.archive, n+1, content(n+1))
	}
	command := fmt.Sprintf("touch %[1]s/%%f; while [ $(ls %[1]s | wc -l) -lt %[2]d ]; do sleep 0.01; done; cp %[3]s/%%f %%p", here, k, w.archive)
	s := w.spool(t, SpoolConfig{Fetchers: []Fetcher{NewCommand(CommandConfig{Command: command, Major: 15, SegSize: segSize})}, Jobs: k})
	var wg sync.WaitGroup
	for n := range pg.SegNo(2 * k) {
		wg.Go(func() {
			seg, err := s.Open(t.Context(), 1, n+1)
			if err != nil {
				t.Error(err)
				return
			}
			check(t, seg, n+1)
		})
	}
	wg.Wait()
}

func TestParallelBound(t *testing.T) {
	const k = 3
	c := newCrowd(k)
	s := newWorld(t).spool(t, SpoolConfig{Fetchers: []Fetcher{fetcher(c.fetch)}, Jobs: k, Window: 100})
	var wg sync.WaitGroup
	for i := range 60 { // each of 20 segments is wanted three times, and fetched once
		wg.Go(func() {
			n := pg.SegNo(i%20 + 1)
			seg, err := s.Open(t.Context(), 1, n)
			if err != nil {
				t.Error(err)
				return
			}
			glance(t, seg, n)
		})
	}
	wg.Wait()
	if c.most != k {
		t.Errorf("%d at once", c.most)
	}
	for n, times := range c.asked {
		if times != 1 {
			t.Errorf("segment %d was fetched %d times", n, times)
		}
	}
}

// held is how many segments and unfinished fetches there are on disk.
func held(t *testing.T, s *Spool) int {
	t.Helper()
	list, err := os.ReadDir(s.dir.path)
	if err != nil {
		t.Error(err)
	}
	n := 0
	for _, e := range list {
		if pg.IsSegmentName(e.Name()) {
			n++
			continue
		}
		inside, err := os.ReadDir(filepath.Join(s.dir.path, e.Name()))
		if err == nil && len(inside) > 0 {
			n++
		}
	}
	return n
}

// However readers come and go, there never are more files than the window allows besides those to be kept, and everybody
// gets what they ask for.
func TestWindow(t *testing.T) {
	const window, readers, segments = 4, 6, 30
	s := (*Spool)(nil)
	var mu sync.Mutex
	worst := 0
	kept := func(seg pg.SegNo) bool { return seg%10 == 7 } // 3 of 30
	look := func(ctx context.Context, seg pg.SegNo, path string) error {
		err := have(ctx, seg, path)
		mu.Lock()
		defer mu.Unlock()
		worst = max(worst, held(t, s))
		return err
	}
	s = newWorld(t).spool(t, SpoolConfig{
		Fetchers: []Fetcher{fetcher(look)}, Jobs: 3, Window: window,
		Retain: func(_ pg.TLI, seg pg.SegNo) bool { return kept(seg) },
	})
	var wg sync.WaitGroup
	for r := range readers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(r)))
			for range 30 {
				n := pg.SegNo(rng.IntN(segments) + 1)
				if rng.IntN(3) == 0 {
					if err := s.Prefetch(t.Context(), 1, n); err != nil {
						t.Error(err)
						return
					}
					continue
				}
				seg, err := s.Open(t.Context(), 1, n)
				if err != nil {
					t.Error(err)
					return
				}
				glance(t, seg, n)
			}
		})
	}
	// A prefetch waits for room; without readers nobody would make any. So some keep on reading.
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for n := pg.SegNo(1); ; n = n%segments + 1 {
		select {
		case <-done:
		default:
			seg, err := s.Open(t.Context(), 1, n)
			if err != nil {
				t.Fatal(err)
			}
			glance(t, seg, n)
			continue
		}
		break
	}
	if worst > window+3 || worst < window {
		t.Errorf("up to %d files, allowed are %d and 3 to be kept", worst, window)
	}
	for n := pg.SegNo(1); n <= segments; n++ {
		if _, ok := s.Keep(name(n)); kept(n) && !ok {
			t.Errorf("segment %d is gone", n)
		}
	}
}

// glance is a check that takes no time.
func glance(t *testing.T, s *Segment, n pg.SegNo) {
	t.Helper()
	defer s.Close()
	id := identity(t)
	if err := id.check(s, s.Path(), 1, n); err != nil || s.Size() != segSize {
		t.Errorf("size %d, %v", s.Size(), err)
	}
}

// What is open when its file goes stays readable; what was removed and is asked for again comes again; the order in which
// files go is: read longest ago first, unread ones last, and these only for a reader.
func TestEviction(t *testing.T) {
	c := newCrowd(1)
	ev := &events{}
	s := newWorld(t).spool(t, SpoolConfig{Fetchers: []Fetcher{fetcher(c.fetch)}, Window: 3, Event: ev.note})
	for n := pg.SegNo(1); n <= 2; n++ {
		mustOpen(t, s, n)
	}
	if err := s.Prefetch(t.Context(), 1, 3); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, s, 1) // used later than 2
	gone := func() (names []string) {
		for _, e := range ev.of(Evicted) {
			names = append(names, e.Segment)
		}
		return names
	}
	expect := func(what string, want ...pg.SegNo) {
		t.Helper()
		var names []string
		for _, n := range want {
			names = append(names, name(n))
		}
		if got := gone(); !slices.Equal(got, names) {
			t.Fatalf("%s: removed %v, want %v", what, got, names)
		}
		for _, n := range names {
			if _, ok := s.Keep(n); ok {
				t.Errorf("%s: %s is kept", what, n)
			}
		}
	}
	if err := s.Prefetch(t.Context(), 1, 4); err != nil {
		t.Fatal(err)
	}
	expect("a fetch ahead", 2)
	open, err := s.Open(t.Context(), 1, 5)
	if err != nil {
		t.Fatal(err)
	}
	expect("a reader", 2, 1)
	// Nothing is left but unread ones and one that is open: a fetch ahead must wait.
	ctx, cancel := context.WithCancelCause(t.Context())
	waits := make(chan error)
	go func() { waits <- s.Prefetch(ctx, 1, 6) }()
	eventually(t, "it waits", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.queue) == 1
	})
	cancel(errors.New("enough"))
	if err := <-waits; err == nil || err.Error() != "enough" {
		t.Errorf("waiting for room: %v", err)
	}
	// A reader need not: open ones go first, then unread ones.
	seven, err := s.Open(t.Context(), 1, 7)
	if err != nil {
		t.Fatal(err)
	}
	expect("another reader", 2, 1, 5)
	check(t, open, 5)
	eight, err := s.Open(t.Context(), 1, 8)
	if err != nil {
		t.Fatal(err)
	}
	expect("one more", 2, 1, 5, 7)
	nine, err := s.Open(t.Context(), 1, 9)
	if err != nil {
		t.Fatal(err)
	}
	expect("and one", 2, 1, 5, 7, 8)
	check(t, seven, 7)
	check(t, eight, 8)
	check(t, nine, 9)
	mustOpen(t, s, 2)
	if c.asked[2] != 2 || c.asked[3] != 1 || c.asked[6] != 0 {
		t.Errorf("fetched %v", c.asked)
	}
}

// A window of one is enough for any number of readers, even if each has a segment open and wants another.
func TestWindowOfOne(t *testing.T) {
	s := newWorld(t).spool(t, SpoolConfig{Fetchers: []Fetcher{fetcher(have)}, Jobs: 4, Window: 1})
	var wg sync.WaitGroup
	for r := range pg.SegNo(4) {
		wg.Go(func() {
			var before *Segment
			for n := r + 1; n < 40; n += 2 {
				seg, err := s.Open(t.Context(), 1, n)
				if err != nil {
					t.Error(err)
					return
				}
				if before != nil {
					glance(t, before, n-2)
				}
				before = seg
			}
			before.Close()
		})
	}
	wg.Wait()
}

// TestWrongSegment: what has the right name and size and is another segment all the same is refused, and the next place
// asked.
func TestWrongSegment(t *testing.T) {
	tests := []struct {
		what   string
		change func(b []byte) []byte
		want   []string // both values
	}{
		{"another cluster's", func(b []byte) []byte { b[24]++; return b }, []string{"7710427983572053949", "7710427983572053948"}},
		{"a later timeline's", func(b []byte) []byte { b[4] = 2; return b }, []string{"timeline 2", "expected 1"}},
		{"a later one", func([]byte) []byte { return content(4) }, []string{"0/400000", "0/300000"}},
		{"another version's", func(b []byte) []byte { b[0] = 0x13; return b }, []string{"D113", "D110"}},
		{"too short", func(b []byte) []byte { return b[:segSize-1] }, []string{"1048575", "1048576"}},
		{"too long", func(b []byte) []byte { return append(b, 0) }, []string{"1048576"}},
		{"nothing", func([]byte) []byte { return nil }, []string{" 0 ", "1048576"}},
	}
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			ev := &events{}
			bad := memory{3: tt.change(content(3)), 5: tt.change(content(3))}
			s := newWorld(t).spool(t, SpoolConfig{
				Fetchers: []Fetcher{Reader(bad, "bad archive", segSize), Reader(memory{3: content(3)}, "good archive", segSize)},
				Event:    ev.note,
			})
			mustOpen(t, s, 3)
			refused := ev.of(Refused)
			if len(refused) != 1 || refused[0].Place != "bad archive" || refused[0].Segment != name(3) || !errors.Is(refused[0].Err, ErrWrongSegment) {
				t.Fatalf("told %v", refused)
			}
			for _, v := range tt.want {
				if !strings.Contains(refused[0].Err.Error(), v) {
					t.Errorf("%q is not in: %v", v, refused[0].Err)
				}
			}
			if f := ev.of(Fetched); len(f) != 1 || f[0].Place != "good archive" {
				t.Errorf("told %v", f)
			}
			if _, err := s.Open(t.Context(), 1, 5); !errors.Is(err, ErrWrongSegment) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("no other has it: %v", err)
			}
		})
	}
}

// memory is an archive that is read directly.
type memory map[pg.SegNo][]byte

// Fetch implements Repository.
func (m memory) Fetch(_ context.Context, tli pg.TLI, seg pg.SegNo, w io.Writer) error {
	b, ok := m[seg]
	if !ok || tli != 1 {
		return fs.ErrNotExist
	}
	for chunk := range slices.Chunk(b, 10_000) {
		if _, err := w.Write(chunk); err != nil {
			return fmt.Errorf("decoding: %w", err)
		}
	}
	return nil
}

func TestReader(t *testing.T) {
	dir := t.TempDir()
	r := Reader(memory{3: content(3)}, "s3://bucket/prefix", segSize)
	path := filepath.Join(dir, name(3))
	if err := r.Fetch(t.Context(), 1, 3, path); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, content(3)) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if r.String() != "s3://bucket/prefix" {
		t.Error(r.String())
	}
	if err := r.Fetch(t.Context(), 1, 3, path); !errors.Is(err, errLocal) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is there already: %v", err)
	}
	if err := r.Fetch(t.Context(), 1, 3, filepath.Join(dir, "no", name(3))); !errors.Is(err, errLocal) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such directory: %v", err)
	}
	if err := r.Fetch(t.Context(), 1, 4, filepath.Join(dir, name(4))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("not there: %v", err)
	}
}

// What fails is not remembered: the next reader's fetch may succeed. What no place has, is, and
// so is that a command cannot be run.
func TestFailureIsNotKept(t *testing.T) {
	missing := &ledger{lacks: func(pg.SegNo) bool { return true }}
	m := newWorld(t).spool(t, SpoolConfig{Fetchers: []Fetcher{fetcher(missing.fetch)}})
	if err := m.Prefetch(t.Context(), 1, 3); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("ahead: %v", err)
	}
	for range 3 {
		if _, err := m.Open(t.Context(), 1, 3); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("got %v", err)
		}
	}
	if asked := missing.requests(); len(asked) != 1 {
		t.Errorf("asked %d times", len(asked))
	}

	w := newWorld(t)
	log := filepath.Join(w.archive, "log")
	final := w.command(t, "echo >> "+log+"; exit 127")
	for range 2 {
		if _, err := final.Open(t.Context(), 1, 3); err == nil || err.Error() != "restore_command failed: command not found" {
			t.Errorf("got %v", err)
		}
	}
	if ran, err := os.ReadFile(log); err != nil || len(ran) != 1 {
		t.Errorf("ran %d times: %v", len(ran), err)
	}

	fails := true
	s := newWorld(t).spool(t, SpoolConfig{Fetchers: []Fetcher{fetcher(func(ctx context.Context, seg pg.SegNo, path string) error {
		if fails {
			_ = os.WriteFile(path, []byte("half"), 0o600)
			return errors.New("boom")
		}
		return have(ctx, seg, path)
	})}})
	if _, err := s.Open(t.Context(), 1, 3); err == nil || !strings.Contains(err.Error(), "boom") {
		t.Fatalf("got %v", err)
	}
	fails = false
	mustOpen(t, s, 3)
}

// Cancelling the only one who waits stops the command with its children before Open returns; nobody else's is touched.
func TestCancellation(t *testing.T) {
	w := newWorld(t)
	pids := filepath.Join(w.archive, "pids")
	s := w.spool(t, SpoolConfig{
		Jobs: 3,
		Fetchers: []Fetcher{NewCommand(CommandConfig{
			Command: "case %f in *3|*4) sleep 600 & echo $! >> " + pids + "; wait;; esac; cp " + w.archive + "/%f %p",
			Major:   15, SegSize: segSize,
		})},
	})
	put(t, w.archive, 5, content(5))
	ctx, cancel := context.WithCancelCause(t.Context())
	const waiting = 4
	done := make(chan error, waiting)
	for _, n := range []pg.SegNo{3, 3, 4} { // two of them wait for the same
		go func() {
			_, err := s.Open(ctx, 1, n)
			done <- err
		}()
	}
	go func() { done <- s.Prefetch(ctx, 1, 4) }()
	var children []int
	eventually(t, "two commands run", func() bool {
		data, _ := os.ReadFile(pids)
		children = nil
		for line := range strings.Lines(string(data)) {
			var pid int
			if _, err := fmt.Sscanf(line, "%d\n", &pid); err == nil {
				children = append(children, pid)
			}
		}
		return len(children) == 2
	})
	mustOpen(t, s, 5)
	cancel(errors.New("enough"))
	for range waiting {
		if err := <-done; err == nil || err.Error() != "enough" {
			t.Errorf("got %v", err)
		}
	}
	for _, pid := range children {
		eventually(t, fmt.Sprintf("process %d has ended", pid), func() bool { return !alive(pid) })
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != 0 {
		t.Errorf("%d fetches are still running", s.running)
	}
}

// alive reports whether a process, not a child of ours, runs. One that is dead and not yet collected does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// A reader who gives up leaves the fetch to the others who wait for it; one who comes while it is being given up gets it.
func TestSharedCancellation(t *testing.T) {
	began, goOn := make(chan struct{}, 10), make(chan struct{})
	s := newWorld(t).spool(t, SpoolConfig{Fetchers: []Fetcher{fetcher(func(ctx context.Context, seg pg.SegNo, path string) error {
		began <- struct{}{}
		<-goOn // whatever the context says
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return have(ctx, seg, path)
	})}})
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error), make(chan error)
	open := func(ctx context.Context, done chan error) {
		seg, err := s.Open(ctx, 1, 3)
		if err == nil {
			seg.Close()
		}
		done <- err
	}
	go open(ctx, first)
	<-began
	cancel()
	eventually(t, "the fetch is given up", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return !s.entries[key{1, 3}].wanted()
	})
	go open(t.Context(), second)
	eventually(t, "the second waits", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.entries[key{1, 3}].wanted()
	})
	close(goOn)
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
	if err := <-second; err != nil {
		t.Errorf("the second: %v", err)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	w := newWorld(t)
	s := w.spool(t, SpoolConfig{Fetchers: []Fetcher{NewCommand(CommandConfig{Command: "cp " + w.archive + "/%f %p || sleep 600", Major: 15, SegSize: segSize})}})
	put(t, w.archive, 1, content(1))
	open, err := s.Open(t.Context(), 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	for n := pg.SegNo(2); n <= 4; n++ { // one runs, two wait for their turn
		go func() {
			_, err := s.Open(t.Context(), 1, n)
			done <- err
		}()
	}
	eventually(t, "all wait", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.running == 1 && len(s.queue) == 2
	})
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for range 3 {
		if err := <-done; !errors.Is(err, errClosed) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := s.Open(t.Context(), 1, 1); !errors.Is(err, errClosed) {
		t.Errorf("after the end: %v", err)
	}
	check(t, open, 1)
}

func TestDiskFull(t *testing.T) {
	mount := t.TempDir()
	margins := []int64{2 << 20, -1} // found out before it is full; and after
	err := unix.Mount("tmpfs", mount, "tmpfs", 0, "size=8m")
	real := err == nil
	if real {
		defer func() {
			if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}()
	} else { // whoever may not mount gets an imitation, which cannot fill up
		t.Logf("no file system of our own: %v", err)
		margins = margins[:1]
	}
	full := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, unix.ENOSPC) || errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), `could not write file "`+mount) ||
			!strings.HasSuffix(err.Error(), ": No space left on device") || !strings.Contains(advice(err), "MB free") {
			t.Errorf("%s: %v (%s)", what, err, advice(err))
		}
	}
	// Files that may go make room for others: any number of segments pass through.
	w := newWorld(t)
	ev := &events{}
	s := w.spool(t, SpoolConfig{Fetchers: []Fetcher{fetcher(have)}, Dir: mount, Window: 100, Margin: 2 << 20, Jobs: 2, Event: ev.note})
	if !real {
		s.free = smallDisk(t, s, 8<<20)
	}
	for n := pg.SegNo(1); n <= 20; n++ {
		mustOpen(t, s, n)
	}
	if len(ev.of(Evicted)) < 12 {
		t.Errorf("removed %d", len(ev.of(Evicted)))
	}
	if free, err := s.free(); err != nil || free < 2<<20 {
		t.Errorf("%d bytes are left: %v", free, err)
	}
	s.Close()

	// Those that must not go do not.
	places := map[string]Fetcher{
		"a direct archive":  Reader(memory{}, "archive", segSize),
		"a restore_command": NewCommand(CommandConfig{Command: "cp " + w.archive + "/%f %p", Major: 15, SegSize: segSize}),
	}
	for n := pg.SegNo(1); n <= 20; n++ {
		put(t, w.archive, n, content(n))
		places["a direct archive"].(*reader).repo.(memory)[n] = content(n)
	}
	for what, place := range places {
		for _, margin := range margins {
			s := newWorld(t).spool(t, SpoolConfig{
				Fetchers: []Fetcher{place}, Dir: mount, Margin: margin, Retain: func(pg.TLI, pg.SegNo) bool { return true },
			})
			switch {
			case !real:
				s.free = smallDisk(t, s, 8<<20)
			case margin < 0:
				s.free = func() (int64, error) {
					free, err := s.dir.free()
					if free > 0 {
						free += segSize // as if somebody else were faster
					}
					return free, err
				}
			}
			var err error
			n := pg.SegNo(1)
			for ; err == nil && n <= 20; n++ {
				var seg *Segment
				if seg, err = s.Open(t.Context(), 1, n); err == nil {
					check(t, seg, n)
				}
			}
			full(fmt.Sprintf("%s, margin %d, segment %d", what, margin, n-1), err)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// A prefetch that finds no room is dropped; a reader waits for what is on its way, and takes its room.
func TestDiskFullAhead(t *testing.T) {
	goOn := make(chan struct{})
	s := newWorld(t).spool(t, SpoolConfig{Window: 10, Jobs: 2, Fetchers: []Fetcher{fetcher(func(ctx context.Context, seg pg.SegNo, path string) error {
		if seg == 1 {
			<-goOn
		}
		return have(ctx, seg, path)
	})}})
	s.free = smallDisk(t, s, segSize+segSize/2) // room for one
	first, second := make(chan error), make(chan error)
	go func() { first <- s.Prefetch(t.Context(), 1, 1) }()
	eventually(t, "it is fetched", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.running == 1
	})
	go func() {
		seg, err := s.Open(t.Context(), 1, 2)
		if err == nil {
			seg.Close()
		}
		second <- err
	}()
	eventually(t, "the reader waits", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.queue) == 1
	})
	close(goOn)
	if err := <-first; err != nil {
		t.Errorf("ahead: %v", err)
	}
	if err := <-second; err != nil {
		t.Errorf("the reader: %v", err)
	}
	if err := s.Prefetch(t.Context(), 1, 3); err != nil {
		t.Errorf("in the place of what was read: %v", err)
	}
	if err := s.Prefetch(t.Context(), 1, 4); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("in the place of what was not: %v", err)
	}
}

// smallDisk is the free space of a file system of size bytes that holds nothing but s's files.
func smallDisk(t *testing.T, s *Spool, size int64) func() (int64, error) {
	return func() (int64, error) { return size - int64(held(t, s))*segSize, nil }
}
