package fetch

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/fastrewind/fastrewind/internal/pg"
)

// rogue is a server that gives what it likes. answer writes the answer to one statement, up to where CommandComplete
// would come; if it returns false, the connection is cut there.
type rogue struct {
	answer func(b *pgproto3.Backend, conn net.Conn, sql string) bool
	fields []uint32 // the types of the chunks statement's result
	// greet, unless nil, writes what comes between the startup message and ReadyForQuery; false cuts the connection.
	greet   func(b *pgproto3.Backend, conn net.Conn) bool
	version string // 15.18 if empty
}

// start runs the server until the test ends and returns a connection string.
func (r *rogue) start(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				r.serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
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
	if r.version == "" {
		r.version = "15.18"
	}
	b.Send(&pgproto3.ParameterStatus{Name: "server_version", Value: r.version})
	if r.greet != nil && (b.Flush() != nil || !r.greet(b, conn)) {
		return
	}
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
			if m.PreparedStatement != "" {
				sql = chunksSQL
			}
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
			} else if sql == identitySQL {
				b.Send(&pgproto3.DataRow{Values: [][]byte{nil, nil, nil, nil, nil, nil}})
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
			"absolute":  {[][]byte{int8Col(1), []byte("/etc/passwd"), int8Col(0), no, nil}, `source path is unsafe: "/etc/passwd"`},
			"slash":     {[][]byte{int8Col(1), []byte("a/b"), int8Col(0), no, nil}, `source path is unsafe: "a/b"`},
			"empty":     {[][]byte{int8Col(1), {}, int8Col(0), no, nil}, `source path is unsafe: ""`},
			"dot":       {[][]byte{int8Col(1), []byte("."), int8Col(0), yes, nil}, `source path is unsafe: "."`},
			"overlong":  {[][]byte{int8Col(1), []byte(strings.Repeat("x", 5000)), int8Col(0), no, nil}, `source path is unsafe: "xxx`},
			"long name": {[][]byte{int8Col(1), []byte(strings.Repeat("x", 256)), int8Col(0), no, nil}, `source path is unsafe: "xxx`},
			"not UTF-8": {[][]byte{int8Col(1), []byte("na\xefve.conf"), int8Col(0), no, nil}, `source path is unsafe: "na\xefve.conf"`},
			"escape":    {[][]byte{int8Col(1), []byte("a\x1b[2Jb"), int8Col(0), no, nil}, `source path is unsafe: "a\x1b[2Jb"`},
			"newline":   {[][]byte{int8Col(1), []byte("a\nb"), int8Col(0), no, nil}, `source path is unsafe: "a\nb"`},
			"huge size": {[][]byte{int8Col(1), []byte("a"), int8Col(1 << 50), no, nil}, "unexpected result set while fetching file list"},
			"link":      {[][]byte{int8Col(1), []byte("base"), int8Col(0), yes, []byte("/etc")}, "unexpected result set while fetching file list"},
			"columns":   {[][]byte{int8Col(1), []byte("a")}, "unexpected result set while fetching file list"},
			"text":      {[][]byte{[]byte("1"), []byte("a"), []byte("5"), []byte("f"), nil}, "unexpected result set while fetching file list"},
			"other dir": {[][]byte{int8Col(7), []byte("a"), int8Col(1), no, nil}, "unexpected result set while fetching file list"},
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

// Whatever a server sends, and however much: an error, in the end, within bounds of memory.
func TestRogueFlood(t *testing.T) {
	flood := func(msg func(i int) pgproto3.BackendMessage) func(b *pgproto3.Backend, _ net.Conn, _ string) bool {
		return func(b *pgproto3.Backend, _ net.Conn, _ string) bool {
			for i := 0; ; i++ {
				b.Send(msg(i))
				if b.Flush() != nil {
					return false
				}
			}
		}
	}
	text := strings.Repeat("x", 1000)
	floods := map[string]func(i int) pgproto3.BackendMessage{
		"notices": func(int) pgproto3.BackendMessage { return &pgproto3.NoticeResponse{Severity: "NOTICE", Message: text} },
		"parameters": func(i int) pgproto3.BackendMessage {
			return &pgproto3.ParameterStatus{Name: fmt.Sprint(i, text), Value: text}
		},
		"notifications": func(int) pgproto3.BackendMessage {
			return &pgproto3.NotificationResponse{Channel: "c", Payload: text}
		},
		"descriptions": func(int) pgproto3.BackendMessage {
			return &pgproto3.RowDescription{Fields: slices.Repeat([]pgproto3.FieldDescription{{Name: []byte(text)}}, 100)}
		},
	}
	ranges := slices.Repeat([]pg.FileRange{{Path: "a", Length: MaxChunk}}, 1000) // a gigabyte may come
	for name, msg := range floods {
		t.Run(name, func(t *testing.T) {
			r := &rogue{fields: chunkFields, answer: flood(msg)}
			s, err := Connect(t.Context(), r.start(t), Options{RetryFor: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for what, err := range map[string]error{
				"fetch": s.Fetch(t.Context(), ranges, discard),
				"file":  func() error { _, err := s.ReadFile(t.Context(), "a", 10); return err }(),
				"list":  func() error { _, err := s.List(t.Context(), 1, nil); return err }(),
			} {
				if !errors.Is(err, errFlood) || errors.Is(err, ErrSourceLost) || !strings.HasSuffix(err.Error(), "the server sends more than it was asked for") ||
					!strings.Contains(advice(err), "No PostgreSQL server does that") {
					t.Errorf("%s: %v (%s)", what, err, advice(err))
				}
			}
			r = &rogue{greet: func(b *pgproto3.Backend, c net.Conn) bool { return flood(msg)(b, c, "") }}
			if f := connectError(t, r.start(t)); !errors.Is(f, errFlood) && !strings.Contains(f.Text, "received unexpected message") {
				t.Errorf("greeting: %v", f)
			}
		})
	}
	t.Run("rows of a small answer", func(t *testing.T) {
		r := &rogue{fields: chunkFields, answer: flood(func(int) pgproto3.BackendMessage { return &pgproto3.DataRow{Values: [][]byte{[]byte(text)}} })}
		s := connect(t, r.start(t), 1)
		if _, err := s.InRecovery(t.Context()); err == nil || err.Error() != "unexpected result set from query" {
			t.Errorf("%v", err)
		}
		if _, err := s.ReadFile(t.Context(), "a", 10); err == nil {
			t.Error("read")
		}
	})
	t.Run("a file that is too long", func(t *testing.T) {
		r := &rogue{fields: chunkFields, answer: flood(func(int) pgproto3.BackendMessage {
			return &pgproto3.DataRow{Values: [][]byte{make([]byte, 20<<20)}}
		})}
		s := connect(t, r.start(t), 1)
		if _, err := s.ReadFile(t.Context(), "a", 10); !errors.Is(err, errFlood) {
			t.Errorf("%v", err)
		}
	})
	t.Run("a list of what has vanished", func(t *testing.T) {
		r := &rogue{fields: chunkFields, answer: flood(func(int) pgproto3.BackendMessage {
			return &pgproto3.DataRow{Values: [][]byte{int8Col(1), []byte(text[:200]), nil, nil, nil}}
		})}
		s := connect(t, r.start(t), 1)
		s.listAnswer = 1 << 20 // rather than gigabytes
		if _, err := s.List(t.Context(), 1, nil); !errors.Is(err, errFlood) {
			t.Errorf("%v", err)
		}
	})
	t.Run("too many entries", func(t *testing.T) {
		var total listTotal
		total.entries.Store(maxEntries - 1)
		e := &pg.Entry{Path: "a"}
		if err := total.add(e); err != nil {
			t.Error(err)
		}
		if err := total.add(e); err == nil || !strings.Contains(err.Error(), "more than 16777216 files") {
			t.Error(err)
		}
		total = listTotal{}
		total.bytes.Store(maxListBytes)
		if err := total.add(e); err == nil || !strings.Contains(err.Error(), "more than 2048 MB") {
			t.Error(err)
		}
	})
}

// What lies on the level of the protocol.
func TestRogueMessages(t *testing.T) {
	raw := func(kind byte, length uint32, body ...byte) func(*pgproto3.Backend, net.Conn, string) bool {
		return func(b *pgproto3.Backend, conn net.Conn, _ string) bool {
			_ = b.Flush()
			_, _ = conn.Write(append(binary.BigEndian.AppendUint32([]byte{kind}, length), body...))
			return false
		}
	}
	ranges := []pg.FileRange{{Path: "a", Length: 3}}
	for name, c := range map[string]struct {
		answer func(*pgproto3.Backend, net.Conn, string) bool
		want   string
	}{
		"negative length":     {raw('D', 1<<31), "unexpected result while fetching remote files: invalid message length: -2147483648"},
		"length of nothing":   {raw('D', 0), "unexpected result while fetching remote files: invalid message length: 0"},
		"as long as it gets":  {raw('D', 1<<31-1), "unexpected result while fetching remote files: invalid body length: expected at most"},
		"column beyond row":   {raw('D', 10, 0, 1, 0, 0, 0, 100), "unexpected result while fetching remote files: DataRow body is invalid"},
		"column of minus two": {raw('D', 10, 0, 1, 255, 255, 255, 254), "unexpected result while fetching remote files: DataRow body is invalid"},
		"columns without end": {raw('D', 6, 255, 255), "unexpected result while fetching remote files: DataRow body is invalid"},
		"no columns":          {raw('D', 6, 0, 0), "unexpected result set size while fetching remote files"},
		"unknown message":     {raw(0x1b, 4), `unexpected result while fetching remote files: unknown message type: \x1b`},
		"half a message":      {raw('D', 100, 0, 3), "unexpected result while fetching remote files: server closed the connection unexpectedly"},
		"copy":                {raw('W', 7, 0, 0, 0), "unexpected result while fetching remote files: server closed the connection unexpectedly"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &rogue{fields: chunkFields, answer: c.answer}
			s := connect(t, r.start(t), 1)
			err := s.Fetch(t.Context(), ranges, discard)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
	t.Run("number of fields", func(t *testing.T) {
		for _, fields := range [][]uint32{nil, {oidText}, {oidText, oidInt8, oidBytea, oidText}, slices.Repeat([]uint32{oidText}, 1600)} {
			r := &rogue{fields: fields}
			if f := connectError(t, r.start(t)); f.Text != "unexpected result set size while fetching remote files" {
				t.Errorf("%d: %s", len(fields), f.Text)
			}
		}
	})
	t.Run("version", func(t *testing.T) {
		r := &rogue{fields: chunkFields, version: "\x1b]0;owned\x07"}
		if f := connectError(t, r.start(t)); f.Text != `unrecognized server version "\x1b]0;owned\x07"` {
			t.Errorf("%q", f.Text)
		}
	})
	t.Run("terminal escapes", func(t *testing.T) {
		evil := &pgproto3.ErrorResponse{
			Severity: "\x1b[31mERROR", Code: "XX000", Message: "a\rb\x08\u009b2Jc\u202ed\xffe\tf",
			Detail: "\x1b]8;;http://evil\x07", Hint: "two\nlines",
		}
		const want = `\x1b[31mERROR:  a\x0db\x08\x9b2Jc\u202ed\xffe` + "\tf\nDETAIL:  " + `\x1b]8;;http://evil\x07` + "\nHINT:  two\nlines"
		r := &rogue{fields: chunkFields, answer: func(b *pgproto3.Backend, _ net.Conn, _ string) bool {
			b.Send(evil)
			b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
			return b.Flush() == nil
		}}
		s := connect(t, r.start(t), 1)
		if err := s.Fetch(t.Context(), ranges, discard); err == nil || err.Error() != "unexpected result while fetching remote files: "+want {
			t.Errorf("%q", err)
		}
		evil.Severity = "FATAL"
		r = &rogue{greet: func(b *pgproto3.Backend, _ net.Conn) bool { b.Send(evil); _ = b.Flush(); return false }}
		if f := connectError(t, r.start(t)); strings.ContainsAny(f.Text, "\x1b\r\x07\u202e") {
			t.Errorf("%q", f.Text)
		}
		evil.Message = strings.Repeat("long ", 1<<16)
		if err := s.Fetch(t.Context(), ranges, discard); err == nil || len(err.Error()) > 5000 {
			t.Errorf("%d bytes", len(err.Error()))
		}
	})
	t.Run("listed twice", func(t *testing.T) {
		r := &rogue{fields: chunkFields, answer: func(b *pgproto3.Backend, _ net.Conn, _ string) bool {
			b.Send(&pgproto3.DataRow{Values: [][]byte{int8Col(1), []byte("a"), int8Col(1), no, nil}})
			b.Send(&pgproto3.DataRow{Values: [][]byte{int8Col(1), []byte("a"), int8Col(2), no, nil}})
			return true
		}}
		s := connect(t, r.start(t), 1)
		if entries, err := s.List(t.Context(), 1, nil); err != nil || len(entries) != 1 {
			t.Errorf("%v, %v", entries, err)
		}
		first := true
		r = &rogue{fields: chunkFields, answer: func(b *pgproto3.Backend, _ net.Conn, _ string) bool {
			if first {
				b.Send(&pgproto3.DataRow{Values: [][]byte{int8Col(1), []byte("a"), int8Col(1), no, nil}})
				b.Send(&pgproto3.DataRow{Values: [][]byte{int8Col(1), []byte("a"), int8Col(2), yes, nil}})
			}
			first = false
			return true
		}}
		s = connect(t, r.start(t), 1)
		if _, err := s.List(t.Context(), 1, nil); err == nil || advice(err) != `The source listed "a" twice, as different things.` {
			t.Errorf("%v", err)
		}
	})
}

// A server that says nothing, at any point, is given up in time.
func TestRogueSilence(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	r := &rogue{fields: chunkFields, answer: func(*pgproto3.Backend, net.Conn, string) bool { <-hang; return false }}
	s, err := Connect(t.Context(), r.start(t), Options{StallTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.ControlFile(t.Context()); !errors.Is(err, ErrSourceLost) || !strings.HasSuffix(err.Error(), "no answer from the server for 50ms") {
		t.Errorf("%v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	r = &rogue{greet: func(*pgproto3.Backend, net.Conn) bool { <-hang; return false }}
	if _, err := Connect(t.Context(), r.start(t), Options{StallTimeout: 50 * time.Millisecond}); err == nil ||
		!strings.HasSuffix(err.Error(), "no answer from the server for 50ms") {
		t.Errorf("%v", err)
	}
	r = &rogue{greet: r.greet}
	if _, err := Connect(t.Context(), r.start(t)+" connect_timeout=1", Options{}); err == nil || !strings.HasSuffix(err.Error(), "timeout expired") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	r = &rogue{greet: r.greet}
	if _, err := Connect(ctx, r.start(t), Options{StallTimeout: -1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain ä 表\n\tx":     "plain ä 表\n\tx",
		"\x00\x1b\x7f\r":     `\x00\x1b\x7f\x0d`,
		"\u0085\u200e\ufeff": `\x85\u200e\ufeff`,
		"\xc3":               `\xc3`,
		"\xed\xa0\x80":       `\xed\xa0\x80`,
		"\ufffd":             "\ufffd",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := printableLine("a\nb\tc"); got != `a\x0ab\x09c` {
		t.Errorf("%q", got)
	}
}

// However the bytes come, the reader counts the same.
func TestAsideReader(t *testing.T) {
	var wire []byte
	for i := range 300 {
		kind := byte('D')
		if i%3 == 0 {
			kind = 'N'
		}
		wire = append(binary.BigEndian.AppendUint32(append(wire, kind), uint32(4+i)), make([]byte, i)...)
	}
	want := int64(0)
	for i := 0; i < 300; i += 3 {
		want += int64(5 + i)
	}
	for _, size := range []int{1, 2, 3, 4, 5, 6, 7, 100, 1000, 1 << 20} {
		a := &asideReader{r: bytes.NewReader(wire)}
		buf := make([]byte, size)
		total := 0
		for {
			n, err := a.Read(buf)
			total += n
			if err != nil {
				break
			}
		}
		if total != len(wire) || a.aside.Load() != want {
			t.Errorf("size %d: %d of %d bytes, %d aside, not %d", size, total, len(wire), a.aside.Load(), want)
		}
	}
}
