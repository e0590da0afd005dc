package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"unicode"

	"github.com/google/licensecheck"
)

// places are where modules lie from which a program was built.
type places struct {
	modules string // GOMODCACHE
	goroot  string
}

// licensed is a part of the program, under its licences.
type licensed struct {
	name, version, sum string
	ids                []string // SPDX, ascending; at least one
	files              []licenceFile
}

type licenceFile struct {
	name string
	text []byte
}

// licences finds the licences of the standard library and of every module in the program. A module of which it cannot be said
// under what licence it is, is an error: it must not be given out.
func (p places) licences(info *debug.BuildInfo) ([]licensed, error) {
	// The standard library's version is the compiler's.
	all := []licensed{{name: "std", version: strings.TrimPrefix(info.GoVersion, "go")}}
	dirs := []string{p.goroot}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		all = append(all, licensed{name: module.Path, version: module.Version, sum: module.Sum})
		dirs = append(dirs, filepath.Join(p.modules, escaped(module.Path)+"@"+escaped(module.Version)))
	}
	for i := range all {
		if err := all[i].read(dirs[i]); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b licensed) int { return strings.Compare(a.name, b.name) })
	return all, nil
}

// escaped is a module's path or version as a file name (go help goproxy).
func escaped(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsUpper(r) {
			b.WriteByte('!')
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}

// licenceNames are what files with licences are called, and notices that must be given on with them.
var licenceNames = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice)([-.].*)?$`)

// enough is how much of a file must be the text of licences, in percent; the rest is names and years. licensecheck's own
// documentation calls 75 safe.
const enough = 75

func (l *licensed) read(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() || !licenceNames.MatchString(entry.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return err
		}
		l.files = append(l.files, licenceFile{entry.Name(), text})
		found := licensecheck.Scan(text)
		if found.Percent < enough {
			if strings.HasPrefix(strings.ToLower(entry.Name()), "notice") {
				continue
			}
			return fmt.Errorf("%s %s: only %.0f%% of %s is known as text of licences", l.name, l.version, found.Percent, entry.Name())
		}
		for _, match := range found.Match {
			if !match.IsURL {
				l.ids = append(l.ids, match.ID)
			}
		}
	}
	if len(l.ids) == 0 {
		return fmt.Errorf("%s %s: no licence found in %s", l.name, l.version, dir)
	}
	slices.Sort(l.ids)
	l.ids = slices.Compact(l.ids)
	return nil
}

// texts are the licences as they are given on with the program.
func texts(program string, all []licensed) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "What follows are the licences of the Go modules of which parts are in %s.\n", program)
	for _, l := range all {
		for _, file := range l.files {
			fmt.Fprintf(&b, "\n%s\n%s %s: %s (%s)\n%[1]s\n\n", strings.Repeat("=", 80), l.name, l.version, file.name, strings.Join(l.ids, ", "))
			b.Write(bytes.TrimSpace(file.text))
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}
