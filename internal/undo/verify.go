package undo

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Info is what an undo directory holds.
type Info struct {
	RunID     string
	SystemID  uint64
	TargetDir string // absolute
	Created   time.Time
	Parts     []PartInfo // one for each session, or plan, that had something to save
	Finished  bool       // a rewind has got as far as its last step
}

// PartInfo is one part of an undo.
type PartInfo struct {
	Created    time.Time
	Entries    int   // paths, more or less: a path with very many blocks counts more than once
	Bytes      int64 // saved, of the target's
	Clones     int   // whole files saved as reflinks, not in Bytes
	CloneBytes int64 // their sizes
}

// Describe reads what dir holds, without the bytes: see Verify. Errors are *fault.Error; a damaged file is one.
func Describe(dir string) (Info, error) {
	s, err := openStore(dir, nil)
	if err != nil {
		return Info{}, err
	}
	defer func() { _ = s.close() }() // only read from
	if err := s.some(); err != nil {
		return Info{}, err
	}
	_, parts, err := s.readAll(context.Background())
	if err != nil {
		return Info{}, err
	}
	final, err := s.finals()
	if err != nil {
		return Info{}, err
	}
	info := Info{
		RunID: s.head.Run, SystemID: s.head.SystemID, TargetDir: s.head.TargetDir, Created: s.head.Created,
		Finished: len(final.Controls) > 0,
	}
	for _, p := range parts {
		info.Parts = append(info.Parts, PartInfo{
			Created: p.Created, Entries: int(p.entries), Bytes: int64(p.bytes), Clones: int(p.clones), CloneBytes: p.cloneBytes,
		})
	}
	return info, nil
}

// Verify reads all of dir and checks every checksum. Of reflinks only the size is checked: they share their blocks with
// the original until it is overwritten, and reading them is what they are there to save.
func Verify(ctx context.Context, dir string) error {
	s, err := openStore(dir, nil)
	if err != nil {
		return err
	}
	defer func() { _ = s.close() }() // only read from
	_, _, err = s.verify(ctx, 4)
	return err
}

func (s *store) verify(ctx context.Context, jobs int) (known, []part, error) {
	if err := s.some(); err != nil {
		return nil, nil, err
	}
	k, parts, err := s.readAll(ctx)
	if err != nil {
		return nil, nil, err
	}
	if _, err := s.finals(); err != nil {
		return nil, nil, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	bytes := make([]atomic.Uint64, len(parts))
	for i, p := range parts {
		if len(p.GuardControl) == 0 {
			return nil, nil, s.damage(partName(p.number)+"/"+entriesFile, damaged("it has no guard"))
		}
		for n := range int(p.dataFiles) {
			g.Go(func() error {
				got, err := s.verifyData(gctx, k, p.number, n)
				bytes[i].Add(got)
				return err
			})
		}
	}
	for _, e := range k {
		if e.clone == 0 {
			continue
		}
		if err := s.verifyClone(e); err != nil {
			_ = g.Wait() // the error at hand came first
			return nil, nil, err
		}
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	for i, p := range parts {
		if got := bytes[i].Load(); got != p.bytes || got != p.spanBytes {
			return nil, nil, s.damage(partName(p.number)+"/"+entriesFile,
				damaged("its entries speak of %d bytes, its end of %d, and the data files have %d", p.spanBytes, p.bytes, got))
		}
	}
	return k, parts, nil
}

// verifyData reads one data file, and sees that every piece of it belongs to a file.
func (s *store) verifyData(ctx context.Context, k known, number, n int) (bytes uint64, err error) {
	name := partName(number) + "/" + dataName(n)
	var pieces uint64
	counts, err := s.scan(ctx, name, place{run: s.head.Run, part: uint16(number), file: uint16(n) + 1}, func(kind byte, payload []byte) error {
		if kind != kindData {
			return damaged("it does not hold what it should")
		}
		return decodePieces(payload, func(p piece) error {
			pieces++
			bytes += uint64(len(p.data))
			e := k[p.path]
			if e == nil || e.kind != regular || p.offset+int64(len(p.data)) > e.size {
				return damaged("it has %d bytes at offset %d of \"%s\", which are no part of such a file", len(p.data), p.offset, p.path)
			}
			return nil
		})
	})
	if err != nil {
		return bytes, err
	}
	if counts[0] != pieces || counts[1] != bytes {
		return bytes, s.damage(name, damaged("it has %d pieces, and its end speaks of %d", pieces, counts[0]))
	}
	return bytes, nil
}

func (s *store) verifyClone(e *entry) error {
	name := partName(e.part) + "/" + cloneName(e.clone)
	f, err := s.openFile(name)
	if err != nil {
		return s.damage(name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return s.damage(name, err)
	}
	if info.Size() != e.size {
		return s.damage(name, damaged("it has %d bytes, and %d were expected", info.Size(), e.size))
	}
	return nil
}

// some refuses a directory without an undo, or with one that was never completed.
func (s *store) some() error {
	if s.empty || s.parts == 0 {
		return noUndo(s.dir)
	}
	return nil
}
