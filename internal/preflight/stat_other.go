//go:build !linux

package preflight

import "golang.org/x/sys/unix"

// stat gives what is known of a path; of a link's end if follow is set. Attributes and mounts are not known here.
func stat(full string, follow bool) (attrs, error) {
	var st unix.Stat_t
	call := unix.Lstat
	if follow {
		call = unix.Stat
	}
	if err := call(full, &st); err != nil {
		return attrs{}, err
	}
	return attrs{mode: uint32(st.Mode), uid: st.Uid, dev: uint64(st.Dev)}, nil
}
