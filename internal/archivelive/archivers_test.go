package archivelive

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/internal/pgtest"
)

// archiver is one way in which the WAL was archived.
type archiver struct {
	name, prefix string
	env          func(w *world) []string
	// restore is the restore_command that its manual gives, for a copy of the target.
	restore func(w *world, c *pgtest.Cluster) string
	// fetch, if not nil, is one that does the same with fewer programs.
	fetch func(w *world, c *pgtest.Cluster) string
	// settings are those that stand for themselves, without a restore_command; nil: there is no such thing.
	settings func(w *world, c *pgtest.Cluster) []string
}

func (w *world) credentials() []string { return w.s3.Env() }

// ownConf is a configuration file that names the copy as its cluster.
func (w *world) ownConf(c *pgtest.Cluster, encrypted bool) string {
	path := filepath.Join(w.tools, c.Name+".conf")
	w.writePgBackRestConf(path, c.DataDir(), encrypted)
	return path
}

func pgBackRest(name, prefix string, encrypted bool) archiver {
	return archiver{
		name: name, prefix: prefix,
		env: func(w *world) []string {
			if !encrypted {
				return nil
			}
			return []string{"PGBACKREST_REPO1_CIPHER_PASS=" + w.pass}
		},
		restore: func(w *world, c *pgtest.Cluster) string {
			return fmt.Sprintf(`pgbackrest --config=%s --stanza=%s archive-get %%f "%%p"`, w.ownConf(c, encrypted), stanza)
		},
		settings: func(w *world, c *pgtest.Cluster) []string {
			return []string{"PGBACKREST_CONFIG=" + w.ownConf(c, encrypted)}
		},
	}
}

func archivers() []archiver {
	return []archiver{
		pgBackRest("pgBackRest", "pgbackrest", false),
		pgBackRest("pgBackRest, encrypted", "encrypted", true),
		{
			name: "barman-cloud", prefix: "barman/" + server, env: func(*world) []string { return nil },
			restore: func(w *world, _ *pgtest.Cluster) string {
				return fmt.Sprintf("barman-cloud-wal-restore --endpoint-url %s s3://%s/barman %s %%f %%p", w.s3.URL, bucket, server)
			},
		},
		{
			name: "aws", prefix: "plain", env: func(*world) []string { return nil },
			restore: func(w *world, _ *pgtest.Cluster) string {
				from := fmt.Sprintf("aws --endpoint-url %s s3 cp --only-show-errors s3://%s/plain/%%f", w.s3.URL, bucket)
				return fmt.Sprintf("%s.zst %%p.zst && zstd -dqf --rm %%p.zst -o %%p || { %[1]s.lz4 %%p.lz4 && lz4 -dqf --rm %%p.lz4 %%p; }", from)
			},
			fetch: func(w *world, _ *pgtest.Cluster) string {
				return fmt.Sprintf(`aws --endpoint-url %s s3 cp --only-show-errors --recursive --exclude "*" --include "%%f.*" s3://%s/plain/ %%p.d && `+
					`if [ -e %%p.d/%%f.zst ]; then zstd -dqf %%p.d/%%f.zst -o %%p; else lz4 -dq %%p.d/%%f.lz4 %%p; fi`, w.s3.URL, bucket)
			},
		},
	}
}

// explicit are the options that name an archive and all that is needed to reach it. The credentials are in a file.
func (w *world) explicit(prefix string) (env, args []string) {
	file := filepath.Join(w.tools, "credentials")
	return []string{"AWS_SHARED_CREDENTIALS_FILE=" + file}, []string{
		"--wal-archive=s3://" + bucket + "/" + prefix, "--s3-endpoint=" + w.s3.URL, "--s3-region=" + w.s3.Region,
		"--s3-profile=lab", "--s3-ca-file=" + w.s3.CAFile, "--s3-path-style",
	}
}

// testArchivers rewinds from every archive in every way, and each time comes to what stock came to with all WAL at hand.
func (w *world) testArchivers(t *testing.T) {
	t.Parallel()
	for _, a := range archivers() {
		rewind := func(way string, keep bool, f func(c *pgtest.Cluster) (env, args []string), wants ...string) {
			c := w.copy("archiver")
			if keep {
				w.rewound[a.name] = c
			}
			t.Run(a.name+", "+way, func(t *testing.T) {
				t.Parallel()
				env, args := f(c)
				res := w.rewind(t, c, env, args...)
				if res.ExitCode != 0 {
					t.Fatalf("%s", res)
				}
				for _, want := range wants {
					if !strings.Contains(res.Stderr, want) {
						t.Errorf("%q is not in\n%s", want, res.Stderr)
					}
				}
				w.sameAsReference(t, c)
				if !keep {
					remove(t, c)
				}
			})
		}
		rewind("named", true, func(*pgtest.Cluster) (env, args []string) {
			env, args = w.explicit(a.prefix)
			return append(env, a.env(w)...), args
		}, "s3://"+bucket+"/"+a.prefix)
		rewind("found in restore_command", false, func(c *pgtest.Cluster) (env, args []string) {
			w.setRestoreCommand(c, a.restore(w, c))
			return w.credentials(), []string{"--wal-archive=auto", "--log-format=json"}
		}, "restore_command (")
		if a.settings != nil {
			rewind("found in its settings", false, func(c *pgtest.Cluster) (env, args []string) {
				return a.settings(w, c), []string{"--wal-archive=auto"}
			}, ".conf, repo1")
		}
		rewind("fetched by restore_command", false, func(c *pgtest.Cluster) (env, args []string) {
			command := a.restore
			if a.fetch != nil {
				command = a.fetch
			}
			w.setRestoreCommand(c, command(w, c))
			// Python takes its time to start, and each segment that is looked for ahead in vain is a start or several.
			return w.credentials(), []string{"--restore-target-wal", "--archive-jobs=2"}
		})
	}
}

// testChildren looks at the arguments of all programs that the rewinds have started: any user of the machine can.
func (w *world) testChildren(t *testing.T) {
	argv := string(read(t, w.spied))
	for _, program := range []string{"bin/postgres ", "pgbackrest ", "barman-cloud-wal-restore ", "aws ", "sh -c "} {
		if !strings.Contains(argv, program) {
			t.Errorf("no arguments of %s were seen: the spies see nothing", program)
		}
	}
	w.noSecrets(t, argv)
}

// testStreaming starts what was rewound, one of each archiver: recovery needs WAL that only archives had, and no
// restore_command is set.
func (w *world) testStreaming(t *testing.T) {
	// One after the other they take their time, in which the source must not remove what the last of them will ask for.
	w.source.SQL("postgres", "ALTER SYSTEM SET wal_keep_size = '1GB'")
	w.source.Reload()
	w.source.Thaw()
	w.source.SQL("postgres", "INSERT INTO t SELECT g, 'after the rewind' FROM generate_series(1, 1000) g")
	for _, a := range archivers() {
		c := w.rewound[a.name]
		if c == nil {
			t.Errorf("nothing was rewound from %s", a.name)
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			c.Follow(w.source)
			c.Start()
			w.source.WaitStreaming(c)
			w.source.FlushWAL()
			w.source.WaitReplay(c)
			pgtest.SameData(t, w.source, c)
			c.AmCheck()
			c.Stop(pgtest.Fast)
			c.Checksums()
		})
	}
}
