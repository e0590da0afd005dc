package preflight

import (
	"errors"

	"golang.org/x/sys/unix"
)

// stat gives what is known of a path; of a link's end if follow is set.
func stat(full string, follow bool) (attrs, error) {
	flags := unix.AT_NO_AUTOMOUNT
	if !follow {
		flags |= unix.AT_SYMLINK_NOFOLLOW
	}
	var st unix.Statx_t
	for {
		err := unix.Statx(unix.AT_FDCWD, full, flags, unix.STATX_TYPE|unix.STATX_MODE|unix.STATX_UID, &st)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return attrs{}, err
		}
		// What a file system does not support is not set in the mask, nor in the attributes.
		return attrs{
			mode: uint32(st.Mode), uid: st.Uid, dev: unix.Mkdev(st.Dev_major, st.Dev_minor),
			immutable: st.Attributes&unix.STATX_ATTR_IMMUTABLE != 0,
			append:    st.Attributes&unix.STATX_ATTR_APPEND != 0,
			mount:     st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0,
		}, nil
	}
}
