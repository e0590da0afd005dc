package fetch

import (
	"encoding/binary"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/fastrewind/fastrewind/internal/pg"
)

// rogue is a server that gives what it likes. answer writes the answer to one statement, up to where CommandComplete
// would come; if it returns false, the connection is cut there.
type rogue struct {
	answer func(b *pgproto3.Backend, conn net.Conn, sql string) bool
	fields []uint32 // the types of the chunks statement's result
}

// start runs the server until the test ends and returns a connection string.
func (r *rogue) start(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			r.serve(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return "host=" + dir + " user=u"
}

func (r *rogue) serve(conn net.Conn) {
	b := pgproto3.NewBackend(conn, conn)
	start, err := b.ReceiveStartupMessage()
	if _, ok := start.(*pgproto3.StartupMessage); err != nil || !ok {
		return // a request to cancel
	}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.ParameterStatus{Name: "server_version", Value: "15.18"})
	b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	sql := ""
	for b.Flush() == nil {
		msg, err := b.Receive()
		if err != nil {
			return
		}
		switch m := msg.(type) {
		case *pgproto3.Parse:
			sql = m.Query
			b.Send(&pgproto3.ParseComplete{})
		case *pgproto3.Bind:
			b.Send(&pgproto3.BindComplete{})
		case *pgproto3.Describe:
			if m.ObjectType == 'S' {
				b.Send(&pgproto3.ParameterDescription{ParameterOIDs: []uint32{oidTextArray, oidInt8Array, oidInt4Array}})
			}
			var fields []pgproto3.FieldDescription
			for _, oid := range r.fields {
				fields = append(fields, pgproto3.FieldDescription{Name: []byte("c"), DataTypeOID: oid, Format: 1})
			}
			b.Send(&pgproto3.RowDescription{Fields: fields})
		case *pgproto3.Execute:
			if strings.Contains(sql, "full_page_writes") {
				b.Send(&pgproto3.DataRow{Values: [][]byte{[]byte("on"), int8Col(1)}})
			} else if !r.answer(b, conn, sql) {
				return
			}
			b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT")})
		case *pgproto3.Sync:
			b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		case *pgproto3.Terminate:
			return
		}
	}
}

var chunkFields = []uint32{oidText, oidInt8, oidBytea}

// A server that does not keep to what was asked is an error, and the connection is not used again.
func TestRogueServer(t *testing.T) {
	row := func(path string, offset int64, data string) *pgproto3.DataRow {
		return &pgproto3.DataRow{Values: [][]byte{[]byte(path), int8Col(offset), []byte(data)}}
	}
	rows := func(list ...*pgproto3.DataRow) func(*pgproto3.Backend, net.Conn, string) bool {
		return func(b *pgproto3.Backend, _ net.Conn, _ string) bool {
			for _, r := range list {
				b.Send(r)
			}
			return true
		}
	}
	ranges := []pg.FileRange{{Path: "a", Offset: 8192, Length: 3}, {Path: "b", Length: 3}}
	first := row("a", 8192, "abc")
	for name, c := range map[string]struct {
		answer func(*pgproto3.Backend, net.Conn, string) bool
		want   string
		emits  int
	}{
		"as asked":     {rows(first, row("b", 0, "x")), "", 2},
		"too few rows": {rows(first), "unexpected number of data chunks received", 1},
		"no rows":      {rows(), "unexpected number of data chunks received", 0},
		"too many":     {rows(first, row("b", 0, "x"), row("b", 0, "x")), "received more data chunks than requested", 2},
		"too much":     {rows(row("a", 8192, "abcd")), `received more than requested for file "a"`, 0},
		"other order":  {rows(row("b", 0, "x"), first), `received data for file "b", when requested for "a"`, 0},
		"other offset": {rows(row("a", 0, "abc")), `received data at offset 0 of file "a", when requested for offset 8192`, 0},
		"traversal":    {rows(row("../../etc/passwd", 8192, "abc")), `received data for file "../../etc/passwd", when requested for "a"`, 0},
		"cut off": {func(b *pgproto3.Backend, _ net.Conn, _ string) bool {
			b.Send(first)
			_ = b.Flush() // the client sees if it failed
			return false
		}, "unexpected result while fetching remote files: server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally\n\tbefore or while processing the request.", 1},
		"huge message": {func(b *pgproto3.Backend, conn net.Conn, _ string) bool {
			b.Send(first)
			_ = b.Flush()
			_, _ = conn.Write(binary.BigEndian.AppendUint32([]byte{'D'}, 1<<30))
			return false
		}, fmt.Sprintf("unexpected result while fetching remote files: invalid body length: expected at most %d, but got %d", maxMessage, 1<<30-4), 1},
		"an error": {func(b *pgproto3.Backend, _ net.Conn, _ string) bool {
			b.Send(first)
			b.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: "58030", Message: "could not read file", Detail: "d", Hint: "h"})
			b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
			return b.Flush() == nil
		}, "unexpected result while fetching remote files: ERROR:  could not read file\nDETAIL:  d\nHINT:  h", 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := &rogue{answer: c.answer, fields: chunkFields}
			s := connect(t, r.start(t), 1)
			emits := 0
			err := s.Fetch(t.Context(), ranges, func(int, pg.FileChunk) error { emits++; return nil })
			if (err == nil) != (c.want == "") || err != nil && err.Error() != c.want || emits != c.emits {
				t.Errorf("after %d chunks: %v\nwant %s", emits, err, c.want)
			}
			if err != nil && emits == 1 && strings.HasPrefix(err.Error(), "unexpected result") &&
				!strings.Contains(advice(err), `It was the turn of file "b", offset 0, length 3 (range 2 of 2`) {
				t.Errorf("advice: %s", advice(err))
			}
		})
	}

	t.Run("types", func(t *testing.T) {
		r := &rogue{fields: []uint32{oidText, oidInt8, oidText}}
		if f := connectError(t, r.start(t)); f.Text != "unexpected data types in result set while fetching remote files: 25 20 25" {
			t.Errorf("%s", f.Text)
		}
	})

	t.Run("list", func(t *testing.T) {
		for what, c := range map[string]struct {
			row  [][]byte
			want string
		}{
			"traversal": {[][]byte{int8Col(1), []byte(".."), int8Col(0), yes, nil}, `source path is unsafe: ".."`},
			"size":      {[][]byte{int8Col(1), []byte("a"), int8Col(-5), no, nil}, "unexpected result set while fetching file list"},
			// A directory below itself for ever: its path becomes too long before anything else does.
			"bottomless": {[][]byte{int8Col(1), []byte(strings.Repeat("d", 200)), int8Col(0), yes, nil}, "source path is unsafe: "},
		} {
			r := &rogue{fields: chunkFields, answer: rows(&pgproto3.DataRow{Values: c.row})}
			s := connect(t, r.start(t), 1)
			if _, err := s.List(t.Context(), 1, nil); err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}
