package rewind

import (
	"context"
	"errors"
	"slices"

	"github.com/fastrewind/fastrewind/archive"
	"github.com/fastrewind/fastrewind/archive/layout"
	"github.com/fastrewind/fastrewind/archive/object"
	"github.com/fastrewind/fastrewind/archive/place"
	"github.com/fastrewind/fastrewind/internal/fault"
)

// openArchives opens the archives that the user named, in that order.
func (r *run) openArchives(ctx context.Context) ([]archive.Fetcher, error) {
	if len(r.cfg.WALArchives) == 0 {
		return nil, nil
	}
	var err error
	r.wal.places, err = place.Open(ctx, place.Options{
		Where:          r.cfg.WALArchives,
		Layout:         r.cfg.WALArchiveLayout,
		Endpoint:       r.cfg.S3.Endpoint,
		Region:         r.cfg.S3.Region,
		Profile:        r.cfg.S3.Profile,
		CAFile:         r.cfg.S3.CAFile,
		PathStyle:      r.cfg.S3.PathStyle,
		RequesterPays:  r.cfg.S3.RequesterPays,
		RestoreCommand: r.restoreCmd,
		TargetDir:      r.cfg.TargetDir,
		Cluster:        layout.Cluster{SystemID: r.target.SystemID, Major: r.target.Version.Major, SegSize: r.target.SegSize},
		Concurrency:    r.cfg.ArchiveJobs,
		StallTimeout:   r.cfg.StallTimeout,
		Retried: func(e object.Retry) {
			r.rep.Debug("attempt %d to read %s failed, trying again in %v: %s", e.Attempt, e.Path, e.Wait, e.Reason)
			r.wal.meter.retried()
		},
		Note: func(line string) { r.rep.Note("%s", line) },
	})
	if f := (*fault.Error)(nil); errors.As(err, &f) {
		f.Own = true
	}
	if err != nil {
		return nil, err
	}
	fetchers := make([]archive.Fetcher, 0, len(r.wal.places)+1)
	for _, p := range r.wal.places {
		fetchers = append(fetchers, archive.Reader(p.Segments(), p.String(), r.target.SegSize))
	}
	return fetchers, nil
}

// wantsSettings reports whether the target's restore_command is wanted for what it says about the archive, not to be run.
func (c *Config) wantsSettings() bool { return slices.Contains(c.WALArchives, place.Auto) }
