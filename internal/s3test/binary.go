package s3test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// program is a server that can be run.
type program struct {
	name   string
	module string // relative to the repository
	path   string // of the package
}

var (
	versitygw = program{"versitygw", "tools/s3servers", "./versitygw"}
	minio     = program{"minio", "tools/s3servers/minio", "github.com/minio/minio"}
)

// chosen is the program that FASTREWIND_TEST_S3 names.
func chosen() (program, error) {
	switch name := os.Getenv("FASTREWIND_TEST_S3"); name {
	case "", versitygw.name:
		return versitygw, nil
	case minio.name:
		return minio, nil
	default:
		return program{}, fmt.Errorf("FASTREWIND_TEST_S3 is %q; known are %s and %s", name, versitygw.name, minio.name)
	}
}

// find returns the program's file, and builds it if it is missing. Packages are tested at the same time: only one builds.
func (p program) find() (string, error) {
	repository, err := repositoryDir()
	if err != nil {
		return "", err
	}
	file := filepath.Join(repository, ".cache", p.name)
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(file+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close() // and unlocked
	for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	cmd := exec.Command(goTool(), "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", file, p.path)
	cmd.Dir = filepath.Join(repository, p.module)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s in %s: %w\n%s", p.path, p.module, err, out)
	}
	return file, nil
}

// goTool is the go program, also where /usr/local/go/bin is not in PATH.
func goTool() string {
	if path, err := exec.LookPath("go"); err == nil {
		return path
	}
	return "/usr/local/go/bin/go"
}

// repositoryDir is the nearest directory above the working directory that pins the servers; tests run in their package's.
func repositoryDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, versitygw.module, "go.mod")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("no %s in %s or above", versitygw.module, dir)
		}
	}
}
