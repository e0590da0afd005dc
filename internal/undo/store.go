package undo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/copier"
	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/fsx"
)

const (
	headFile    = "head"
	finalFile   = "final"
	entriesFile = "entries"
	tempSuffix  = ".tmp"
	maxParts    = 1<<16 - 1 // a header has two bytes for it
	maxWorkers  = 16        // and so data files of a part

	ownFile fs.FileMode = 0o600
	ownDir  fs.FileMode = 0o700
)

func partName(n int) string     { return fmt.Sprintf("part-%04d", n) }
func dataName(n int) string     { return fmt.Sprintf("data-%02d", n) }
func cloneName(n uint64) string { return fmt.Sprintf("clone-%06d", n) }

// store is an open undo directory, locked against every other process that would open it.
type store struct {
	dir   string
	root  *os.Root // for reading, and for clones
	lock  *os.File
	out   fsx.FS // for all other writing
	close func() error

	head  headInfo
	empty bool // there is no head
	parts int  // 1 to parts are there
}

func (s *store) path(name string) string { return filepath.Join(s.dir, name) }

// openStore opens and locks dir, reads its head and counts its parts. wrap, if not nil, stands between us and the disk.
func openStore(dir string, wrap func(fsx.FS) fsx.FS) (s *store, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fault.Because(err, "could not open directory \"%s\": %s", dir, fault.M(err))
	}
	lock, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	target, err := fsx.OpenTarget(dir)
	if err != nil {
		return nil, errors.Join(err, lock.Close(), root.Close())
	}
	s = &store{dir: dir, root: root, lock: lock, out: target}
	if wrap != nil {
		s.out = wrap(target)
	}
	shut := func() error { return errors.Join(target.Close(), lock.Close(), root.Close()) }
	s.close = shut
	defer func() {
		if err != nil {
			_ = shut() // the error at hand says more
		}
	}()
	if err := s.checkOwner(); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fault.Because(err, "undo directory \"%s\" is in use", dir).
				Advise("Another process saves to it or restores from it. Wait for it to end, and run the same command again.")
		}
		return nil, fault.Because(err, "could not lock directory \"%s\": %s", dir, fault.M(err))
	}
	if err := s.readHead(); err != nil {
		return nil, err
	}
	return s, s.countParts()
}

// checkOwner refuses a directory into which somebody else could put what is then written to the target.
func (s *store) checkOwner() error {
	info, err := s.lock.Stat()
	if err != nil {
		return fault.Because(err, "could not stat directory \"%s\": %s", s.dir, fault.M(err))
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && int(st.Uid) != os.Geteuid() {
		return fault.New("undo directory \"%s\" has wrong ownership", s.dir).
			Advise("It belongs to user %d, and this program runs as user %d. Only the owner may save to it and restore from it.",
				st.Uid, os.Geteuid())
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fault.New("undo directory \"%s\" has invalid permissions", s.dir).
			Advise("Others than its owner may write to it (mode %04o). Look whether all in it is yours, then: chmod 0700 %s",
				info.Mode().Perm(), s.dir)
	}
	return nil
}

func (s *store) readHead() error {
	err := s.readJSON(headFile, place{}, &s.head)
	if errors.Is(err, fs.ErrNotExist) {
		s.empty = true
		return nil
	}
	return err
}

// countParts looks which parts there are. A gap would be a part that was lost.
func (s *store) countParts() error {
	names, err := s.names(".")
	if err != nil {
		return err
	}
	var numbers []int
	for _, name := range names {
		n, found := strings.CutPrefix(name, "part-")
		if i, err := strconv.Atoi(n); found && err == nil && name == partName(i) {
			numbers = append(numbers, i)
		}
	}
	slices.Sort(numbers)
	for i, n := range numbers {
		if n != i+1 || n > maxParts {
			return s.damage(partName(i+1), damaged("it is missing, and %s is there", partName(n)))
		}
	}
	s.parts = len(numbers)
	if s.empty && s.parts > 0 {
		return s.damage(headFile, damaged("it is missing"))
	}
	return nil
}

func (s *store) names(dir string) ([]string, error) {
	f, err := s.root.Open(dir)
	if err != nil {
		return nil, fault.Because(err, "could not open directory \"%s\": %s", s.path(dir), fault.M(err))
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fault.Because(err, "could not read directory \"%s\": %s", s.path(dir), fault.M(err))
	}
	return names, nil
}

// damage words an error of reading an undo file.
func (s *store) damage(name string, err error) error {
	var d *damage
	var f *fault.Error
	switch {
	case errors.As(err, &d):
		return fault.Because(err, "undo file \"%s\" is damaged: %s", s.path(name), d.text).
			Advise("The target was not touched. Restore the file if there is a copy of it; without it this undo cannot be carried out.")
	case errors.As(err, &f), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	default:
		return fault.Because(err, "could not read undo file \"%s\": %s", s.path(name), fault.M(err))
	}
}

// openFile opens a file of the undo for reading. fs.ErrNotExist stays visible.
func (s *store) openFile(name string) (*os.File, error) {
	f, err := s.root.OpenFile(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = damaged("it is no regular file")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// scan calls each for every frame of a file, end frame excepted, whose counts it returns. The file must be at its place.
func (s *store) scan(ctx context.Context, name string, want place, each func(kind byte, payload []byte) error) (counts [4]uint64, err error) {
	f, err := s.openFile(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && (want.part > 0 || want.file > 1) {
			err = damaged("it is missing")
		}
		return counts, s.damage(name, err)
	}
	defer f.Close()
	r, err := newReader(f, want)
	if err != nil {
		return counts, s.damage(name, err)
	}
	defer r.close()
	for {
		if err := ctx.Err(); err != nil {
			return counts, context.Cause(ctx)
		}
		kind, payload, err := r.next()
		if err != nil {
			return counts, s.damage(name, err)
		}
		if kind == kindEnd {
			counts, err = r.end(payload)
		} else {
			err = each(kind, payload)
		}
		if err != nil {
			return counts, s.damage(name, err)
		}
		if kind == kindEnd {
			return counts, nil
		}
	}
}

// readJSON reads head or final. The run's id in head is its own: the header's CRC must be of it.
func (s *store) readJSON(name string, want place, into any) error {
	if name == headFile {
		// What the header must hold is only known when the JSON has been read; it is read twice.
		f, err := s.openFile(name)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return s.damage(name, err)
		}
		run, err := peekRun(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return s.damage(name, err)
		}
		want.run = run
	}
	seen := 0
	_, err := s.scan(context.Background(), name, want, func(kind byte, payload []byte) error {
		if seen++; kind != kindJSON || seen > 1 {
			return damaged("it does not hold what it should")
		}
		if err := json.Unmarshal(payload, into); err != nil {
			return damaged("its content cannot be read: %v", err)
		}
		return nil
	})
	if err == nil && seen == 0 {
		err = s.damage(name, damaged("it is empty"))
	}
	return err
}

// peekRun reads the run's id out of a head whose header cannot be checked yet.
func peekRun(in io.Reader) (string, error) {
	var h [headerSize]byte
	n, err := io.ReadFull(in, h[:])
	if err != nil || string(h[:6]) != fileMagic || h[6] != formatVersion || h[7] != 0 {
		// newReader says what is wrong, and needs no id for that.
		_, err := newReader(strings.NewReader(string(h[:n])), place{})
		return "", err
	}
	r, err := newReader(io.MultiReader(strings.NewReader(string(place{}.header())), in), place{})
	if err != nil {
		return "", err
	}
	defer r.close()
	_, payload, err := r.next()
	if err != nil {
		return "", err
	}
	var head headInfo
	if err := json.Unmarshal(payload, &head); err != nil {
		return "", damaged("its content cannot be read: %v", err)
	}
	return head.Run, nil
}

// writeJSON replaces head or final. file is its number.
func (s *store) writeJSON(name string, file uint16, value any) error {
	payload, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if len(payload) > maxFrame {
		return fault.New("could not write undo file \"%s\": %d bytes are too many", s.path(name), len(payload))
	}
	c, err := newCoder()
	if err != nil {
		return err
	}
	data := place{run: s.head.Run, file: file}.header()
	data = append(data, c.frame(kindJSON, payload)...)
	data = append(data, c.frame(kindEnd, appendEnd(nil, [4]uint64{}))...)
	return copier.WriteDurably(s.out, copier.SyncFsync, name, data, ownFile)
}

// finals are the control files that rewinds of this run meant to end with.
func (s *store) finals() (finalInfo, error) {
	var f finalInfo
	err := s.readJSON(finalFile, place{run: s.head.Run, file: 1}, &f)
	if errors.Is(err, fs.ErrNotExist) {
		return finalInfo{}, nil
	}
	if err == nil && len(f.Controls) > maxControls {
		err = s.damage(finalFile, damaged("it names %d control files", len(f.Controls)))
	}
	return f, err
}

// part is what a part's entries file says besides the entries.
type part struct {
	partInfo
	number                     int
	entries, dataFiles, clones uint64
	bytes                      uint64 // in data, as the end frame says
	spanBytes                  uint64 // in data, as the entries say
	cloneBytes                 int64
}

// readPart reads a part's entries and calls each for them.
func (s *store) readPart(ctx context.Context, n int, each func(entry) error) (part, error) {
	p := part{number: n}
	name := partName(n) + "/" + entriesFile
	var frames, entries uint64
	counts, err := s.scan(ctx, name, place{run: s.head.Run, part: uint16(n)}, func(kind byte, payload []byte) error {
		frames++
		switch {
		case frames == 1 && kind == kindJSON:
			if err := json.Unmarshal(payload, &p.partInfo); err != nil {
				return damaged("its content cannot be read: %v", err)
			}
			return nil
		case frames > 1 && kind == kindEntries:
			return decodeEntries(payload, func(e entry) error {
				entries++
				e.part = n
				p.spanBytes += uint64(total(e.spans))
				if e.clone > 0 {
					p.cloneBytes = min(p.cloneBytes, math.MaxInt64-e.size) + e.size
				}
				return each(e)
			})
		default:
			return damaged("it does not hold what it should")
		}
	})
	if err != nil {
		return p, err
	}
	p.entries, p.dataFiles, p.clones, p.bytes = counts[0], counts[1], counts[2], counts[3]
	if frames == 0 || p.entries != entries || p.dataFiles > maxWorkers {
		return p, s.damage(name, damaged("it has %d entries, and its end speaks of %d", entries, p.entries))
	}
	return p, nil
}

// known is what all parts say of the paths.
type known map[string]*entry

// add takes a further entry in. The first of a path says what it was.
func (k known) add(e entry) error {
	first, found := k[e.path]
	if !found {
		k[e.path] = &e
		return nil
	}
	if first.kind != e.kind || first.size != e.size {
		return damaged("\"%s\" was a %v of %d bytes, and a later entry says %v of %d", e.path, first.kind, first.size, e.kind, e.size)
	}
	if e.clone > 0 {
		return damaged("\"%s\" has a reflink in a later entry", e.path)
	}
	first.spans = merge(first.spans, e.spans)
	return nil
}

// readAll reads the entries of all parts.
func (s *store) readAll(ctx context.Context) (known, []part, error) {
	k := known{}
	var parts []part
	for n := 1; n <= s.parts; n++ {
		p, err := s.readPart(ctx, n, k.add)
		if err != nil {
			return nil, nil, err
		}
		parts = append(parts, p)
	}
	return k, parts, nil
}

// removePart removes what a part's directory may hold, and the directory. Anything else in it makes that fail.
func (s *store) removePart(name string) error {
	names, err := s.names(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, file := range names {
		if err := s.out.Remove(name + "/" + file); err != nil {
			return fault.Because(err, "could not remove file \"%s\": %s", s.path(name+"/"+file), fault.M(err))
		}
	}
	if err := s.out.Remove(name); err != nil {
		return fault.Because(err, "could not remove directory \"%s\": %s", s.path(name), fault.M(err))
	}
	return nil
}
