// Package place opens the WAL archives that a user has named: from an address, or from the settings of the tools that
// write them, to repositories that can be read.
package place

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/fastrewind/fastrewind/archive/layout"
	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/archive/object"
	"github.com/fastrewind/fastrewind/archive/settings"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// Auto is the word that stands for the settings that are there already.
const Auto = "auto"

// Options say what to open.
type Options struct {
	Where  []string // addresses, directories, or Auto, in order of preference
	Layout string   // of those named by address; empty: found out by looking

	// How buckets named by address are reached; what is empty is left to the SDK.
	Endpoint, Region, Profile, CAFile string
	PathStyle, RequesterPays          bool

	RestoreCommand string // the target's, for Auto; empty: it has none
	TargetDir      string // empty: there is no target at hand
	Cluster        layout.Cluster
	Concurrency    int           // bodies read at once
	StallTimeout   time.Duration // how long a server may give no byte of a body; 0: object's own

	Retried func(object.Retry) // told of each retry; may be nil
	Note    func(string)       // told, line by line, what was derived from which settings; without secrets; may be nil
}

// Place is one archive that can be read. Its methods may be called from several goroutines at once, except Close.
type Place struct {
	*layout.Repository
	bucket object.Bucket
}

// Close gives connections and descriptors back.
func (p *Place) Close() error { return object.Close(p.bucket) }

// String names the place in messages.
func (p *Place) String() string { return p.Archive().Where() }

// Segments is the place as archive.Reader wants it.
func (p *Place) Segments() Segments { return Segments{p.Repository} }

// Segments gives whole segments and nothing else.
type Segments struct{ repo *layout.Repository }

// Fetch writes one decoded segment to w.
func (s Segments) Fetch(ctx context.Context, tli pg.TLI, seg pg.SegNo, w io.Writer) error {
	_, err := s.repo.Fetch(ctx, tli, seg, w)
	return err
}

// Open opens all places that o names. The caller closes them. Errors are *fault.Error.
func Open(ctx context.Context, o Options) (places []*Place, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, CloseAll(places))
			places = nil
		}
	}()
	for _, where := range o.Where {
		archives, err := o.resolve(where)
		if err != nil {
			return places, err
		}
		for _, a := range archives {
			p, err := o.open(ctx, a)
			if err != nil {
				return places, err
			}
			places = append(places, p)
			o.note("WAL is looked for in %s", p.Describe())
		}
	}
	return places, nil
}

// CloseAll closes places.
func CloseAll(places []*Place) error {
	var errs []error
	for _, p := range places {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

func (o *Options) note(format string, args ...any) {
	if o.Note != nil {
		o.Note(fmt.Sprintf(format, args...))
	}
}

// resolve finds the archives that one word stands for.
func (o *Options) resolve(where string) ([]location.Archive, error) {
	dir := o.TargetDir
	if dir != "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, fault.Because(err, "could not get current working directory: %s", fault.M(err))
		}
		dir = abs
	}
	env := settings.OSEnv(o.RestoreCommand, dir)
	if where == Auto {
		found, err := settings.Auto(env)
		if err != nil {
			return nil, err
		}
		for _, n := range found.Notes {
			o.note("%s", n)
		}
		return found.Archives, nil
	}
	a, err := settings.ParseURL(where)
	if err != nil {
		return nil, err
	}
	a.Origin = "--wal-archive"
	if a.Layout == location.Unknown {
		a.Layout = location.Layout(o.Layout)
	}
	if a.Keys, err = settings.Keys(env); err != nil {
		return nil, err
	}
	if s := a.S3; s != nil {
		fill(&s.Endpoint, o.Endpoint)
		fill(&s.Region, o.Region)
		fill(&s.Profile, o.Profile)
		fill(&s.CAFile, o.CAFile)
		s.PathStyle = s.PathStyle || o.PathStyle
		s.RequesterPays = s.RequesterPays || o.RequesterPays
	}
	return []location.Archive{a}, nil
}

func fill(to *string, value string) {
	if *to == "" {
		*to = value
	}
}

func (o *Options) open(ctx context.Context, a location.Archive) (*Place, error) {
	var bucket object.Bucket
	var err error
	if a.S3 != nil {
		bucket, err = object.NewS3(ctx, *a.S3, object.Options{Concurrency: o.Concurrency, StallTimeout: o.StallTimeout, Retried: o.Retried})
	} else {
		bucket, err = object.NewDir(a.Dir)
	}
	if err != nil {
		return nil, err
	}
	repo, err := layout.Open(ctx, a, bucket, o.Cluster)
	if err != nil {
		return nil, errors.Join(err, object.Close(bucket))
	}
	return &Place{repo, bucket}, nil
}
