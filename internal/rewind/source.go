package rewind

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/fastrewind/fastrewind/fetch"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// source is what a rewind needs of either kind of source. fetch's documentation says what may be relied on.
type source interface {
	List(ctx context.Context, jobs int, progress func(entries int64)) ([]pg.Entry, error)
	ReadFile(ctx context.Context, path string, maxBytes int64) ([]byte, error)
	ControlFile(ctx context.Context) ([]byte, error)
	Fetch(ctx context.Context, ranges []pg.FileRange, emit func(i int, c pg.FileChunk) error) error
	Close() error
}

// liveSource is what only a running server can tell.
type liveSource interface {
	source
	// FlushLSN is how far the server's WAL is durable; only on a primary.
	FlushLSN(ctx context.Context) (pg.LSN, error)
	// PageBound is an LSN that no page given so far is newer than.
	PageBound(ctx context.Context) (pg.LSN, error)
	// PrimaryConnInfo is the value of primary_conninfo with which a standby reaches it. lost is what was left out because the
	// standby's major does not understand it.
	PrimaryConnInfo() (value string, lost []string)
}

func (r *run) openSource(ctx context.Context) error {
	if r.cfg.SourceDir != "" {
		dir, err := fetch.OpenDir(r.cfg.SourceDir)
		if errors.Is(err, fs.ErrNotExist) { // what stock misses first
			return fault.Because(err, "could not open file \"%s\" for reading: %s", filepath.Join(r.cfg.SourceDir, controlFile), fault.M(err)).
				Advise("There is no directory \"%s\": is the path of --source-pgdata right?", r.cfg.SourceDir)
		}
		if err != nil {
			return err
		}
		r.source = dir
		return nil
	}
	server, err := fetch.Connect(ctx, r.cfg.SourceServer, fetch.Options{
		Conns:       r.mostJobs,
		ProgramName: r.cfg.ProgramName,
		Debugf:      r.debugFunc(),

		StallTimeout: r.cfg.StallTimeout,
		RetryFor:     r.cfg.RetryFor,
		Event:        r.sourceEvent,
	})
	if err != nil {
		return err
	}
	r.source, r.live = server, server
	r.trip = server.RoundTrip()
	r.rep.Progress("connected to server")
	return nil
}

// sourceJobs is how many workers ask the source at first.
func (r *run) sourceJobs() int {
	if r.live == nil {
		return r.cfg.Jobs
	}
	return connections(r.cfg.Jobs, r.mostJobs, r.trip)
}

// connections is how many connections to a server copy at first: twice as many as there are jobs, since each of them
// waits for the server half of the time, and more the longer an answer takes to begin; but not more than most. The copier
// hires more if that is of use.
//
// A connection copies 4 MB in some 8 ms, so at a round trip of 5 ms a third of its time is waiting. What a statement
// itself takes is within the trip that was measured, some tenths of a millisecond, and counts for nothing.
func connections(jobs, most int, trip time.Duration) int {
	const perJob = 2 * time.Millisecond
	return min(most, 2*jobs+int(trip/perJob)*jobs)
}

// mostBatchBytes is how much one statement may ask a server for: more, the longer its answer takes to begin.
func mostBatchBytes(trip time.Duration) int64 {
	const near, far = 4 << 20, 64 << 20
	return min(near+near*int64(trip/time.Millisecond), far)
}

// sourceEvent tells the user that the source has trouble, and that it is over.
func (r *run) sourceEvent(e fetch.Event) {
	switch e.Kind {
	case fetch.EventWarning:
		r.rep.Warn(e.Text, "")
	case fetch.EventWaiting:
		r.rep.Note("the source does not answer (%v); trying again in %v", e.Err, e.Wait.Round(time.Millisecond))
	case fetch.EventReconnected:
		r.rep.Note("connected to the source again (%s)", e.Generation.Host)
	}
}

// debugFunc is the reporter's Debug, or nil where nobody listens.
func (r *run) debugFunc() func(string, ...any) {
	if !r.rep.DebugEnabled() {
		return nil
	}
	return r.rep.Debug
}

// where names the source in messages.
func (r *run) where() string {
	if r.live != nil {
		return "server"
	}
	return r.cfg.SourceDir
}

func (r *run) readSourceControl(ctx context.Context) (*pg.Control, error) {
	data, err := r.source.ControlFile(ctx)
	if err != nil {
		return nil, err
	}
	return decodeControl(data, "source", r.where())
}

// checkPair reads the source's control file and checks that the two clusters fit together (sanityChecks, pg_rewind.c).
func (r *run) checkPair(ctx context.Context) error {
	var err error
	if r.sourceCtl, err = r.readSourceControl(ctx); err != nil {
		return err
	}
	s, t := r.sourceCtl, r.target
	switch {
	case s.SystemID != t.SystemID:
		return fault.New("source and target clusters are from different systems").
			Advise("The source's system identifier is %d, the target's %d: they were not made by the same initdb.", s.SystemID, t.SystemID)
	case s.Version != t.Version || s.SegSize != t.SegSize:
		return fault.New("clusters are not compatible with this version of pg_rewind").
			Advise("The source is of PostgreSQL %d with WAL segments of %d MB, the target of %d with %d MB.",
				s.Version.Major, s.SegSize>>20, t.Version.Major, t.SegSize>>20)
	case t.ChecksumVersion == 0 && !t.WALLogHints:
		return NotRewindable.Of(fault.New("target server needs to use either data checksums or \"wal_log_hints = on\"").
			Advise("Without them, changes of hint bits leave no trace in the WAL and would survive the rewind. " +
				"Nothing can be done about it now: take a new base backup, and set wal_log_hints = on for the next time."))
	case !t.State.CleanlyShutDown():
		return fault.New("target server must be shut down cleanly").
			Advise("The target's state is \"%v\". Leave out --no-ensure-shutdown and --dry-run to have it recovered, "+
				"or start and stop it yourself.", t.State)
	case r.live == nil && !s.State.CleanlyShutDown():
		return fault.New("source data directory must be shut down cleanly").
			Advise("The source's state is \"%v\". Stop it, or connect to it with --source-server while it runs.", s.State)
	}
	return nil
}
