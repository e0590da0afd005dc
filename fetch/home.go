package fetch

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// inHome is a file below the home directory, or empty if there is none: then there is no such file, and it is not looked
// for anywhere else. As in libpq (pqGetHomeDirectory, fe-connect.c), a service or a cron job without HOME has the home
// directory of the password database.
func inHome(getenv func(string) string, elem ...string) string {
	home := getenv("HOME")
	if home == "" {
		home = passwdHome()
	}
	if home == "" {
		return "" // joined with an empty one, it would be in the current directory
	}
	return filepath.Join(append([]string{home}, elem...)...)
}

// passwdHome is the home directory that the password database has for the user we run as, or empty. Tests put another in
// its place.
var passwdHome = func() string {
	u, err := user.LookupId(strconv.Itoa(os.Geteuid()))
	if err != nil {
		return ""
	}
	return u.HomeDir
}

// exists is libpq's way to look for an optional file: one that cannot be reached is not there.
func exists(path string) bool {
	_, err := os.Stat(path)
	return path != "" && err == nil
}
