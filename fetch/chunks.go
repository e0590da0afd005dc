package fetch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/pg"
)

// rowOverhead is what a row of chunksSQL has beside path and data, in bytes, with room to spare.
const rowOverhead = 64

const (
	oidTextArray = 1009
	oidInt8Array = 1016
	oidInt4Array = 1007
)

// chunksSQL gives one row for each element of its three arrays, in their order. A missing file gives a null chunk.
const chunksSQL = `SELECT r.path, r.begin, pg_catalog.pg_read_binary_file(r.path, r.begin, r.len, true)
FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.int8[]),
  pg_catalog.unnest($3::pg_catalog.int4[])) AS r(path, begin, len)`

// Fetch asks for all ranges in one statement, on one connection, which it holds until the last emit has returned. A
// row's bytes are emitted from where they were received: nothing is copied. If the connection breaks, it asks on another
// one for the ranges that have not been emitted.
func (s *Server) Fetch(ctx context.Context, ranges []pg.FileRange, emit func(i int, c pg.FileChunk) error) error {
	if err := checkRanges(ranges, VerifyPath); err != nil {
		return err
	}
	if len(ranges) == 0 {
		return nil
	}
	next := 0 // the first range that has not been emitted
	return s.persist(ctx, func() (bool, error) {
		began := next
		err := s.fetch(ctx, ranges[began:], func(i int, c pg.FileChunk) error {
			s.fetched.Store(true)
			if err := emit(began+i, c); err != nil {
				return &stopped{err}
			}
			next = began + i + 1
			return nil
		})
		return next > began, err
	})
}

// fetch asks for ranges once.
func (s *Server) fetch(ctx context.Context, ranges []pg.FileRange, emit func(i int, c pg.FileChunk) error) error {
	params := [][]byte{pathArray(ranges), offsetArray(ranges), lengthArray(ranges)}
	answer := int64(0)
	for i := range ranges {
		answer += ranges[i].Length + int64(len(ranges[i].Path)) + rowOverhead
	}
	return s.with(ctx, func(sess *session) error {
		sess.begin(answer, sess.stall)
		if s.debugf != nil {
			s.debugf("getting %d file chunks", len(ranges))
		}
		// Ending this context is the one way to leave a result half read.
		qctx, cancel := context.WithCancel(ctx)
		defer cancel()
		result := sess.conn.ExecStatement(qctx, sess.chunks, params, binaryResult, binaryResult)
		got, err := s.receive(result, ranges, emit)
		if err != nil {
			cancel()
		}
		_, rerr := result.Close()
		switch {
		case err != nil:
			return err
		case rerr != nil && got < len(ranges):
			return s.fetchFailed(ctx, rerr, ranges, got)
		case rerr != nil:
			return s.queryFailed(ctx, rerr, "unexpected result while fetching remote files")
		case got != len(ranges):
			return fault.New("unexpected number of data chunks received").
				Advise("The source sent %d chunks for %d ranges.", got, len(ranges))
		}
		return nil
	})
}

// receive emits the rows of a result, each checked against the range it must belong to.
func (s *Server) receive(result *pgconn.ResultReader, ranges []pg.FileRange, emit func(int, pg.FileChunk) error) (got int, err error) {
	for result.NextRow() {
		if got == len(ranges) {
			return got, fault.New("received more data chunks than requested").
				Advise("The source sent more than the %d chunks that were asked for.", len(ranges))
		}
		r := &ranges[got]
		chunk, err := decodeChunk(result.Values(), r)
		if err != nil {
			return got, err
		}
		if s.debugf != nil {
			if chunk.Gone {
				s.debugf("received null value for chunk for file \"%s\", file has been deleted", r.Path)
			} else {
				s.debugf("received chunk for file \"%s\", offset %d, size %d", r.Path, r.Offset, len(chunk.Data))
			}
		}
		if err := emit(got, chunk); err != nil {
			return got, err
		}
		got++
	}
	return got, nil
}

// decodeChunk checks one row against its range. The chunk aliases the row.
func decodeChunk(row [][]byte, r *pg.FileRange) (pg.FileChunk, error) {
	switch {
	case len(row) != 3:
		return pg.FileChunk{}, fault.New("unexpected result set size while fetching remote files")
	case row[0] == nil || row[1] == nil:
		return pg.FileChunk{}, fault.New("unexpected null values in result while fetching remote files")
	case len(row[1]) != 8:
		return pg.FileChunk{}, fault.New("unexpected result length while fetching remote files")
	case string(row[0]) != r.Path:
		return pg.FileChunk{}, fault.New("received data for file \"%s\", when requested for \"%s\"", printableLine(string(row[0][:min(len(row[0]), maxPath)])), r.Path)
	}
	if offset := int64(binary.BigEndian.Uint64(row[1])); offset != r.Offset {
		return pg.FileChunk{}, fault.New("received data at offset %d of file \"%s\", when requested for offset %d", offset, r.Path, r.Offset)
	}
	if row[2] == nil {
		return pg.FileChunk{Gone: true}, nil
	}
	if int64(len(row[2])) > r.Length {
		return pg.FileChunk{}, fault.New("received more than requested for file \"%s\"", r.Path).
			Advise("At offset %d, %d bytes were asked for and %d received.", r.Offset, r.Length, len(row[2]))
	}
	return pg.FileChunk{Data: row[2]}, nil
}

// fetchFailed makes the error of a fetch that the server or the connection ended, with the position.
func (s *Server) fetchFailed(ctx context.Context, err error, ranges []pg.FileRange, got int) error {
	err = s.queryFailed(ctx, err, "unexpected result while fetching remote files")
	var f *fault.Error
	if !errors.As(err, &f) {
		return err
	}
	r := ranges[got]
	where := fmt.Sprintf("It was the turn of file \"%s\", offset %d, length %d (range %d of %d of this request).",
		r.Path, r.Offset, r.Length, got+1, len(ranges))
	if f.Advice != "" {
		where += "\n" + f.Advice
	}
	return f.Advise("%s", where)
}

// checkChunkFields checks, once for each session, that the statement gives what decodeChunk takes.
func checkChunkFields(fields []pgconn.FieldDescription) error {
	if len(fields) != 3 {
		return fault.New("unexpected result set size while fetching remote files")
	}
	if fields[0].DataTypeOID != oidText || fields[1].DataTypeOID != oidInt8 || fields[2].DataTypeOID != oidBytea {
		return fault.New("unexpected data types in result set while fetching remote files: %d %d %d",
			fields[0].DataTypeOID, fields[1].DataTypeOID, fields[2].DataTypeOID)
	}
	return nil
}

// The binary form of a one-dimensional array (array_recv, arrayfuncs.c): dimensions, has-nulls flag, element type,
// length, lower bound; then each element with its length. All numbers are big-endian int32.

func appendArrayHeader(b []byte, oid uint32, n int) []byte {
	b = binary.BigEndian.AppendUint32(b, 1)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint32(b, oid)
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	return binary.BigEndian.AppendUint32(b, 1)
}

const arrayHeaderSize = 20

func pathArray(ranges []pg.FileRange) []byte {
	size := arrayHeaderSize
	for i := range ranges {
		size += 4 + len(ranges[i].Path)
	}
	b := appendArrayHeader(make([]byte, 0, size), oidText, len(ranges))
	for i := range ranges {
		b = binary.BigEndian.AppendUint32(b, uint32(len(ranges[i].Path)))
		b = append(b, ranges[i].Path...)
	}
	return b
}

func offsetArray(ranges []pg.FileRange) []byte {
	b := appendArrayHeader(make([]byte, 0, arrayHeaderSize+12*len(ranges)), oidInt8, len(ranges))
	for i := range ranges {
		b = binary.BigEndian.AppendUint32(b, 8)
		b = binary.BigEndian.AppendUint64(b, uint64(ranges[i].Offset))
	}
	return b
}

func lengthArray(ranges []pg.FileRange) []byte {
	b := appendArrayHeader(make([]byte, 0, arrayHeaderSize+8*len(ranges)), oidInt4, len(ranges))
	for i := range ranges {
		b = binary.BigEndian.AppendUint32(b, 4)
		b = binary.BigEndian.AppendUint32(b, uint32(ranges[i].Length))
	}
	return b
}

func textArray(texts []string) []byte {
	b := appendArrayHeader(nil, oidText, len(texts))
	for _, t := range texts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(t)))
		b = append(b, t...)
	}
	return b
}
