package fetch

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// settings are the connection options in effect, by keyword: those of the connection string, then of the service it or
// PGSERVICE names, then of the environment. A keyword that nobody gave is absent; one given as empty is present, and
// hides the later ones, as in libpq. Values hold passwords: they never go into an error.
type settings map[string]string

// parseConnString reads a connection string as libpq's PQconnectdb does, and everything else that libpq would consult.
// getenv is os.Getenv.
func parseConnString(connString string, getenv func(string) string) (settings, error) {
	var (
		s   settings
		err error
	)
	if strings.IndexByte(connString, 0) >= 0 {
		return nil, fault.New("invalid connection string: it has a zero byte")
	}
	if rest, ok := cutURIPrefix(connString); ok {
		s, err = parseURI(rest)
	} else {
		s, err = parseKeywordValues(connString)
	}
	if err != nil {
		return nil, err
	}
	if err := s.addService(getenv); err != nil {
		return nil, err
	}
	for _, k := range keywords {
		if _, given := s[k.name]; given || k.env == "" {
			continue
		}
		if v := getenv(k.env); v != "" {
			s[k.name] = v
		}
	}
	// The oldest of the environment's variables, still honoured by libpq (conninfo_add_defaults).
	if _, given := s["sslmode"]; !given && strings.HasPrefix(getenv("PGREQUIRESSL"), "1") {
		s["sslmode"] = "require"
	}
	return s, s.refuse()
}

// set stores a keyword's value. libpq's text, also for keywords of libpqs to come.
func (s settings) set(name, value string) error {
	name, value = oldSpelling(name, value)
	if keywordByName[name] == nil {
		return fault.New("invalid connection option \"%s\"", name).
			Advise("No libpq up to 19 knows this keyword. Look for a space missing or too many in the connection string.")
	}
	s[name] = value
	return nil
}

// oldSpelling translates the one keyword of old that libpq still translates.
func oldSpelling(name, value string) (string, string) {
	if name != "requiressl" {
		return name, value
	}
	if strings.HasPrefix(value, "1") {
		return "sslmode", "require"
	}
	return "sslmode", "prefer"
}

// refuse fails if a keyword is set that can be neither honoured nor left out.
func (s settings) refuse() error {
	for _, k := range keywords {
		v := s[k.name]
		if k.use != refused || v == "" || slices.Contains(harmless[k.name], strings.ToLower(v)) {
			continue
		}
		from := "the connection string or the service file"
		if k.env != "" {
			from += ", or unset " + k.env
		}
		return fault.New("connection option \"%s\" is not supported", k.name).
			Advise("%s Take it out of %s.", whyRefused[k.name], from).Ours() // libpq supports it
	}
	return nil
}

const spaces = " \t\n\r\v\f"

// parseKeywordValues reads "keyword = 'value' …" (conninfo_parse, fe-connect.c).
func parseKeywordValues(str string) (settings, error) {
	s := make(settings)
	secret := false // a password has been read: what follows may be its second half
	for str = strings.TrimLeft(str, spaces); str != ""; str = strings.TrimLeft(str, spaces) {
		end := strings.IndexAny(str, spaces+"=")
		if end < 0 {
			end = len(str)
		}
		name := str[:end]
		str = strings.TrimLeft(str[end:], spaces)
		if !strings.HasPrefix(str, "=") {
			if secret {
				name = "***"
			}
			return nil, fault.New("missing \"=\" after \"%s\" in connection info string", name).
				Advise("A value with spaces, quotes or backslashes must be in single quotes.")
		}
		value, rest, err := cutValue(strings.TrimLeft(str[1:], spaces))
		if err != nil {
			return nil, err
		}
		if secret && keywordByName[name] == nil && name != "requiressl" {
			name = "***"
		}
		if err := s.set(name, value); err != nil {
			return nil, err
		}
		secret = secret || strings.Contains(name, "password")
		str = rest
	}
	return s, nil
}

// cutValue takes one value from the start of str, quoted or not, and gives the rest.
func cutValue(str string) (value, rest string, err error) {
	quoted := strings.HasPrefix(str, "'")
	if quoted {
		str = str[1:]
	}
	var b strings.Builder
	for i := 0; i < len(str); i++ {
		switch c := str[i]; {
		case c == '\\':
			if i++; i < len(str) {
				b.WriteByte(str[i])
			}
		case quoted && c == '\'':
			return b.String(), str[i+1:], nil
		case !quoted && strings.IndexByte(spaces, c) >= 0:
			return b.String(), str[i:], nil
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return "", "", fault.New("unterminated quoted string in connection info string")
	}
	return b.String(), "", nil
}

// systemServiceDirs are where builds of libpq look for the system-wide service file: Debian's and PGDG's for Debian,
// PGDG's rpms, Fedora's and its like, and any other that was configured with /etc. Each libpq knows one of them; we do not
// know whose is the one here. PGSYSCONFDIR names another.
var systemServiceDirs = []string{"/etc/postgresql-common", "/etc/sysconfig/pgsql", "/etc", "/etc/postgresql"}

// addService fills in what the service file says of the service asked for (parseServiceInfo, fe-connect.c).
func (s settings) addService(getenv func(string) string) error {
	service := s["service"]
	if _, given := s["service"]; !given {
		service = getenv("PGSERVICE")
	}
	if service == "" {
		return nil
	}
	// The user's own file, which must exist if it was named; then the system's, which need not.
	var files []string
	named := s["servicefile"]
	if named == "" {
		named = getenv("PGSERVICEFILE")
	}
	if own := inHome(getenv, ".pg_service.conf"); named != "" {
		files = []string{named}
	} else if exists(own) {
		files = []string{own}
	}
	dirs := systemServiceDirs
	if dir := getenv("PGSYSCONFDIR"); dir != "" {
		dirs = []string{dir}
	}
	for _, dir := range dirs {
		if file := filepath.Join(dir, "pg_service.conf"); exists(file) {
			files = append(files, file)
		}
	}
	for _, file := range files {
		found, err := s.readService(file, service)
		if err != nil {
			return err
		}
		if found {
			s["service"], s["servicefile"] = service, file
			return nil
		}
	}
	where := "There is no service file: neither .pg_service.conf in the home directory nor pg_service.conf in " +
		strings.Join(dirs, ", ") + "."
	if len(files) > 0 {
		where = "It is not in " + strings.Join(files, ", ") + "."
	}
	return fault.New("definition of service \"%s\" not found", service).
		Advise("%s PGSERVICEFILE and PGSYSCONFDIR (a directory) name others.", where)
}

// readService fills in the settings of one service from one file, where they are not given already.
func (s settings) readService(file, service string) (found bool, err error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, fault.Because(err, "service file \"%s\" not found", file)
	}
	if err != nil {
		return false, fault.Because(err, "could not read service file \"%s\": %s", file, fault.M(err))
	}
	defer f.Close()
	given := make(map[string]bool, len(s))
	for name := range s {
		given[name] = true
	}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.Trim(lines.Text(), spaces)
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			if found {
				return true, nil // the next service begins
			}
			found = strings.HasPrefix(line[1:], service+"]")
		case found:
			name, value, ok := strings.Cut(line, "=")
			if !ok || keywordByName[name] == nil || strings.HasPrefix(name, "ldap") {
				return false, fault.New("syntax error in service file \"%s\", line %d", file, n).
					Advise("Expected a line keyword=value, without spaces around the equals sign and with a keyword libpq knows.")
			}
			if name == "service" || name == "servicefile" {
				return false, fault.New("nested service specifications not supported in service file \"%s\", line %d", file, n)
			}
			if !given[name] { // the connection string wins; within the file, the first line does
				s[name], given[name] = value, true
			}
		}
	}
	if err := lines.Err(); err != nil {
		return false, fault.Because(err, "could not read service file \"%s\": %s", file, fault.M(err))
	}
	return found, nil
}

// primaryConnInfo writes the settings as the value of primary_conninfo for a server of the given major. lost is what that
// major's libpq does not understand, and the standby's connection is therefore not held to: keywords, and values of those
// that it knows.
func (s settings) primaryConnInfo(major int) (value string, lost []string) {
	var b strings.Builder
	for _, k := range keywords {
		value := s[k.name]
		switch k.name {
		case "dbname": // libpqwalreceiver does not look at it; from 18 on, slot synchronisation does
			if major < 18 {
				continue
			}
		case "replication", "fallback_application_name": // libpqwalreceiver's own
			continue
		case "target_session_attrs":
			if value = sessionAttrsFor(value, major); value == "" && s[k.name] != "" {
				lost = append(lost, k.name+"="+s[k.name])
			}
		case "sslmode":
			if value == "" && s.needsSystemRoots(major) {
				value = "verify-full" // which the roots imply; without them, the standby must not do with less
			}
		case "sslrootcert":
			if s.needsSystemRoots(major) { // it would be taken for a file
				lost = append(lost, k.name+"="+value)
				value = ""
			}
		case "service", "servicefile": // its settings are written out: the server need not know the file
			continue
		case "user":
			if value == "" {
				value = osUser()
			}
		}
		if value == "" {
			continue
		}
		if k.since > major {
			if k.since != never { // those did nothing
				lost = append(lost, k.name)
			}
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(k.name)
		b.WriteByte('=')
		b.WriteString(quoteValue(value))
	}
	return b.String(), lost
}

// needsSystemRoots reports whether the system's root certificates were asked for, which libpq of the major does not use.
func (s settings) needsSystemRoots(major int) bool { return s["sslrootcert"] == "system" && major < 16 }

// sessionAttrsFor is target_session_attrs for libpq of a major: up to 13 it knew any and read-write.
func sessionAttrsFor(value string, major int) string {
	switch {
	case major >= 14 || value == "any" || value == "read-write":
		return value
	case value == "primary":
		return "read-write"
	}
	return ""
}

// quoteValue quotes a value for a connection string if it needs it (appendConnStrVal, fe_utils/string_utils.c).
func quoteValue(v string) string {
	plain := v != ""
	for i := range len(v) {
		c := v[i]
		plain = plain && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.')
	}
	if plain {
		return v
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
}

// osUser is libpq's default for user; empty if the system does not know who we are.
func osUser() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

// integer is the value of a keyword that is a number, or def if it is not given (parse_int_param, fe-connect.c).
func (s settings) integer(name string, def int) (int, error) {
	v := strings.Trim(s[name], spaces)
	if v == "" {
		return def, nil
	}
	n, err := strconv.ParseInt(v, 10, 32)
	if err != nil {
		return 0, fault.New("invalid integer value \"%s\" for connection option \"%s\"", v, name)
	}
	return int(n), nil
}
