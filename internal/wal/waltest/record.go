package waltest

import (
	"encoding/binary"

	"github.com/fastrewind/fastrewind/internal/pg"
	"github.com/fastrewind/fastrewind/internal/wal"
)

// HeaderBytes is the size of a record's header.
const HeaderBytes = 24

// Record is a record to be written.
type Record struct {
	Rmgr, Info uint8
	XID        uint32
	Blocks     []Block
	Main       []byte

	// Body replaces Blocks and Main: everything behind the header.
	Body []byte
	// Edit changes the record's bytes, header first, before the checksum is made.
	Edit func(b []byte)
	// Spoil changes them afterwards.
	Spoil func(b []byte)
}

// Block is a block reference to be written.
type Block struct {
	ID    uint8
	Rel   pg.Rel
	Fork  pg.Fork
	Block pg.BlockNo
	Data  []byte
	Image []byte // of 8192 bytes, or shorter: then it has a hole
	Same  bool   // leave the relation out: it is the one before
	Init  bool
}

// bytes puts a record together.
func (r *Record) bytes(prev pg.LSN) []byte {
	le := binary.LittleEndian
	b := make([]byte, HeaderBytes, HeaderBytes+64+len(r.Main)+len(r.Body))
	if r.Body != nil {
		b = append(b, r.Body...)
	} else {
		b = append(b, r.parts()...)
	}
	le.PutUint32(b, uint32(len(b)))
	le.PutUint32(b[4:], r.XID)
	le.PutUint64(b[8:], uint64(prev))
	b[16], b[17] = r.Info, r.Rmgr
	if r.Edit != nil {
		r.Edit(b)
	}
	Seal(b)
	if r.Spoil != nil {
		r.Spoil(b)
	}
	return b
}

// Seal puts the right checksum into a record.
func Seal(b []byte) {
	sum := append(append([]byte(nil), b[HeaderBytes:]...), b[:HeaderBytes-4]...)
	binary.LittleEndian.PutUint32(b[HeaderBytes-4:], pg.CRC32C(sum))
}

// parts is what comes behind the header: fragment headers, then the data in the same order.
func (r *Record) parts() []byte {
	le := binary.LittleEndian
	var heads, data []byte
	for _, b := range r.Blocks {
		flags := uint8(b.Fork)
		if b.Data != nil {
			flags |= 0x20
		}
		if b.Image != nil {
			flags |= 0x10
		}
		if b.Init {
			flags |= 0x40
		}
		if b.Same {
			flags |= 0x80
		}
		heads = append(heads, b.ID, flags)
		heads = le.AppendUint16(heads, uint16(len(b.Data)))
		if b.Image != nil {
			heads = le.AppendUint16(heads, uint16(len(b.Image)))
			if len(b.Image) == pg.BlockSize {
				heads = append(heads, 0, 0, 0)
			} else {
				heads = append(heads, 24, 0, 0x01)
			}
		}
		if !b.Same {
			heads = le.AppendUint32(heads, uint32(b.Rel.Tablespace))
			heads = le.AppendUint32(heads, uint32(b.Rel.Database))
			heads = le.AppendUint32(heads, uint32(b.Rel.Number))
		}
		heads = le.AppendUint32(heads, uint32(b.Block))
		data = append(append(data, b.Image...), b.Data...)
	}
	switch n := len(r.Main); {
	case n == 0:
	case n < 256:
		heads = append(heads, 255, uint8(n))
	default:
		heads = le.AppendUint32(append(heads, 254), uint32(n))
	}
	return append(append(heads, data...), r.Main...)
}

// Noop is a record of exactly n bytes that changes nothing. n is at least 24 and not 25.
func Noop(n int) Record {
	r := Record{Rmgr: wal.RmgrXLOG, Info: 0x20}
	switch {
	case n == HeaderBytes:
	case n-HeaderBytes-2 < 256:
		r.Main = make([]byte, n-HeaderBytes-2)
		if n == HeaderBytes+2 {
			r.Body = []byte{255, 0}
		}
	case n-HeaderBytes-5 < 256: // too long for the short form, too short for what parts makes of the long one
		r.Body = append(binary.LittleEndian.AppendUint32([]byte{254}, uint32(n-HeaderBytes-5)), make([]byte, n-HeaderBytes-5)...)
	default:
		r.Main = make([]byte, n-HeaderBytes-5)
	}
	for i := range r.Main {
		r.Main[i] = byte(i*7 + n)
	}
	return r
}

// Checkpoint is an online checkpoint record.
func Checkpoint(redo pg.LSN, tli pg.TLI) Record {
	main := make([]byte, 88)
	binary.LittleEndian.PutUint64(main, uint64(redo))
	binary.LittleEndian.PutUint32(main[8:], uint32(tli))
	binary.LittleEndian.PutUint32(main[12:], uint32(tli))
	return Record{Rmgr: wal.RmgrXLOG, Info: wal.XLOGCheckpointOnline, Main: main}
}

// Touch is a record that changes one block of a relation in database 5, in the default tablespace.
func Touch(rel pg.RelNumber, block pg.BlockNo, mainBytes int) Record {
	return Record{
		Rmgr: 10, Info: 0x00,
		Blocks: []Block{{Rel: pg.Rel{Tablespace: pg.DefaultTablespace, Database: 5, Number: rel}, Block: block, Data: []byte{1, 2, 3}}},
		Main:   make([]byte, mainBytes),
	}
}
