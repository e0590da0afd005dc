package fetch

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// socketDirs are the default directories of sockets in builds of libpq; a password file calls a server there localhost.
var socketDirs = []string{"/var/run/postgresql", "/run/postgresql", "/tmp"}

// passfilePassword is the password that the password file has for a host, or empty (passwordFromFile, fe-connect.c). A
// file that others can read is ignored, with a warning.
func (s settings) passfilePassword(h *host, user string) (password, warning string) {
	file := s["passfile"]
	if file == "" {
		file = inHome(os.Getenv, ".pgpass")
	}
	if file == "" {
		return "", ""
	}
	info, err := os.Stat(file)
	switch {
	case err != nil: // libpq says nothing either
		return "", ""
	case !info.Mode().IsRegular():
		return "", fmt.Sprintf("password file \"%s\" is not a plain file", file)
	case info.Mode().Perm()&0o077 != 0:
		return "", fmt.Sprintf("password file \"%s\" has group or world access; permissions should be u=rw (0600) or less", file)
	}
	f, err := os.Open(file)
	if err != nil {
		return "", ""
	}
	defer f.Close()

	host := h.name
	if host == "" {
		host = h.addr
	}
	if host == "" || slices.Contains(socketDirs, host) {
		host = "localhost"
	}
	dbname := s["dbname"]
	if dbname == "" {
		dbname = user
	}
	want := []string{host, strconv.Itoa(int(h.port)), dbname, user}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		if password, ok := matchPassfile(line, want); ok {
			return password, ""
		}
	}
	return "", ""
}

// matchPassfile takes a line host:port:database:user:password. Each of the first four is a value or *; a colon or
// backslash in any of the five has a backslash before it.
func matchPassfile(line string, want []string) (password string, ok bool) {
	rest := line
	for _, w := range want {
		field, after, found := cutPassfield(rest)
		if !found || field != w && rest[:len(rest)-len(after)-1] != "*" {
			return "", false
		}
		rest = after
	}
	password, _, _ = cutPassfield(rest)
	return password, true
}

// cutPassfield takes the text up to the next colon, with its backslashes resolved. found is false if there is no colon.
func cutPassfield(s string) (field, after string, found bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == ':':
			return b.String(), s[i+1:], true
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), "", false
}
