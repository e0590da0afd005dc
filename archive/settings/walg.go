package settings

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"go.yaml.in/yaml/v3"

	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/internal/fault"
)

// walgExtensions is what WALG_COMPRESSION_METHOD appends to names.
var walgExtensions = map[string]string{"": ".lz4", "lz4": ".lz4", "lzma": ".lzma", "zstd": ".zst", "brotli": ".br", "none": ""}

// walgOthers are the prefixes of storages that are not read directly.
var walgOthers = []string{"WALG_GS_PREFIX", "WALG_AZ_PREFIX", "WALG_SWIFT_PREFIX", "WALG_SSH_PREFIX"}

// walgSettings are WAL-G's: variables first, then its file.
type walgSettings struct {
	vars vars
	file map[string]location.Secret
	from string // the file's name, or empty
}

// get is a setting. WAL-G asks for those that have their name from others (AWS_*, S3_*) as X, WALG_X and WALE_X.
func (w walgSettings) get(name string) string {
	names := []string{name}
	if !strings.HasPrefix(name, "WALG_") && !strings.HasPrefix(name, "WALE_") {
		names = append(names, "WALG_"+name, "WALE_"+name)
	}
	for _, n := range names {
		if v := w.vars.get(n); v != "" {
			return v
		}
		if v := w.file[n]; v != "" {
			return v.Reveal()
		}
	}
	return ""
}

// first is the first setting that there is.
func (w walgSettings) first(names ...string) string {
	for _, n := range names {
		if v := w.get(n); v != "" {
			return v
		}
	}
	return ""
}

// origin says where a setting was found.
func (w walgSettings) origin(name, outer string) string {
	at := outer
	if w.vars.get(name) == "" {
		at = w.from
		if outer != "" {
			at = outer + ", " + w.from
		}
	}
	if at == "" {
		at = "environment"
	}
	return at + ", " + name
}

// walg is wal-g [--config FILE] wal-fetch %f %p. Each of its settings can be an option, too.
func (s *shell) walg(c simple, origin string) {
	valued := set("--config", "-c", "--walg-s3-prefix", "--aws-endpoint", "--aws-region", "--walg-file-prefix", "--walg-compression-method",
		"--aws-access-key-id", "--aws-secret-access-key", "--aws-s3-force-path-style", "--walg-libsodium-key", "--walg-libsodium-key-path")
	fl := parseFlags(c.args, valued)
	if !fl.has("wal-fetch") {
		s.out.note("%s: only \"wal-g wal-fetch\" is understood", origin)
		return
	}
	if fl.unknown {
		s.out.note("%s has arguments that only a shell can find out", origin)
		return
	}
	more := map[string]location.Secret{}
	for opt, value := range fl.values {
		if name, ok := strings.CutPrefix(opt, "--"); ok && name != "config" {
			more[strings.ToUpper(strings.ReplaceAll(name, "-", "_"))] = location.Secret(value)
		}
	}
	found, err := walg(s.env, c.vars.with(more), walgUse{fl.first("--config", "-c"), origin, true}, s.out)
	switch {
	case err != nil:
		s.err = err
	case !found:
		s.out.note("%s: no prefix is set that is read directly (WALG_S3_PREFIX, WALG_FILE_PREFIX)", origin)
	}
}

// walgUse is why WAL-G's settings are asked for.
type walgUse struct {
	config  string // the configuration file that an option named; empty: none
	outer   string // where the variables are from; empty: the environment
	invoked bool   // it is known that WAL-G is used
}

// walg finds WAL-G's archive.
func walg(e Env, v vars, use walgUse, f *finding) (found bool, err error) {
	w, outer := walgSettings{vars: v}, use.outer
	if w.file, w.from, err = walgFile(e, v, use.config); err != nil {
		return false, err
	}
	if w.first("WALG_S3_PREFIX", "WALG_FILE_PREFIX") == "" {
		for _, name := range walgOthers {
			if w.get(name) != "" {
				f.note("%s: storage of this kind is not read directly", w.origin(name, outer))
				return false, nil
			}
		}
		// Without any setting of WAL-G itself, WALE_S3_PREFIX is WAL-E's.
		if w.get("WALE_S3_PREFIX") == "" || !use.invoked {
			return false, nil
		}
	}
	a := location.Archive{Layout: location.WALG}
	method := strings.ToLower(w.get("WALG_COMPRESSION_METHOD"))
	a.Extension = walgExtensions[method]
	if a.Keys, err = walgKeys(e, w); err != nil {
		return false, err
	}
	if prefix := w.first("WALG_S3_PREFIX", "WALE_S3_PREFIX"); prefix != "" {
		name := "WALG_S3_PREFIX"
		if w.get(name) == "" {
			name = "WALE_S3_PREFIX"
		}
		a.Origin = w.origin(name, outer)
		if !walgS3(w, &a, prefix, f) {
			return false, nil
		}
	} else {
		a.Origin = w.origin("WALG_FILE_PREFIX", outer)
		dir := strings.TrimPrefix(w.get("WALG_FILE_PREFIX"), "file://localhost")
		if a.Dir = v.abs(e.home(dir)); a.Dir == "" {
			f.note("%s: not an absolute directory", a.Origin)
			return false, nil
		}
	}
	f.add(a)
	return true, nil
}

// walgS3 fills in the bucket.
func walgS3(w walgSettings, a *location.Archive, prefix string, f *finding) bool {
	rest, ok := strings.CutPrefix(prefix, "s3://")
	a.S3 = &location.S3{
		Region:          w.first("AWS_REGION", "AWS_DEFAULT_REGION"),
		AccessKey:       w.first("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY"),
		SecretKey:       location.Secret(w.first("AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY")),
		SessionToken:    location.Secret(w.get("AWS_SESSION_TOKEN")),
		CAFile:          w.get("S3_CA_CERT_FILE"),
		PathStyle:       truth(w.get("AWS_S3_FORCE_PATH_STYLE")),
		SSECKey:         location.Secret(w.get("S3_SSE_C")),
		ListV1:          truth(w.get("S3_USE_LIST_OBJECTS_V1")),
		RoleSessionName: w.get("AWS_ROLE_SESSION_NAME"),
	}
	if !ok || parseS3(a, rest) != nil {
		f.note("%s: not the address of an S3 bucket", a.Origin)
		return false
	}
	if w.get("S3_ENDPOINT_SOURCE") != "" {
		f.note("%s: with S3_ENDPOINT_SOURCE, only WAL-G knows the endpoint", a.Origin)
		return false
	}
	if a.S3.AccessKey == "" || a.S3.SecretKey == "" {
		a.S3.AccessKey, a.S3.SecretKey, a.S3.SessionToken = "", "", ""
		a.S3.Profile = w.get("AWS_PROFILE")
	}
	// With a token file, the role is the SDK's affair.
	if w.get("AWS_WEB_IDENTITY_TOKEN_FILE") == "" {
		a.S3.RoleARN = w.get("AWS_ROLE_ARN")
	}
	if ep := w.first("AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"); ep != "" {
		if !setEndpoint(a.S3, f, a.Origin, ep) {
			return false
		}
		a.S3.Region = or(a.S3.Region, "us-east-1")
	}
	if retries, err := strconv.Atoi(w.get("S3_MAX_RETRIES")); err == nil && retries >= 0 && retries < 1000 {
		a.S3.MaxAttempts = retries + 1
	}
	if text := w.get("S3_REQUEST_ADDITIONAL_HEADERS"); text != "" {
		if yaml.Unmarshal([]byte(text), &a.S3.Headers) != nil {
			f.note("%s: S3_REQUEST_ADDITIONAL_HEADERS is not understood", a.Origin)
			return false
		}
	}
	return true
}

// walgKeys finds what WAL-G decrypts with, in its order.
func walgKeys(e Env, w walgSettings) (keys location.Keys, err error) {
	file := func(name string) (location.Secret, error) {
		at := w.vars.abs(e.home(w.get(name)))
		if at == "" {
			return "", fault.New("%s is not the absolute name of a file", name)
		}
		data, err := e.read(at)
		return location.Secret(data), err
	}
	switch {
	case w.get("WALG_PGP_KEY") != "":
		// In variables, line ends are often written as in C.
		keys.PGP = location.Secret(strings.ReplaceAll(w.get("WALG_PGP_KEY"), `\n`, "\n"))
		keys.PGPPassphrase = location.Secret(w.get("WALG_PGP_KEY_PASSPHRASE"))
	case w.get("WALG_PGP_KEY_PATH") != "":
		keys.PGP, err = file("WALG_PGP_KEY_PATH")
		keys.PGPPassphrase = location.Secret(w.get("WALG_PGP_KEY_PASSPHRASE"))
	case w.first("WALG_GPG_KEY_ID", "WALE_GPG_KEY_ID", "GPG_KEY_ID") != "":
		keys.Unsupported = "a key in a GnuPG key ring"
	case w.first("WALG_ENVELOPE_PGP_KEY", "WALG_ENVELOPE_PGP_KEY_PATH") != "":
		keys.Unsupported = "an enveloped OpenPGP key"
	case w.get("WALG_CSE_KMS_ID") != "":
		keys.Unsupported = "a key of AWS KMS"
	case w.first("YC_CSE_KMS_KEY_ID", "WALG_YC_CSE_KMS_KEY_ID") != "":
		keys.Unsupported = "a key of Yandex KMS"
	case w.get("WALG_LIBSODIUM_KEY") != "":
		keys.Sodium = location.Secret(w.get("WALG_LIBSODIUM_KEY"))
		keys.SodiumTransform = w.get("WALG_LIBSODIUM_KEY_TRANSFORM")
	case w.get("WALG_LIBSODIUM_KEY_PATH") != "":
		keys.Sodium, err = file("WALG_LIBSODIUM_KEY_PATH")
		keys.Sodium = location.Secret(strings.TrimSpace(keys.Sodium.Reveal()))
		keys.SodiumTransform = w.get("WALG_LIBSODIUM_KEY_TRANSFORM")
	}
	return keys, err
}

// walgFile reads WAL-G's configuration file: the one named, or that of the home directory, if there is one.
func walgFile(e Env, v vars, config string) (settings map[string]location.Secret, from string, err error) {
	if config == "" {
		config = v.get("WALG_CONFIG_PATH")
	}
	if config != "" {
		at := v.abs(e.home(config))
		if at == "" {
			return nil, "", fault.New("WAL-G's configuration file \"%s\" is not named in full", unmarked(config))
		}
		data, err := e.read(at)
		if err != nil {
			return nil, "", err
		}
		settings, err := parseWALGFile(at, data)
		return settings, at, err
	}
	if e.HomeDir == "" {
		return nil, "", nil
	}
	for _, ext := range []string{".json", ".toml", ".yaml", ".yml"} {
		at := path.Join(e.HomeDir, ".walg"+ext)
		data, ok, err := e.readIf(at)
		if err != nil {
			return nil, "", err
		}
		if ok {
			settings, err := parseWALGFile(at, data)
			return settings, at, err
		}
	}
	return nil, "", nil
}

// parseWALGFile reads a configuration file. Names are not sensitive to case. What is not a plain value is left out.
func parseWALGFile(name string, data []byte) (map[string]location.Secret, error) {
	values := map[string]any{}
	var err error
	switch strings.ToLower(path.Ext(name)) {
	case ".toml":
		err = toml.Unmarshal(data, &values)
	case ".yaml", ".yml":
		// Kept as nodes: a key of digits must not become a number.
		nodes := map[string]yaml.Node{}
		err = yaml.Unmarshal(data, &nodes)
		for key, node := range nodes {
			if node.Kind == yaml.ScalarNode && node.Tag != "!!null" {
				values[key] = node.Value
			}
		}
	default:
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		err = d.Decode(&values)
	}
	if err != nil {
		// The parsers' messages quote what they cannot read, which may be a secret.
		return nil, fault.New("could not understand WAL-G's configuration file \"%s\"", name).
			Advise("Its form follows from its name: .json, .toml, .yaml or .yml; without any of them, JSON.")
	}
	settings := map[string]location.Secret{}
	for key, value := range values {
		switch v := value.(type) {
		case string:
			settings[strings.ToUpper(key)] = location.Secret(v)
		case bool, int64, float64, json.Number:
			settings[strings.ToUpper(key)] = location.Secret(fmt.Sprint(v))
		}
	}
	return settings, nil
}

// truth is a boolean as Go's tools read it.
func truth(s string) bool {
	b, err := strconv.ParseBool(strings.ToLower(s))
	return err == nil && b
}
