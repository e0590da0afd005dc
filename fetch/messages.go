package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// SQLSTATEs that mean something to us (errcodes.txt).
const (
	codeInsufficientPrivilege = "42501"
	codeUndefinedFile         = "58P01"
	codeCannotConnectNow      = "57P03"
	codeTooManyConnections    = "53300"
	codeAdminShutdown         = "57P01"
	codeCrashShutdown         = "57P02"
	codeIdleSessionTimeout    = "57P05"
	codeSerializationFailure  = "40001"
	codeDeadlock              = "40P01"

	classConnectionException = "08"
)

// serverText is an error of a connection in the words of libpq's PQerrorMessage at its default verbosity, without the
// final newline.
func serverText(err error) string {
	var pgErr *pgconn.PgError
	switch {
	case errors.As(err, &pgErr):
		text := pgErr.Severity + ":  " + pgErr.Message
		if pgErr.Detail != "" {
			text += "\nDETAIL:  " + pgErr.Detail
		}
		if pgErr.Hint != "" {
			text += "\nHINT:  " + pgErr.Hint
		}
		return printable(text)
	case isClosed(err):
		return "server closed the connection unexpectedly\n" +
			"\tThis probably means the server terminated abnormally\n" +
			"\tbefore or while processing the request."
	}
	return printable(fault.M(err)) // pgconn shows what it did not understand
}

func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}

// queryFailed makes the error of a failed statement: format and args are stock's text up to the server's own. A done
// context is returned as itself.
func (s *Server) queryFailed(ctx context.Context, err error, format string, args ...any) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var f *fault.Error
	if errors.As(err, &f) { // made further down, with its text
		return err
	}
	text := fmt.Sprintf(format, args...)
	f = fault.Because(err, "%s: %s", text, serverText(err))
	var pgErr *pgconn.PgError
	switch {
	case errors.As(err, &pgErr) && pgErr.Code == codeInsufficientPrivilege:
		return f.Advise("%s", s.grants())
	case errors.Is(err, errFlood):
		return f.Advise("No PostgreSQL server does that. Find out what answers at the address of the source.")
	case pgErr == nil && transient(err):
		return f.Advise("The connection to the source was lost. Check the source and the network, then start again.")
	}
	return f
}

// grants says what a role without them needs, in statements to paste.
func (s *Server) grants() string {
	role := `"` + strings.ReplaceAll(s.user, `"`, `""`) + `"`
	var b strings.Builder
	b.WriteString("On the source (a primary), a superuser must run, in the database we connect to:")
	for _, f := range []string{
		"pg_ls_dir(text, boolean, boolean)", "pg_stat_file(text, boolean)",
		"pg_read_binary_file(text)", "pg_read_binary_file(text, bigint, bigint, boolean)",
	} {
		fmt.Fprintf(&b, "\nGRANT EXECUTE ON FUNCTION pg_catalog.%s TO %s;", f, role)
	}
	return b.String()
}

// connectText tells of every failed attempt of one pgconn.ConnectConfig as libpq does, one after the other.
func (h *host) connectText(err error, tries *attempts) string {
	errs := []error{err}
	var connErr *pgconn.ConnectError
	if errors.As(err, &connErr) {
		errs = flatten(connErr.Unwrap())
	}
	tries.mu.Lock()
	defer tries.mu.Unlock()
	// What did not get as far as dialling comes first: names that were not found.
	undialled := max(len(errs)-len(tries.list), 0)
	var lines []string
	for i, e := range errs {
		var line string
		switch {
		case i >= undialled:
			a := tries.list[i-undialled]
			if refusedTLS(e) && slices.ContainsFunc(tries.list[i-undialled+1:], func(b attempt) bool { return b.address == a.address }) {
				continue // with sslmode=prefer that is no failure
			}
			line = fmt.Sprintf("connection to server %s failed: %s", h.at(a), attemptText(a, e))
		case tries.name != "":
			line = fmt.Sprintf("could not translate host name \"%s\" to address: %s", tries.name, lookupText(e))
		default:
			line = fault.M(e)
		}
		if len(lines) == 0 || lines[len(lines)-1] != line { // with and without TLS, mostly
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// at is the server of an attempt (emitHostIdentityInfo, fe-connect.c).
func (h *host) at(a attempt) string {
	if a.network == "unix" {
		return fmt.Sprintf("on socket \"%s\"", a.address)
	}
	ip, port, err := net.SplitHostPort(a.address)
	switch {
	case err != nil:
		return fmt.Sprintf("at \"%s\"", a.address)
	case h.name != "" && h.name != ip:
		return fmt.Sprintf("at \"%s\" (%s), port %s", h.name, ip, port)
	}
	return fmt.Sprintf("at \"%s\", port %s", ip, port)
}

func attemptText(a attempt, err error) string {
	var (
		pgErr     *pgconn.PgError
		f         *fault.Error
		tlsAlert  tls.AlertError
		unknownCA x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &pgErr):
		return serverText(err)
	case errors.As(err, &f):
		return f.Text
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout expired"
	case a.err != nil && a.network == "unix":
		return fault.M(a.err) + "\n\tIs the server running locally and accepting connections on that socket?"
	case a.err != nil:
		return fault.M(a.err) + "\n\tIs the server running on that host and accepting TCP/IP connections?"
	case errors.Is(err, pgconn.ErrReadOnlyConnection):
		return "session is read-only"
	case errors.Is(err, pgconn.ErrReadWriteConnection):
		return "session is not read-only"
	case errors.Is(err, pgconn.ErrStandbyConnection):
		return "server is in hot standby mode"
	case errors.Is(err, pgconn.ErrPrimaryConnection):
		return "server is not in hot standby mode"
	case errors.As(err, &tlsAlert), errors.As(err, &unknownCA), errors.As(err, &hostname), errors.As(err, &invalid), errors.As(err, &verify):
		return "SSL error: " + innermost(err).Error()
	case refusedTLS(err):
		return "server does not support SSL, but SSL was required"
	case isClosed(err):
		return serverText(err)
	}
	text := innermost(err).Error()
	if reason, ok := strings.CutPrefix(text, "tls: "); ok {
		text = "SSL error: " + reason
	}
	if strings.Contains(text, "no GSSAPI provider registered") {
		text = "server requested GSSAPI authentication, which is not supported"
	}
	return printable(text)
}

// refusedTLS reports whether the server has no TLS. pgconn has no name for that.
func refusedTLS(err error) bool {
	return strings.HasSuffix(err.Error(), "server refused TLS connection")
}

// lookupText is getaddrinfo's text where there is one.
func lookupText(err error) string {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		switch {
		case dns.IsNotFound:
			return "Name or service not known"
		case dns.IsTimeout, dns.IsTemporary:
			return "Temporary failure in name resolution"
		}
		return dns.Err
	}
	return fault.M(err)
}

// parseFailure turns pgconn's refusal of a configuration into ours. The string it was given holds no password, but is
// not the user's either, so only the reason is kept.
func parseFailure(err error) error {
	text := err.Error()
	if i := strings.LastIndex(text, "`: "); i >= 0 {
		text = text[i+3:]
	}
	return fault.Because(err, "invalid connection options: %s", text)
}

// flatten takes errors.Join apart.
func flatten(err error) []error {
	for e := err; e != nil; e = errors.Unwrap(e) {
		if joined, ok := e.(interface{ Unwrap() []error }); ok {
			return joined.Unwrap()
		}
	}
	return []error{err}
}

func innermost(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
