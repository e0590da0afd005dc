package managers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"time"
)

// authority is a certificate authority of the test's own.
type authority struct {
	w    *world
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	last int64 // serial number given last
	file string
}

// newAuthority makes an authority; its certificate is <name>-ca.crt in dir.
func (w *world) newAuthority(dir, name string) *authority {
	w.t.Helper()
	a := &authority{w: w, dir: dir, file: filepath.Join(dir, name+"-ca.crt"), last: 1}
	a.key = a.newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name + " authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		SubjectKeyId: []byte(name),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	a.write(a.file, "CERTIFICATE", der)
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.w.t.Fatal(err)
	}
	return key
}

func (a *authority) write(path, kind string, der []byte) {
	a.w.t.Helper()
	a.w.env.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// issue makes <name>.crt and <name>.key, and returns the serial number.
func (a *authority) issue(name string, usage x509.ExtKeyUsage, hosts ...string) *big.Int {
	a.w.t.Helper()
	a.last++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.last), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage}, DNSNames: hosts,
	}
	if len(hosts) > 0 {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	key := a.newKey()
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.w.t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.w.t.Fatal(err)
	}
	a.write(filepath.Join(a.dir, name+".crt"), "CERTIFICATE", der)
	a.write(filepath.Join(a.dir, name+".key"), "EC PRIVATE KEY", private)
	return template.SerialNumber
}

// revoke makes a revocation list of the given serial numbers, which may be none, and returns its path.
func (a *authority) revoke(name string, serials ...*big.Int) string {
	a.w.t.Helper()
	list := &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(24 * time.Hour),
	}
	for _, serial := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: serial, RevocationTime: time.Now().Add(-time.Minute)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		a.w.t.Fatal(err)
	}
	path := filepath.Join(a.dir, name+".crl")
	a.write(path, "X509 CRL", der)
	return path
}
