package pgbin

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// MajorOf reads the major of the cluster in a data directory from its PG_VERSION, which holds the number and a line end
// (ValidatePgVersion, miscinit.c).
func MajorOf(dataDir string) (int, error) {
	path := filepath.Join(dataDir, "PG_VERSION")
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, fault.Because(err, "could not open file \"%s\" for reading: %s", path, fault.M(err)).
			Advise("Every data directory has this file. Is %s the data directory?", dataDir)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return 0, fault.Because(err, "could not read file \"%s\": %s", path, fault.M(err))
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || major <= 0 {
		return 0, fault.New("\"%s\" is not a valid data directory", dataDir).WithDetail("File \"%s\" does not contain valid data.", path).
			Advise("It holds %q; expected is a number such as 15.", text)
	}
	return major, nil
}
