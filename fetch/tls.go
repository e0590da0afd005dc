package fetch

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// maxPEM bounds certificate, key and revocation files, in bytes.
const maxPEM = 64 << 20

// TLS is set up here and not by pgconn, because libpq does more: revocation lists, the common name of certificates that
// have no other, encrypted keys of today's form, permissions of keys, files in their default places.
//
// configureTLS makes what is tried for a host, in this order (fe-secure-openssl.c, initialize_SSL; pqConnectOptions2).
func (s settings) configureTLS(h *host, cfg *pgconn.Config) error {
	tries, err := s.tlsTries(h)
	if err != nil {
		return err
	}
	cfg.TLSConfig = tries[0]
	cfg.Fallbacks = nil
	for _, t := range tries[1:] {
		cfg.Fallbacks = append(cfg.Fallbacks, &pgconn.FallbackConfig{Host: cfg.Host, Port: cfg.Port, TLSConfig: t})
	}
	return nil
}

// tlsTries are the ways to try, in their order; nil is without TLS.
func (s settings) tlsTries(h *host) ([]*tls.Config, error) {
	mode, err := s.sslMode()
	if err != nil {
		return nil, err
	}
	min, max, err := s.tlsVersions()
	if err != nil {
		return nil, err
	}
	if isSocket(h.config.Host) || mode == "disable" {
		return []*tls.Config{nil}, nil
	}
	c := &tls.Config{
		MinVersion: min, MaxVersion: max,
		InsecureSkipVerify: true, // the certificate is verified by VerifyConnection, as libpq does it
	}
	if s["sslnegotiation"] == "direct" {
		c.NextProtos = []string{"postgresql"}
	}
	name := h.name
	if name == "" {
		name = h.addr
	}
	switch v := s["sslsni"]; v {
	case "", "1":
		if net.ParseIP(name) == nil {
			c.ServerName = name
		}
	case "0":
	default:
		return nil, fault.New("invalid sslsni value: \"%s\"", v)
	}
	v, err := s.verifier(h, mode)
	if err != nil {
		return nil, err
	}
	if v != nil {
		c.VerifyConnection = v.verify
	}
	if s["sslcertmode"] != "disable" {
		cert, err := s.clientCertificate()
		if err != nil {
			return nil, err
		}
		if cert != nil {
			// libpq sends it to any server that asks for one, whatever authorities that says it knows.
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
		}
	}
	switch mode {
	case "allow":
		return []*tls.Config{nil, c}, nil
	case "prefer":
		return []*tls.Config{c, nil}, nil
	}
	return []*tls.Config{c}, nil
}

// sslMode is sslmode, checked, or its default.
func (s settings) sslMode() (string, error) {
	mode := s["sslmode"]
	system := s["sslrootcert"] == "system"
	switch mode {
	case "":
		mode = "prefer"
		if system {
			mode = "verify-full"
		}
	case "disable", "allow", "prefer", "require", "verify-ca", "verify-full":
	default:
		return "", fault.New("invalid sslmode value: \"%s\"", mode)
	}
	if system && mode != "verify-full" {
		return "", fault.New("weak sslmode \"%s\" may not be used with sslrootcert=system (use \"verify-full\")", mode)
	}
	switch v := s["sslnegotiation"]; v {
	case "", "postgres":
	case "direct":
		if mode == "disable" || mode == "allow" || mode == "prefer" {
			return "", fault.New("weak sslmode \"%s\" may not be used with sslnegotiation=direct (use \"require\", \"verify-ca\", or \"verify-full\")", mode)
		}
	default:
		return "", fault.New("invalid sslnegotiation value: \"%s\"", v)
	}
	return mode, nil
}

// tlsVersions are the limits of the protocol's version. libpq's own minimum is TLSv1.2, and so is Go's, which 0 means.
func (s settings) tlsVersions() (min, max uint16, err error) {
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
			return 0, 0, fault.New("invalid %s value: \"%s\"", name, v)
		}
	}
	if limit[0] != 0 && limit[1] != 0 && limit[0] > limit[1] {
		return 0, 0, fault.New("invalid SSL protocol version range")
	}
	return limit[0], limit[1], nil
}

// homeFile is a file below ~/.postgresql, or empty if there is no home.
func homeFile(name string) string { return inHome(os.Getenv, ".postgresql", name) }

func readPEM(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxPEM))
}

// clientCertificate is what we show a server that asks who we are, or nil. A certificate file that is not there is no
// error in libpq, wherever its name comes from; a key that is not there is one.
func (s settings) clientCertificate() (*tls.Certificate, error) {
	certFile, keyFile := s["sslcert"], s["sslkey"]
	if certFile == "" {
		certFile = homeFile("postgresql.crt")
	}
	certPEM, err := readPEM(certFile)
	switch {
	case certFile == "", errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil, nil //nolint:nilnil // no certificate is an answer
	case err != nil:
		return nil, fault.Because(err, "could not open certificate file \"%s\": %s", certFile, fault.M(err))
	}
	if keyFile == "" {
		keyFile = homeFile("postgresql.key")
	} else if strings.Contains(keyFile, ":") && !exists(keyFile) {
		return nil, fault.New("could not load private SSL key \"%s\"", keyFile).
			Advise("Keys in an OpenSSL engine are not supported: give a file.")
	}
	info, err := os.Stat(keyFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.Because(err, "certificate present, but not private key file \"%s\"", keyFile)
	case err != nil:
		return nil, fault.Because(err, "could not stat private key file \"%s\": %s", keyFile, fault.M(err))
	case !info.Mode().IsRegular():
		return nil, fault.New("private key file \"%s\" is not a regular file", keyFile)
	}
	forbidden := fs.FileMode(0o077)
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid == 0 && os.Geteuid() != 0 {
		forbidden = 0o037 // one key for several services
	}
	if info.Mode().Perm()&forbidden != 0 {
		return nil, fault.New("private key file \"%s\" has group or world access; file must have permissions u=rw (0600) or less "+
			"if owned by the current user, or permissions u=rw,g=r (0640) or less if owned by root", keyFile)
	}
	keyPEM, err := readPEM(keyFile)
	if err != nil {
		return nil, fault.Because(err, "could not load private key file \"%s\": %s", keyFile, fault.M(err))
	}
	if keyPEM, err = decryptKey(keyPEM, s["sslpassword"]); err != nil {
		return nil, fault.Because(err, "could not load private key file \"%s\": %s", keyFile, err)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fault.Because(err, "could not load certificate \"%s\" with private key \"%s\": %s",
			certFile, keyFile, strings.TrimPrefix(err.Error(), "tls: "))
	}
	return &cert, nil
}

// verifier verifies the certificate of a server.
type verifier struct {
	roots *x509.CertPool // nil: the system's
	crls  []*x509.RevocationList
	check bool   // whether revocation is checked
	host  string // the name the certificate must have; empty if any will do
}

// verifier is nil if the server may be anyone. As in libpq, a file of root certificates is used whenever there is one.
func (s settings) verifier(h *host, mode string) (*verifier, error) {
	v := &verifier{}
	rootFile := s["sslrootcert"]
	if rootFile == "" {
		rootFile = homeFile("root.crt")
	}
	switch {
	case rootFile == "system":
	case exists(rootFile):
		data, err := readPEM(rootFile)
		if err != nil {
			return nil, fault.Because(err, "could not read root certificate file \"%s\": %s", rootFile, fault.M(err))
		}
		v.roots = x509.NewCertPool()
		if !v.roots.AppendCertsFromPEM(data) {
			return nil, fault.New("could not read root certificate file \"%s\": no certificate in it", rootFile)
		}
	case mode == "verify-ca" || mode == "verify-full":
		const instead = "Either provide the file, use the system's trusted roots with sslrootcert=system, or change sslmode " +
			"to disable server certificate verification."
		if rootFile == "" {
			return nil, fault.New("could not get home directory to locate root certificate file\n" + instead)
		}
		return nil, fault.New("root certificate file \"%s\" does not exist\n"+instead, rootFile)
	default:
		return nil, nil //nolint:nilnil // nothing is verified
	}
	if mode == "verify-full" {
		if v.host = h.name; v.host == "" {
			return nil, fault.New("host name must be specified for a verified SSL connection")
		}
	}
	return v, s.loadRevocations(v, rootFile)
}

// verify implements tls.Config.VerifyConnection.
func (v *verifier) verify(cs tls.ConnectionState) error {
	certs := cs.PeerCertificates
	if len(certs) == 0 {
		return errors.New("the server has no certificate")
	}
	opts := x509.VerifyOptions{Roots: v.roots, Intermediates: x509.NewCertPool()}
	for _, c := range certs[1:] {
		opts.Intermediates.AddCert(c)
	}
	chains, err := certs[0].Verify(opts)
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: certs, Err: err}
	}
	if v.check {
		if err := v.checkRevocation(chains); err != nil {
			return err
		}
	}
	if v.host != "" && !certificateMatches(certs[0], v.host) {
		return fault.New("server certificate for \"%s\" does not match host name \"%s\"",
			printableLine(certificateName(certs[0])), v.host).
			Advise("With sslmode=verify-full, host must be a name or an address that is in the server's certificate.")
	}
	return nil
}

// certificateMatches follows libpq: the alternative names decide; only without any of them, the common name does.
func certificateMatches(c *x509.Certificate, host string) bool {
	if len(c.DNSNames) > 0 || len(c.IPAddresses) > 0 {
		if c.VerifyHostname(host) == nil {
			return true
		}
		if len(c.DNSNames) > 0 || net.ParseIP(host) != nil {
			return false
		}
	}
	name := c.Subject.CommonName
	if net.ParseIP(host) != nil {
		return name == host
	}
	if suffix, ok := strings.CutPrefix(name, "*"); ok && strings.HasPrefix(suffix, ".") && strings.Count(suffix, ".") > 1 {
		first, rest, found := strings.Cut(host, ".")
		return found && first != "" && strings.EqualFold("."+rest, suffix)
	}
	return name != "" && strings.EqualFold(name, host)
}

func certificateName(c *x509.Certificate) string {
	switch {
	case len(c.DNSNames) > 0:
		return c.DNSNames[0]
	case len(c.IPAddresses) > 0:
		return c.IPAddresses[0].String()
	}
	return c.Subject.CommonName
}

// pemBlocks are the contents of the blocks of one type.
func pemBlocks(data []byte, kind string) (blocks [][]byte) {
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			return blocks
		}
		if b.Type == kind {
			blocks = append(blocks, b.Bytes)
		}
	}
}
