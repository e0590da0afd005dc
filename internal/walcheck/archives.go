package walcheck

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"

	"github.com/fastrewind/fastrewind/archive/layout"
	"github.com/fastrewind/fastrewind/archive/place"
	"github.com/fastrewind/fastrewind/internal/datadir"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// Options say which archives to look into, and what is known of the cluster.
type Options struct {
	place.Options // Cluster is filled in here

	SystemID uint64 // 0: that of the target, or else of the first segment that the archives have
	SegSize  uint32 // bytes; 0: likewise
}

// Archives are opened archives, in order of preference. All methods may be called from several goroutines at once, except
// Close.
type Archives struct {
	Places []*place.Place
	// Target is the control file of Options.TargetDir; nil without one.
	Target *pg.Control

	known Cluster
	root  *datadir.Root // of the target; nil without one
}

// Cluster is the cluster whose WAL an archive has. What is zero or nil is not known.
type Cluster struct {
	SystemID uint64
	SegSize  uint32 // bytes
	Version  *pg.Version
}

// Open opens the archives, and reads the target's control file if there is one. Errors are *fault.Error.
func Open(ctx context.Context, o Options) (a *Archives, err error) {
	a = &Archives{known: Cluster{SystemID: o.SystemID, SegSize: o.SegSize}}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
			a = nil
		}
	}()
	if o.TargetDir != "" {
		if err := a.openTarget(o.TargetDir); err != nil {
			return a, err
		}
	}
	if len(o.Where) == 0 {
		return a, fault.New("no archive specified (--wal-archive)").
			WithHint("It is s3://bucket/prefix, a directory, or \"auto\" for what the settings of pgBackRest, WAL-G or Barman say.")
	}
	o.Cluster = layout.Cluster{SystemID: a.known.SystemID, SegSize: a.known.SegSize}
	if a.known.Version != nil {
		o.Cluster.Major = a.known.Version.Major
	}
	a.Places, err = place.Open(ctx, o.Options)
	if err == nil && len(a.Places) == 0 {
		err = fault.New("no archive was found")
	}
	return a, err
}

// openTarget learns from a data directory of which cluster it is.
func (a *Archives) openTarget(dir string) error {
	data, err := datadir.ReadFile(dir, "global/pg_control", 2*pg.ControlSize)
	if err != nil {
		return err
	}
	if a.Target, err = pg.DecodeControl(data); err != nil {
		return fault.Because(err, "could not read the control file of \"%s\": %s", dir, err)
	}
	t := Cluster{SystemID: a.Target.SystemID, SegSize: a.Target.SegSize, Version: a.Target.Version}
	if a.known.SystemID != 0 && a.known.SystemID != t.SystemID || a.known.SegSize != 0 && a.known.SegSize != t.SegSize {
		return fault.New("\"%s\" has system identifier %d and WAL segments of %d bytes, others were asked for", dir, t.SystemID, t.SegSize)
	}
	a.known = t
	if a.root, err = datadir.OpenRoot(dir); err != nil {
		return fault.Because(err, "could not open directory \"%s\": %s", dir, fault.M(err))
	}
	return nil
}

// Close gives connections and descriptors back.
func (a *Archives) Close() error {
	err := place.CloseAll(a.Places)
	if a.root != nil {
		err = errors.Join(err, a.root.Close())
	}
	return err
}

// Known is the cluster as the options and the target say it.
func (a *Archives) Known() Cluster { return a.known }

// The long header of a segment's first page (XLogLongPageHeaderData, xlog_internal.h), little-endian; package wal knows all
// of it.
const (
	headerBytes   = 40
	headerTLI     = 4
	headerAddr    = 8
	headerSystem  = 24
	headerSegSize = 32
)

// errEnough ends a fetch whose rest is not wanted.
var errEnough = errors.New("enough was read")

// headerSink takes the first bytes of a segment, and ends the fetch then.
type headerSink []byte

func (h *headerSink) Write(p []byte) (int, error) {
	*h = append(*h, p[:min(len(p), headerBytes-len(*h))]...)
	if len(*h) == headerBytes {
		return 0, errEnough
	}
	return len(p), nil
}

// readHeader fetches the first page's header of a segment.
func readHeader(ctx context.Context, p *place.Place, name string) ([]byte, error) {
	var h headerSink
	_, err := p.FetchNamed(ctx, name, &h)
	switch {
	case len(h) == headerBytes:
		return h, nil
	case err == nil:
		err = fault.New("WAL file \"%s\" has %d bytes", name, len(h))
	}
	return nil, err
}

// clusterOf says of which cluster a page header is; ok is false if it is none.
func clusterOf(h []byte) (c Cluster, ok bool) {
	le := binary.LittleEndian
	c = Cluster{SystemID: le.Uint64(h[headerSystem:]), SegSize: le.Uint32(h[headerSegSize:])}
	for _, major := range pg.Majors() {
		if v, found := pg.VersionOf(major); found && v.WALMagic == le.Uint16(h) {
			c.Version = v
		}
	}
	return c, c.Version != nil && pg.ValidSegSize(c.SegSize)
}

// Identify completes what is known of the cluster from the first segments that a place has. What was known before counts
// more.
func (a *Archives) Identify(ctx context.Context, p *place.Place) (Cluster, error) {
	c := a.known
	if c.SystemID != 0 && c.SegSize != 0 && c.Version != nil {
		return c, nil
	}
	const most = 3 // segments looked into
	var names []string
	err := p.List(ctx, func(e layout.Entry) error {
		if e.Kind == layout.Segment {
			names = append(names, e.Name)
		}
		if len(names) == most {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return c, err
	}
	err = fault.Because(fs.ErrNotExist, "archive \"%s\" has no WAL segment", p)
	for _, name := range names {
		var h []byte
		if h, err = readHeader(ctx, p, name); err != nil {
			if ctx.Err() != nil {
				return c, err
			}
			continue
		}
		found, ok := clusterOf(h)
		if !ok {
			err = fault.New("\"%s\" in archive \"%s\" does not begin as a WAL segment of PostgreSQL %d to %d does", name, p,
				pg.Majors()[0], pg.Majors()[len(pg.Majors())-1])
			continue
		}
		if c.SystemID == 0 {
			c.SystemID = found.SystemID
		}
		if c.SegSize == 0 {
			c.SegSize = found.SegSize
		}
		if c.Version == nil {
			c.Version = found.Version
		}
		return c, nil
	}
	return c, err
}

// identifyAny is Identify of the first place that can tell.
func (a *Archives) identifyAny(ctx context.Context) (Cluster, error) {
	var first error
	for _, p := range a.Places {
		c, err := a.Identify(ctx, p)
		if err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			return c, err
		}
		if first == nil {
			first = err
		}
	}
	return a.known, first
}

// fetch writes a WAL file to w, from the first place that has a good copy. The others are passed over, as long as restart
// makes undone what was written of theirs, or nothing was and it is nil; their error is returned if none is good. With a
// restart, w must be what FetchNamed can restart, too.
func (a *Archives) fetch(ctx context.Context, name string, w io.Writer, restart func() error) (layout.Info, *place.Place, error) {
	var worst error
	c := &counter{w: w}
	if restart == nil {
		w = c
	}
	for i, p := range a.Places {
		if i > 0 && restart != nil {
			if err := restart(); err != nil {
				return layout.Info{}, p, errors.Join(worst, err)
			}
		}
		info, err := p.FetchNamed(ctx, name, w)
		if err == nil {
			return info, p, nil
		}
		if ctx.Err() != nil || c.n > 0 {
			return info, p, err
		}
		// What is there and bad says more than what is missing.
		if worst == nil || errors.Is(worst, fs.ErrNotExist) {
			worst = err
		}
	}
	return layout.Info{}, nil, worst
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// history reads how a timeline came to be: from the target, or else from the archives. Timeline 1 has no file.
func (a *Archives) history(ctx context.Context, tli pg.TLI) (pg.History, error) {
	if tli == 1 {
		return pg.ParseHistory(nil, 1)
	}
	name := pg.HistoryName(tli)
	if a.root != nil {
		data, err := a.root.ReadFile("pg_wal/"+name, pg.MaxHistoryBytes)
		if err == nil {
			return parseHistory(data, tli, a.root.Full("pg_wal/"+name))
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	var first error
	for _, p := range a.Places {
		data, err := p.FetchHistory(ctx, tli)
		if err == nil {
			return parseHistory(data, tli, p.String()+", "+name)
		}
		if first == nil || errors.Is(first, fs.ErrNotExist) {
			first = err
		}
	}
	return nil, first
}

func parseHistory(data []byte, tli pg.TLI, where string) (pg.History, error) {
	h, err := pg.ParseHistory(data, tli)
	var bad *pg.HistoryError
	if errors.As(err, &bad) {
		return nil, fault.Because(err, "%s", bad.Text).WithDetail("%s", bad.Detail).Advise("The file is %s.", where)
	}
	return h, err
}
