package settings

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// MaxFile is the most that is read of any file, in bytes.
const MaxFile = 1 << 20

// maxEntries is the most files that are read of any directory.
const maxEntries = 1000

// Env is the world that settings are found in.
type Env struct {
	Getenv         func(name string) string
	ReadFile       func(name string) ([]byte, error) // errors as of os.ReadFile
	ReadDir        func(name string) ([]fs.DirEntry, error)
	HomeDir        string // empty: none
	RestoreCommand string // the target's, with its placeholders; empty: none
	TargetDir      string // the target's data directory, absolute; empty: no target at hand
}

// Format prints nothing of what is in it: a restore_command may hold secrets.
func (e Env) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "settings.Env") }

// MarshalText keeps it out of JSON and YAML.
func (e Env) MarshalText() ([]byte, error) { return []byte("settings.Env"), nil }

// OSEnv is the real world.
func OSEnv(restoreCommand, targetDir string) Env {
	home, err := os.UserHomeDir()
	if err != nil {
		home = ""
	}
	return Env{
		Getenv: os.Getenv, ReadFile: readFile, ReadDir: os.ReadDir, HomeDir: home,
		RestoreCommand: restoreCommand, TargetDir: targetDir,
	}
}

// readFile is os.ReadFile for regular files, of which it reads one byte more than MaxFile at most.
func readFile(name string) ([]byte, error) {
	// Without O_NONBLOCK, a named pipe would hold us until somebody writes to it.
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("not a regular file")}
	}
	return io.ReadAll(io.LimitReader(f, MaxFile+1))
}

// read reads a file. That it is missing is said by an error for which errors.Is(err, fs.ErrNotExist).
func (e Env) read(name string) ([]byte, error) {
	data, err := e.ReadFile(name)
	if err != nil {
		return nil, fault.Because(err, "could not read file \"%s\": %s", name, fault.M(bare(err))).
			Advise("The settings of the WAL archive are looked for there. Make it readable, or name the archive with --wal-archive.")
	}
	if len(data) > MaxFile {
		return nil, fault.New("file \"%s\" is larger than %d bytes", name, MaxFile).Advise("No file of settings is as large.")
	}
	return data, nil
}

// readIf is read for a file that need not be there.
func (e Env) readIf(name string) (data []byte, ok bool, err error) {
	data, err = e.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	return data, err == nil, err
}

// list lists the names of the files in a directory, ascending.
func (e Env) list(dir string) ([]string, error) {
	entries, err := e.ReadDir(dir)
	if err != nil {
		return nil, fault.Because(err, "could not read directory \"%s\": %s", dir, fault.M(bare(err))).
			Advise("The settings of the WAL archive are looked for there. Make it readable, or name the archive with --wal-archive.")
	}
	if len(entries) > maxEntries {
		return nil, fault.New("directory \"%s\" has more than %d entries", dir, maxEntries).Advise("No directory of settings is as large.")
	}
	var names []string
	for _, entry := range entries {
		if !entry.IsDir() {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// bare is an error without the path that it would repeat.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// home makes a path below the home directory of one that begins with a tilde.
func (e Env) home(p string) string {
	if rest, ok := strings.CutPrefix(p, "~/"); ok && e.HomeDir != "" {
		return path.Join(e.HomeDir, rest)
	}
	return p
}
