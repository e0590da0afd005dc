package settings

import (
	"reflect"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/archive/location"
)

func equalS3(a, b location.S3) bool { return reflect.DeepEqual(a, b) }

// commandCase is a restore_command, and what is to be understood of it.
type commandCase struct {
	command string
	world   world
	want    []location.Archive
	note    string // in the notes, or in the error's advice if there is no archive
}

const conf = `# a comment
[global]
repo1-path=/pgbackrest/prod
repo1-type=s3
repo1-s3-bucket=backups
repo1-s3-endpoint=s3.eu-central-1.amazonaws.com
repo1-s3-region=eu-central-1
repo1-s3-key=AKIAKEY
repo1-s3-key-secret=TOPSECRET
repo1-retention-full=2
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=CIPHERPASS
repo2-path=/backup/pgbackrest
process-max=4

[main]
pg1-path=/var/lib/postgresql/15/main

[other]
pg1-path=/var/lib/postgresql/15/other
repo1-path=/pgbackrest/other
`

// repo1 and repo2 are what conf says.
func repo1(origin string) location.Archive {
	return location.Archive{
		Origin: origin + "/etc/pgbackrest/pgbackrest.conf, repo1", Layout: location.PgBackRest, Stanza: "main", Prefix: "pgbackrest/prod",
		S3: &location.S3{
			Bucket: "backups", Endpoint: "https://s3.eu-central-1.amazonaws.com", Region: "eu-central-1",
			AccessKey: "AKIAKEY", SecretKey: "TOPSECRET",
		},
		Keys: location.Keys{PgBackRestPass: "CIPHERPASS"},
	}
}

func repo2(origin string) location.Archive {
	return location.Archive{
		Origin: origin + "/etc/pgbackrest/pgbackrest.conf, repo2", Layout: location.PgBackRest, Stanza: "main", Dir: "/backup/pgbackrest",
	}
}

func confAt(name string, more ...string) world {
	w := world{files: map[string]string{name: conf}}
	for i := 0; i+1 < len(more); i += 2 {
		w.files[more[i]] = more[i+1]
	}
	return w
}

// walgAt is the archive of WAL-G with its default compression.
func walgAt(origin, bucket, prefix string) location.Archive {
	return change(s3At(origin, location.WALG, bucket, prefix), func(a *location.Archive) { a.Extension = ".lz4" })
}

func plainAt(origin, dir, ext string) location.Archive {
	return location.Archive{Origin: origin, Layout: location.Plain, Dir: dir, Extension: ext}
}

var commands = map[string]commandCase{
	// pgBackRest
	"pgbackrest": {
		command: "pgbackrest --stanza=main archive-get %f \"%p\"",
		world:   confAt("/etc/pgbackrest/pgbackrest.conf"),
		want:    []location.Archive{repo1("restore_command (pgbackrest), "), repo2("restore_command (pgbackrest), ")},
	},
	"pgbackrest, options apart": {
		command: "/usr/bin/pgbackrest --stanza main --log-level-console info --no-archive-async --repo 2 archive-get %f '%p'",
		world:   confAt("/etc/pgbackrest/pgbackrest.conf"),
		want:    []location.Archive{repo2("restore_command (pgbackrest), ")},
	},
	"pgbackrest, another file": {
		command: "pgbackrest --config=/opt/p.conf --stanza=main --repo1-path=/elsewhere --repo=1 archive-get %f %p",
		world:   confAt("/opt/p.conf"),
		want: []location.Archive{change(repo1(""), func(a *location.Archive) {
			a.Origin, a.Prefix = "restore_command (pgbackrest), /opt/p.conf, repo1", "elsewhere"
		})},
	},
	"pgbackrest, file is missing": {
		command: "pgbackrest --config=/opt/p.conf --stanza=main archive-get %f %p",
		note:    "could not read file \"/opt/p.conf\"",
	},
	"pgbackrest, no stanza": {
		command: "pgbackrest archive-get %f %p",
		world:   world{files: map[string]string{"/etc/pgbackrest/pgbackrest.conf": strings.ReplaceAll(conf, target, "/x")}},
		note:    "no stanza has \"/var/lib/postgresql/15/main\" as its pg1-path; there are main, other",
	},
	"pgbackrest, stanza by its path": {
		command: "pgbackrest archive-get %f %p --repo=2",
		world:   confAt("/etc/pgbackrest/pgbackrest.conf"),
		want:    []location.Archive{repo2("restore_command (pgbackrest), ")},
	},
	"pgbackrest, variables in front": {
		command: "PGBACKREST_STANZA=other PGBACKREST_REPO=1 PGBACKREST_REPO1_S3_KEY_SECRET=OTHERSECRET pgbackrest archive-get %f %p",
		world:   confAt("/etc/pgbackrest/pgbackrest.conf"),
		want: []location.Archive{change(repo1("restore_command (pgbackrest), "), func(a *location.Archive) {
			a.Stanza, a.Prefix, a.S3.SecretKey = "other", "pgbackrest/other", "OTHERSECRET"
		})},
	},
	"pgbackrest, push": {command: "pgbackrest --stanza=main archive-push %p", note: "only \"pgbackrest archive-get\" is understood"},

	// WAL-G
	"wal-g": {
		command: "wal-g wal-fetch %f %p",
		world:   world{vars: map[string]string{"WALG_S3_PREFIX": "s3://bucket/some/path/", "AWS_REGION": "eu-west-1"}},
		want: []location.Archive{change(walgAt("restore_command (wal-g), WALG_S3_PREFIX", "bucket", "some/path"), func(a *location.Archive) {
			a.S3.Region = "eu-west-1"
		})},
	},
	"wal-g behind envdir": {
		command: "envdir /etc/wal-g.d/env /usr/local/bin/wal-g wal-fetch \"%f\" \"%p\"",
		world: world{files: map[string]string{
			"/etc/wal-g.d/env/WALG_S3_PREFIX":          "s3://bucket/spilo/batman/wal/15\n",
			"/etc/wal-g.d/env/AWS_ACCESS_KEY_ID":       "AKIA1",
			"/etc/wal-g.d/env/AWS_SECRET_ACCESS_KEY":   "TOPSECRET  \nsecond line",
			"/etc/wal-g.d/env/AWS_ENDPOINT":            "http://minio.local:9000",
			"/etc/wal-g.d/env/AWS_S3_FORCE_PATH_STYLE": "true",
			"/etc/wal-g.d/env/WALG_COMPRESSION_METHOD": "brotli",
			"/etc/wal-g.d/env/..data/x":                "",
		}},
		want: []location.Archive{change(walgAt("restore_command (wal-g), WALG_S3_PREFIX", "bucket", "spilo/batman/wal/15"), func(a *location.Archive) {
			a.Extension = ".br"
			a.S3.AccessKey, a.S3.SecretKey = "AKIA1", "TOPSECRET"
			a.S3.Endpoint, a.S3.PathStyle, a.S3.Region = "http://minio.local:9000", true, "us-east-1"
		})},
	},
	"wal-g, everything in front": {
		command: "timeout -k 5 60 sudo -u postgres -E env WALG_S3_PREFIX=s3://b/p nice -n 10 wal-g wal-fetch %f %p",
		want:    []location.Archive{walgAt("restore_command (wal-g), WALG_S3_PREFIX", "b", "p")},
	},
	"wal-g in a shell": {
		command: `bash -lc 'source /etc/wal-g.env && exec wal-g wal-fetch "$0" "$1"' %f %p`,
		world:   world{files: map[string]string{"/etc/wal-g.env": "# settings\nset -a\nexport WALG_S3_PREFIX='s3://b/p'\nWALG_LIBSODIUM_KEY=\"TOPSECRET\"\n"}},
		want: []location.Archive{change(walgAt("restore_command (wal-g), WALG_S3_PREFIX", "b", "p"), func(a *location.Archive) {
			a.Keys.Sodium = "TOPSECRET"
		})},
	},
	"wal-g behind conditions": {
		command: "if [ -f /tmp/stop ]; then exit 255; else (test -f /tmp/x || wal-g --config /etc/walg.yaml wal-fetch %f %p) 2>>/tmp/log; fi",
		world: world{files: map[string]string{"/etc/walg.yaml": "walg_s3_prefix: s3://b/p\nAWS_ACCESS_KEY_ID: 0123\nAWS_SECRET_ACCESS_KEY: 0456\n" +
			"WALG_LIBSODIUM_KEY: 00000000000000000000000000000000\nWALG_COMPRESSION_METHOD: zstd\nAWS_S3_FORCE_PATH_STYLE: true\n"}},
		want: []location.Archive{change(walgAt("restore_command (wal-g), /etc/walg.yaml, WALG_S3_PREFIX", "b", "p"), func(a *location.Archive) {
			a.S3.AccessKey, a.S3.SecretKey, a.S3.PathStyle, a.Extension = "0123", "0456", true, ".zst"
			a.Keys.Sodium = "00000000000000000000000000000000"
		})},
	},
	"wal-g, its other kinds of storage": {
		command: "wal-g wal-fetch %f %p",
		world:   world{vars: map[string]string{"WALG_GS_PREFIX": "gs://x/y"}},
		note:    "WALG_GS_PREFIX: storage of this kind is not read directly",
	},
	"wal-g in a directory": {
		command: "WALG_FILE_PREFIX=/mnt/walg wal-g wal-fetch %f %p",
		want: []location.Archive{{
			Origin: "restore_command (wal-g), WALG_FILE_PREFIX", Layout: location.WALG, Dir: "/mnt/walg", Extension: ".lz4",
		}},
	},
	"wal-g with an option for a setting": {
		command: "wal-g wal-fetch %f %p --walg-s3-prefix=s3://b/p --config=/c.json",
		world:   world{files: map[string]string{"/c.json": `{"WALG_S3_PREFIX":"s3://no/no","AWS_REGION":"x-1","S3_MAX_RETRIES":7}`}},
		want: []location.Archive{change(walgAt("restore_command (wal-g), WALG_S3_PREFIX", "b", "p"), func(a *location.Archive) {
			a.S3.Region, a.S3.MaxAttempts = "x-1", 8
		})},
	},
	"wal-g without settings":       {command: "wal-g wal-fetch %f %p", note: "no prefix is set that is read directly"},
	"envdir that is not there":     {command: "envdir /nope wal-g wal-fetch %f %p", note: "could not read directory \"/nope\""},
	"envdir that must not be read": {command: "envdir /e wal-g wal-fetch %f %p", world: world{denied: []string{"/e"}}, note: "could not read directory \"/e\""},
	"wal-g with WAL-E's prefix": {
		command: "wal-g wal-fetch %f %p",
		world:   world{vars: map[string]string{"WALE_S3_PREFIX": "s3://b/wale"}},
		want:    []location.Archive{walgAt("restore_command (wal-g), WALE_S3_PREFIX", "b", "wale")},
	},

	// WAL-E
	"wal-e": {
		command: "envdir /etc/wal-e.d/env wal-e --terse wal-fetch \"%f\" \"%p\" -p 8",
		world: world{files: map[string]string{
			"/etc/wal-e.d/env/WALE_S3_PREFIX":        "s3://b/wale",
			"/etc/wal-e.d/env/WALE_S3_ENDPOINT":      "http+path://minio:9000",
			"/etc/wal-e.d/env/AWS_ACCESS_KEY_ID":     "AKIA1",
			"/etc/wal-e.d/env/AWS_SECRET_ACCESS_KEY": "TOPSECRET",
			"/etc/wal-e.d/env/AWS_SECURITY_TOKEN":    "TOKENSECRET",
		}},
		want: []location.Archive{change(s3At("restore_command (wal-e), WALE_S3_PREFIX", location.WALE, "b", "wale"), func(a *location.Archive) {
			a.Extension = ".lzo"
			a.S3.Endpoint, a.S3.PathStyle = "http://minio:9000", true
			a.S3.AccessKey, a.S3.SecretKey, a.S3.SessionToken = "AKIA1", "TOPSECRET", "TOKENSECRET"
		})},
	},
	"wal-e with options": {
		command: "wal-e --aws-instance-profile --gpg-key-id=ABC --s3-prefix s3://b/wale wal-fetch %f %p",
		want: []location.Archive{change(s3At("restore_command (wal-e), WALE_S3_PREFIX", location.WALE, "b", "wale"), func(a *location.Archive) {
			a.Extension, a.S3.InstanceRole, a.Keys.Unsupported = ".lzo", true, "a key in a GnuPG key ring"
		})},
	},

	// Barman
	"barman": {
		command: "barman-cloud-wal-restore --endpoint-url http://127.0.0.1:9000 -P prod s3://backups/pg/ pgsrv %f %p",
		want: []location.Archive{change(s3At("restore_command (barman-cloud-wal-restore)", location.Barman, "backups", "pg"), func(a *location.Archive) {
			a.Server, a.S3.Endpoint, a.S3.PathStyle, a.S3.Profile = "pgsrv", "http://127.0.0.1:9000", true, "prod"
		})},
	},
	"barman, keys in front": {
		command: "AWS_ACCESS_KEY_ID=AKIA1 AWS_SECRET_ACCESS_KEY=TOPSECRET barman-cloud-wal-restore s3://backups/pg pgsrv %f %p --cloud-provider aws-s3",
		want: []location.Archive{change(s3At("restore_command (barman-cloud-wal-restore)", location.Barman, "backups", "pg"), func(a *location.Archive) {
			a.Server, a.S3.AccessKey, a.S3.SecretKey = "pgsrv", "AKIA1", "TOPSECRET"
		})},
	},
	"barman in another cloud": {command: "barman-cloud-wal-restore --cloud-provider=azure-blob-storage https://x/y s %f %p", note: "\"azure-blob-storage\", is not read directly"},
	"barman over ssh":         {command: "barman-wal-restore -U barman backup pg %f %p", note: "asks a Barman server"},

	// aws-cli
	"aws": {
		command: "aws s3 cp --only-show-errors --region eu-west-3 s3://b/some/wal/%f %p",
		want: []location.Archive{change(s3At("restore_command (aws)", location.Plain, "b", "some/wal"), func(a *location.Archive) {
			a.S3.Region = "eu-west-3"
		})},
	},
	"aws in a pipe": {
		command: "/usr/bin/aws --endpoint-url https://minio:9000 --no-verify-ssl --profile prod s3 cp s3://b/p/%f.gz - | gunzip > %p",
		world:   world{vars: map[string]string{"AWS_ACCESS_KEY_ID": "NOTTHIS", "AWS_SECRET_ACCESS_KEY": "NOTTHIS"}},
		want: []location.Archive{change(s3At("restore_command (aws)", location.Plain, "b", "p"), func(a *location.Archive) {
			a.Extension, a.S3.Endpoint, a.S3.PathStyle, a.S3.Profile, a.S3.NoVerify = ".gz", "https://minio:9000", true, "prod", true
		})},
	},
	"aws, keys exported": {
		command: "export AWS_ACCESS_KEY_ID=AKIA1; export AWS_SECRET_ACCESS_KEY=\"TOPSECRET\"; P=s3://b/p; aws s3 cp $P/%f.zst - | zstd -d -o %p",
		want: []location.Archive{change(s3At("restore_command (aws)", location.Plain, "b", "p"), func(a *location.Archive) {
			a.Extension, a.S3.AccessKey, a.S3.SecretKey = ".zst", "AKIA1", "TOPSECRET"
		})},
	},
	"aws s3api": {
		command: "aws s3api get-object --bucket b --key p/q/%f.lz4 --request-payer requester /dev/stdout | lz4 -d > %p",
		want: []location.Archive{change(s3At("restore_command (aws)", location.Plain, "b", "p/q"), func(a *location.Archive) {
			a.Extension, a.S3.RequesterPays = ".lz4", true
		})},
	},
	"aws, encrypted by gpg":      {command: "aws s3 cp s3://b/p/%f.gpg - | gpg -d > %p", note: "no WAL file's name with a known ending"},
	"aws without credentials":    {command: "aws s3 cp --no-sign-request s3://b/p/%f %p", note: "without credentials"},
	"aws, its own credentials":   {command: "AWS_SHARED_CREDENTIALS_FILE=/etc/aws aws s3 cp s3://b/p/%f %p", note: "heeded only in fastrewind's own environment"},
	"aws, computed":              {command: "aws s3 cp s3://$(cat /etc/bucket)/p/%f %p", note: "only a shell can find out"},
	"aws, endpoint has password": {command: "aws --endpoint-url https://u:TOPSECRET@h s3 cp s3://b/%f %p", note: "endpoint that is not understood"},
	"aws, file below a folder":   {command: "aws s3 cp s3://b/p/%f/%f %p", note: "no WAL file's name"},

	// Directories
	"cp":            {command: "cp /mnt/server/archivedir/%f \"%p\"", want: []location.Archive{plainAt("restore_command (cp)", "/mnt/server/archivedir", "")}},
	"cp, tested":    {command: "test -f '/mnt/a b/%f' && cp -a '/mnt/a b/%f' %p || exit 1", want: []location.Archive{plainAt("restore_command (cp)", "/mnt/a b", "")}},
	"cp, quoted":    {command: `cp /mnt/a\ b/"%f" %p`, want: []location.Archive{plainAt("restore_command (cp)", "/mnt/a b", "")}},
	"cp, percent":   {command: `cp /mnt/100%%/%f %p`, want: []location.Archive{plainAt("restore_command (cp)", "/mnt/100%", "")}},
	"cp, relative":  {command: "cp ../archive/%f %p", want: []location.Archive{plainAt("restore_command (cp)", "/var/lib/postgresql/15/archive", "")}},
	"cp after cd":   {command: "cd /mnt/archive && cp %f %p", want: []location.Archive{plainAt("restore_command (cp)", "/mnt/archive", "")}},
	"cp, variable":  {command: "A=/mnt/archive; cp ${A}/%f $PGDATA/x", want: []location.Archive{plainAt("restore_command (cp)", "/mnt/archive", "")}},
	"cp, unknown":   {command: "cp $ARCHIVE/%f %p", note: "only a shell can find out"},
	"gunzip":        {command: "gunzip < /mnt/archive/%f.gz > %p", want: []location.Archive{plainAt("restore_command (gunzip)", "/mnt/archive", ".gz")}},
	"gzip":          {command: "gzip -dc /mnt/archive/%f.gz > \"%p\"", want: []location.Archive{plainAt("restore_command (gzip)", "/mnt/archive", ".gz")}},
	"cat in a pipe": {command: "cat /mnt/archive/%f.xz | xz -d > %p", want: []location.Archive{plainAt("restore_command (cat)", "/mnt/archive", ".xz")}},
	"lz4":           {command: "lz4 -q -d /a/%f.lz4 %p", want: []location.Archive{plainAt("restore_command (lz4)", "/a", ".lz4")}},
	"dd":            {command: "dd if=/a/%f of=%p bs=1M", want: []location.Archive{plainAt("restore_command (dd)", "/a", "")}},
	"rsync":         {command: "rsync -a backup:/a/%f %p", note: "from another machine"},
	"scp":           {command: "scp backup:/a/%f %p", note: "from another machine"},
	"two, one after the other": {
		command: "cp /a/%f %p || gunzip -c /b/%f.gz > %p",
		want:    []location.Archive{plainAt("restore_command (cp)", "/a", ""), plainAt("restore_command (gunzip)", "/b", ".gz")},
	},
	"in a case": {
		command: "case %f in *.history) exit 1;; *) cp /a/%f %p;; esac",
		want:    []location.Archive{plainAt("restore_command (cp)", "/a", "")},
	},
	"su":      {command: `su - postgres -c "cp /a/%f %p"`, want: []location.Archive{plainAt("restore_command (cp)", "/a", "")}},
	"runuser": {command: `runuser -u postgres -- cp /a/%f %p`, want: []location.Archive{plainAt("restore_command (cp)", "/a", "")}},
	"eval":    {command: `eval "cp /a/%f %p"`, want: []location.Archive{plainAt("restore_command (cp)", "/a", "")}},
	"clean environment": {
		command: "env -i PATH=/bin wal-g wal-fetch %f %p",
		world:   world{vars: map[string]string{"WALG_S3_PREFIX": "s3://b/p"}},
		// It would not reach wal-g; it is there all the same.
		want: []location.Archive{walgAt("environment, WALG_S3_PREFIX", "b", "p")},
	},

	// What is not understood
	"a script":            {command: "/usr/local/bin/restore.sh %f %p", note: "\"restore.sh\", which is not looked into"},
	"a script in a shell": {command: "bash /usr/local/bin/restore.sh %f %p", note: "runs a script (\"/usr/local/bin/restore.sh\")"},
	"not a command":       {command: "cp '/a/%f %p", note: "not understood as a shell's command"},
	"rclone":              {command: "rclone copyto remote:x/%f %p", note: "rclone, whose remotes are not read directly"},
	"computed program":    {command: "$(which cp) /a/%f %p", note: "whose name only a shell can find out"},
	"nothing":             {command: "true", note: "found no settings"},
	"none":                {command: "  ", note: "There is no restore_command"},
	"endless":             {command: strings.Repeat("cp x y; ", 10000), note: "too long"},
	"deep":                {command: "eval eval eval eval eval eval eval eval eval eval eval eval cp /a/%f %p", note: "too long or too deep"},
}

// TestCommands: what is understood of restore_command, and what is said of the rest.
func TestCommands(t *testing.T) {
	for name, c := range commands {
		t.Run(name, func(t *testing.T) {
			r, err := Auto(c.world.env(c.command))
			check(t, r, err, c.want, c.note)
		})
	}
}

// check compares a result with what is wanted: archives, or an error and something in it.
func check(t *testing.T, r Result, err error, want []location.Archive, note string) {
	t.Helper()
	said := strings.Join(r.Notes, "\n")
	if err != nil {
		said += err.Error() + "\n" + adviceOf(err)
	}
	if (err == nil) != (len(want) > 0) || !strings.Contains(said, note) {
		t.Errorf("%v, %q", err, said)
	}
	if strings.Contains(said, "SECRET") || strings.Contains(said, "CIPHERPASS") || strings.ContainsAny(said, markFile+markPath) {
		t.Errorf("said: %s", said)
	}
	if len(r.Archives) != len(want) {
		t.Fatalf("%d archives: %v", len(r.Archives), r.Archives)
	}
	for i, a := range r.Archives {
		if !same(t, a, want[i]) {
			t.Errorf("archive %d:\n%s\n%s", i, show(a), show(want[i]))
		}
		if d := a.Describe(); strings.Contains(d, "SECRET") || strings.Contains(d, "CIPHERPASS") || !strings.Contains(d, a.Origin) || strings.Contains(d, "\n") {
			t.Error(d)
		}
	}
}
