package pgtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// Binaries are the programs BuildFastrewind made, readable by every user.
type Binaries struct {
	Fastrewind string // under its own name
	PgRewind   string // the same program under the name pg_rewind, alone in its directory
}

var (
	buildOnce sync.Once
	built     Binaries
	buildErr  error
	buildDog  *watchdog // held for the process's life: when its pipe closes, the directory goes
)

// BuildFastrewind builds cmd/fastrewind, once in the life of the test process, with the race detector if the test has
// it. The files are removed when the process ends.
func BuildFastrewind(tb TB) Binaries {
	tb.Helper()
	buildOnce.Do(func() {
		if built, buildErr = build(); buildErr != nil && buildDog != nil {
			buildDog.release()
		}
	})
	if buildErr != nil {
		tb.Fatalf("pgtest: building fastrewind: %v", buildErr)
	}
	return built
}

func build() (Binaries, error) {
	module, err := moduleDir()
	if err != nil {
		return Binaries{}, err
	}
	dir, err := os.MkdirTemp(parentDir(), "pgtbin") // not $TMPDIR, which may be closed to the servers' user
	if err != nil {
		return Binaries{}, err
	}
	if buildDog, err = startWatchdog(dir, false); err != nil {
		_ = os.RemoveAll(dir)
		return Binaries{}, err
	}
	b := Binaries{Fastrewind: filepath.Join(dir, "fastrewind"), PgRewind: filepath.Join(dir, "as", "pg_rewind")}
	args := []string{"build", "-buildvcs=false", "-o", b.Fastrewind}
	if raceEnabled {
		args = append(args, "-race")
	}
	cmd := exec.Command(goTool(), append(args, "./cmd/fastrewind")...)
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		return Binaries{}, fmt.Errorf("%w\n%s", err, out)
	}
	if err := os.Mkdir(filepath.Dir(b.PgRewind), 0o755); err != nil {
		return Binaries{}, err
	}
	if err := os.Link(b.Fastrewind, b.PgRewind); err != nil {
		return Binaries{}, err
	}
	for _, path := range []string{dir, filepath.Dir(b.PgRewind), b.Fastrewind} { // whatever the umask was
		if err := os.Chmod(path, 0o755); err != nil {
			return Binaries{}, err
		}
	}
	return b, nil
}

// goTool is the go program, also where /usr/local/go/bin is not in PATH.
func goTool() string {
	if path, err := exec.LookPath("go"); err == nil {
		return path
	}
	return "/usr/local/go/bin/go"
}

// moduleDir is the nearest directory above the working directory that holds this module; tests run in their package's.
func moduleDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "cmd", "fastrewind")); err == nil {
			if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
				return d, nil
			}
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("no go.mod with cmd/fastrewind in %s or above", dir)
		}
	}
}
