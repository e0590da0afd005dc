package wal

// Decode is decode, for the fuzzer: head begins with a record's header.
func (f *Format) Decode(r *Record, head []byte) error {
	if err := f.decode(r, head); err != nil {
		return err
	}
	return nil
}
