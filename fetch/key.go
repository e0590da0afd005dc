package fetch

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"hash"
)

// decryptKey gives a private key file's key in the clear, as PEM. Both of OpenSSL's forms of encryption are known: the
// old one with headers in the PEM (RFC 1421), and PKCS #8 with PBES2, which "openssl genpkey" and, from 3.0 on,
// "openssl genrsa" write.
func decryptKey(data []byte, password string) ([]byte, error) {
	for rest := data; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return data, nil // tls says what is wrong with it
		}
		old := x509.IsEncryptedPEMBlock(b) //nolint:staticcheck // deprecated since it is weak; users have such keys all the same
		if !old && b.Type != "ENCRYPTED PRIVATE KEY" {
			continue
		}
		if password == "" {
			return nil, errors.New("the key is encrypted, and there is no sslpassword")
		}
		var (
			der  []byte
			err  error
			kind = b.Type
		)
		if old {
			der, err = x509.DecryptPEMBlock(b, []byte(password)) //nolint:staticcheck // as above
		} else {
			der, err = decryptPKCS8(b.Bytes, password)
			kind = "PRIVATE KEY"
		}
		if err != nil {
			return nil, err
		}
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), nil
	}
}

// The structures of PKCS #5 v2.1 (RFC 8018, appendix A) and PKCS #8 (RFC 5958).
type (
	encryptedKey struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	pbes2Params struct {
		Derivation, Encryption pkix.AlgorithmIdentifier
	}
	pbkdf2Params struct {
		Salt       []byte
		Iterations int
		KeyLength  int                      `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
)

var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}

	prfs = map[string]func() hash.Hash{
		"":                    sha1.New, // the default
		"1.2.840.113549.2.7":  sha1.New,
		"1.2.840.113549.2.9":  sha256.New,
		"1.2.840.113549.2.10": sha512.New384,
		"1.2.840.113549.2.11": sha512.New,
		"1.2.840.113549.2.8":  sha256.New224,
		"1.2.840.113549.2.12": sha512.New512_224,
		"1.2.840.113549.2.13": sha512.New512_256,
	}
	aesCBC = map[string]int{ // key length in bytes
		"2.16.840.1.101.3.4.1.2":  16,
		"2.16.840.1.101.3.4.1.22": 24,
		"2.16.840.1.101.3.4.1.42": 32,
	}
)

// maxIterations keeps a key file from costing minutes.
const maxIterations = 10_000_000

var (
	errKeyForm     = errors.New("the key is encrypted in a form that is not supported; convert it with \"openssl pkcs8 -topk8 -v2 aes256\"")
	errKeyPassword = errors.New("bad decrypt: sslpassword is wrong, or the key is damaged")
)

func decryptPKCS8(der []byte, password string) ([]byte, error) {
	var (
		key    encryptedKey
		params pbes2Params
		kdf    pbkdf2Params
		iv     []byte
	)
	if unmarshal(der, &key) != nil || !key.Algorithm.Algorithm.Equal(oidPBES2) ||
		unmarshal(key.Algorithm.Parameters.FullBytes, &params) != nil || !params.Derivation.Algorithm.Equal(oidPBKDF2) ||
		unmarshal(params.Derivation.Parameters.FullBytes, &kdf) != nil ||
		unmarshal(params.Encryption.Parameters.FullBytes, &iv) != nil {
		return nil, errKeyForm
	}
	prf, known := prfs[kdf.PRF.Algorithm.String()]
	length, aesKnown := aesCBC[params.Encryption.Algorithm.String()]
	if !known || !aesKnown || kdf.Iterations < 1 || kdf.Iterations > maxIterations ||
		len(iv) != aes.BlockSize || len(key.Data) == 0 || len(key.Data)%aes.BlockSize != 0 {
		return nil, errKeyForm
	}
	secret, err := pbkdf2.Key(prf, password, kdf.Salt, kdf.Iterations, length)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	plain := make([]byte, len(key.Data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, key.Data)
	pad := int(plain[len(plain)-1])
	if pad < 1 || pad > aes.BlockSize {
		return nil, errKeyPassword
	}
	for _, b := range plain[len(plain)-pad:] {
		if int(b) != pad {
			return nil, errKeyPassword
		}
	}
	plain = plain[:len(plain)-pad]
	if _, err := x509.ParsePKCS8PrivateKey(plain); err != nil {
		return nil, errKeyPassword // the padding was right by chance
	}
	return plain, nil
}

func unmarshal(der []byte, to any) error {
	rest, err := asn1.Unmarshal(der, to)
	if err == nil && len(rest) > 0 {
		err = errors.New("trailing data")
	}
	return err
}
