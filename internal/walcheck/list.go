package walcheck

import (
	"context"
	"strings"

	"github.com/fastrewind/fastrewind/archive/layout"
	"github.com/fastrewind/fastrewind/archive/place"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// ItemKind is what an Item tells of.
type ItemKind string

// The kinds of items.
const (
	Range    ItemKind = "range"    // segments without a gap
	Gap      ItemKind = "gap"      // segments that are not there, between some of the same timeline that are
	Timeline ItemKind = "timeline" // what follows is of another timeline, or of another pgBackRest archive id
	Partial  ItemKind = "partial"
	Backup   ItemKind = "backup"
	Total    ItemKind = "total" // of the whole place; the last item
)

// Item is one line of a listing.
type Item struct {
	Kind     ItemKind
	Cluster  string           // of a timeline: pgBackRest's archive id; else empty
	TLI      pg.TLI           // 0 in the total
	First    string           // of ranges and gaps the first segment's name, of others the name; empty for timelines and totals
	Last     string           // the last segment's name; First if there is one only
	Segments int64            // how many
	Objects  int64            // how many objects they are in: more, if some are there in several encodings
	Bytes    int64            // as stored
	Encoding map[string]int64 // objects by the name of their encoding; nil where there are none
	// Of a timeline that has a history file in the archive:
	HasHistory bool
	Parent     pg.TLI // the timeline before; 0 if it cannot be told
	Switch     pg.LSN // where it forked off from that
	Problem    error  // why the history could not be read; nil otherwise
	Misnamed   int64  // in the total: segments whose names no cluster with this segment size has
}

// maxAside is how many backup labels and partial segments wait until the range among which they lie is told.
const maxAside = 1000

// List tells what a place has: for each timeline the item of the timeline, then its ranges and gaps in their order, each
// range followed by the backup labels and partial segments that lie in it. It ends when emit returns an error, and returns
// that. segSize is the segment size in bytes. Memory does not grow with the archive.
func List(ctx context.Context, p *place.Place, segSize uint32, emit func(Item) error) error {
	l := lister{ctx: ctx, place: p, segSize: segSize, emit: emit, total: Item{Kind: Total, Encoding: map[string]int64{}}}
	err := p.List(ctx, l.entry)
	if err == nil {
		err = l.flush("")
	}
	if err == nil {
		err = emit(l.total)
	}
	return err
}

// lister puts entries together. Entries come ascending by key, and within one folder that is by timeline, history first,
// then by segment: '.' is before all digits.
type lister struct {
	ctx     context.Context //nolint:containedctx // for the time of one List
	place   *place.Place
	segSize uint32
	emit    func(Item) error

	began   bool
	cluster string
	tli     pg.TLI
	open    Item // the range that may still grow; no segments: none
	last    pg.SegNo
	hasLast bool // a segment of this timeline came before
	aside   []Item
	total   Item
}

func (l *lister) entry(e layout.Entry) error {
	if !l.began || e.TLI != l.tli || e.Cluster != l.cluster {
		if err := l.flush(""); err != nil {
			return err
		}
		l.began, l.tli, l.cluster, l.hasLast = true, e.TLI, e.Cluster, false
		head := Item{Kind: Timeline, TLI: e.TLI, Cluster: e.Cluster}
		if e.Kind == layout.History {
			l.fork(&head)
		}
		if err := l.emit(head); err != nil {
			return err
		}
	}
	l.total.Objects++
	l.total.Bytes += e.Size
	l.total.Encoding[e.Encoding]++
	switch e.Kind {
	case layout.Segment:
		return l.segment(e)
	case layout.Partial, layout.Backup:
		kind := Backup
		if e.Kind == layout.Partial {
			kind = Partial
		}
		l.aside = append(l.aside, Item{
			Kind: kind, TLI: e.TLI, First: e.Name, Last: e.Name, Objects: 1, Bytes: e.Size, Encoding: map[string]int64{e.Encoding: 1},
		})
		if len(l.aside) == maxAside {
			return l.tellAside("")
		}
	case layout.History:
	}
	return nil
}

// fork reads where a timeline forked off.
func (l *lister) fork(head *Item) {
	head.HasHistory = true
	data, err := l.place.FetchHistory(l.ctx, head.TLI)
	var h pg.History
	if err == nil {
		h, err = parseHistory(data, head.TLI, l.place.String()+", "+pg.HistoryName(head.TLI))
	}
	if err != nil {
		head.Problem = err
		return
	}
	if len(h) > 1 {
		head.Parent, head.Switch = h[len(h)-2].TLI, h[len(h)-1].Begin
	}
}

func (l *lister) segment(e layout.Entry) error {
	_, seg, ok := pg.ParseSegmentName(e.Name, l.segSize)
	if !ok {
		l.total.Misnamed++
		return nil
	}
	again := l.hasLast && seg == l.last // in another encoding
	switch {
	case again && l.open.Segments > 0:
	case l.hasLast && seg == l.last+1 && l.open.Segments > 0:
	default:
		if err := l.flush(e.Name); err != nil {
			return err
		}
		if l.hasLast && seg > l.last+1 {
			gap := Item{
				Kind: Gap, TLI: e.TLI, First: pg.SegmentName(e.TLI, l.last+1, l.segSize), Last: pg.SegmentName(e.TLI, seg-1, l.segSize),
				Segments: int64(seg - l.last - 1), //nolint:gosec // segment numbers have 44 bits at most
			}
			if err := l.emit(gap); err != nil {
				return err
			}
		}
		l.open = Item{Kind: Range, TLI: e.TLI, First: e.Name, Encoding: map[string]int64{}}
	}
	if !again {
		l.open.Segments++
		l.total.Segments++
	}
	l.open.Last = e.Name
	l.open.Objects++
	l.open.Bytes += e.Size
	l.open.Encoding[e.Encoding]++
	l.last, l.hasLast = seg, true
	return nil
}

// flush tells the range that has ended, and what lay in it: all but what belongs to the segment next, if there is one. A
// segment's label comes before the segment itself does, whose name goes on with an encoding.
func (l *lister) flush(next string) error {
	if l.open.Segments > 0 {
		if err := l.emit(l.open); err != nil {
			return err
		}
		l.open = Item{}
	}
	return l.tellAside(next)
}

func (l *lister) tellAside(next string) error {
	kept := l.aside[:0]
	for _, i := range l.aside {
		if next != "" && strings.HasPrefix(i.First, next) {
			kept = append(kept, i)
			continue
		}
		if err := l.emit(i); err != nil {
			return err
		}
	}
	l.aside = kept
	return nil
}

// Object is one object of an archive that holds a WAL file.
type Object struct {
	Name     string // as PostgreSQL named it
	Kind     string // segment, partial, history, backup
	TLI      pg.TLI
	Bytes    int64 // as stored
	Encoding string
	Path     string // whole
	Cluster  string // pgBackRest's archive id; else empty
}

// Objects tells of each object that a place has, ascending by key. It ends when emit returns an error, and returns that.
func Objects(ctx context.Context, p *place.Place, emit func(Object) error) error {
	a := p.Archive()
	where := strings.TrimSuffix(a.Dir, "/") + "/"
	if a.S3 != nil {
		where = "s3://" + a.S3.Bucket + "/"
	}
	return p.List(ctx, func(e layout.Entry) error {
		return emit(Object{
			Name: e.Name, Kind: e.Kind.String(), TLI: e.TLI, Bytes: e.Size, Encoding: e.Encoding, Path: where + e.Key, Cluster: e.Cluster,
		})
	})
}
