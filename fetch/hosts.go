package fetch

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/user"
	"slices"
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
	warnings      []string // about settings that are not followed
}

// host is one host of the connection string. pgx can take several in one configuration, but then has one password for
// all, no hostaddr, and cannot say which one it chose.
type host struct {
	name   string // host as given; a socket if isSocket says so; "" if only addr is given
	addr   string // hostaddr as given, or ""
	port   uint16
	config *pgconn.Config
	dialer net.Dialer
	stall  time.Duration // how long a statement may give no byte; 0 is for ever
	peer   string        // requirepeer
}

// isSocket reports whether a host is a Unix socket: the directory it lies in, or, with an @ before it, a name of Linux's
// abstract namespace, which has no file (is_unixsocket_path, libpq/pqcomm.h).
func isSocket(host string) bool { return strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") }

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
		if err := s.configure(hs, h, programName); err != nil {
			return nil, err
		}
		hs.list = append(hs.list, h)
	}
	switch v := s["load_balance_hosts"]; v {
	case "", "disable":
	case "random":
		hs.shuffle()
		rand.Shuffle(len(hs.list), func(i, j int) { hs.list[i], hs.list[j] = hs.list[j], hs.list[i] })
	default:
		return nil, fault.New("invalid load_balance_hosts value: \"%s\"", v)
	}
	return hs, nil
}

// shuffle makes the addresses of each host come in any order, too.
func (hs *hosts) shuffle() {
	for _, h := range hs.list {
		lookup := h.config.LookupFunc
		h.config.LookupFunc = func(ctx context.Context, name string) ([]string, error) {
			addrs, err := lookup(ctx, name)
			rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
			return addrs, err
		}
	}
}

func splitList(v string) []string { return strings.Split(v, ",") }

// configure makes the host's pgconn configuration. Passwords are set afterwards, not in the string that is parsed, so
// that no parse error can show them.
func (s settings) configure(hs *hosts, h *host, programName string) error {
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
	// What is done here (tls.go, passfile.go) pgconn must not also find in the environment or at home.
	put("sslmode", "disable")
	for _, name := range []string{"sslrootcert", "sslcert", "sslkey", "sslpassword"} {
		put(name, "")
	}
	put("passfile", os.DevNull)
	put("connect_timeout", "0")
	timeout, err := s.connectTimeout()
	if err != nil {
		return err
	}
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

	cfg, err := pgconn.ParseConfig(b.String())
	if err != nil {
		return parseFailure(err)
	}
	h.config = cfg
	cfg.ConnectTimeout = timeout
	if cfg.Password = s["password"]; cfg.Password == "" {
		var warning string
		if cfg.Password, warning = s.passfilePassword(h, cfg.User); warning != "" && !slices.Contains(hs.warnings, warning) {
			hs.warnings = append(hs.warnings, warning)
		}
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
	}
	if strings.HasPrefix(cfg.Host, "/") {
		h.name = cfg.Host
	}
	if err := s.configureTLS(h, cfg); err != nil {
		return err
	}
	cfg.MaxProtocolMessageBodyLen = maxMessage
	return nil
}

// connectTimeout is how long connecting to one address may take; 0 is for ever, which has to be asked for.
func (s settings) connectTimeout() (time.Duration, error) {
	if strings.Trim(s["connect_timeout"], spaces) == "" {
		return DefaultConnectTimeout, nil
	}
	n, err := s.integer("connect_timeout", 0)
	if err != nil {
		return 0, err
	}
	if n = max(n, 0); n == 1 {
		n = 2 // libpq's minimum
	}
	return time.Duration(n) * time.Second, nil
}

// dialer translates the keywords about TCP. Without them a dead peer is noticed after 40 seconds, rather than after the
// two hours that libpq leaves to the system.
func (s settings) dialer() (net.Dialer, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 10 * time.Second, Interval: 10 * time.Second, Count: 3,
	}}
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

// attempt is one try to reach a server, for messages and for finding the same server again.
type attempt struct {
	network, address string // as dialled
	err              error  // of dialling; nil if that went well
}

// attempts collects the attempts of one pgconn.ConnectConfig, which tries addresses one by one.
type attempts struct {
	mu        sync.Mutex
	list      []attempt
	name      string       // that could not be resolved, or ""
	net       *watchedConn // the last that was dialled
	aside     *asideReader // likewise
	connected bool         // what is dialled from now on is a request to cancel
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
		if isSocket(name) {
			return []string{"localhost"}, nil // in its place: pgconn has no abstract sockets, and would look for a port in the name
		}
		if cfg.ConnectTimeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, cfg.ConnectTimeout)
			defer cancel()
		}
		addrs, err := lookup(ctx, name)
		if err != nil {
			tries.name = name
		}
		return addrs, err
	}
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		tries.mu.Lock()
		aside := &asideReader{r: r, conn: tries.net}
		tries.aside = aside
		tries.mu.Unlock()
		return pgproto3.NewFrontend(bufio.NewReaderSize(aside, readBuffer), w)
	}
	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if strings.HasPrefix(cfg.Host, "@") {
			network, address = "unix", cfg.Host+"/.s.PGSQL."+strconv.Itoa(int(h.port)) // net takes the @ for the zero byte
		}
		tries.mu.Lock()
		connected, dialled := tries.connected, tries.net
		tries.mu.Unlock()
		if connected {
			if dialled.gone() {
				return nil, net.ErrClosed // whom nobody answered there is nobody to tell
			}
			ctx, cancel := context.WithTimeout(ctx, maxClosing)
			defer cancel()
			return h.dialer.DialContext(ctx, network, address)
		}
		conn, err := h.dialer.DialContext(ctx, network, address)
		if err == nil && network == "unix" && h.peer != "" {
			if err = checkPeer(conn, h.peer); err != nil {
				_ = conn.Close() // it is of no use
				conn = nil
			}
		}
		tries.mu.Lock()
		defer tries.mu.Unlock()
		tries.list = append(tries.list, attempt{network, address, err})
		if err != nil {
			return nil, err
		}
		tries.net = watchConn(conn, h.stall)
		return tries.net, nil
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
