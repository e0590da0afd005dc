package archivelive

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// writeTools writes what the servers run as archive_command, what it reads, credentials, and the spies.
//
// Each archiver writes its own archive of the same files. Its codec changes from segment to segment, as after changes of its
// settings. Barman's restore program delivers SEG.partial in the place of an uncompressed SEG, so the segment of the fork,
// whose number leaves 2, is compressed.
func (w *world) writeTools() {
	w.env.WriteFile(filepath.Join(w.tools, "env"), []byte("export "+strings.Join(w.s3.Env(), " ")+"\n"), 0o600)
	w.env.WriteFile(filepath.Join(w.tools, "credentials"),
		fmt.Appendf(nil, "[lab]\naws_access_key_id = %s\naws_secret_access_key = %s\n", w.s3.AccessKey, w.s3.SecretKey), 0o600)
	for _, encrypted := range []bool{false, true} {
		// The servers' own: their data directory is where they run.
		w.writePgBackRestConf(w.pgBackRestConf(encrypted), "/nonexistent", encrypted)
	}
	w.env.WriteFile(filepath.Join(w.tools, "archive"), []byte(strings.NewReplacer(
		"TOOLS", w.tools, "ORIG", w.orig, "URL", w.s3.URL, "PLAIN", w.pgBackRestConf(false), "ENCRYPTED", w.pgBackRestConf(true),
		"BUCKET", bucket, "SERVER", server, "STANZA", stanza,
	).Replace(`#!/bin/bash
# archive PATH NAME: gives one file to all archivers at once.
set -eu
[ -e TOOLS/on ] || exit 0
p=$1 f=$2
PATH=/usr/bin:/bin
. TOOLS/env
n=0
case $f in ????????????????????????*) n=$((16#${f:16:8} % 3)) ;; esac
pgbr=(gz lz4 zst) barman=('' -z -j) ext=(zst lz4 zst) program=('zstd -q' 'lz4 -q' 'zstd -q')
push() { pgbackrest --config="$1" --stanza=STANZA --pg1-path="$PWD" --compress-type=${pgbr[$n]} archive-push "$p"; }
pids=()
push PLAIN & pids+=($!)
push ENCRYPTED & pids+=($!)
barman-cloud-wal-archive ${barman[$n]} --endpoint-url URL s3://BUCKET/barman SERVER "$p" & pids+=($!)
(set -o pipefail; ${program[$n]} -c "$p" | aws --endpoint-url URL s3 cp --only-show-errors - "s3://BUCKET/plain/$f.${ext[$n]}") & pids+=($!)
for pid in "${pids[@]}"; do wait "$pid"; done
cp "$p" "ORIG/.$f" && mv "ORIG/.$f" "ORIG/$f"
`)), 0o700)

	w.spied = filepath.Join(w.tools, "argv")
	w.env.WriteFile(w.spied, nil, 0o600)
	// A spy notes its own arguments and those of the shell that started it.
	spy := func(path, program string) {
		w.env.WriteFile(path, fmt.Appendf(nil,
			"#!/bin/sh\n{ echo \"%[1]s $*\"; tr '\\0' ' ' </proc/$PPID/cmdline; echo; } >>%[2]s\nexec %[1]s \"$@\"\n", program, w.spied), 0o700)
	}
	for _, dir := range []string{"bin", "spies"} {
		w.env.MustExec(pgtest.Cmd{Path: "/bin/mkdir", Args: []string{filepath.Join(w.tools, dir)}})
	}
	spy(filepath.Join(w.tools, "bin", "postgres"), w.env.Bin("postgres"))
	for _, program := range []string{"pgbackrest", "barman-cloud-wal-restore", "aws", "zstd", "lz4"} {
		spy(filepath.Join(w.tools, "spies", program), "/usr/bin/"+program)
	}
}

func (w *world) pgBackRestConf(encrypted bool) string {
	return filepath.Join(w.tools, fmt.Sprintf("pgbackrest-%t.conf", encrypted))
}

func (w *world) writePgBackRestConf(path, dataDir string, encrypted bool) {
	prefix, cipher := "/pgbackrest", ""
	if encrypted {
		prefix, cipher = "/encrypted", "repo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass="+w.pass+"\n"
	}
	w.env.WriteFile(path, []byte(strings.NewReplacer(
		"PREFIX", prefix, "CIPHER", cipher, "BUCKET", bucket, "ENDPOINT", strings.TrimPrefix(w.s3.URL, "https://"), "REGION", w.s3.Region,
		"ACCESS", w.s3.AccessKey, "SECRET", w.s3.SecretKey, "CAFILE", w.s3.CAFile, "TOOLS", w.tools, "STANZA", stanza, "DATA", dataDir,
		"SUPERUSER", pgtest.Superuser,
	).Replace(`[global]
repo1-type=s3
repo1-path=PREFIX
repo1-s3-bucket=BUCKET
repo1-s3-endpoint=ENDPOINT
repo1-s3-region=REGION
repo1-s3-key=ACCESS
repo1-s3-key-secret=SECRET
repo1-s3-uri-style=path
repo1-storage-ca-file=CAFILE
CIPHERlog-level-file=off
log-level-console=warn
lock-path=TOOLS
spool-path=TOOLS

[STANZA]
pg1-path=DATA
pg1-user=SUPERUSER
`)), 0o600)
}

// createStanzas prepares pgBackRest's repositories, for which it asks the running target. A pgBackRest that is older than the
// PostgreSQL that happens to be installed does not know it; where majors are demanded, it has to.
func (w *world) createStanzas(t *testing.T) {
	t.Helper()
	for _, encrypted := range []bool{false, true} {
		r := w.env.Exec(pgtest.Cmd{Path: "/usr/bin/pgbackrest", Args: []string{
			"--config=" + w.pgBackRestConf(encrypted), "--stanza=" + stanza, "--pg1-path=" + w.target.DataDir(),
			fmt.Sprintf("--pg1-port=%d", w.target.Port), "--pg1-socket-path=" + w.target.SocketDir(), "stanza-create",
		}})
		switch {
		case strings.Contains(r.Stderr, "VersionNotSupportedError") && os.Getenv("FASTREWIND_TEST_MAJORS") == "":
			t.Skipf("the pgBackRest that is installed does not know PostgreSQL %d", w.env.Major)
		case r.ExitCode != 0:
			t.Fatalf("%s", r)
		}
	}
}
