package settings

import (
	"path"
	"strings"

	"github.com/fastrewind/fastrewind/archive/location"
)

// vars are the variables that a command sees: those set for it, before those of the environment. The zero vars are none.
type vars struct {
	set  map[string]location.Secret // never changed once made
	base func(string) string        // nil: a clean environment
	cwd  string                     // the working directory; empty: not known
}

// get is a variable's value, or empty.
func (v vars) get(name string) string {
	if value, ok := v.set[name]; ok {
		return value.Reveal()
	}
	if v.base != nil {
		return v.base(name)
	}
	return ""
}

// first is the value of the first of several variables that has one.
func (v vars) first(names ...string) string {
	for _, name := range names {
		if value := v.get(name); value != "" {
			return value
		}
	}
	return ""
}

// with is v and more.
func (v vars) with(more map[string]location.Secret) vars {
	set := make(map[string]location.Secret, len(v.set)+len(more))
	for name, value := range v.set {
		set[name] = value
	}
	for name, value := range more {
		set[name] = value
	}
	v.set = set
	return v
}

func (v vars) with1(name, value string) vars {
	return v.with(map[string]location.Secret{name: location.Secret(value)})
}

// abs makes a path absolute. It is empty if that cannot be done.
func (v vars) abs(p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	if v.cwd == "" {
		return ""
	}
	return path.Join(v.cwd, p)
}

// envdir reads a directory with one file for each variable, as envdir of daemontools does: the first line is the value, an
// empty file unsets.
func (e Env) envdir(dir string) (map[string]location.Secret, error) {
	names, err := e.list(dir)
	if err != nil {
		return nil, err
	}
	set := map[string]location.Secret{}
	for _, name := range names {
		if strings.HasPrefix(name, ".") || strings.Contains(name, "=") {
			continue
		}
		data, err := e.read(path.Join(dir, name))
		if err != nil {
			return nil, err
		}
		line, _, _ := strings.Cut(string(data), "\n")
		line = strings.TrimRight(line, " \t\r")
		set[name] = location.Secret(strings.ReplaceAll(line, "\x00", "\n"))
	}
	return set, nil
}
