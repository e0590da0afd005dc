package datadir

import (
	"io/fs"
	"os"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// Modes are the permissions a program that writes into a data directory gives to what it creates, and the umask under
// which it runs.
type Modes struct {
	File, Dir fs.FileMode
	Umask     int
}

// The two kinds of data directory: readable by its owner only, or by its group too (initdb --allow-group-access).
// PG_FILE_MODE_OWNER and the others in common/file_perm.h.
var (
	OwnerModes = Modes{File: 0o600, Dir: 0o700, Umask: 0o077}
	GroupModes = Modes{File: 0o640, Dir: 0o750, Umask: 0o027}
)

// Mode says which modes belong to the data directory dir, from its own permissions (GetDataDirectoryCreatePerm,
// common/file_perm.c): the group's if the group may read and enter it.
func Mode(dir string) (Modes, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return Modes{}, fault.Because(err, "could not read permissions of directory \"%s\": %s", dir, fault.M(err))
	}
	if info.Mode().Perm()&GroupModes.Dir == GroupModes.Dir {
		return GroupModes, nil
	}
	return OwnerModes, nil
}
