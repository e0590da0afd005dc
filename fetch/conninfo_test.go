package fetch

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// env is an environment for parseConnString.
func env(vars ...string) func(string) string {
	m := make(map[string]string)
	for _, v := range vars {
		name, value, _ := strings.Cut(v, "=")
		m[name] = value
	}
	return func(name string) string { return m[name] }
}

func TestParseConnString(t *testing.T) {
	for conn, want := range map[string]settings{
		"":                              {},
		"  ":                            {},
		"host=a":                        {"host": "a"},
		"host = a  port\t=\n5433 ":      {"host": "a", "port": "5433"},
		`password='a b\'c\\' user=x\ y`: {"password": `a b'c\`, "user": "x y"},
		`host=''port=1`:                 {"host": "", "port": "1"},
		`host=a\`:                       {"host": "a"},
		"host=a host=b":                 {"host": "b"},
		"postgres://":                   {},
		"postgresql://h":                {"host": "h", "port": ""},
		"postgresql://u:p@h:1/d?connect_timeout=3": {"user": "u", "password": "p", "host": "h", "port": "1", "dbname": "d", "connect_timeout": "3"},
		"postgresql://u@/d?host=%2Ftmp&port=7":     {"user": "u", "dbname": "d", "host": "/tmp", "port": "7"},
		"postgresql://%2Frun%2Fpg:5433/":           {"host": "/run/pg", "port": "5433"},
		"postgresql://[::1]:5433,h2/d":             {"host": "::1,h2", "port": "5433,", "dbname": "d"},
		"postgresql://a,b/":                        {"host": "a,b", "port": ","},
		"postgresql://h?ssl=true":                  {"host": "h", "sslmode": "require"},
		"postgresql://u%40x:p%3Aq%2B+@h":           {"user": "u@x", "password": "p:q++", "host": "h"},
		"postgresql:///d@x":                        {"dbname": "d@x"},
	} {
		if _, isURI := cutURIPrefix(conn); isURI && want["port"] == "" {
			delete(want, "port")
		}
		got, err := parseConnString(conn, env())
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%q:\n got %q, %v\nwant %q", conn, got, err, want)
		}
	}
}

func TestParseConnStringErrors(t *testing.T) {
	for conn, want := range map[string]string{
		"host":                            `missing "=" after "host" in connection info string`,
		"host a=b":                        `missing "=" after "host" in connection info string`,
		"password=top secret":             `missing "=" after "***" in connection info string`,
		"password=top secret=1":           `invalid connection option "***"`,
		"host='a":                         `unterminated quoted string in connection info string`,
		"hots=a":                          `invalid connection option "hots"`,
		"host=a\x00b":                     `invalid connection string: it has a zero byte`,
		"oauth_issuer=x":                  `connection option "oauth_issuer" is not supported`,
		"sslkeylogfile=/x":                `connection option "sslkeylogfile" is not supported`,
		"postgres://h?gssencmode=require": `connection option "gssencmode" is not supported`,
		"gssencmode=require":              `connection option "gssencmode" is not supported`,
		"replication=database":            `connection option "replication" is not supported`,
		"scram_client_key=secret":         `connection option "scram_client_key" is not supported`,
		"postgres://u:secret@[::1/":       `end of string reached when looking for matching "]" in IPv6 host address`,
		"postgres://u:secret@[]/":         `IPv6 host address may not be empty`,
		"postgres://u:secret@[::1]x":      `unexpected character after "]" (expected ":" or "/")`,
		"postgres://u:secret%zz@h":        `invalid percent-encoded token`,
		"postgres://u:secret%00@h":        `forbidden value %00 in percent-encoded value`,
		"postgres://h?secret":             `missing key/value separator "=" in URI query parameter`,
		"postgres://h?password=a=secret":  `extra key/value separator "=" in URI query parameter`,
		"postgres://h?secret=1":           `invalid URI query parameter`,
	} {
		_, err := parseConnString(conn, env())
		if err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", conn, err, want)
			continue
		}
		if strings.Contains(err.Error()+advice(err), "secret") {
			t.Errorf("%q: the password shows: %v %s", conn, err, advice(err))
		}
	}
	if _, err := parseConnString("host=a", env("PGGSSENCMODE=require")); err == nil || !strings.Contains(advice(err), "PGGSSENCMODE") {
		t.Errorf("PGGSSENCMODE: %v", err)
	}
}

func TestHarmlessKeywords(t *testing.T) {
	s, err := parseConnString("tcp_user_timeout=5000 keepalives=1 keepalives_idle=10 keepalives_interval=0 keepalives_count=3 "+
		"gssencmode=disable sslcompression=0 sslcrl='' replication=false gsslib=gssapi client_encoding=auto "+
		"load_balance_hosts=random host=h,i hostaddr=10.0.0.1,::1 port=1,2 fallback_application_name=fb options='-c geqo=off'", env())
	if err != nil {
		t.Fatal(err)
	}
	hs, err := s.hosts("fastrewind")
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hs.list {
		want := map[string]string{"application_name": "fb", "client_encoding": "UTF8", "options": "-c geqo=off"}
		if !maps.Equal(h.config.RuntimeParams, want) {
			t.Errorf("sent to the server: %q", h.config.RuntimeParams)
		}
		if h.name == "h" && (h.config.Host != "10.0.0.1" || h.config.Port != 1) || h.name == "i" && (h.config.Host != "::1" || h.config.Port != 2) {
			t.Errorf("host %s: %s port %d", h.name, h.config.Host, h.config.Port)
		}
		for _, fb := range h.config.Fallbacks {
			if fb.Host != h.config.Host {
				t.Errorf("fallback to %s", fb.Host)
			}
		}
		ka := h.dialer.KeepAliveConfig
		if !ka.Enable || ka.Idle != 10*time.Second || ka.Interval > 0 || ka.Count != 3 || h.dialer.Control == nil {
			t.Errorf("dialer: %+v", ka)
		}
	}
}

func TestHosts(t *testing.T) {
	type want struct {
		host string
		port uint16
	}
	for conn, list := range map[string][]want{
		"host=a":                             {{"a", 5432}},
		"host=a,b port=1":                    {{"a", 1}, {"b", 1}},
		"host=a,b port=1,":                   {{"a", 1}, {"b", 5432}},
		"host=/tmp,b":                        {{"/tmp", 5432}, {"b", 5432}},
		"hostaddr=10.0.0.1,10.0.0.2 port=,7": {{"10.0.0.1", 5432}, {"10.0.0.2", 7}},
	} {
		s, err := parseConnString(conn, env())
		if err != nil {
			t.Fatal(err)
		}
		hs, err := s.hosts("x")
		if err != nil {
			t.Errorf("%q: %v", conn, err)
			continue
		}
		var got []want
		for _, h := range hs.list {
			got = append(got, want{h.config.Host, h.config.Port})
		}
		if len(got) != len(list) {
			t.Errorf("%q: %v, want %v", conn, got, list)
			continue
		}
		for i := range got {
			if got[i] != list[i] {
				t.Errorf("%q: %v, want %v", conn, got, list)
			}
		}
	}
	for conn, text := range map[string]string{
		"host=a,b port=1,2,3":                   "could not match 3 port numbers to 2 hosts",
		"host=a,b hostaddr=10.0.0.1":            "could not match 2 host names to 1 hostaddr values",
		"hostaddr=example.org":                  `could not parse network address "example.org": not a numeric address`,
		"port=x":                                `invalid port number: "x"`,
		"port=70000":                            `invalid port number: "70000"`,
		"connect_timeout=x":                     `invalid integer value "x" for connection option "connect_timeout"`,
		"host=a keepalives_idle=x":              `invalid integer value "x" for connection option "keepalives_idle"`,
		"load_balance_hosts=yes":                `invalid load_balance_hosts value: "yes"`,
		"host=a ssl_min_protocol_version=SSLv3": `invalid ssl_min_protocol_version value: "SSLv3"`,
		"host=a ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2": `invalid SSL protocol version range`,
		"host=a sslmode=x password=secret":                                         `invalid sslmode value: "x"`,
		"target_session_attrs=x password=secret":                                   `invalid connection options: unknown target_session_attrs value: x`,
		"host=a sslmode=require sslsni=x":                                          `invalid sslsni value: "x"`,
		"host=a sslmode=require sslnegotiation=x":                                  `invalid sslnegotiation value: "x"`,
		"host=a sslnegotiation=direct":                                             `weak sslmode "prefer" may not be used with sslnegotiation=direct (use "require", "verify-ca", or "verify-full")`,
		"host=a sslmode=require sslrootcert=system":                                `weak sslmode "require" may not be used with sslrootcert=system (use "verify-full")`,
		"hostaddr=10.0.0.1 sslrootcert=system":                                     `host name must be specified for a verified SSL connection`,
		"host=a sslmode=verify-ca sslrootcert=/n":                                  "root certificate file \"/n\" does not exist\nEither provide the file, use the system's trusted roots with sslrootcert=system, or change sslmode to disable server certificate verification.",
		"host=a sslmode=require sslcertmode=x":                                     `invalid connection options: invalid sslcertmode (unknown sslcertmode value: x)`,
		"host=a channel_binding=x":                                                 `invalid connection options: unknown channel_binding value: x`,
		"host=a require_auth=x":                                                    `invalid connection options: invalid require_auth (invalid require_auth method: "x")`,
		"host=a min_protocol_version=2.0":                                          `invalid connection options: invalid min_protocol_version: "2.0" (invalid protocol version: "2.0")`,
		"host=a sslrootcert=system sslcrl=/none":                                   `certificate revocation list file "/none" does not exist`,
		"host=a sslrootcert=system sslcrldir=/none":                                `could not read directory of revocation lists "/none": No such file or directory`,
	} {
		s, err := parseConnString(conn, env())
		if err == nil {
			_, err = s.hosts("x")
		}
		if err == nil || err.Error() != text {
			t.Errorf("%q: got %v, want %s", conn, err, text)
		} else if strings.Contains(err.Error()+advice(err), "secret") {
			t.Errorf("%q: the password shows", conn)
		}
	}
}

func TestRevocationListOfHome(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	if err := os.Mkdir(filepath.Join(home, ".postgresql"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".postgresql", "root.crl"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	rootCA := filepath.Join(home, "ca.crt")
	newAuthority(t, "root").write(t, rootCA)
	for conn, refused := range map[string]bool{
		"host=a sslmode=verify-full sslrootcert=system":  false, // libpq does not look for it then
		"host=a sslmode=require":                         false, // there is no root.crt
		"host=/tmp sslmode=verify-full":                  false,
		"host=a sslmode=verify-ca sslrootcert=" + rootCA: true, // it is empty
		"host=a sslmode=require sslrootcert=" + rootCA:   true, // is verify-ca if there is such a file
		"host=a sslmode=require sslrootcert=/none":       false,
	} {
		s, err := parseConnString(conn, env())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.hosts("x"); (err != nil) != refused {
			t.Errorf("%q: %v", conn, err)
		}
	}
}

func TestServices(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "services")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("services", "# comment\n[other]\nhost=o\n\n [prod] \nhost=h\nport=1\nport=2\ntcp_user_timeout=7\n[last]\nuser=u\n[bad]\nx y\n[nested]\nservice=prod\n")
	write("pg_service.conf", "[system]\nhost=s\n")

	got, err := parseConnString("service=prod port=9", env("PGSERVICEFILE="+file, "PGHOST=e", "PGUSER=eu"))
	want := settings{"service": "prod", "servicefile": file, "host": "h", "port": "9", "tcp_user_timeout": "7", "user": "eu"}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
	for service, want := range map[string]settings{
		"last":   {"user": "u"},
		"system": {"host": "s"},
	} {
		got, err := parseConnString("", env("PGSERVICE="+service, "PGSERVICEFILE="+file, "PGSYSCONFDIR="+dir))
		delete(got, "service")
		delete(got, "servicefile")
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: got %q, %v", service, got, err)
		}
	}
	for service, want := range map[string]string{
		"none":   `definition of service "none" not found`,
		"bad":    `syntax error in service file "` + file + `", line 13`,
		"nested": `nested service specifications not supported in service file "` + file + `", line 15`,
	} {
		if _, err := parseConnString("service="+service, env("PGSERVICEFILE="+file, "PGSYSCONFDIR="+dir)); err == nil || err.Error() != want {
			t.Errorf("%s: %v", service, err)
		}
	}
	if _, err := parseConnString("service=prod", env("PGSERVICEFILE=/none")); err == nil || err.Error() != `service file "/none" not found` {
		t.Errorf("%v", err)
	}
	// A home that cannot be looked into is one without a service file.
	if got, err := parseConnString("service=system", env("HOME="+file, "PGSYSCONFDIR="+dir)); err != nil || got["host"] != "s" {
		t.Errorf("%q, %v", got, err)
	}
	// pgx looks at the environment itself: what the service holds that pgx does not know must not reach the server.
	write("services", "[prod]\nhost=h\nport=1\ntcp_user_timeout=7\n")
	t.Setenv("PGSERVICE", "prod")
	t.Setenv("PGSERVICEFILE", file)
	s, err := parseConnString("", os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	hs, err := s.hosts("x")
	if err != nil {
		t.Fatal(err)
	}
	cfg := hs.list[0].config
	if cfg.Host != "h" || cfg.Port != 1 || len(cfg.RuntimeParams) != 2 {
		t.Errorf("%s %d %q", cfg.Host, cfg.Port, cfg.RuntimeParams)
	}
}

// Without PGSYSCONFDIR the system-wide service file is looked for wherever some distribution's libpq does.
func TestSystemServiceFiles(t *testing.T) {
	if want := "/etc/postgresql-common /etc/sysconfig/pgsql /etc /etc/postgresql"; strings.Join(systemServiceDirs, " ") != want {
		t.Errorf("%q", systemServiceDirs)
	}
	root := t.TempDir()
	put := func(dir, text string) string {
		t.Helper()
		if err := os.Mkdir(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if text != "" {
			if err := os.WriteFile(filepath.Join(root, dir, "pg_service.conf"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return filepath.Join(root, dir)
	}
	debian, pgdg := put("debian", ""), put("pgdg", "[prod]\nhost=pgdg\n[bad]\nnonsense\n")
	fedora, other := put("fedora", "[prod]\nhost=fedora\n[only]\nhost=fedora\n[bad]\nhost=fedora\n"), put("other", "[told]\nhost=other\n")
	old := systemServiceDirs
	t.Cleanup(func() { systemServiceDirs = old })
	systemServiceDirs = []string{debian, filepath.Join(root, "none"), pgdg, fedora}

	for _, c := range []struct{ service, env, host, file string }{
		{"prod", "", "pgdg", pgdg},
		{"only", "", "fedora", fedora},
		{"told", "PGSYSCONFDIR=" + other, "other", other},
		{"prod", "PGSYSCONFDIR=" + other, "", ""}, // who names one means no other
		{"bad", "", "", ""},                       // nor does a mistake lead further
		{"none", "", "", ""},
	} {
		got, err := parseConnString("service="+c.service, env("HOME=/nonexistent", c.env))
		if c.host == "" {
			if err == nil {
				t.Errorf("%v: %q", c, got)
			}
			continue
		}
		if err != nil || got["host"] != c.host || got["servicefile"] != filepath.Join(c.file, "pg_service.conf") {
			t.Errorf("%v: %q, %v", c, got, err)
		}
	}
	_, err := parseConnString("service=none", env("HOME=/nonexistent"))
	if want := filepath.Join(pgdg, "pg_service.conf") + ", " + filepath.Join(fedora, "pg_service.conf"); !strings.Contains(advice(err), want) {
		t.Errorf("%v: %s", err, advice(err))
	}
}

func TestPrimaryConnInfo(t *testing.T) {
	for conn, want := range map[string]string{
		"host=h user=u":           "user=u host=h",
		"user=u password='a b'":   "user=u password='a b'",
		`user=u password=a\'b\\c`: `user=u password='a\'b\\c'`,
		"dbname=d user=u replication=0 fallback_application_name=f port=5":                              "user=u port=5",
		"user=u host=a,b port=1,2 target_session_attrs=primary":                                         "user=u host='a,b' port='1,2' target_session_attrs=primary",
		"user=u sslmode=verify-full sslrootcert=/a/b application_name=x passfile=/p tcp_user_timeout=5": "user=u passfile='/p' application_name=x tcp_user_timeout=5 sslmode='verify-full' sslrootcert='/a/b'",
		"user=u load_balance_hosts=random require_auth=md5 sslnegotiation=direct sslmode=require":       "user=u sslmode=require",
	} {
		s, err := parseConnString(conn, env())
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := s.primaryConnInfo(15); got != want {
			t.Errorf("%q:\n got %s\nwant %s", conn, got, want)
		}
	}
	s, err := parseConnString("user=u load_balance_hosts=random", env("PGPASSWORD=secret", "PGSSLMODE=require", "PGDATABASE=d"))
	if err != nil {
		t.Fatal(err)
	}
	got, lost := s.primaryConnInfo(16)
	if want := "user=u password=secret sslmode=require load_balance_hosts=random"; got != want || lost != nil {
		t.Errorf("got %s, lost %q\nwant %s", got, lost, want)
	}
	// What a major does not know yet is left out, or said as it can be understood.
	for conn, want := range map[string]map[int]string{
		"user=u sslcrl=c sslcrldir=d sslsni=0": {
			13: "user=u sslcrl=c", 14: "user=u sslcrl=c sslcrldir=d sslsni=0",
		},
		"user=u target_session_attrs=primary":        {13: "user=u target_session_attrs='read-write'", 14: "user=u target_session_attrs=primary"},
		"user=u target_session_attrs=prefer-standby": {13: "user=u", 14: "user=u target_session_attrs='prefer-standby'"},
		"user=u target_session_attrs=read-write":     {13: "user=u target_session_attrs='read-write'"},
		"user=u sslmode=verify-full sslrootcert=system": {
			15: "user=u sslmode='verify-full'", 16: "user=u sslmode='verify-full' sslrootcert=system",
		},
		"user=u sslrootcert=system": { // which alone means verify-full
			15: "user=u sslmode='verify-full'", 16: "user=u sslrootcert=system",
		},
		"user=u dbname=d":                     {17: "user=u", 18: "user=u dbname=d"},
		"user=u require_auth=md5 gsslib=g":    {15: "user=u gsslib=g", 16: "user=u gsslib=g require_auth=md5"},
		"user=u requiressl=1":                 {13: "user=u sslmode=require"},
		"postgres://u@h?requiressl=0":         {13: "user=u host=h sslmode=prefer"},
		"user=u tty=x authtype=y":             {13: "user=u", 19: "user=u"},
		"user=u max_protocol_version=latest":  {17: "user=u", 18: "user=u max_protocol_version=latest"},
		"user=u tcp_user_timeout=5000":        {13: "user=u tcp_user_timeout=5000"},
		"user=u gssencmode=prefer":            {13: "user=u gssencmode=prefer"},
		"user=u sslnegotiation=postgres":      {16: "user=u", 17: "user=u sslnegotiation=postgres"},
		"user=u load_balance_hosts=disable":   {15: "user=u", 16: "user=u load_balance_hosts=disable"},
		"user=u sslcertmode=allow sslcert=/c": {15: "user=u sslcert='/c'", 16: "user=u sslcert='/c' sslcertmode=allow"},
	} {
		s, err := parseConnString(conn, env())
		if err != nil {
			t.Fatal(err)
		}
		for major, want := range want {
			if got, _ := s.primaryConnInfo(major); got != want {
				t.Errorf("%q for %d:\n got %s\nwant %s", conn, major, got, want)
			}
		}
	}
	if got, lost := (settings{}).primaryConnInfo(15); got != "user="+quoteValue(osUser()) || lost != nil {
		t.Errorf("nothing given: %s, lost %q", got, lost)
	}
}

// What a standby's connection will not be held to is told by name, and by no more than that.
func TestPrimaryConnInfoLost(t *testing.T) {
	for conn, want := range map[string]map[int]string{
		"sslcrl=c sslcrldir=d sslsni=0": {13: "sslcrldir sslsni", 14: "", 19: ""},
		"require_auth=scram-sha-256 sslcertmode=require gssdelegation=1 load_balance_hosts=random": {
			13: "gssdelegation load_balance_hosts require_auth sslcertmode",
			15: "gssdelegation load_balance_hosts require_auth sslcertmode", 16: "",
		},
		"sslmode=require sslnegotiation=direct":                {16: "sslnegotiation", 17: ""},
		"min_protocol_version=3.2 max_protocol_version=latest": {17: "min_protocol_version max_protocol_version", 18: ""},
		"oauth_ca_file=f":                                               {18: "oauth_ca_file", 19: ""},
		"sslmode=verify-full sslrootcert=system":                        {15: "sslrootcert=system", 16: ""},
		"sslmode=verify-full sslrootcert=/f":                            {13: ""},
		"target_session_attrs=prefer-standby":                           {13: "target_session_attrs=prefer-standby", 14: ""},
		"target_session_attrs=primary":                                  {13: ""}, // said otherwise
		"require_auth=''":                                               {13: ""},
		"dbname=d service='' fallback_application_name=f replication=0": {13: ""}, // no standby is meant
		"authtype=x tty=y":                                              {13: "", 19: ""},
		"password=secret user=u sslcrldir=secret require_auth=password": {13: "sslcrldir require_auth"},
	} {
		s, err := parseConnString(conn, env("HOME=/nonexistent"))
		if err != nil {
			t.Fatal(err)
		}
		for major, want := range want {
			if value, lost := s.primaryConnInfo(major); strings.Join(lost, " ") != want {
				t.Errorf("%q for %d: lost %q, want %q; %s", conn, major, lost, want, value)
			}
		}
	}
}

// Whatever is given, no parse panics, no error shows the password, and primary_conninfo says the same again.
func FuzzConnString(f *testing.F) {
	for _, seed := range []string{"host=a", `password='a\' b' port=1`, "postgres://u:p@[::1]:1,h/d?sslmode=require", "a", "postgres://%", "host='"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, conn string) {
		nowhere := env("HOME=/nonexistent", "PGSYSCONFDIR=/nonexistent")
		s, err := parseConnString(conn, nowhere)
		if err != nil {
			return
		}
		written, lost := s.primaryConnInfo(99)
		if lost != nil {
			t.Errorf("%q: lost %q", conn, lost)
		}
		again, err := parseConnString(written, nowhere)
		if err != nil {
			t.Fatalf("%q written as %q: %v", conn, written, err)
		}
		for name, v := range s {
			switch name {
			case "replication", "fallback_application_name", "service", "servicefile", "authtype", "tty":
				continue
			}
			if again[name] != v {
				t.Errorf("%q: %s is %q, then %q", conn, name, v, again[name])
			}
		}
	})
}

// Every keyword has a decision, and none but those that PostgreSQL's protocol has in a startup message is sent.
func TestKeywordsSent(t *testing.T) {
	values := map[string]string{
		"port": "1", "hostaddr": "10.0.0.1", "channel_binding": "disable", "connect_timeout": "3", "keepalives": "0",
		"keepalives_idle": "1", "keepalives_interval": "1", "keepalives_count": "1", "tcp_user_timeout": "1",
		"sslmode": "disable", "sslsni": "0", "ssl_min_protocol_version": "TLSv1.2", "ssl_max_protocol_version": "TLSv1.3",
		"gssencmode": "disable", "replication": "off", "target_session_attrs": "any", "load_balance_hosts": "disable",
		"require_auth": "none", "sslcertmode": "allow", "sslnegotiation": "postgres", "min_protocol_version": "3.0",
		"max_protocol_version": "3.2",
	}
	s := make(settings)
	for _, k := range keywords {
		v, ok := values[k.name]
		if !ok && k.use != refused && !strings.HasPrefix(k.name, "service") {
			v = "x-" + k.name
		}
		if v != "" {
			s[k.name] = v
		}
		if k.use == refused && whyRefused[k.name] == "" {
			t.Errorf("%s is refused without a reason", k.name)
		}
	}
	hs, err := s.hosts("program")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"client_encoding": "UTF8", "application_name": "x-application_name", "options": "x-options"}
	if got := hs.list[0].config.RuntimeParams; !maps.Equal(got, want) {
		t.Errorf("sent to the server: %q", got)
	}
	for _, e := range []string{"PGTZ=x", "PGDATESTYLE=x", "PGGEQO=x", "PGSSLMODE=verify-full", "PGSSLROOTCERT=/none", "PGPASSWORD=x", "PGPASSFILE=/none"} {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value) // pgconn looks there, too
	}
	if hs, err = s.hosts("program"); err != nil {
		t.Fatal(err)
	}
	if cfg := hs.list[0].config; !maps.Equal(cfg.RuntimeParams, want) || cfg.Password != "x-password" || cfg.TLSConfig != nil {
		t.Errorf("%q", cfg.RuntimeParams)
	}
}

func TestConnectTimeout(t *testing.T) {
	for conn, want := range map[string]time.Duration{
		"": DefaultConnectTimeout, "connect_timeout=''": DefaultConnectTimeout, "connect_timeout=0": 0, "connect_timeout=-1": 0,
		"connect_timeout=1": 2 * time.Second, "connect_timeout=' 7 '": 7 * time.Second,
	} {
		s, err := parseConnString("host=a "+conn, env())
		if err != nil {
			t.Fatal(err)
		}
		hs, err := s.hosts("x")
		if err != nil || hs.list[0].config.ConnectTimeout != want {
			t.Errorf("%s: %v, %v", conn, hs.list[0].config.ConnectTimeout, err)
		}
	}
}

func TestPassfile(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	file := filepath.Join(t.TempDir(), "pass")
	const text = "# comment:*:*:*:no\n\nshort:1\n" +
		"h:5432:d:u:exact\n" +
		"h:5432:d:wi\\:th\\\\colon:esc\\:aped\\\\ :more\n" +
		"localhost:*:*:*:local\n" +
		"/some/dir:*:*:*:socket\n" +
		"10.0.0.1:*:*:*:address\n" +
		"\\*:*:*:*:not any\n" +
		"other:7:*:*:\n" +
		"*:8:u:u:default database\n" +
		"*:9:*:*:any\n"
	write := func(mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	write(0o600)
	password := func(conn string) (string, []string) {
		t.Helper()
		s, err := parseConnString(conn, env())
		if err != nil {
			t.Fatal(err)
		}
		hs, err := s.hosts("x")
		if err != nil {
			t.Fatal(err)
		}
		return hs.list[len(hs.list)-1].config.Password, hs.warnings
	}
	for conn, want := range map[string]string{
		"host=h dbname=d user=u":                   "exact",
		"host=h dbname=d user=u password=given":    "given",
		"host=h dbname=d user=u password=''":       "exact",
		"host=h dbname=e user=u":                   "",
		`host=h dbname=d user='wi:th\\colon'`:      `esc:aped\ `,
		"dbname=d user=u":                          "local",
		"host=/var/run/postgresql dbname=d user=u": "local",
		"host=/tmp user=u":                         "local",
		"host=/some/dir user=u":                    "socket",
		"hostaddr=10.0.0.1 user=u":                 "address",
		"host=h hostaddr=10.0.0.1 dbname=d user=u": "exact",
		"host=* user=u":                            "not any",
		"host=other port=7 user=u":                 "",
		"host=other port=8 user=u":                 "default database",
		"host=a,b port=1,9 user=u":                 "any",
	} {
		got, warnings := password(conn + " passfile=" + file)
		if got != want || len(warnings) != 0 {
			t.Errorf("%s: %q, %q", conn, got, warnings)
		}
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o610} {
		write(mode)
		got, warnings := password("host=h,h dbname=d user=u passfile=" + file)
		want := `password file "` + file + `" has group or world access; permissions should be u=rw (0600) or less`
		if got != "" || len(warnings) != 1 || warnings[0] != want {
			t.Errorf("%o: %q, %q", mode, got, warnings)
		}
	}
	if got, warnings := password("host=h dbname=d user=u passfile=" + filepath.Dir(file)); got != "" || len(warnings) != 1 ||
		!strings.HasSuffix(warnings[0], "is not a plain file") {
		t.Errorf("%q, %q", got, warnings)
	}
	write(0o600)
	if err := os.Rename(file, filepath.Join(os.Getenv("HOME"), ".pgpass")); err != nil {
		t.Fatal(err)
	}
	if got, _ := password("host=h dbname=d user=u"); got != "exact" {
		t.Errorf("from home: %q", got)
	}
}

// What Connect does not follow, it says.
func TestConnectWarns(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(file, []byte("*:*:*:*:p"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	r := &rogue{fields: chunkFields}
	ev := newEvents()
	connectWith(t, r.start(t)+" passfile="+file, Options{Event: ev.tell})
	if len(ev.list) != 1 || ev.list[0].Kind != EventWarning || !strings.Contains(ev.list[0].Text, "has group or world access") {
		t.Errorf("%+v", ev.list)
	}
}
