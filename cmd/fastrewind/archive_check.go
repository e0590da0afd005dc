package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/rewind"
	"github.com/fastrewind/fastrewind/internal/walcheck"
)

const usageArchiveCheck = `%[1]s archive check fetches segments, decodes them, and reads every record in them
as a server would, with all checksums. It prints what is missing or wrong.

Usage:
  %[1]s archive check --wal-archive=WHERE [OPTION]... FROM TO
  %[1]s archive check --wal-archive=WHERE [OPTION]... -D DIRECTORY

FROM and TO are names of segments, or LSNs (0/3000060) on the history of --timeline. Without
them it checks what a rewind of the data directory reads if it follows the newest timeline in
the archives: from the last checkpoint before that one forked off to where the directory's own
WAL ends. With -D, segments that are still in its pg_wal are read there.

Options:
      --timeline=NUM             of FROM and TO as LSNs (default: that of -D)
      --archive-jobs=NUM         segments read at a time (default: %[2]d)
  -P, --progress                 write progress messages
` + usageArchiveShared + `
Exit status is 0 if all is well, 1 if anything is missing or wrong, 3 if interrupted.
`

func (p *process) archiveCheck(self program) *cobra.Command {
	c := &cobra.Command{Use: "check FROM TO", Args: cobra.ArbitraryArgs}
	helps(c, p.stdout, fmt.Sprintf(usageArchiveCheck, self.name, defaultArchiveJobs))
	o := p.archiveOptions(self, c)
	o.flags.BoolVarP(&o.progress, "progress", "P", false, "")
	c.Flags().AddFlag(o.flags.Lookup("progress"))
	var timeline pg.TLI
	c.Flags().Var((*timelineValue)(&timeline), "timeline", "")
	c.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) != 0 && len(args) != 2 {
			return fault.New("expected are the first and the last segment, not %d arguments", len(args)).
				WithHint("Try \"%s archive check --help\" for more information.", self.name)
		}
		return o.run(func(ctx context.Context, a *walcheck.Archives, rep rewind.Reporter) error {
			var span *walcheck.Span
			var err error
			if len(args) == 2 {
				span, err = a.Between(ctx, args[0], args[1], timeline)
			} else {
				span, err = a.ForTarget(ctx)
			}
			if err != nil {
				return err
			}
			return o.check(ctx, a, span, rep)
		})
	}
	return c
}

// check checks a range, and says what came of it.
func (o *archiveOptions) check(ctx context.Context, a *walcheck.Archives, span *walcheck.Span, rep rewind.Reporter) error {
	out := o.results()
	first, last := span.Names()
	fields, words := clusterFields(span.Cluster)
	fields["first"], fields["last"], fields["segments"] = first, last, span.Segments()
	about := ""
	if span.About != "" {
		fields["about"] = span.About
		about = "\n" + span.About
	}
	began := o.p.now()
	meter := rep.Start(rewind.PhaseArchive, span.Segments()*int64(span.Cluster.SegSize), rewind.Bytes)
	err := out.end(out.line("check", fields, "%s to %s, %s\n%s%s", first, last, counted(span.Segments(), "segment"), words, about))
	var tally walcheck.Tally
	if err == nil {
		tally, err = a.Check(ctx, span, walcheck.CheckOptions{
			Jobs:     o.cfg.ArchiveJobs,
			Progress: meter.Add,
			Problem: func(p walcheck.Problem) {
				fields := map[string]any{"kind": p.Kind, "first": p.First, "last": p.Last, "segments": p.Segments, "text": p.String()}
				if p.LSN != 0 {
					fields["lsn"] = p.LSN.String()
				}
				_ = out.end(out.line("problem", fields, "%s", p)) // what follows fails for the same reason, and is returned
			},
		})
	}
	meter.Done()
	if err != nil {
		return err
	}
	took := o.p.now().Sub(began)
	if err := out.end(o.told(out, span, tally, took)); err != nil {
		return err
	}
	if tally.Problems > 0 {
		return fault.New("%s in a range of %s", counted(tally.Problems, "problem"), counted(span.Segments(), "WAL segment")).
			Advise("A rewind, or recovery, that needs these segments would fail.")
	}
	return nil
}

// told writes the last lines.
func (o *archiveOptions) told(out *results, span *walcheck.Span, t walcheck.Tally, took time.Duration) error {
	fields := map[string]any{
		"segments": span.Segments(), "read": t.Segments, "local": t.Local, "stored_bytes": t.Stored, "records": t.Records,
		"problems": t.Problems, "seconds": took.Seconds(),
	}
	local := ""
	if t.Local > 0 {
		local = fmt.Sprintf(", %d of them from pg_wal", t.Local)
	}
	more := ""
	if t.End != 0 {
		fields["end"] = t.End.String()
		more += fmt.Sprintf("\nWAL ends at %v, before the end of the last segment", t.End)
	}
	if t.Cut != 0 {
		fields["cut"] = t.Cut.String()
		more += fmt.Sprintf("\nthe last record, at %v, goes on behind the range and was not read to its end", t.Cut)
	}
	return out.line("total", fields, "%s read%s, %s, %s; %s%s", counted(t.Segments, "segment"), local, size(t.Segments*int64(span.Cluster.SegSize)),
		counted(t.Records, "record"), counted(t.Problems, "problem"), more)
}
