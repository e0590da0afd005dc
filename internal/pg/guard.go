package pg

import "encoding/binary"

// guardVersion is added to the pg_control_version of a half-rewound cluster. No major has or will have such a number.
const guardVersion = 1_000_000_000

// Guarded gives c's pg_control as it lies in a half-rewound data directory: with a version no server accepts. Every
// server of every major compares that number first, and ends with "database files are incompatible with server"
// (ReadControlFile, xlog.c); pg_rewind, pg_checksums, pg_resetwal and pg_upgrade refuse it, too. All other fields, and the
// CRC, are right, so that pg_controldata prints them, and whoever decides by them (Patroni asks for state and timeline
// before it calls pg_rewind again) decides as before. A missing file would stop them all.
func (c *Control) Guarded() []byte {
	b := make([]byte, ControlSize)
	copy(b, c.raw[:])
	binary.LittleEndian.PutUint32(b[controlOffControlVersion:], c.Version.ControlVersion+guardVersion)
	binary.LittleEndian.PutUint32(b[c.Version.control.crc:], CRC32C(b[:c.Version.control.crc]))
	return b
}

// IsGuarded reports whether data is what Guarded has made of some cluster's control file, intact.
func IsGuarded(data []byte) bool {
	if len(data) != ControlSize {
		return false
	}
	le := binary.LittleEndian
	v, err := FindVersion(le.Uint32(data[controlOffControlVersion:])-guardVersion, le.Uint32(data[controlOffCatalogVersion:]))
	return err == nil && le.Uint32(data[v.control.crc:]) == CRC32C(data[:v.control.crc])
}

// Raw is the file's content as it was decoded. The slice is the caller's.
func (c *Control) Raw() []byte {
	b := make([]byte, ControlSize)
	copy(b, c.raw[:])
	return b
}
