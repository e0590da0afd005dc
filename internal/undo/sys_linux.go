package undo

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// clone makes dst, which is empty, share all blocks of src, or fails: other file system, or one that cannot.
func clone(dst, src *os.File) error {
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
}

// setTime sets a file's time of modification. Linux can do that through a descriptor since 5.8; before, it is not done.
func setTime(f *os.File, mtime int64) {
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(time.Unix(0, mtime).UnixNano())}
	_ = unix.UtimesNanoAt(int(f.Fd()), "", times, unix.AT_EMPTY_PATH) // a time is no part of what was promised
}
