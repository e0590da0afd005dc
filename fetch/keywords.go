package fetch

// use is what becomes of a connection keyword.
type use uint8

const (
	passed  use = iota + 1 // pgx knows it under the same name
	ours                   // done here: see hosts.go
	ignored                // without it nothing is less safe, and nothing behaves differently for us
	refused                // it cannot be honoured, and must not be left out, unless its value is harmless
)

// keyword is one row of libpq's PQconninfoOptions (fe-connect.c).
type keyword struct {
	name  string
	env   string // the environment variable that gives its default; empty if there is none
	since int    // the first major whose libpq knows it, if not all of 13 to 19 do
	use   use
}

// keywords are libpq's, in the order of PQconninfoOptions in 15, those of later majors at their end. pgx would send
// every keyword it does not know to the server as a setting; so each is decided on here.
var keywords = []keyword{
	{"service", "PGSERVICE", 0, ours},
	{"user", "PGUSER", 0, passed},
	{"password", "PGPASSWORD", 0, ours},
	{"passfile", "PGPASSFILE", 0, ours},
	{"channel_binding", "PGCHANNELBINDING", 0, passed},
	{"connect_timeout", "PGCONNECT_TIMEOUT", 0, ours},
	{"dbname", "PGDATABASE", 0, passed},
	{"host", "PGHOST", 0, ours},
	{"hostaddr", "PGHOSTADDR", 0, ours},
	{"port", "PGPORT", 0, ours},
	{"client_encoding", "PGCLIENTENCODING", 0, ignored}, // file names travel as UTF-8, whatever the user's terminal has
	{"options", "PGOPTIONS", 0, ours},
	{"application_name", "PGAPPNAME", 0, ours},
	{"fallback_application_name", "", 0, ours},
	{"keepalives", "", 0, ours},
	{"keepalives_idle", "", 0, ours},
	{"keepalives_interval", "", 0, ours},
	{"keepalives_count", "", 0, ours},
	{"tcp_user_timeout", "", 0, ours},
	{"sslmode", "PGSSLMODE", 0, ours},
	{"sslcompression", "PGSSLCOMPRESSION", 0, ignored}, // OpenSSL has it off, libpq 14+ says so too; Go has none
	{"sslcert", "PGSSLCERT", 0, ours},
	{"sslkey", "PGSSLKEY", 0, ours},
	{"sslpassword", "", 0, ours},
	{"sslrootcert", "PGSSLROOTCERT", 0, ours},
	{"sslcrl", "PGSSLCRL", 0, ours},
	{"sslcrldir", "PGSSLCRLDIR", 14, ours},
	{"sslsni", "PGSSLSNI", 14, ours},
	{"requirepeer", "PGREQUIREPEER", 0, ours},
	{"ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", 0, ours},
	{"ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", 0, ours},
	{"gssencmode", "PGGSSENCMODE", 0, refused},
	{"krbsrvname", "PGKRBSRVNAME", 0, passed},
	{"gsslib", "PGGSSLIB", 0, ignored}, // chooses between libraries on Windows
	{"replication", "", 0, refused},
	{"target_session_attrs", "PGTARGETSESSIONATTRS", 0, ours},

	{"gssdelegation", "PGGSSDELEGATION", 16, ignored}, // without GSSAPI nothing is delegated
	{"load_balance_hosts", "PGLOADBALANCEHOSTS", 16, ours},
	{"require_auth", "PGREQUIREAUTH", 16, passed},
	{"sslcertmode", "PGSSLCERTMODE", 16, passed},
	{"sslnegotiation", "PGSSLNEGOTIATION", 17, passed},
	{"min_protocol_version", "PGMINPROTOCOLVERSION", 18, passed},
	{"max_protocol_version", "PGMAXPROTOCOLVERSION", 18, passed},
	{"scram_client_key", "", 18, refused},
	{"scram_server_key", "", 18, refused},
	{"oauth_issuer", "", 18, refused},
	{"oauth_client_id", "", 18, refused},
	{"oauth_client_secret", "", 18, refused},
	{"oauth_scope", "", 18, refused},
	{"sslkeylogfile", "", 18, refused},
	{"servicefile", "PGSERVICEFILE", 19, ours},
	{"oauth_ca_file", "PGOAUTHCAFILE", 19, ignored}, // without OAuth nobody is asked for a token

	// 13 was the last to take these, and none of the majors did anything with them.
	{"authtype", "", never, ignored},
	{"tty", "", never, ignored},
}

// never is a major in which a keyword is not written for a server any more.
const never = 1 << 30

var keywordByName = func() map[string]*keyword {
	m := make(map[string]*keyword, len(keywords))
	for i := range keywords {
		m[keywords[i].name] = &keywords[i]
	}
	return m
}()

// harmless are the values with which a refused keyword asks for nothing.
var harmless = map[string][]string{
	"gssencmode":  {"disable", "prefer"},
	"replication": {"0", "f", "false", "off", "n", "no"},
}

// whyRefused is the advice's reason for refusing a keyword.
var whyRefused = map[string]string{
	"gssencmode":          "GSSAPI encryption is not supported; use TLS (sslmode=verify-full).",
	"replication":         "File contents cannot be asked for over a replication connection.",
	"scram_client_key":    "SCRAM keys are not supported; give a password or a password file.",
	"scram_server_key":    "SCRAM keys are not supported; give a password or a password file.",
	"oauth_issuer":        "OAuth is not supported.",
	"oauth_client_id":     "OAuth is not supported.",
	"oauth_client_secret": "OAuth is not supported.",
	"oauth_scope":         "OAuth is not supported.",
	"sslkeylogfile":       "Session keys are never written to a file.",
}
