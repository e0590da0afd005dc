package fetch

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sys/unix"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// maxMessage bounds what one protocol message can make us allocate, in bytes: a whole small file, and its row's header.
const maxMessage = MaxWholeFile + 64<<10

// readBuffer is how much is read from a connection at once, in bytes. The server sends 8 kB at a time; without a buffer
// every 8 kB row costs two reads. Larger reads go past it straight into the row's buffer.
const readBuffer = 128 << 10

// hosts is what to connect to, in the order in which to try.
type hosts struct {
	list []*host
	// preferStandby: try for a standby at all hosts first, then take any server.
	preferStandby bool
}

// host is one host of the connection string. pgx can take several in one configuration, but then has one password for
// all, no hostaddr, and cannot say which one it chose.
type host struct {
	name   string // host as given; a socket's directory if it is absolute; "" if only addr is given
	addr   string // hostaddr as given, or ""
	port   uint16
	config *pgconn.Config
	dialer net.Dialer
	peer   string // requirepeer
}

// hosts makes the configurations of all hosts. programName is the application_name if the user gave none.
func (s settings) hosts(programName string) (*hosts, error) {
	names, addrs, ports := splitList(s["host"]), splitList(s["hostaddr"]), splitList(s["port"])
	n := len(names)
	if s["hostaddr"] != "" {
		n = len(addrs)
		if s["host"] != "" && len(names) != n {
			return nil, fault.New("could not match %d host names to %d hostaddr values", len(names), n)
		}
	}
	if len(ports) > 1 && len(ports) != n {
		return nil, fault.New("could not match %d port numbers to %d hosts", len(ports), n)
	}
	dialer, err := s.dialer()
	if err != nil {
		return nil, err
	}

	hs := &hosts{preferStandby: s["target_session_attrs"] == "prefer-standby"}
	for i := range n {
		h := &host{dialer: dialer, peer: s["requirepeer"]}
		if i < len(names) {
			h.name = names[i]
		}
		if s["hostaddr"] != "" {
			h.addr = addrs[i]
		}
		if h.addr != "" && net.ParseIP(strings.Split(h.addr, "%")[0]) == nil {
			return nil, fault.New("could not parse network address \"%s\": not a numeric address", h.addr)
		}
		port := ports[min(i, len(ports)-1)]
		if port == "" {
			port = "5432"
		}
		p, err := strconv.ParseUint(strings.Trim(port, spaces), 10, 16)
		if err != nil || p == 0 {
			return nil, fault.New("invalid port number: \"%s\"", port)
		}
		h.port = uint16(p)
		if err := s.configure(h, programName); err != nil {
			return nil, err
		}
		hs.list = append(hs.list, h)
	}
	switch v := s["load_balance_hosts"]; v {
	case "", "disable":
	case "random":
		rand.Shuffle(len(hs.list), func(i, j int) { hs.list[i], hs.list[j] = hs.list[j], hs.list[i] })
	default:
		return nil, fault.New("invalid load_balance_hosts value: \"%s\"", v)
	}
	return hs, nil
}

func splitList(v string) []string { return strings.Split(v, ",") }

// configure makes the host's pgconn configuration. Passwords are set afterwards, not in the string that is parsed, so
// that no parse error can show them.
func (s settings) configure(h *host, programName string) error {
	var b strings.Builder
	put := func(name, value string) {
		fmt.Fprintf(&b, "%s='%s' ", name, strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value))
	}
	host := h.name
	if host == "" {
		host = h.addr
	}
	put("host", host) // empty: pgx looks for the socket where libpq's builds have it
	put("port", strconv.Itoa(int(h.port)))
	put("password", "")
	for _, k := range keywords {
		if v := s[k.name]; v != "" && k.use == passed {
			put(k.name, v)
		}
	}
	timeout, err := s.integer("connect_timeout", 0)
	if err != nil {
		return err
	}
	if timeout = max(timeout, 0); timeout == 1 {
		timeout = 2 // libpq's minimum
	}
	put("connect_timeout", strconv.Itoa(timeout))
	attrs := s["target_session_attrs"]
	if attrs == "" || attrs == "prefer-standby" {
		attrs = "any" // prefer-standby is a matter of all hosts: see openAny in pool.go
	}
	put("target_session_attrs", attrs)
	if service := os.Getenv("PGSERVICE"); service != "" {
		// pgx reads the service again on its own; let it find it. What it adds is hidden by the above or dropped below.
		put("service", s["service"])
		put("servicefile", s["servicefile"])
	}

	cfg, err := pgconn.ParseConfigWithOptions(b.String(), pgconn.ParseConfigOptions{
		GetSSLPassword: func(context.Context) string { return s["sslpassword"] },
	})
	if err != nil {
		return parseFailure(err)
	}
	if v := s["password"]; v != "" {
		cfg.Password = v
	}
	cfg.RuntimeParams = map[string]string{"client_encoding": "UTF8", "application_name": programName}
	for _, name := range []string{"fallback_application_name", "application_name"} {
		if v := s[name]; v != "" {
			cfg.RuntimeParams["application_name"] = v
		}
	}
	if v := s["options"]; v != "" {
		cfg.RuntimeParams["options"] = v
	}
	if h.addr != "" {
		cfg.Host = h.addr
		for _, fb := range cfg.Fallbacks {
			fb.Host = h.addr
		}
	}
	if strings.HasPrefix(cfg.Host, "/") {
		h.name = cfg.Host
	}
	if err := s.limitTLS(cfg); err != nil {
		return err
	}
	if err := refuseDefaultCRL(cfg); err != nil {
		return err
	}
	cfg.MaxProtocolMessageBodyLen = maxMessage
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(bufio.NewReaderSize(r, readBuffer), w)
	}
	h.config = cfg
	return nil
}

// dialer translates the keywords about TCP. Without them a dead peer is noticed after about two and a half minutes,
// Go's keepalive settings, rather than libpq's two hours.
func (s settings) dialer() (net.Dialer, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true}}
	on, err := s.integer("keepalives", 1)
	if err != nil {
		return d, err
	}
	d.KeepAliveConfig.Enable = on != 0
	if !d.KeepAliveConfig.Enable {
		d.KeepAlive = -1 // or net would go back to its default
	}
	for name, set := range map[string]func(int){
		"keepalives_idle":     func(n int) { d.KeepAliveConfig.Idle = time.Duration(n) * time.Second },
		"keepalives_interval": func(n int) { d.KeepAliveConfig.Interval = time.Duration(n) * time.Second },
		"keepalives_count":    func(n int) { d.KeepAliveConfig.Count = n },
	} {
		if s[name] == "" {
			continue
		}
		n, err := s.integer(name, 0)
		if err != nil {
			return d, err
		}
		if n <= 0 {
			n = -1 // libpq's 0 is the system's default, which net calls negative
		}
		set(n)
	}
	millis, err := s.integer("tcp_user_timeout", 0)
	if err != nil {
		return d, err
	}
	if millis > 0 {
		d.Control = func(network, _ string, c syscall.RawConn) error {
			if !strings.HasPrefix(network, "tcp") {
				return nil
			}
			var serr error
			if err := c.Control(func(fd uintptr) {
				serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, millis)
			}); err != nil {
				return err
			}
			return serr
		}
	}
	return d, nil
}

// limitTLS applies the limits of the protocol's version. libpq's own minimum is TLSv1.2, and so is Go's.
func (s settings) limitTLS(cfg *pgconn.Config) error {
	versions := map[string]uint16{
		"tlsv1": tls.VersionTLS10, "tlsv1.1": tls.VersionTLS11, "tlsv1.2": tls.VersionTLS12, "tlsv1.3": tls.VersionTLS13,
	}
	var limit [2]uint16
	for i, name := range []string{"ssl_min_protocol_version", "ssl_max_protocol_version"} {
		v := s[name]
		if v == "" {
			continue
		}
		if limit[i] = versions[strings.ToLower(v)]; limit[i] == 0 {
			return fault.New("invalid %s value: \"%s\"", name, v)
		}
	}
	if limit[0] != 0 && limit[1] != 0 && limit[0] > limit[1] {
		return fault.New("invalid SSL protocol version range")
	}
	for _, c := range tlsConfigs(cfg) {
		c.MinVersion, c.MaxVersion = limit[0], limit[1]
	}
	return nil
}

func tlsConfigs(cfg *pgconn.Config) []*tls.Config {
	var out []*tls.Config
	if cfg.TLSConfig != nil {
		out = append(out, cfg.TLSConfig)
	}
	for _, fb := range cfg.Fallbacks {
		if fb.TLSConfig != nil {
			out = append(out, fb.TLSConfig)
		}
	}
	return out
}

// refuseDefaultCRL fails where libpq would check the server's certificate against ~/.postgresql/root.crl, which is not
// done here.
func refuseDefaultCRL(cfg *pgconn.Config) error {
	verifies := false
	for _, c := range tlsConfigs(cfg) {
		verifies = verifies || !c.InsecureSkipVerify || c.VerifyPeerCertificate != nil
	}
	file := filepath.Join(os.Getenv("HOME"), ".postgresql", "root.crl")
	if _, err := os.Stat(file); !verifies || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fault.New("certificate revocation list \"%s\" is not supported", file).
		Advise("libpq would check the server's certificate against it. Connect through a socket, or run with another HOME.")
}

// attempt is one try to reach a server, for messages and for finding the same server again.
type attempt struct {
	network, address string // as dialled
	err              error  // of dialling; nil if that went well
}

// attempts collects the attempts of one pgconn.ConnectConfig, which tries addresses one by one.
type attempts struct {
	mu   sync.Mutex
	list []attempt
	name string // that could not be resolved, or ""
}

// prepare makes the configuration for one connection. only, unless empty, is the one address it may dial.
func (h *host) prepare(only string) (*pgconn.Config, *attempts) {
	tries := &attempts{}
	cfg := h.config.Copy()
	lookup := cfg.LookupFunc
	cfg.LookupFunc = func(ctx context.Context, name string) ([]string, error) {
		if only != "" {
			return []string{only}, nil
		}
		if net.ParseIP(strings.Split(name, "%")[0]) != nil {
			return []string{name}, nil
		}
		addrs, err := lookup(ctx, name)
		if err != nil {
			tries.name = name
		}
		return addrs, err
	}
	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := h.dialer.DialContext(ctx, network, address)
		if err == nil && network == "unix" && h.peer != "" {
			if err = checkPeer(conn, h.peer); err != nil {
				_ = conn.Close() // it is of no use
				conn = nil
			}
		}
		tries.mu.Lock()
		tries.list = append(tries.list, attempt{network, address, err})
		tries.mu.Unlock()
		return conn, err
	}
	return cfg, tries
}

// checkPeer fails unless the server at the other end of a socket runs as the user named by requirepeer.
func checkPeer(conn net.Conn, want string) error {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return fault.New("requirepeer parameter is not supported on this platform")
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return err
	}
	var (
		cred *unix.Ucred
		cerr error
	)
	if err := raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return err
	}
	if cerr != nil {
		return fault.Because(cerr, "could not get peer credentials: %s", fault.M(cerr))
	}
	u, err := user.LookupId(strconv.FormatUint(uint64(cred.Uid), 10))
	if err != nil {
		return fault.Because(err, "could not look up local user ID %d: %s", cred.Uid, fault.M(err))
	}
	if u.Username != want {
		return fault.New("requirepeer specifies \"%s\", but actual peer user name is \"%s\"", want, u.Username)
	}
	return nil
}
