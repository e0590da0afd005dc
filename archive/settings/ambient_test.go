package settings

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fastrewind/fastrewind/archive/location"
)

// ambientCase is a world without a restore_command.
type ambientCase struct {
	world world
	want  []location.Archive
	note  string
}

const mainConf = "/etc/pgbackrest/pgbackrest.conf"

func files(nameAndData ...string) world {
	w := world{files: map[string]string{}}
	for i := 0; i < len(nameAndData); i += 2 {
		w.files[nameAndData[i]] = nameAndData[i+1]
	}
	return w
}

func (w world) with(nameAndValue ...string) world {
	w.vars = map[string]string{}
	for i := 0; i < len(nameAndValue); i += 2 {
		w.vars[nameAndValue[i]] = nameAndValue[i+1]
	}
	return w
}

// posix is a configuration with one local repository of stanza main.
const posix = "[global]\nrepo1-path=/backup\n[main]\npg1-path=" + target + "\n"

func posixAt(origin, dir string) location.Archive {
	return location.Archive{Origin: origin, Layout: location.PgBackRest, Stanza: "main", Dir: dir}
}

// s3Conf is a configuration with one repository in a bucket, to which lines are added.
func s3Conf(lines ...string) world {
	return files(mainConf, "[main]\npg1-path="+target+"\n[global]\nrepo1-type=s3\nrepo1-s3-bucket=b\nrepo1-s3-endpoint=s3.example.org\nrepo1-s3-region=r\n"+
		"repo1-path=/\nrepo1-s3-key=K\nrepo1-s3-key-secret=TOPSECRET\n"+strings.Join(lines, "\n")+"\n")
}

func s3Repo(f func(a *location.Archive)) []location.Archive {
	a := location.Archive{
		Origin: mainConf + ", repo1", Layout: location.PgBackRest, Stanza: "main",
		S3: &location.S3{Bucket: "b", Endpoint: "https://s3.example.org", Region: "r", AccessKey: "K", SecretKey: "TOPSECRET"},
	}
	f(&a)
	return []location.Archive{a}
}

func one(a location.Archive) []location.Archive { return []location.Archive{a} }

var ambients = map[string]ambientCase{
	"nothing": {note: "no settings of pgBackRest, WAL-G or WAL-E"},

	// pgBackRest: where its files are
	"pgbackrest":                   {world: confAt(mainConf), want: []location.Archive{repo1(""), repo2("")}},
	"Debian's place":               {world: files(pgbrOldConfig, posix), want: one(posixAt(pgbrOldConfig+", repo1", "/backup"))},
	"Debian's place is the second": {world: files(pgbrOldConfig, posix, mainConf, strings.Replace(posix, "/backup", "/new", 1)), want: one(posixAt(mainConf+", repo1", "/new"))},
	"included": {world: files(mainConf, "[global]\nrepo1-path=/no\n", "/etc/pgbackrest/conf.d/10-global.conf", "[global]\nrepo1-path=/yes\n",
		"/etc/pgbackrest/conf.d/20-main.conf", "[main]\npg1-path="+target+"/\n", "/etc/pgbackrest/conf.d/30.conf.bak", "[global]\nrepo1-path=/bak\n"),
		want: one(posixAt("/etc/pgbackrest/conf.d/10-global.conf, repo1", "/yes"))},
	"another directory": {world: files("/p/pgbackrest.conf", posix, "/p/conf.d/x.conf", "[global]\nrepo1-path=/more\n", mainConf, conf).with("PGBACKREST_CONFIG_PATH", "/p"),
		want: one(posixAt("/p/conf.d/x.conf, repo1", "/more"))},
	"another file": {world: files("/p/x.conf", posix, "/etc/pgbackrest/conf.d/x.conf", "[global]\nrepo1-path=/more\n").with("PGBACKREST_CONFIG", "/p/x.conf"),
		want: one(posixAt("/p/x.conf, repo1", "/backup"))},
	"another file is missing":         {world: world{}.with("PGBACKREST_CONFIG", "/p/x.conf"), note: "could not read file \"/p/x.conf\": "},
	"another include path is missing": {world: files(mainConf, posix).with("PGBACKREST_CONFIG_INCLUDE_PATH", "/p"), note: "could not read directory \"/p\": "},
	"another include path": {world: files(mainConf, posix, "/p/a.conf", "[main:archive-get]\nrepo1-path=/more\n").with("PGBACKREST_CONFIG_INCLUDE_PATH", "/p"),
		want: one(posixAt("/p/a.conf, repo1", "/more"))},
	"not readable":          {world: world{files: map[string]string{mainConf: conf}, denied: []string{mainConf}}, note: "could not read file \"" + mainConf + "\": Permission denied"},
	"not its form":          {world: files(mainConf, "[global]\nrepo1-cipher-pass TOPSECRET\n"), note: "could not understand line 2 of \"" + mainConf + "\""},
	"setting in no section": {world: files(mainConf, "repo1-cipher-pass=TOPSECRET\n"), note: "could not understand line 1"},
	"large":                 {world: files(mainConf, strings.Repeat("#\n", MaxFile)), note: "is larger than"},

	// pgBackRest: precedence
	"sections": {world: files(mainConf, "[global]\nrepo1-path=/1\nrepo2-path=/1\nrepo3-path=/1\nrepo4-path=/1\n[global:archive-get]\nrepo2-path=/2\nrepo3-path=/2\nrepo4-path=/2\n"+
		"[main]\nrepo3-path=/3\nrepo4-path=/3\npg1-path="+target+"\n[main:archive-get]\nrepo4-path=/4\n[main:archive-push]\nrepo1-path=/5\nrepo5-path=/5\n[other]\nrepo6-path=/6\n"),
		want: []location.Archive{posixAt(mainConf+", repo1", "/1"), posixAt(mainConf+", repo2", "/2"), posixAt(mainConf+", repo3", "/3"), posixAt(mainConf+", repo4", "/4")}},
	"environment over files": {world: files(mainConf, posix).with("PGBACKREST_REPO1_PATH", "/env"),
		want: one(posixAt("environment, PGBACKREST_REPO1_PATH, repo1", "/env"))},
	"environment alone": {world: world{}.with("PGBACKREST_STANZA", "main", "PGBACKREST_REPO17_PATH", "/env"),
		want: one(posixAt("environment, PGBACKREST_REPO17_PATH, repo17", "/env"))},
	"repositories in order": {world: files(mainConf, "[main]\npg1-path="+target+"\n[global]\nrepo10-path=/10\nrepo9-path=/9\nrepo256-path=/256\nrepo257-path=/257\nrepo0-path=/0\nrepo01-path=/01\nrepox-path=/x\n"),
		want: []location.Archive{posixAt(mainConf+", repo9", "/9"), posixAt(mainConf+", repo10", "/10"), posixAt(mainConf+", repo256", "/256")}},
	"defaults": {world: files(mainConf, "[main]\npg1-path="+target+"\n"), want: one(posixAt("pgBackRest's defaults, repo1", "/var/lib/pgbackrest"))},
	"values are raw": {world: files(mainConf, "[main]\n pg1-path = "+target+" \n[global]\nrepo1-path=/a b\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=\"x=#;\\n'SECRET\n"),
		want: one(change(posixAt(mainConf+", repo1", "/a b"), func(a *location.Archive) { a.Keys.PgBackRestPass = "\"x=#;\\n'SECRET" }))},

	// pgBackRest: stanzas
	"stanza of an old name": {world: files(mainConf, "[global]\nrepo-path=/old\n[main]\ndb-path="+target+"\n"), want: one(posixAt(mainConf+", repo1", "/old"))},
	"stanza of a standby":   {world: files(mainConf, "[global]\nrepo1-path=/b\n[main]\npg1-path=/x\npg2-path="+target+"\n[x]\npg1-path=/y\n"), want: one(posixAt(mainConf+", repo1", "/b"))},
	"two stanzas":           {world: files(mainConf, posix+"[m2]\npg1-path="+target+"\n"), note: "several stanzas have"},
	"none of the stanzas":   {world: files(mainConf, "[m2]\npg1-path=/x\n"), note: "no stanza has \"" + target + "\" as its pg1-path; there are m2"},
	"no stanza":             {world: files(mainConf, "[global]\nrepo1-path=/x\n"), note: "no stanza is named"},
	"a path for a stanza":   {world: files(mainConf, posix).with("PGBACKREST_STANZA", "../x"), note: "the stanza's name is not one"},

	// pgBackRest: storages
	"s3": {world: s3Conf(), want: s3Repo(func(*location.Archive) {})},
	"s3, all of it": {
		world: s3Conf("repo1-path=/a/b/", "repo1-s3-uri-style=path", "repo1-storage-host=10.0.0.1", "repo1-storage-port=9000", "repo1-storage-verify-tls=n", "repo1-s3-token=TOKENSECRET",
			"repo1-storage-ca-file=/ca.crt", "repo1-storage-ca-path=/ca", "repo1-s3-requester-pays=y", "repo1-s3-sse-customer-key=SSESECRET"),
		want: s3Repo(func(a *location.Archive) {
			a.Prefix = "a/b"
			a.S3.PathStyle, a.S3.Connect, a.S3.NoVerify, a.S3.SessionToken = true, "10.0.0.1:9000", true, "TOKENSECRET"
			a.S3.CAFile, a.S3.CADir, a.S3.RequesterPays, a.S3.SSECKey = "/ca.crt", "/ca", true, "SSESECRET"
		})},
	"s3, old names": {
		world: s3Conf("repo1-s3-host=h", "repo1-s3-port=9000", "repo1-s3-verify-ssl=n", "repo1-s3-ca-file=/ca.crt", "repo1-s3-ca-path=/ca"),
		want: s3Repo(func(a *location.Archive) {
			a.S3.Connect, a.S3.NoVerify, a.S3.CAFile, a.S3.CADir = "h:9000", true, "/ca.crt", "/ca"
		})},
	"s3, older names": {
		world: files(mainConf, "[main]\ndb1-path="+target+"\n[global]\nrepo-type=s3\nrepo-s3-bucket=b\nrepo-s3-endpoint=s3.example.org\nrepo-s3-region=r\nrepo-path=/\nrepo-s3-key=K\nrepo-s3-key-secret=TOPSECRET\nrepo-s3-verify-ssl=n\n"),
		want:  s3Repo(func(a *location.Archive) { a.S3.NoVerify = true })},
	"s3, port of the endpoint": {world: s3Conf("repo1-s3-endpoint=localhost:19071", "repo1-storage-host=127.0.0.1"),
		want: s3Repo(func(a *location.Archive) { a.S3.Endpoint, a.S3.Connect = "https://localhost:19071", "127.0.0.1:19071" })},
	"s3, port": {world: s3Conf("repo1-s3-endpoint=http://localhost", "repo1-storage-port=19071"),
		want: s3Repo(func(a *location.Archive) { a.S3.Endpoint = "http://localhost:19071" })},
	"s3, host with default port": {world: s3Conf("repo1-storage-host=h"), want: s3Repo(func(a *location.Archive) { a.S3.Connect = "h:443" })},
	"s3, instance role": {world: s3Conf("repo1-s3-key-type=auto", "repo1-s3-role=x"),
		want: s3Repo(func(a *location.Archive) { a.S3.AccessKey, a.S3.SecretKey, a.S3.InstanceRole = "", "", true })},
	"s3, web identity": {world: s3Conf("repo1-s3-key-type=web-id"),
		want: s3Repo(func(a *location.Archive) { a.S3.AccessKey, a.S3.SecretKey, a.S3.WebIdentity = "", "", true })},
	"s3, unknown credentials":       {world: s3Conf("repo1-s3-key-type=new"), note: "\"new\" are only known to pgBackRest"},
	"s3, no secret":                 {world: s3Conf("repo1-s3-key-secret="), note: "s3-key and s3-key-secret are not both set"},
	"s3, no endpoint":               {world: s3Conf("repo1-s3-endpoint="), note: "s3-endpoint is not set"},
	"s3, no bucket":                 {world: s3Conf("repo1-s3-bucket=x/y"), note: "not a bucket's name"},
	"s3, bad port":                  {world: s3Conf("repo1-storage-port=99999"), note: "endpoint or port is not understood"},
	"encrypted, no passphrase":      {world: s3Conf("repo1-cipher-type=aes-256-cbc"), note: "repo1-cipher-pass is not set"},
	"encrypted, by the environment": {world: s3Conf("repo1-cipher-type=aes-256-cbc").with("PGBACKREST_REPO1_CIPHER_PASS", "CIPHERPASS"), want: s3Repo(func(a *location.Archive) { a.Keys.PgBackRestPass = "CIPHERPASS" })},
	"encrypted, unknown":            {world: s3Conf("repo1-cipher-type=new"), want: s3Repo(func(a *location.Archive) { a.Keys.Unsupported = "a cipher that is not known (repo-cipher-type)" })},
	"another cloud":                 {world: files(mainConf, posix+"[global]\nrepo1-type=azure\n"), note: "type \"azure\" is not read directly"},
	"one of several": {world: files(mainConf, posix+"[global]\nrepo1-type=gcs\nrepo2-type=cifs\nrepo2-path=/c\nrepo3-type=sftp\nrepo4-host=backup\n"),
		want: one(posixAt(mainConf+", repo2", "/c")), note: "repo3: storage of type \"sftp\" is not read directly\n" + mainConf + ", repo4: it is reached through another machine"},
	"relative path": {world: files(mainConf, posix+"[global]\nrepo1-path=x\n"), note: "not an absolute directory"},

	// WAL-G
	"wal-g": {world: world{}.with("WALG_S3_PREFIX", "s3://b/p", "AWS_SECRET_KEY", "TOPSECRET", "AWS_ACCESS_KEY", "AKIA1", "WALG_AWS_SESSION_TOKEN", "TOKENSECRET",
		"WALG_S3_CA_CERT_FILE", "/ca.crt", "WALE_AWS_REGION", "r", "S3_USE_LIST_OBJECTS_V1", "true", "S3_SSE_C", "SSESECRET",
		"S3_REQUEST_ADDITIONAL_HEADERS", `{"X-A":"SECRET1"}`, "AWS_ROLE_ARN", "arn:x", "AWS_ROLE_SESSION_NAME", "me", "WALG_COMPRESSION_METHOD", "none"),
		want: one(change(walgAt("environment, WALG_S3_PREFIX", "b", "p"), func(a *location.Archive) {
			a.Extension = ""
			a.S3.AccessKey, a.S3.SecretKey, a.S3.SessionToken, a.S3.CAFile, a.S3.Region = "AKIA1", "TOPSECRET", "TOKENSECRET", "/ca.crt", "r"
			a.S3.ListV1, a.S3.SSECKey, a.S3.RoleARN, a.S3.RoleSessionName = true, "SSESECRET", "arn:x", "me"
			a.S3.Headers = map[string]string{"X-A": "SECRET1"}
		}))},
	"wal-g in the home directory": {world: files(home+"/.walg.json", `{"WALG_S3_PREFIX": "s3://b/p", "AWS_S3_FORCE_PATH_STYLE": "true", "nested": {"x": 1}}`),
		want: one(change(walgAt(home+"/.walg.json, WALG_S3_PREFIX", "b", "p"), func(a *location.Archive) { a.S3.PathStyle = true }))},
	"wal-g in YAML": {world: files(home+"/.walg.yaml", "WALG_S3_PREFIX: \"s3://b/p\"\nWALG_FAILOVER_STORAGES:\n  x:\n    WALG_S3_PREFIX: s3://no\nempty:\n"),
		want: one(walgAt(home+"/.walg.yaml, WALG_S3_PREFIX", "b", "p"))},
	"wal-g in TOML": {world: files(home+"/.walg.toml", "WALG_S3_PREFIX = 's3://b/p'\nS3_MAX_RETRIES = 3\nAWS_S3_FORCE_PATH_STYLE = true\n"),
		want: one(change(walgAt(home+"/.walg.toml, WALG_S3_PREFIX", "b", "p"), func(a *location.Archive) { a.S3.PathStyle, a.S3.MaxAttempts = true, 4 }))},
	"wal-g by a variable":   {world: files("/w.yml", "WALG_S3_PREFIX: s3://b/p\n").with("WALG_CONFIG_PATH", "/w.yml"), want: one(walgAt("/w.yml, WALG_S3_PREFIX", "b", "p"))},
	"wal-g's file missing":  {world: world{}.with("WALG_CONFIG_PATH", "/w.yml"), note: "could not read file \"/w.yml\""},
	"wal-g's file denied":   {world: world{files: map[string]string{home + "/.walg.json": "{}"}, denied: []string{home + "/.walg.json"}}, note: ".walg.json\": Permission denied"},
	"wal-g's file not JSON": {world: files(home+"/.walg.json", "WALG_PGP_KEY: TOPSECRET"), note: "could not understand WAL-G's configuration file \"" + home + "/.walg.json\""},
	"wal-g's file not TOML": {world: files(home+"/.walg.toml", "WALG_PGP_KEY: TOPSECRET"), note: "could not understand"},
	"wal-g's file not YAML": {world: files(home+"/.walg.yml", "- TOPSECRET"), note: "could not understand"},
	"wal-g's environment over its file": {world: files(home+"/.walg.json", `{"WALG_S3_PREFIX": "s3://no"}`).with("WALG_S3_PREFIX", "s3://b/p"),
		want: one(walgAt("environment, WALG_S3_PREFIX", "b", "p"))},
	"wal-g, libsodium": {world: files("/key", " TOPSECRET\n").with("WALG_S3_PREFIX", "s3://b", "WALG_LIBSODIUM_KEY_PATH", "/key", "WALG_LIBSODIUM_KEY_TRANSFORM", "hex"),
		want: one(change(walgAt("environment, WALG_S3_PREFIX", "b", ""), func(a *location.Archive) { a.Keys.Sodium, a.Keys.SodiumTransform = "TOPSECRET", "hex" }))},
	"wal-g, OpenPGP": {world: world{}.with("WALG_S3_PREFIX", "s3://b", "WALG_PGP_KEY", `-----BEGIN\nTOPSECRET\n`, "WALG_PGP_KEY_PASSPHRASE", "SECRET2", "WALG_LIBSODIUM_KEY", "SECRET3"),
		want: one(change(walgAt("environment, WALG_S3_PREFIX", "b", ""), func(a *location.Archive) {
			a.Keys.PGP, a.Keys.PGPPassphrase = "-----BEGIN\nTOPSECRET\n", "SECRET2"
		}))},
	"wal-g, OpenPGP in a file": {world: files(home+"/key.asc", "TOPSECRET").with("WALG_S3_PREFIX", "s3://b", "WALG_PGP_KEY_PATH", "~/key.asc"),
		want: one(change(walgAt("environment, WALG_S3_PREFIX", "b", ""), func(a *location.Archive) { a.Keys.PGP = "TOPSECRET" }))},
	"wal-g, key file missing": {world: world{}.with("WALG_S3_PREFIX", "s3://b", "WALG_PGP_KEY_PATH", "/key.asc"), note: "could not read file \"/key.asc\""},
	"wal-g, KMS": {world: world{}.with("WALG_S3_PREFIX", "s3://b", "WALG_CSE_KMS_ID", "x"),
		want: one(change(walgAt("environment, WALG_S3_PREFIX", "b", ""), func(a *location.Archive) { a.Keys.Unsupported = "a key of AWS KMS" }))},
	"wal-g, bad prefix":        {world: world{}.with("WALG_S3_PREFIX", "b/p"), note: "not the address of an S3 bucket"},
	"wal-g, endpoint's source": {world: world{}.with("WALG_S3_PREFIX", "s3://b/p", "S3_ENDPOINT_SOURCE", "http://x"), note: "only WAL-G knows the endpoint"},
	"wal-g, address as endpoint": {world: world{}.with("WALG_S3_PREFIX", "s3://b/p", "AWS_ENDPOINT", "http://10.0.0.1:9000"),
		want: one(change(walgAt("environment, WALG_S3_PREFIX", "b", "p"), func(a *location.Archive) {
			a.S3.Endpoint, a.S3.Region, a.S3.PathStyle = "http://10.0.0.1:9000", "us-east-1", true
		}))},
	"an envdir in its usual place": {world: files("/etc/wal-g.d/env/WALG_S3_PREFIX", "s3://b/p"), want: one(walgAt("/etc/wal-g.d/env, WALG_S3_PREFIX", "b", "p"))},
	"wal-e's envdir": {world: files("/etc/wal-e.d/env/WALE_S3_PREFIX", "s3://b/p"),
		want: one(change(s3At("/etc/wal-e.d/env, WALE_S3_PREFIX", location.WALE, "b", "p"), func(a *location.Archive) { a.Extension = ".lzo" }))},
	"wal-e": {world: world{}.with("WALE_S3_PREFIX", "s3://b/p"),
		want: one(change(s3At("environment, WALE_S3_PREFIX", location.WALE, "b", "p"), func(a *location.Archive) { a.Extension = ".lzo" }))},
	"wal-e in a directory": {world: world{}.with("WALE_FILE_PREFIX", "file://localhost/mnt/wale"),
		want: one(location.Archive{Origin: "environment, WALE_FILE_PREFIX", Layout: location.WALE, Dir: "/mnt/wale", Extension: ".lzo"})},
	"pgbackrest before wal-g": {world: files(mainConf, posix).with("WALG_S3_PREFIX", "s3://b/p"),
		want: []location.Archive{posixAt(mainConf+", repo1", "/backup"), walgAt("environment, WALG_S3_PREFIX", "b", "p")}},
}

// TestAmbient: what the tools would find by themselves.
func TestAmbient(t *testing.T) {
	for name, c := range ambients {
		t.Run(name, func(t *testing.T) {
			r, err := Auto(c.world.env(""))
			check(t, r, err, c.want, c.note)
		})
	}
}

// TestWithoutTarget: commands that have no target at hand take the only stanza there is.
func TestWithoutTarget(t *testing.T) {
	e := files(mainConf, posix).env("")
	e.TargetDir = ""
	r, err := Auto(e)
	check(t, r, err, one(posixAt(mainConf+", repo1", "/backup")), "")
	e = confAt(mainConf).env("")
	e.TargetDir = ""
	r, err = Auto(e)
	check(t, r, err, nil, "there are several stanzas: main, other")
}

// TestCommandBeforeAmbient: what restore_command says is what counts, and what it leaves open is taken from elsewhere.
func TestCommandBeforeAmbient(t *testing.T) {
	w := files(mainConf, posix).with("WALG_S3_PREFIX", "s3://b/p")
	r, err := Auto(w.env("cp /a/%f %p"))
	check(t, r, err, one(plainAt("restore_command (cp)", "/a", "")), "")
	r, err = Auto(w.env("restore.sh %f %p"))
	check(t, r, err, []location.Archive{posixAt(mainConf+", repo1", "/backup"), walgAt("environment, WALG_S3_PREFIX", "b", "p")}, "\"restore.sh\", which is not looked into")
}

// TestReal: the real world, as far as a test may touch it.
func TestReal(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	e := OSEnv("cp /a/%f %p", target)
	if r, err := Auto(e); err != nil || len(r.Archives) != 1 {
		t.Errorf("%v, %v", r, err)
	}
	name := filepath.Join(dir, "f")
	if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := e.read(name); err != nil || string(data) != "x" {
		t.Errorf("%q, %v", data, err)
	}
	if err := os.Truncate(name, 1<<40); err != nil {
		t.Fatal(err)
	}
	if _, err := e.read(name); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("%v", err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.read(pipe); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("%v", err)
	}
	if _, err := e.read(dir); err == nil {
		t.Error("a directory was read")
	}
	if _, ok, err := e.readIf(filepath.Join(dir, "missing")); ok || err != nil {
		t.Errorf("%v", err)
	}
}

// FuzzCommand: no restore_command makes looking through it fail otherwise than by an error, and no archive is made of
// anything but what it names.
func FuzzCommand(f *testing.F) {
	for _, c := range commands {
		f.Add(c.command)
	}
	f.Fuzz(func(t *testing.T, command string) {
		r, err := Auto(world{}.env(command))
		if (err == nil) != (len(r.Archives) > 0) {
			t.Errorf("%v, %v", r.Archives, err)
		}
		for _, a := range r.Archives {
			if (a.S3 == nil) == (a.Dir == "") || a.S3 != nil && a.S3.Bucket == "" || a.Dir != "" && !filepath.IsAbs(a.Dir) {
				t.Errorf("%s", show(a))
			}
			if hasMark(a.Dir + a.Prefix + a.Server + a.Stanza) {
				t.Errorf("a placeholder is in %s", show(a))
			}
			for _, element := range strings.Split(a.Prefix, "/") {
				if element == ".." || element == "." || element == "" && a.Prefix != "" {
					t.Errorf("prefix %q", a.Prefix)
				}
			}
		}
	})
}

// FuzzINI: no configuration file makes reading it fail otherwise than by an error.
func FuzzINI(f *testing.F) {
	f.Add(conf)
	f.Add(posix)
	f.Add("[\n]\n[]\n[:]\n=x\n[a:b:c]\nrepo1-path\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Auto(files(mainConf, text).env(""))
		if (err == nil) != (len(r.Archives) > 0) {
			t.Errorf("%v, %v", r.Archives, err)
		}
		for _, a := range r.Archives {
			if (a.S3 == nil) == (a.Dir == "") || !plainName(a.Stanza) {
				t.Errorf("%s", show(a))
			}
		}
	})
}
