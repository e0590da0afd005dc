package fetch

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// crlName is how files in a directory of revocation lists are named, after the hash of the issuer (openssl rehash).
var crlName = regexp.MustCompile(`^[0-9a-f]{8}\.r[0-9]+$`)

// loadRevocations reads the lists of sslcrl and sslcrldir, or ~/.postgresql/root.crl if neither is given. libpq goes on
// without what it cannot read; a list that was asked for by name must be there.
func (s settings) loadRevocations(v *verifier, rootFile string) error {
	file, dir := s["sslcrl"], s["sslcrldir"]
	if file == "" && dir == "" {
		// With the system's roots, libpq does not look for it.
		if file = homeFile("root.crl"); rootFile == "system" || !exists(file) {
			return nil
		}
	}
	v.check = true
	if file != "" {
		if err := v.readCRL(file); err != nil {
			return err
		}
	}
	if dir == "" {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fault.Because(err, "could not read directory of revocation lists \"%s\": %s", dir, fault.M(err))
	}
	for _, e := range entries {
		if crlName.MatchString(e.Name()) {
			if err := v.readCRL(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// readCRL reads the lists in a file, PEM or DER.
func (v *verifier) readCRL(file string) error {
	data, err := readPEM(file)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.Because(err, "certificate revocation list file \"%s\" does not exist", file).
			Advise("A revoked certificate could not be told. Put the list there, or leave out sslcrl.")
	}
	if err != nil {
		return fault.Because(err, "could not read certificate revocation list file \"%s\": %s", file, fault.M(err))
	}
	blocks := pemBlocks(data, "X509 CRL")
	if blocks == nil {
		blocks = [][]byte{data}
	}
	for _, der := range blocks {
		crl, err := x509.ParseRevocationList(der)
		if err != nil {
			return fault.Because(err, "could not read certificate revocation list file \"%s\": %s", file, err)
		}
		v.crls = append(v.crls, crl)
	}
	return nil
}

// checkRevocation checks every certificate of a chain, from the server's to the root, against the list of its issuer, as
// OpenSSL does for libpq (X509_V_FLAG_CRL_CHECK_ALL): without such a list a certificate does not pass. One good chain is
// enough.
func (v *verifier) checkRevocation(chains [][]*x509.Certificate) error {
	var first error
	for _, chain := range chains {
		err := v.checkChain(chain)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

func (v *verifier) checkChain(chain []*x509.Certificate) error {
	for i, c := range chain {
		issuer := chain[min(i+1, len(chain)-1)] // the root is its own
		if err := v.checkCertificate(c, issuer); err != nil {
			return err
		}
	}
	return nil
}

// The extensions of a revocation list that are understood here (RFC 5280): its number and its issuer's key. Others, if
// critical, say that the list covers only a part of the certificates.
var (
	oidCRLNumber    = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidAuthorityKey = asn1.ObjectIdentifier{2, 5, 29, 35}
)

func (v *verifier) checkCertificate(c, issuer *x509.Certificate) error {
	now := time.Now()
	why := "unable to get certificate CRL"
	for _, crl := range v.crls {
		if !bytes.Equal(crl.RawIssuer, c.RawIssuer) || crl.CheckSignatureFrom(issuer) != nil {
			continue
		}
		usable := true
		for _, ext := range crl.Extensions {
			usable = usable && (!ext.Critical || ext.Id.Equal(oidCRLNumber) || ext.Id.Equal(oidAuthorityKey))
		}
		switch {
		case !usable:
			why = "unsupported extension in CRL"
			continue
		case now.Before(crl.ThisUpdate):
			why = "CRL is not yet valid"
			continue
		case !crl.NextUpdate.IsZero() && now.After(crl.NextUpdate):
			why = "CRL has expired"
			continue
		}
		for i := range crl.RevokedCertificateEntries {
			if crl.RevokedCertificateEntries[i].SerialNumber.Cmp(c.SerialNumber) == 0 {
				return revocationError("certificate revoked", c)
			}
		}
		return nil
	}
	return revocationError(why, c)
}

func revocationError(why string, c *x509.Certificate) error {
	return fault.New("SSL error: certificate verify failed: %s", why).
		Advise("It is about the certificate of \"%s\", issued by \"%s\". With sslcrl or sslcrldir, there must be a valid "+
			"revocation list of every authority in the chain, the root's own included.",
			printableLine(c.Subject.String()), printableLine(c.Issuer.String()))
}
