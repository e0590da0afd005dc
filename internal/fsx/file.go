package fsx

import (
	"errors"
	"os"
	"syscall"
)

// file is an open file of a Target. os.File under it guards the descriptor: a late WriteAt after Close is an error, never a
// write to whatever file got the number next.
type file struct{ *os.File }

// Size implements File.
func (f *file) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// control runs a system call on f's descriptor, again after EINTR.
func control(f *os.File, call func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	err = c.Control(func(fd uintptr) {
		for {
			if callErr = call(int(fd)); !errors.Is(callErr, syscall.EINTR) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	return callErr
}
