package undo

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/fastrewind/fastrewind/copier"
	"github.com/fastrewind/fastrewind/internal/fault"
)

// CheckDir says whether dir can be the undo directory of targetDir, and changes nothing: it lies outside the target, its
// pg_wal and its tablespaces, and is empty, missing (then its parent is there), or already an undo. It is for the checks
// before a run; Save looks again.
func CheckDir(dir, targetDir string) error {
	if err := outside(dir, targetDir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.Because(err, "could not open directory \"%s\": %s", dir, fault.M(err))
	}
	return foreign(dir, entries)
}

// foreign is an error if a directory holds something and is no undo.
func foreign(dir string, entries []os.DirEntry) error {
	var other string
	for _, e := range entries {
		switch e.Name() {
		case headFile:
			return nil
		case headFile + copier.TempSuffix: // of a run that ended while it made its head
		default:
			other = e.Name()
		}
	}
	if other == "" {
		return nil
	}
	return fault.New("directory \"%s\" exists but is not empty", dir).
		Advise("It holds \"%s\", and is not the undo of a rewind. Name another directory, or one that does not exist yet.", other)
}

// outside walks from dir up to the root and looks whether it comes by one of the target's directories. Files are compared,
// not names: a link or a second mount makes no difference.
func outside(dir, targetDir string) error {
	inside := []string{targetDir, filepath.Join(targetDir, "pg_wal")}
	spaces, err := os.ReadDir(filepath.Join(targetDir, "pg_tblspc"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Because(err, "could not open directory \"%s\": %s", filepath.Join(targetDir, "pg_tblspc"), fault.M(err))
	}
	for _, e := range spaces {
		inside = append(inside, filepath.Join(targetDir, "pg_tblspc", e.Name()))
	}
	var infos []fs.FileInfo
	for _, name := range inside {
		if info, err := os.Stat(name); err == nil {
			infos = append(infos, info)
		}
	}
	at, err := existing(dir)
	if err != nil {
		return err
	}
	for {
		info, err := os.Stat(at)
		if err != nil {
			return fault.Because(err, "could not stat directory \"%s\": %s", at, fault.M(err))
		}
		for i, in := range infos {
			if os.SameFile(info, in) {
				return fault.New("undo directory \"%s\" lies inside the target", dir).
					Advise("It is at or below \"%s\", which the rewind changes. Name a directory elsewhere; on the same file "+
						"system if that one can make reflinks.", inside[i])
			}
		}
		if at == "/" {
			return nil
		}
		at = filepath.Dir(at)
	}
}

// existing is the real path of dir, or of the nearest directory above it that is there.
func existing(dir string) (string, error) {
	at, err := filepath.Abs(dir)
	if err != nil {
		return "", fault.Because(err, "could not get the absolute path of \"%s\": %s", dir, fault.M(err))
	}
	for {
		end, err := filepath.EvalSymlinks(at)
		if err == nil {
			return end, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || at == "/" {
			return "", fault.Because(err, "could not access directory \"%s\": %s", dir, fault.M(err))
		}
		at = filepath.Dir(at)
	}
}

// prepare makes dir, or takes it if it is empty or an undo, and makes it durable.
func prepare(dir string) error {
	err := os.Mkdir(dir, ownDir)
	if err == nil {
		return syncParent(dir)
	}
	if !errors.Is(err, fs.ErrExist) {
		return fault.Because(err, "could not create directory \"%s\": %s", dir, fault.M(err)).
			Advise("The directory that is to hold it must exist and be writable. The target was not touched.")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fault.Because(err, "could not open directory \"%s\": %s", dir, fault.M(err))
	}
	if err := foreign(dir, entries); err != nil {
		return err
	}
	if len(entries) == 0 {
		if err := os.Chmod(dir, ownDir); err != nil {
			return fault.Because(err, "could not change permissions of directory \"%s\": %s", dir, fault.M(err))
		}
	}
	return nil
}

func syncParent(dir string) error {
	name := filepath.Dir(filepath.Clean(dir))
	parent, err := os.Open(name)
	if err != nil {
		return fault.Because(err, "could not open directory \"%s\": %s", name, fault.M(err))
	}
	defer parent.Close()
	// Some systems cannot fsync a directory: see fsx.Target.SyncDir.
	if err := parent.Sync(); err != nil && !errors.Is(err, syscall.EBADF) && !errors.Is(err, syscall.EINVAL) {
		return fault.Because(err, "could not fsync file \"%s\": %s", name, fault.M(err))
	}
	return nil
}
