package fetch

import (
	"strings"

	"github.com/fastrewind/fastrewind/internal/fault"
)

func cutURIPrefix(s string) (rest string, ok bool) {
	for _, prefix := range []string{"postgresql://", "postgres://"} {
		if rest, ok := strings.CutPrefix(s, prefix); ok {
			return rest, true
		}
	}
	return s, false
}

// parseURI reads what follows postgresql:// (conninfo_uri_parse_options, fe-connect.c):
//
//	[user[:password]@][host[:port][,host[:port]]…][/dbname][?keyword=value[&…]]
//
// Its errors show no part of the text: where a URI is malformed, any part may be the password.
func parseURI(uri string) (settings, error) {
	s := make(settings)
	// Credentials end at the first @, unless a path begins before it.
	if i := strings.IndexAny(uri, "@/"); i >= 0 && uri[i] == '@' {
		name, password, _ := strings.Cut(uri[:i], ":")
		uri = uri[i+1:]
		if err := s.setDecoded("user", name); err != nil {
			return nil, err
		}
		if err := s.setDecoded("password", password); err != nil {
			return nil, err
		}
	}

	var hosts, ports []string
	for {
		var host, port string
		if rest, ok := strings.CutPrefix(uri, "["); ok {
			end := strings.IndexByte(rest, ']')
			if end < 0 {
				return nil, badURI("end of string reached when looking for matching \"]\" in IPv6 host address")
			}
			if end == 0 {
				return nil, badURI("IPv6 host address may not be empty")
			}
			host, uri = rest[:end], rest[end+1:]
			if uri != "" && !strings.ContainsRune(":/?,", rune(uri[0])) {
				return nil, badURI("unexpected character after \"]\" (expected \":\" or \"/\")")
			}
		} else {
			end := indexAnyOrEnd(uri, ":/?,")
			host, uri = uri[:end], uri[end:]
		}
		if rest, ok := strings.CutPrefix(uri, ":"); ok {
			end := indexAnyOrEnd(rest, "/?,")
			port, uri = rest[:end], rest[end:]
		}
		hosts, ports = append(hosts, host), append(ports, port)
		rest, more := strings.CutPrefix(uri, ",")
		if !more {
			break
		}
		uri = rest
	}
	if err := s.setDecoded("host", strings.Join(hosts, ",")); err != nil {
		return nil, err
	}
	if err := s.setDecoded("port", strings.Join(ports, ",")); err != nil {
		return nil, err
	}

	path, query, _ := strings.Cut(uri, "?")
	if err := s.setDecoded("dbname", strings.TrimPrefix(path, "/")); err != nil {
		return nil, err
	}
	return s, s.setQuery(query)
}

// setQuery takes in the keywords after the question mark (conninfo_uri_parse_params).
func (s settings) setQuery(query string) error {
	for query != "" {
		var param string
		param, query, _ = strings.Cut(query, "&")
		name, value, ok := strings.Cut(param, "=")
		if !ok {
			return badURI("missing key/value separator \"=\" in URI query parameter")
		}
		if strings.Contains(value, "=") {
			return badURI("extra key/value separator \"=\" in URI query parameter")
		}
		name, err := decodeURI(name)
		if err != nil {
			return err
		}
		if value, err = decodeURI(value); err != nil {
			return err
		}
		if name == "ssl" && value == "true" { // for JDBC's sake
			name, value = "sslmode", "require"
		}
		name, value = oldSpelling(name, value)
		if keywordByName[name] == nil {
			return badURI("invalid URI query parameter")
		}
		s[name] = value
	}
	return nil
}

// setDecoded stores a part of the URI unless it is empty. "," is not: it says that two hosts have the default port.
func (s settings) setDecoded(name, raw string) error {
	if raw == "" {
		return nil
	}
	value, err := decodeURI(raw)
	if err != nil {
		return err
	}
	s[name] = value
	return nil
}

// decodeURI resolves %XX (conninfo_uri_decode). Unlike net/url's it leaves + alone and refuses %00.
func decodeURI(raw string) (string, error) {
	if !strings.Contains(raw, "%") {
		return raw, nil
	}
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		if raw[i] != '%' {
			b.WriteByte(raw[i])
			continue
		}
		if i+2 >= len(raw) || hexDigit(raw[i+1]) < 0 || hexDigit(raw[i+2]) < 0 {
			return "", badURI("invalid percent-encoded token")
		}
		c := byte(hexDigit(raw[i+1])<<4 | hexDigit(raw[i+2]))
		if c == 0 {
			return "", badURI("forbidden value %00 in percent-encoded value")
		}
		b.WriteByte(c)
		i += 2
	}
	return b.String(), nil
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func indexAnyOrEnd(s, chars string) int {
	if i := strings.IndexAny(s, chars); i >= 0 {
		return i
	}
	return len(s)
}

func badURI(why string) error {
	return fault.New("%s", why).
		Advise("A connection URI is postgresql://user:password@host:port/dbname?keyword=value; other characters in its parts are written as %%XX.")
}
