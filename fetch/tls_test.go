package fetch

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// authority issues certificates and revokes them.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

var serials int64

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func template(name string) *x509.Certificate {
	serials++
	return &x509.Certificate{
		SerialNumber: big.NewInt(serials), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
	}
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	c := template(name)
	a.sign(t, c, a.key, c)
	return a
}

func (a *authority) sign(t *testing.T, c *x509.Certificate, key crypto.Signer, issuer *x509.Certificate) *authority {
	t.Helper()
	c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, c, issuer, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	made := a
	if issuer != c {
		made = &authority{key: key}
	}
	if made.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return made
}

// below makes an authority under a.
func (a *authority) below(t *testing.T, name string) *authority {
	return a.sign(t, template(name), newKey(t), a.cert)
}

func certPEM(certs ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return b.Bytes()
}

func (a *authority) write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, certPEM(a.cert), 0o600); err != nil {
		t.Fatal(err)
	}
}

// issue makes a certificate and its key as PEM.
func (a *authority) issue(t *testing.T, c *x509.Certificate) (*x509.Certificate, []byte) {
	t.Helper()
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	der, err = x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// crl makes a revocation list, valid for some time from an hour ago on.
func (a *authority) crl(t *testing.T, valid time.Duration, revoked ...*x509.Certificate) []byte {
	t.Helper()
	list := &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(valid - time.Hour),
	}
	for _, c := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now().Add(-time.Minute)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// TestTLS holds our TLS against a real server with real certificates: what must connect does, what must not, does not.
func TestTLS(t *testing.T) {
	p := livePrimary(t, "source")
	t.Setenv("HOME", t.TempDir())
	dir := t.TempDir()
	file := func(name string, data ...[]byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, bytes.Join(data, nil), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	root := newAuthority(t, "root's name")
	issuer := root.below(t, "issuer's name")
	other := newAuthority(t, "root's name") // the name does not help
	server := template("server")
	server.DNSNames, server.IPAddresses = []string{"localhost", "*.example.org"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	serverCert, serverKey := issuer.issue(t, server)
	plainCert, plainKey := issuer.issue(t, template("localhost")) // with nothing but a common name
	clientCert, clientKey := root.issue(t, template("certuser"))
	strangerCert, strangerKey := other.issue(t, template("certuser"))

	use := func(cert *x509.Certificate, key []byte) {
		p.Env().WriteFile(p.Path("server.crt"), certPEM(cert, issuer.cert), 0o600)
		p.Env().WriteFile(p.Path("server.key"), key, 0o600)
	}
	use(serverCert, serverKey)
	p.Env().WriteFile(p.Path("root.crt"), certPEM(root.cert), 0o600)
	p.AppendConf("ssl = on", "ssl_cert_file = 'server.crt'", "ssl_key_file = 'server.key'", "ssl_ca_file = 'root.crt'",
		"ssl_max_protocol_version = 'TLSv1.3'", "password_encryption = 'scram-sha-256'")
	p.Env().WriteFile(p.Path("pg_hba.conf"), []byte("local all all trust\n"+
		"hostssl all certuser 127.0.0.1/32 cert\nhostssl all scram 127.0.0.1/32 scram-sha-256\nhostssl all md5 127.0.0.1/32 md5\n"+
		"hostssl all clear 127.0.0.1/32 password\nhostnossl all plain 127.0.0.1/32 trust\nhostssl all rewinder 127.0.0.1/32 trust\n"), 0o600)
	p.Restart()
	p.SQL("postgres", `CREATE ROLE certuser LOGIN; CREATE ROLE scram LOGIN PASSWORD 'right'; CREATE ROLE plain LOGIN;
		CREATE ROLE clear LOGIN PASSWORD 'right'; SET password_encryption = 'md5'; CREATE ROLE md5 LOGIN PASSWORD 'right'`)

	ca, wrongCA := file("ca.crt", certPEM(root.cert)), file("wrong.crt", certPEM(other.cert))
	cert, key := file("client.crt", certPEM(clientCert)), file("client.key", clientKey)
	strange, strangeKey := file("stranger.crt", certPEM(strangerCert)), file("stranger.key", strangerKey)
	openKey := file("open.key", clientKey)
	if err := os.Chmod(openKey, 0o644); err != nil {
		t.Fatal(err)
	}
	rootList, issuerList := root.crl(t, 3*time.Hour), issuer.crl(t, 3*time.Hour, plainCert)
	lists := file("good.crl", rootList, issuerList)
	revoked := file("revoked.crl", rootList, issuer.crl(t, 3*time.Hour, plainCert, serverCert))
	revokedIssuer := file("revoked-issuer.crl", root.crl(t, 3*time.Hour, issuer.cert), issuerList)
	expired := file("expired.crl", rootList, issuer.crl(t, 30*time.Minute))
	forged := file("forged.crl", rootList, (&authority{cert: issuer.cert, key: other.key}).forge(t))
	listDir := filepath.Join(dir, "crls")
	if err := os.Mkdir(listDir, 0o700); err != nil {
		t.Fatal(err)
	}
	file("crls/0123abcd.r0", rootList)
	file("crls/0123abcd.r1", issuerList)
	file("crls/README", []byte("not a list"))

	at := fmt.Sprintf(" port=%d dbname=postgres connect_timeout=10 ", p.Port)
	failed := fmt.Sprintf(`connection to server at "127.0.0.1", port %d failed: `, p.Port)
	type row struct{ conn, want string }
	check := func(t *testing.T, rows []row) {
		t.Helper()
		for _, c := range rows {
			s, err := Connect(t.Context(), at+c.conn, Options{})
			if err != nil && c.want != "" && strings.Contains(err.Error(), c.want) {
				if strings.Contains(err.Error()+advice(err), "right") {
					t.Errorf("%s: shows the password: %v", c.conn, err)
				}
				continue
			}
			if (err == nil) != (c.want == "") || err != nil {
				t.Errorf("%s:\n got %v (%s)\nwant %s", c.conn, err, advice(err), c.want)
			}
			if s != nil {
				s.Close()
			}
		}
	}
	const ip, name = "host=127.0.0.1 user=rewinder ", "host=localhost hostaddr=127.0.0.1 user=rewinder "
	check(t, []row{
		{ip + "sslmode=disable", failed + "FATAL:  no pg_hba.conf entry for host"},
		{ip + "sslmode=allow", ""}, // refused without, accepted with
		{ip, ""},
		{"host=127.0.0.1 user=plain", ""},               // refused with, accepted without
		{"host=127.0.0.1 user=plain sslmode=allow", ""}, // at once
		{"host=127.0.0.1 user=plain sslmode=require", "no pg_hba.conf entry"},
		{ip + "sslmode=require", ""},
		{ip + "sslmode=require sslrootcert=/none", ""},
		{ip + "sslmode=require sslrootcert=" + wrongCA, failed + "SSL error: "}, // there is a file: verify-ca
		{ip + "sslmode=verify-ca sslrootcert=" + ca, ""},
		{ip + "sslmode=verify-ca sslrootcert=" + wrongCA, failed + "SSL error: "},
		{ip + "sslmode=verify-ca", `.postgresql/root.crt" does not exist`},
		{ip + "sslmode=verify-full sslrootcert=system", failed + "SSL error: "},
		{ip + "sslmode=verify-full sslrootcert=" + ca, ""},
		{name + "sslmode=verify-full sslrootcert=" + ca, ""},
		{name + "sslmode=verify-full sslsni=0 sslrootcert=" + ca, ""},
		{"host=db1.example.org hostaddr=127.0.0.1 user=rewinder sslmode=verify-full sslrootcert=" + ca, ""},
		{"host=a.b.example.org hostaddr=127.0.0.1 user=rewinder sslmode=verify-full sslrootcert=" + ca,
			`server certificate for "localhost" does not match host name "a.b.example.org"`},
		{"host=a.b.example.org hostaddr=127.0.0.1 user=rewinder sslmode=verify-ca sslrootcert=" + ca, ""},
		{"hostaddr=127.0.0.1 user=rewinder sslmode=verify-full sslrootcert=" + ca, "host name must be specified"},
		{ip + "sslmode=require ssl_min_protocol_version=TLSv1.3", ""},
		{ip + "sslmode=require ssl_max_protocol_version=TLSv1.2", ""},
		{ip + "sslmode=require ssl_max_protocol_version=TLSv1.1", failed + "SSL error: "},

		{ip + "sslmode=verify-ca sslrootcert=" + ca + " sslcrl=" + lists, ""},
		{ip + "sslmode=verify-ca sslrootcert=" + ca + " sslcrldir=" + listDir, ""},
		{ip + "sslmode=verify-ca sslrootcert=" + ca + " sslcrl=" + revoked, failed + "SSL error: certificate verify failed: certificate revoked"},
		{ip + "sslmode=require sslrootcert=" + ca + " sslcrl=" + revoked, failed + "SSL error: certificate verify failed: certificate revoked"},
		{ip + "sslmode=verify-ca sslrootcert=" + ca + " sslcrl=" + revokedIssuer, "certificate revoked"},
		{ip + "sslmode=verify-ca sslrootcert=" + ca + " sslcrl=" + expired, "CRL has expired"},
		{ip + "sslmode=verify-ca sslrootcert=" + ca + " sslcrl=" + forged, "unable to get certificate CRL"},
		{ip + "sslmode=verify-ca sslrootcert=" + ca + " sslcrl=" + file("half.crl", issuerList), "unable to get certificate CRL"},
		{ip + "sslmode=verify-ca sslrootcert=" + ca + " sslcrl=" + ca, "could not read certificate revocation list file"},

		{"host=127.0.0.1 user=certuser sslmode=require", "FATAL:  connection requires a valid client certificate"},
		{"host=127.0.0.1 user=certuser sslcert=" + cert + " sslkey=" + key, ""},
		{"host=127.0.0.1 user=rewinder sslcert=" + cert + " sslkey=" + key, ""},
		{"host=127.0.0.1 user=certuser sslmode=verify-full sslrootcert=" + ca + " sslcert=" + cert + " sslkey=" + key, ""},
		{"host=127.0.0.1 user=certuser sslmode=require sslcertmode=disable sslcert=" + cert + " sslkey=" + key, "valid client certificate"},
		{"host=127.0.0.1 user=certuser sslmode=require sslcertmode=require sslcert=" + cert + " sslkey=" + key, ""},
		{"host=127.0.0.1 user=rewinder sslmode=require sslcertmode=require", "certificate"},
		{"host=127.0.0.1 user=certuser sslmode=require sslcert=" + cert + " sslkey=" + strangeKey, "could not load certificate"},
		{"host=127.0.0.1 user=certuser sslmode=require sslcert=" + cert + " sslkey=" + openKey, "has group or world access"},
		{"host=127.0.0.1 user=certuser sslmode=require sslcert=" + cert + " sslkey=/none", `certificate present, but not private key file "/none"`},
		{"host=127.0.0.1 user=certuser sslmode=require sslcert=" + strange + " sslkey=" + strangeKey, failed},

		{"host=127.0.0.1 user=scram password=right sslmode=require channel_binding=require", ""},
		{"host=127.0.0.1 user=scram password=right sslmode=require channel_binding=disable", ""},
		{"host=127.0.0.1 user=scram password=right sslmode=require channel_binding=require require_auth=scram-sha-256", ""},
		{"host=127.0.0.1 user=scram password=wrong sslmode=require channel_binding=require", "FATAL:  password authentication failed"},
		{"host=127.0.0.1 user=scram sslmode=require", "password"},
		{"host=127.0.0.1 user=md5 password=right sslmode=require", ""},
		{"host=127.0.0.1 user=md5 password=right sslmode=require channel_binding=require", "channel binding"},
		{"host=127.0.0.1 user=clear password=right sslmode=require", ""},
		{"host=127.0.0.1 user=clear password=right sslmode=require require_auth=scram-sha-256", `authentication method requirement "scram-sha-256" failed: server requested password authentication`},
		{"host=127.0.0.1 user=clear password=right sslmode=require require_auth=!password", `authentication method requirement "!password" failed`},
		{"host=127.0.0.1 user=clear password=right sslmode=require channel_binding=require", "channel binding"},
		{"host=127.0.0.1 user=rewinder sslmode=require require_auth=scram-sha-256", `authentication method requirement "scram-sha-256" failed: server did not complete authentication`},
		{"host=127.0.0.1 user=rewinder sslmode=require require_auth=none", ""},
	})

	t.Run("encrypted keys", func(t *testing.T) {
		for _, name := range []string{"aes256-sha256", "headers"} {
			plain, err := decryptKey(testKey(t, name), "secret")
			if err != nil {
				t.Fatal(err)
			}
			b, _ := pem.Decode(plain)
			parsed, err := x509.ParsePKCS8PrivateKey(b.Bytes)
			if err != nil {
				parsed, err = x509.ParseECPrivateKey(b.Bytes)
			}
			if err != nil {
				t.Fatal(err)
			}
			c := template("certuser")
			der, err := x509.CreateCertificate(rand.Reader, c, root.cert, parsed.(crypto.Signer).Public(), root.key)
			if err != nil {
				t.Fatal(err)
			}
			made, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			conn := "host=127.0.0.1 user=certuser sslmode=require sslcert=" + file(name+".crt", certPEM(made)) +
				" sslkey=" + file(name+".key", testKey(t, name))
			check(t, []row{
				{conn + " sslpassword=secret", ""},
				{conn + " sslpassword=right", "could not load private key file"},
				{conn, "the key is encrypted, and there is no sslpassword"},
			})
		}
	})

	t.Run("default files", func(t *testing.T) {
		home := t.TempDir()
		t.Setenv("HOME", home)
		if err := os.Mkdir(filepath.Join(home, ".postgresql"), 0o700); err != nil {
			t.Fatal(err)
		}
		put := func(name string, data ...[]byte) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(home, ".postgresql", name), bytes.Join(data, nil), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		put("root.crt", certPEM(root.cert))
		put("postgresql.crt", certPEM(clientCert))
		put("postgresql.key", clientKey)
		check(t, []row{{"host=127.0.0.1 user=certuser sslmode=verify-full", ""}})
		t.Run("HOME is not set", func(t *testing.T) {
			withoutHome(t, home)
			check(t, []row{{"host=127.0.0.1 user=certuser sslmode=verify-full", ""}})
			put("root.crt", certPEM(other.cert))
			check(t, []row{{"host=127.0.0.1 user=certuser sslmode=require", "SSL error: "}})
			put("root.crt", certPEM(root.cert))
			withoutHome(t, "")
			check(t, []row{
				{"host=127.0.0.1 user=certuser sslmode=require", "FATAL:  connection requires a valid client certificate"},
				{"host=127.0.0.1 user=certuser sslmode=verify-full", "could not get home directory to locate root certificate file"},
			})
		})
		put("root.crl", rootList, issuer.crl(t, 3*time.Hour, serverCert))
		check(t, []row{
			{"host=127.0.0.1 user=certuser sslmode=verify-full", "certificate revoked"},
			{"host=127.0.0.1 user=certuser sslmode=verify-full sslcrl=" + lists, ""},
		})
		put("root.crt", certPEM(other.cert))
		check(t, []row{{"host=127.0.0.1 user=certuser sslmode=require", "SSL error: "}})
	})

	t.Run("through a broken network", func(t *testing.T) {
		px := startProxy(t, func(n int) (string, trouble) {
			if n < 2 {
				return address(p), trouble{"close", 700_000}
			}
			return address(p), trouble{}
		})
		big := makeBigFile(t, p, "big")
		conn := strings.Replace(px.conn("rewinder"), "sslmode=disable", "sslmode=verify-full sslrootcert="+ca, 1)
		s := connectWith(t, conn, Options{RetryFor: time.Minute, StallTimeout: 10 * time.Second})
		if _, err := big.fetch(t.Context(), s, nil); err != nil {
			t.Error(err)
		}
		if px.connections() < 3 {
			t.Error("nothing was cut")
		}
	})

	t.Run("common name", func(t *testing.T) {
		use(plainCert, plainKey)
		p.Restart()
		check(t, []row{
			{name + "sslmode=verify-full sslrootcert=" + ca, ""},
			{ip + "sslmode=verify-full sslrootcert=" + ca, `server certificate for "localhost" does not match host name "127.0.0.1"`},
			{ip + "sslmode=verify-ca sslrootcert=" + ca, ""},
			{ip + "sslmode=verify-ca sslrootcert=" + ca + " sslcrl=" + lists, "certificate revoked"},
		})
	})
	p.Stop(pgtest.Fast)
}

// forge makes a list in the name of an authority whose key it has not.
func (a *authority) forge(t *testing.T) []byte {
	t.Helper()
	cert := *a.cert
	cert.PublicKey, cert.PublicKeyAlgorithm = a.key.Public(), x509.ECDSA
	return (&authority{cert: &cert, key: a.key}).crl(t, 3*time.Hour)
}

func TestCertificateMatches(t *testing.T) {
	for _, c := range []struct {
		cn   string
		dns  []string
		ips  []net.IP
		host string
		want bool
	}{
		{cn: "a.example.org", host: "a.example.org", want: true},
		{cn: "A.Example.ORG", host: "a.example.org", want: true},
		{cn: "*.example.org", host: "a.example.org", want: true},
		{cn: "*.example.org", host: "example.org"},
		{cn: "*.example.org", host: "a.b.example.org"},
		{cn: "*.example.org", host: ".example.org"},
		{cn: "*.org", host: "example.org"},
		{cn: "*", host: "a"},
		{cn: "", host: "a"},
		{cn: "a.example.org", dns: []string{"b.example.org"}, host: "a.example.org"},
		{cn: "a.example.org", dns: []string{"b.example.org"}, host: "b.example.org", want: true},
		{cn: "10.0.0.1", host: "10.0.0.1", want: true},
		{cn: "10.0.0.1", ips: []net.IP{net.IPv4(10, 0, 0, 2)}, host: "10.0.0.1"},
		{cn: "a.example.org", ips: []net.IP{net.IPv4(10, 0, 0, 2)}, host: "a.example.org", want: true},
		{ips: []net.IP{net.ParseIP("::1")}, host: "::1", want: true},
	} {
		cert := &x509.Certificate{Subject: pkix.Name{CommonName: c.cn}, DNSNames: c.dns, IPAddresses: c.ips}
		if len(c.dns)+len(c.ips) > 0 {
			cert.Extensions = []pkix.Extension{{Id: []int{2, 5, 29, 17}}} // as after parsing
		}
		if got := certificateMatches(cert, c.host); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
