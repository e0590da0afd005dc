package location

import (
	"fmt"
	"io"
	"strings"
)

// Where is the archive's place as users write it: s3://bucket/prefix, /dir/prefix.
func (a Archive) Where() string {
	where := a.Dir
	if a.S3 != nil {
		where = "s3://" + a.S3.Bucket
	}
	if a.Prefix != "" {
		where = strings.TrimSuffix(where, "/") + "/" + a.Prefix
	}
	return where
}

// Describe is one line for the user, without secrets: what was understood of their settings, and where it was found.
func (a Archive) Describe() string {
	var b strings.Builder
	if a.Layout != Unknown {
		b.WriteString(string(a.Layout) + " ")
	}
	b.WriteString("archive " + a.Where())
	var more []string
	add := func(what, value string) {
		if value != "" {
			more = append(more, what+" "+value)
		}
	}
	add("stanza", a.Stanza)
	add("server", a.Server)
	if s := a.S3; s != nil {
		add("endpoint", s.Endpoint)
		add("connecting to", s.Connect)
		add("region", s.Region)
		add("profile", s.Profile)
		if s.NoVerify {
			more = append(more, "certificate not verified")
		}
	}
	if encryption := a.Keys.Encryption(); encryption != "" {
		more = append(more, "encrypted with "+encryption)
	}
	add("from", a.Origin)
	if len(more) > 0 {
		b.WriteString(": " + strings.Join(more, ", "))
	}
	return b.String()
}

// Encryption names what the archive is encrypted with, or is empty.
func (k Keys) Encryption() string {
	switch {
	case k.Unsupported != "":
		return k.Unsupported
	case k.PgBackRestPass != "":
		return "aes-256-cbc"
	case k.PGP != "":
		return "OpenPGP"
	case k.Sodium != "":
		return "libsodium"
	}
	return ""
}

// Format prints what Describe says, with any verb: package fmt would show what is behind the pointer to S3 when a verb does
// not fit.
func (a Archive) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.Describe()) }

// Format prints the bucket only, with any verb.
func (s S3) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "s3://"+s.Bucket) }

// Format prints the kind of encryption only, with any verb.
func (k Keys) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "["+k.Encryption()+"]") }
