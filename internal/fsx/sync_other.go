//go:build !linux

package fsx

import (
	"errors"
	"io/fs"
	"os"
)

// StartWriteback implements File: there is no such call.
func (f *file) StartWriteback(_, _ int64) error { return nil }

func syncfs(dir *os.File) error {
	return &fs.PathError{Op: "syncfs", Path: dir.Name(), Err: errors.ErrUnsupported}
}
