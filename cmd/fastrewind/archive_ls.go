package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fastrewind/fastrewind/archive/place"
	"github.com/fastrewind/fastrewind/internal/rewind"
	"github.com/fastrewind/fastrewind/internal/walcheck"
)

const usageArchiveLs = `%[1]s archive ls lists the WAL in archives: by timeline, with ranges of segments, the gaps
between them, where timelines forked off, partial segments and the labels of base backups.

Usage:
  %[1]s archive ls --wal-archive=WHERE [OPTION]...

Options:
      --long                     one line for each object: kind, name, bytes, encoding, path
      --json                     write one JSON object a line; the same as --log-format=json
` + usageArchiveShared

func (p *process) archiveLs(self program) *cobra.Command {
	c := &cobra.Command{Use: "ls", Args: cobra.NoArgs}
	helps(c, p.stdout, fmt.Sprintf(usageArchiveLs, self.name))
	o := p.archiveOptions(self, c)
	var long bool
	c.Flags().BoolVar(&long, "long", false, "")
	c.Flags().BoolVar(&o.json, "json", false, "")
	c.RunE = func(*cobra.Command, []string) error {
		return o.run(func(ctx context.Context, a *walcheck.Archives, rep rewind.Reporter) error {
			l := &lister{results: o.results(), archives: a, rep: rep, many: len(a.Places) > 1}
			var err error
			for _, p := range a.Places {
				if err = l.place(ctx, p, long); err != nil {
					break
				}
			}
			return l.end(err)
		})
	}
	return c
}

// lister writes what places have.
type lister struct {
	*results
	archives *walcheck.Archives
	rep      rewind.Reporter
	many     bool // there are several places, and each is named

	timelines int
	gaps      int64 // segments in gaps
}

const defaultSegSize = 16 << 20 // of initdb

func (l *lister) place(ctx context.Context, p *place.Place, long bool) error {
	if long {
		return walcheck.Objects(ctx, p, l.object)
	}
	l.timelines, l.gaps = 0, 0
	cluster, err := l.archives.Identify(ctx, p)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case cluster.SegSize == 0 && errors.Is(err, fs.ErrNotExist):
		cluster.SegSize = defaultSegSize // nothing depends on it
	case cluster.SegSize == 0:
		cluster.SegSize = defaultSegSize
		l.rep.Warn("the size of WAL segments could not be found out: "+err.Error(), "16 MB are assumed; --wal-segsize says what they are.")
	}
	fields, words := clusterFields(cluster)
	fields["archive"], fields["description"] = p.String(), p.Describe()
	if err := l.line("archive", fields, "%s\n%s", p.Describe(), words); err != nil {
		return err
	}
	return walcheck.List(ctx, p, cluster.SegSize, func(i walcheck.Item) error { return l.item(p, i) })
}

func (l *lister) object(o walcheck.Object) error {
	return l.line("object", map[string]any{
		"kind": o.Kind, "name": o.Name, "timeline": o.TLI, "bytes": o.Bytes, "encoding": o.Encoding, "path": o.Path, "cluster": o.Cluster,
	}, "%-8s %-40s %10d  %-12s %s", o.Kind, o.Name, o.Bytes, o.Encoding, o.Path)
}

func (l *lister) item(p *place.Place, i walcheck.Item) error {
	switch i.Kind {
	case walcheck.Timeline:
		l.timelines++
		return l.timeline(i)
	case walcheck.Total:
		return l.total(p, i)
	case walcheck.Gap:
		l.gaps += i.Segments
		return l.line(string(i.Kind), itemFields(i), "  missing: %s  %s", between(i), counted(i.Segments, "segment"))
	case walcheck.Range:
		more := ""
		if i.Objects > i.Segments {
			more = fmt.Sprintf(" in %d objects", i.Objects)
		}
		return l.line(string(i.Kind), itemFields(i), "  %s  %s%s, %s, %s", between(i), counted(i.Segments, "segment"), more, size(i.Bytes), encodings(i.Encoding))
	case walcheck.Partial, walcheck.Backup:
		what := "partial segment"
		if i.Kind == walcheck.Backup {
			what = "label of a base backup"
		}
		return l.line(string(i.Kind), itemFields(i), "  %s  %s, %s, %s", i.First, what, size(i.Bytes), encodings(i.Encoding))
	}
	return nil
}

func (l *lister) timeline(i walcheck.Item) error {
	fields := map[string]any{"timeline": i.TLI, "history": i.HasHistory}
	text := fmt.Sprintf("timeline %d", i.TLI)
	if i.Cluster != "" {
		fields["cluster"] = i.Cluster
		text += " of " + i.Cluster
	}
	switch {
	case i.Problem != nil:
		fields["problem"] = i.Problem.Error()
		text += ": its history cannot be read: " + i.Problem.Error()
	case i.Parent != 0:
		fields["parent"], fields["forked_off_at"] = i.Parent, i.Switch.String()
		text += fmt.Sprintf(", forked off timeline %d at %v", i.Parent, i.Switch)
	case !i.HasHistory && i.TLI > 1:
		text += ", without its history file"
	}
	return l.line(string(i.Kind), fields, "%s", text)
}

func (l *lister) total(p *place.Place, i walcheck.Item) error {
	if i.Misnamed > 0 {
		l.rep.Warn(fmt.Sprintf("%s has %d segments whose names do not fit the segment size", p, i.Misnamed),
			"Do clusters with different segment sizes archive there? --wal-segsize or -D says which one is meant.")
	}
	fields := map[string]any{
		"archive": p.String(), "timelines": l.timelines, "segments": i.Segments, "objects": i.Objects, "bytes": i.Bytes,
		"encodings": i.Encoding, "missing": l.gaps, "misnamed": i.Misnamed,
	}
	missing := ""
	if l.gaps > 0 {
		missing = fmt.Sprintf(", %d missing in between", l.gaps)
	}
	end := ""
	if l.many {
		end = "\n"
	}
	return l.line(string(i.Kind), fields, "%s on %s%s; %s, %s%s", counted(i.Segments, "segment"), counted(int64(l.timelines), "timeline"),
		missing, counted(i.Objects, "object"), size(i.Bytes), end)
}

func itemFields(i walcheck.Item) map[string]any {
	fields := map[string]any{"timeline": i.TLI, "first": i.First, "last": i.Last}
	if i.Segments > 0 {
		fields["segments"] = i.Segments
	}
	if i.Objects > 0 {
		fields["objects"], fields["bytes"], fields["encodings"] = i.Objects, i.Bytes, i.Encoding
	}
	return fields
}

func between(i walcheck.Item) string {
	if i.First == i.Last {
		return i.First
	}
	return i.First + " to " + i.Last
}

func counted(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// encodings names the encodings of objects, and how many are in each if there are several.
func encodings(by map[string]int64) string {
	names := slices.Sorted(maps.Keys(by))
	if len(names) == 1 {
		return names[0]
	}
	for i, name := range names {
		names[i] = fmt.Sprintf("%d %s", by[name], name)
	}
	return strings.Join(names, ", ")
}
