// Package location says where a WAL archive is and how what is in it is written: the result of reading settings, and the
// input of opening the archive. It does no I/O.
package location

import "fmt"

// Layout is how an archiving tool names its objects.
type Layout string

// The layouts known. They are named by their tools in --wal-archive-layout and in messages.
const (
	Unknown    Layout = "" // to be found out by looking
	WALG       Layout = "wal-g"
	WALE       Layout = "wal-e"
	PgBackRest Layout = "pgbackrest"
	Barman     Layout = "barman"
	Plain      Layout = "plain" // the segments lie directly below the prefix
)

// Secret is a text that must not be seen: printed in whatever way it is "[secret]".
type Secret string

// String implements fmt.Stringer.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[secret]"
}

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return s.String() }

// Format implements fmt.Formatter: without it, verbs that are wrong for a text (%d) would print what is inside.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, s.String()) }

// MarshalText keeps it out of JSON and YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Reveal is the text itself, for whoever has to use it.
func (s Secret) Reveal() string { return string(s) }

// Archive is one place with WAL in it. Exactly one of S3 and Dir is set.
type Archive struct {
	// Origin says what it was derived from, for messages: "--wal-archive", "/etc/pgbackrest.conf, repo1".
	Origin string

	S3  *S3
	Dir string // a local or mounted directory, absolute

	Prefix string // below the bucket or Dir, without slashes at its ends; may be empty
	Layout Layout
	Stanza string // of pgBackRest; empty: the only one there is
	Server string // of Barman: the directory below Prefix; empty: the only one there is

	// Extension is a hint which one to try first where listing is denied: ".lz4"; may be empty.
	Extension string

	Keys Keys
}

// S3 is how to reach a bucket. What is empty is left to the SDK's own chain of environment, profiles and roles.
type S3 struct {
	Bucket    string
	Region    string
	Endpoint  string // URL with scheme; empty: AWS
	PathStyle bool   // bucket in the path rather than in the host's name
	// Connect is the host:port to connect to when that is not what Endpoint names (pgBackRest's repo-storage-host).
	Connect  string
	CAFile   string // PEM certificates that are trusted in addition to the system's
	CADir    string
	NoVerify bool // do not verify the server's certificate: the user has turned it off in their settings

	Profile         string
	AccessKey       string
	SecretKey       Secret
	SessionToken    Secret
	RoleARN         string
	RoleSessionName string
	// InstanceRole: credentials come from the instance metadata service only (pgBackRest's key-type auto).
	InstanceRole bool
	// WebIdentity: credentials come from AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE only (pgBackRest's key-type web-id).
	WebIdentity bool

	RequesterPays bool
	SSECKey       Secret            // customer key in the form its tool wants it: 32 bytes, or base64 of them
	Headers       map[string]string `json:"-"` // additional ones (S3_REQUEST_ADDITIONAL_HEADERS); may be secrets
	ListV1        bool              // use the first version of ListObjects (S3_USE_LIST_OBJECTS_V1)
	MaxAttempts   int               // 0: the default
}

// Keys are what the archive is encrypted with.
type Keys struct {
	Sodium          Secret // WAL-G: WALG_LIBSODIUM_KEY or the content of WALG_LIBSODIUM_KEY_PATH, before the transform
	SodiumTransform string // none, hex, base64; empty: none
	PGP             Secret // WAL-G: armoured private key
	PGPPassphrase   Secret
	PgBackRestPass  Secret // repoN-cipher-pass; set exactly if the repository is encrypted
	// Unsupported names an encryption only the tool itself can read (a cloud KMS), for the message that says so.
	Unsupported string
}
