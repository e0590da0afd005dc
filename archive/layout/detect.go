package layout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/archive/object"
	"github.com/fastrewind/fastrewind/internal/fault"
)

// place is where in a bucket WAL lies.
type place struct {
	layout         location.Layout
	stanza, server string
	dir            string // see Repository.dir
}

func (p place) String() string {
	what := string(p.layout)
	if p.stanza != "" {
		what += " stanza " + p.stanza
	}
	if p.server != "" {
		what += " server " + p.server
	}
	return what
}

const (
	walgFolder = "wal_005"
	// maxFolders is how many folders are looked at, and asked for, where many could be: a bucket may hold anything.
	maxFolders = 1000
	// maxChildren is how many of them are looked into.
	maxChildren = 50
	// maxLooked is how many objects are passed over in search of the first WAL file that lies bare.
	maxLooked = 5000
)

// surveyor looks around in a bucket. The first error other than "nothing there" stays in err, and ends the looking.
type surveyor struct {
	ctx    context.Context
	bucket object.Bucket
	a      location.Archive
	base   string // the prefix, ending in a slash unless empty
	err    error
	denied error // of a lookup that may or may not have had an answer
}

// locate finds the place of a's WAL.
func locate(ctx context.Context, bucket object.Bucket, a location.Archive) (place, error) {
	s := &surveyor{ctx: ctx, bucket: bucket, a: a, base: slashed(a.Prefix)}
	last := path.Base(a.Prefix)
	layout := a.Layout
	if layout == location.Unknown && a.Stanza != "" {
		layout = location.PgBackRest
	}
	if layout == location.Unknown && a.Server != "" {
		layout = location.Barman
	}
	switch layout {
	case location.WALG, location.WALE:
		if last == walgFolder {
			return place{layout: layout, dir: s.base}, nil
		}
		return place{layout: layout, dir: s.base + walgFolder + "/"}, nil
	case location.Plain:
		return place{layout: layout, dir: s.base}, nil
	case location.PgBackRest:
		return s.one(s.stanzas(), "stanza", "archive/STANZA/archive.info")
	case location.Barman:
		return s.one(s.servers(), "server", "SERVER/wals/")
	case location.Unknown:
		return s.detect()
	}
	return place{}, fault.New("unknown layout of a WAL archive: \"%s\"", a.Layout).
		Advise("Known ones are %s, %s, %s, %s and %s.", location.WALG, location.WALE, location.PgBackRest, location.Barman, location.Plain)
}

// one is the only place found in a layout that was named.
func (s *surveyor) one(found []place, what, sign string) (place, error) {
	switch {
	case s.err != nil:
		return place{}, s.err
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return place{}, s.ambiguous(found)
	case s.denied != nil:
		return place{}, fault.Because(s.denied, "cannot find the %s in WAL archive \"%s\": %s", what, s.a.Where(), s.denied).
			Advise("Listing is denied there. Point to the %s itself: %s", what, sign)
	}
	return place{}, fault.New("no %s found in WAL archive \"%s\"", what, s.a.Where()).
		Advise("Looked for %s. %s", sign, s.seen())
}

func (s *surveyor) ambiguous(found []place) error {
	var names []string
	for _, p := range found {
		names = append(names, fmt.Sprintf("%s (%s)", p, s.bucket.Path(p.dir)))
	}
	return fault.New("WAL archive \"%s\" holds more than one that could be meant", s.a.Where()).
		Advise("There are: %s. Let the archive's address end at one of them, or name the layout.", strings.Join(names, "; "))
}

// detect finds the layout by its signs.
func (s *surveyor) detect() (place, error) {
	last := path.Base(s.a.Prefix)
	if last == walgFolder && s.any(s.base) {
		return place{layout: location.WALG, dir: s.base}, s.err
	}
	var found []place
	below := s.folders(s.base)
	if slices.Contains(below, walgFolder) {
		found = append(found, place{layout: location.WALG, dir: s.base + walgFolder + "/"})
	}
	if slices.Contains(below, "archive") || last == "archive" || path.Base(path.Dir(s.a.Prefix)) == "archive" {
		found = append(found, s.stanzas()...)
	}
	if slices.Contains(below, "wals") || slices.ContainsFunc(below, isFolder) {
		found = append(found, s.servers()...)
	} else if len(found) == 0 {
		found = append(found, s.serversBelow(below)...)
	}
	if s.err == nil && s.bare(slices.ContainsFunc(below, isFolder)) {
		found = append(found, place{layout: location.Plain, dir: s.base})
	}
	switch {
	case s.err != nil:
		return place{}, s.err
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return place{}, s.ambiguous(found)
	case s.denied != nil:
		return place{}, fault.Because(s.denied, "cannot find out the layout of WAL archive \"%s\": %s", s.a.Where(), s.denied).
			Advise("Listing is denied there. Name the layout: --wal-archive-layout.")
	}
	return place{}, fault.New("no WAL archive found at \"%s\"", s.a.Where()).
		Advise("Looked for wal_005/ (WAL-G, WAL-E), archive/STANZA/archive.info (pgBackRest), SERVER/wals/ (Barman) and WAL segments. %s", s.seen())
}

// stanzas are pgBackRest's in or below the prefix. A named one is trusted to be there.
func (s *surveyor) stanzas() []place {
	stanza := s.a.Stanza
	at := func(dir string) place {
		return place{layout: location.PgBackRest, stanza: path.Base(dir), dir: slashed(dir)}
	}
	// The prefix may be that of the stanza, or of all of them, or of the repository.
	if last := path.Base(s.a.Prefix); s.a.Prefix != "" && (stanza == "" || stanza == last) && s.hasInfo(s.a.Prefix) {
		return []place{at(s.a.Prefix)}
	}
	tops := []string{s.base + "archive"}
	if path.Base(s.a.Prefix) == "archive" {
		tops = append(tops, s.a.Prefix)
	}
	if stanza != "" {
		for _, top := range tops[1:] {
			if dir := top + "/" + stanza; s.hasInfo(dir) && !s.hasInfo(tops[0]+"/"+stanza) {
				return []place{at(dir)}
			}
		}
		return []place{at(tops[0] + "/" + stanza)}
	}
	var found []place
	for _, top := range tops {
		children := s.folders(slashed(top))
		for _, child := range children[:min(len(children), maxChildren)] {
			if s.hasInfo(top + "/" + child) {
				found = append(found, at(top+"/"+child))
			}
		}
	}
	return found
}

// servers are Barman's in or below the prefix. A named one is trusted to be there, unless the prefix may be its own.
func (s *surveyor) servers() []place {
	at := func(server, dir string) place {
		return place{layout: location.Barman, server: server, dir: slashed(dir)}
	}
	last, parent := path.Base(s.a.Prefix), path.Base(path.Dir(s.a.Prefix))
	if server := s.a.Server; server != "" {
		usual := at(server, s.base+server+"/wals")
		switch {
		case last == server && !s.any(usual.dir) && s.any(s.base+"wals/"):
			return []place{at(server, s.base+"wals")}
		case last == "wals" && parent == server && !s.any(usual.dir) && s.any(s.base):
			return []place{at(server, s.a.Prefix)}
		}
		return []place{usual}
	}
	below := s.folders(s.base)
	switch {
	case slices.Contains(below, "wals"):
		return []place{at(name(last), s.base+"wals")}
	case slices.ContainsFunc(below, isFolder) && last == "wals":
		return []place{at(name(parent), s.a.Prefix)}
	case slices.ContainsFunc(below, isFolder):
		return []place{at("", s.a.Prefix)}
	}
	found := s.serversBelow(below)
	if len(found) == 0 && s.denied != nil && s.a.Layout == location.Barman && last == "wals" {
		return []place{at(name(parent), s.a.Prefix)} // nothing can be looked at: the name is believed
	}
	return found
}

// serversBelow are those of the folders directly below the prefix that are a Barman server's.
func (s *surveyor) serversBelow(below []string) []place {
	var found []place
	for _, child := range below[:min(len(below), maxChildren)] {
		if slices.Contains(s.folders(s.base+child+"/"), "wals") {
			found = append(found, place{layout: location.Barman, server: child, dir: s.base + child + "/wals/"})
		}
	}
	return found
}

// folders are the names directly below a folder.
func (s *surveyor) folders(folder string) []string {
	if s.err != nil {
		return nil
	}
	names, err := s.bucket.Folders(s.ctx, folder, maxFolders)
	s.note(err)
	return names
}

// any reports whether there is an object whose key begins so.
func (s *surveyor) any(prefix string) bool {
	if s.err != nil {
		return false
	}
	found := false
	err := s.bucket.List(s.ctx, prefix, func(object.Object) error { found = true; return errStop })
	s.note(err)
	return found
}

// bare reports whether WAL files lie directly below the prefix. Only names that begin with a zero are looked at: no cluster
// has lived through 2^28 timelines. foldered: there are folders for segments, beside which histories lie bare.
func (s *surveyor) bare(foldered bool) bool {
	found, looked := false, 0
	err := s.bucket.List(s.ctx, s.base+"0", func(o object.Object) error {
		looked++
		var name objectName
		name, found = parseObjectName(strings.TrimPrefix(o.Key, s.base), false)
		found = found && (!foldered || name.kind != History)
		if found || looked == maxLooked {
			return errStop
		}
		return nil
	})
	s.note(err)
	return found
}

// hasInfo reports whether a folder, named without final slash, is a pgBackRest stanza's.
func (s *surveyor) hasInfo(dir string) bool {
	for _, key := range infoKeys(slashed(dir)) {
		if s.err != nil {
			return false
		}
		body, _, err := s.bucket.Open(s.ctx, key)
		if err == nil {
			_ = body.Close() // only looked for
			return true
		}
		s.note(err)
	}
	return false
}

func (s *surveyor) note(err error) {
	switch {
	case err == nil, errors.Is(err, errStop), errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, object.ErrDenied):
		s.denied = err
	default:
		s.err = err
	}
}

// seen says what is there instead of what was looked for.
func (s *surveyor) seen() string {
	const most = 20
	var names []string
	more := ""
	for _, folder := range s.folders(s.base) {
		names = append(names, folder+"/")
	}
	looked := 0
	err := s.bucket.List(s.ctx, s.base, func(o object.Object) error {
		if rest := strings.TrimPrefix(o.Key, s.base); !strings.Contains(rest, "/") {
			names = append(names, rest)
		}
		if looked++; len(names) > most || looked == maxLooked {
			return errStop
		}
		return nil
	})
	s.note(err)
	if len(names) == 0 {
		return "Nothing is there at all: is the address right?"
	}
	if len(names) > most {
		names, more = names[:most], ", and more"
	}
	return "Seen there: " + strings.Join(names, ", ") + more + "."
}

// errStop ends a listing that has told enough.
var errStop = errors.New("enough")

// slashed makes a folder of a path: the root stays empty.
func slashed(p string) string {
	if p == "" || strings.HasSuffix(p, "/") {
		return p
	}
	return p + "/"
}

// name is an element of a path, or nothing if there was no path.
func name(element string) string {
	if element == "." || element == "/" {
		return ""
	}
	return element
}
