package pgtest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestMajors: which majors are there to test, and which of them is used unless a test asks for another.
func TestMajors(t *testing.T) {
	installs := func(prefix string, versions map[string]string, without string) {
		for major, version := range versions {
			dir := filepath.Join(prefix, major, "bin")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			programs := serverPrograms
			if !slices.Contains(strings.Fields(without), major) {
				programs = append([]string{stockProgram}, programs...)
			}
			for _, name := range programs {
				if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho 'postgres (PostgreSQL) "+version+"'\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	system := systemDirs
	systemDirs = nil
	t.Cleanup(func() { systemDirs = system })
	for _, tt := range []struct {
		what      string
		installed map[string]string // directory and version
		without   string            // those of them that have no pg_rewind
		listed    string            // $FASTREWIND_TEST_MAJORS
		majors    []int
		chosen    int
		err       string
	}{
		{what: "all that are installed", installed: map[string]string{"14": "14.23", "17": "17.11", "19": "19rc1"}, majors: []int{14, 17, 19}, chosen: 19},
		{what: "15 is preferred", installed: map[string]string{"14": "14.23", "15": "15.18 (Debian 15.18-0+deb12u1)", "17": "17.11"}, majors: []int{14, 15, 17}, chosen: 15},
		{what: "a list", installed: map[string]string{"13": "13.16", "15": "15.18", "17": "17.11"}, listed: "17, 13 17", majors: []int{13, 17}, chosen: 17},
		{what: "one of a list is missing", installed: map[string]string{"17": "17.11"}, listed: "17 18", err: "no PostgreSQL 18 found"},
		{what: "14 and 16 may be without pg_rewind", installed: map[string]string{"14": "14.23", "16": "16.14", "18": "18.1"}, without: "14 16", listed: "14 16 18",
			majors: []int{14, 16, 18}, chosen: 18},
		{what: "13 may not", installed: map[string]string{"13": "13.22"}, without: "13", listed: "13", err: "has no pg_rewind"},
		{what: "nor 15", installed: map[string]string{"15": "15.18", "17": "17.11"}, without: "15", listed: "15 17", err: "has no pg_rewind"},
		{what: "nor 17", installed: map[string]string{"15": "15.18", "17": "17.11"}, without: "17", listed: "15 17", err: "has no pg_rewind"},
		{what: "nor 18", installed: map[string]string{"15": "15.18", "18": "18.1"}, without: "18", listed: "15 18", err: "has no pg_rewind"},
		{what: "nor 19", installed: map[string]string{"15": "15.18", "19": "19rc1"}, without: "19", listed: "15 19", err: "has no pg_rewind"},
		{what: "they may if nobody demands them", installed: map[string]string{"15": "15.18", "18": "18.1"}, without: "15 18", majors: []int{15, 18}, chosen: 15},
		{what: "no number", installed: map[string]string{"17": "17.11"}, listed: "17 x", err: `"x" is none of`},
		{what: "no major of ours", installed: map[string]string{"17": "17.11"}, listed: "12", err: `"12" is none of`},
		{what: "another version than the directory says", installed: map[string]string{"17": "16.14"}, err: "no PostgreSQL 15 found"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			prefix := t.TempDir()
			installs(prefix, tt.installed, tt.without)
			for name, value := range map[string]string{"PG_PREFIX": prefix, "PG_BINDIR": "", "PATH": "/nowhere", majorsVariable: tt.listed} {
				t.Setenv(name, value)
			}
			list, err := majors()
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil || !slices.Equal(list, tt.majors) {
				t.Errorf("got %v, %v", list, err)
			}
			if _, chosen, err := findPostgres("", 0); err != nil || chosen != tt.chosen {
				t.Errorf("chosen: %d, %v", chosen, err)
			}
		})
	}
}
