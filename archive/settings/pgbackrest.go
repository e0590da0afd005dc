package settings

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/internal/fault"
)

// Where pgBackRest looks by itself.
const (
	pgbrConfigPath  = "/etc/pgbackrest"
	pgbrConfigFile  = "pgbackrest.conf"
	pgbrIncludePath = "conf.d"
	pgbrOldConfig   = "/etc/pgbackrest.conf"
	pgbrRepoPath    = "/var/lib/pgbackrest"
	pgbrMaxRepos    = 256
)

// pgbrFlags are options of archive-get that take no value. All others do, joined by = or as the next word.
var pgbrFlags = set("--archive-async", "--no-archive-async", "--no-config", "--neutral-umask", "--no-neutral-umask",
	"--log-timestamp", "--no-log-timestamp", "--log-subprocess", "--no-log-subprocess", "--archive-missing-retry",
	"--no-archive-missing-retry", "--archive-mode-check", "--no-archive-mode-check", "--sck-keep-alive", "--no-sck-keep-alive",
	"--dry-run", "--help", "--version", "--no-repo-local", "--no-pg-local")

// pgbr is pgBackRest's settings: options, then environment, then files.
type pgbr struct {
	vars   vars
	opts   map[string]string // of the command line, without dashes
	files  ini
	stanza string
	outer  string // the origin when a command was found; empty: nobody said that pgBackRest is used
}

// pgBackRest is pgbackrest --stanza=X archive-get %f %p.
func (s *shell) pgBackRest(c simple, origin string) {
	opts := map[string]string{}
	command := false
	for i := 0; i < len(c.args); i++ {
		a := c.args[i]
		if !isOption(a) {
			command = command || a.text == "archive-get"
			continue
		}
		name, value, joined := strings.Cut(a.text, "=")
		switch {
		case !joined && pgbrFlags[name] || !joined && strings.HasPrefix(name, "--no-"):
			if on, off := strings.CutPrefix(name, "--no-"); off {
				opts[on] = "n"
				continue
			}
			value = "y"
		case !joined && i+1 < len(c.args) && !isOption(c.args[i+1]) && c.args[i+1].text != "archive-get":
			i++
			if value = c.args[i].text; !c.args[i].known {
				s.out.note("%s has arguments that only a shell can find out", origin)
				return
			}
		case !joined:
			value = "y"
		}
		opts[strings.TrimLeft(name, "-")] = value
	}
	if !command {
		s.out.note("%s: only \"pgbackrest archive-get\" is understood", origin)
		return
	}
	if err := pgBackRest(s.env, c.vars, opts, origin, s.out); err != nil {
		s.err = err
	}
}

// pgBackRest finds the repositories that archive-get would read. outer is empty if nobody said that pgBackRest is used:
// then it must have been configured.
func pgBackRest(e Env, v vars, opts map[string]string, outer string, f *finding) error {
	p := &pgbr{vars: v, opts: opts, files: ini{}, outer: outer}
	if err := p.load(e); err != nil {
		return err
	}
	if _, ok := p.lookup("stanza"); !ok && len(p.files) == 0 && outer == "" {
		return nil
	}
	what := or(outer, "pgBackRest's configuration")
	stanza, why := p.findStanza(e.TargetDir)
	if stanza == "" {
		f.note("%s: %s", what, why)
		return nil
	}
	p.stanza = stanza
	only := 0
	if s, ok := p.lookup("repo"); ok {
		if only, _ = strconv.Atoi(s.value.Reveal()); only < 1 || only > pgbrMaxRepos {
			f.note("%s: option repo is not a number from 1 to %d", what, pgbrMaxRepos)
			return nil
		}
	}
	for _, n := range p.repos() {
		if only == 0 || n == only {
			p.repo(n, f)
		}
	}
	return nil
}

// load reads the configuration files. Those that somebody named must be there; those that pgBackRest looks for by itself
// need not.
func (p *pgbr) load(e Env) error {
	base, baseSet := p.early("config-path")
	if !baseSet {
		base = pgbrConfigPath
	}
	config, configSet := p.early("config")
	none := p.opts["config"] == "n"
	include, includeSet := p.early("config-include-path")
	if !includeSet {
		include = path.Join(base, pgbrIncludePath)
	}
	switch {
	case none:
	case configSet:
		if err := p.file(e, config); err != nil {
			return err
		}
	default:
		found, err := p.fileIf(e, path.Join(base, pgbrConfigFile))
		if err != nil {
			return err
		}
		if !found && !baseSet {
			if _, err := p.fileIf(e, pgbrOldConfig); err != nil {
				return err
			}
		}
	}
	if (configSet || none) && !includeSet && !baseSet {
		return nil
	}
	if _, err := e.ReadDir(include); isNotExist(err) && !includeSet {
		return nil
	}
	names, err := e.list(include)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if strings.HasSuffix(name, ".conf") {
			if err := p.file(e, path.Join(include, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// early is an option that says where the files are, and so cannot be in them.
func (p *pgbr) early(name string) (value string, ok bool) {
	if value, ok = p.opts[name]; ok && value != "n" {
		return p.vars.abs(value), true
	}
	if value = p.vars.get(pgbrVariable(name)); value != "" {
		return p.vars.abs(value), true
	}
	return "", false
}

func (p *pgbr) fileIf(e Env, name string) (bool, error) {
	data, ok, err := e.readIf(name)
	if err != nil || !ok {
		return false, err
	}
	return true, p.parse(data, name)
}

func (p *pgbr) file(e Env, name string) error {
	data, err := e.read(name)
	if err != nil {
		return err
	}
	return p.parse(data, name)
}

func (p *pgbr) parse(data []byte, name string) error {
	if line, err := p.files.parse(data, name); err != nil {
		return fault.New("could not understand line %d of \"%s\": %s", line, name, err).
			Advise("pgBackRest's configuration is looked for there. Correct it, or name the archive with --wal-archive.")
	}
	return nil
}

// pgbrVariable is an option's name in the environment.
func pgbrVariable(option string) string {
	return "PGBACKREST_" + strings.ToUpper(strings.ReplaceAll(option, "-", "_"))
}

// lookup finds an option by the first of its names that is set anywhere, the strongest place first.
func (p *pgbr) lookup(names ...string) (setting, bool) {
	for _, name := range names {
		if value, ok := p.opts[name]; ok {
			return setting{location.Secret(value), p.outer}, true
		}
	}
	for _, name := range names {
		if value := p.vars.get(pgbrVariable(name)); value != "" {
			return setting{location.Secret(value), or(p.outer, "environment") + ", " + pgbrVariable(name)}, true
		}
	}
	for _, section := range p.sections() {
		for _, name := range names {
			if s, ok := p.files[section][name]; ok {
				return s, true
			}
		}
	}
	return setting{}, false
}

// sections are those that count, the strongest first.
func (p *pgbr) sections() []string {
	if p.stanza == "" {
		return []string{"global:archive-get", "global"}
	}
	return []string{p.stanza + ":archive-get", p.stanza, "global:archive-get", "global"}
}

// stanzas are those that the files name, ascending.
func (p *pgbr) stanzas() []string {
	var names []string
	for section := range p.files {
		name, _, _ := strings.Cut(section, ":")
		if name != "global" && name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// findStanza is the stanza that was named, or that of the target's data directory; else why there is none.
func (p *pgbr) findStanza(targetDir string) (stanza, why string) {
	if s, ok := p.lookup("stanza"); ok {
		if stanza = s.value.Reveal(); !plainName(stanza) {
			return "", "the stanza's name is not one"
		}
		return stanza, ""
	}
	all := p.stanzas()
	var match []string
	for _, name := range all {
		if targetDir == "" || slices.Contains(p.dataDirs(name), path.Clean(targetDir)) {
			match = append(match, name)
		}
	}
	switch {
	case len(match) == 1 && plainName(match[0]):
		return match[0], ""
	case len(all) == 0:
		return "", "no stanza is named"
	case targetDir == "":
		return "", fmt.Sprintf("there are several stanzas: %s", strings.Join(all, ", "))
	case len(match) == 0:
		return "", fmt.Sprintf("no stanza has \"%s\" as its pg1-path; there are %s", targetDir, strings.Join(all, ", "))
	}
	return "", fmt.Sprintf("several stanzas have \"%s\" as their pg1-path: %s", targetDir, strings.Join(match, ", "))
}

// dataDirs are the data directories of a stanza's clusters.
func (p *pgbr) dataDirs(stanza string) []string {
	var dirs []string
	for _, section := range []string{stanza, stanza + ":archive-get"} {
		for name, s := range p.files[section] {
			prefix, ok := strings.CutSuffix(name, "-path")
			kind := strings.TrimRight(prefix, "0123456789")
			if ok && (kind == "pg" || kind == "db") { // db is the old name
				dirs = append(dirs, path.Clean(s.value.Reveal()))
			}
		}
	}
	return dirs
}

// repos are the numbers of the repositories of which anything is set, ascending. Without any there is the first.
func (p *pgbr) repos() []int {
	numbers := map[int]bool{}
	note := func(option string) {
		rest, ok := strings.CutPrefix(option, "repo")
		digits, what, dash := strings.Cut(rest, "-")
		if !ok || !dash || what == "" {
			return
		}
		n, err := strconv.Atoi(digits)
		switch {
		case digits == "":
			numbers[1] = true // the old form
		case err == nil && n >= 1 && n <= pgbrMaxRepos && digits[0] != '0':
			numbers[n] = true
		}
	}
	for _, section := range p.sections() {
		for name := range p.files[section] {
			note(name)
		}
	}
	for name := range p.opts {
		note(name)
	}
	for n := 1; n <= pgbrMaxRepos; n++ {
		for _, option := range []string{"path", "type", "host", "s3-bucket", "cipher-pass"} {
			if p.vars.get(pgbrVariable(fmt.Sprintf("repo%d-%s", n, option))) != "" {
				numbers[n] = true
			}
		}
	}
	if len(numbers) == 0 {
		return []int{1}
	}
	return slices.Sorted(maps.Keys(numbers))
}

// repo adds one repository.
func (p *pgbr) repo(n int, f *finding) {
	r := func(options ...string) string {
		s, _ := p.repoOption(n, options...)
		return s.value.Reveal()
	}
	a := location.Archive{Layout: location.PgBackRest, Stanza: p.stanza, Origin: p.repoOrigin(n)}
	kind := or(r("type"), "posix")
	root := or(r("path"), pgbrRepoPath)
	switch cipher := r("cipher-type"); cipher {
	case "", "none":
	case "aes-256-cbc":
		if a.Keys.PgBackRestPass = location.Secret(r("cipher-pass")); a.Keys.PgBackRestPass == "" {
			f.note("%s: it is encrypted, and repo%d-cipher-pass is not set", a.Origin, n)
			return
		}
	default:
		a.Keys.Unsupported = "a cipher that is not known (repo-cipher-type)"
	}
	switch {
	case r("host") != "":
		f.note("%s: it is reached through another machine (repo%d-host), which is not read directly", a.Origin, n)
	case kind == "posix" || kind == "cifs":
		if !path.IsAbs(root) {
			f.note("%s: repo%d-path is not an absolute directory", a.Origin, n)
			return
		}
		a.Dir = path.Clean(root)
		f.add(a)
	case kind == "s3":
		a.Prefix = strings.Trim(path.Clean("/"+root), "/")
		if why := p.s3(r, &a); why != "" {
			f.note("%s: %s", a.Origin, why)
			return
		}
		f.add(a)
	default:
		f.note("%s: storage of type %q is not read directly", a.Origin, kind)
	}
}

// repoOption is an option of a repository. Those of the first may be written in the old form, without a number.
func (p *pgbr) repoOption(n int, options ...string) (setting, bool) {
	var names []string
	for _, o := range options {
		names = append(names, fmt.Sprintf("repo%d-%s", n, o))
		if n == 1 {
			names = append(names, "repo-"+o)
		}
	}
	return p.lookup(names...)
}

// repoOrigin says where a repository is configured.
func (p *pgbr) repoOrigin(n int) string {
	for _, option := range []string{"s3-bucket", "path", "type", "host"} {
		if s, ok := p.repoOption(n, option); ok && s.file != "" {
			where := s.file
			if p.outer != "" && !strings.HasPrefix(where, p.outer) {
				where = p.outer + ", " + where
			}
			return fmt.Sprintf("%s, repo%d", where, n)
		}
	}
	return fmt.Sprintf("%s, repo%d", or(p.outer, "pgBackRest's defaults"), n)
}

// s3 fills in the bucket, or says why it cannot be read.
func (p *pgbr) s3(r func(...string) string, a *location.Archive) (why string) {
	s3 := &location.S3{
		Bucket:        r("s3-bucket"),
		Region:        r("s3-region"),
		PathStyle:     r("s3-uri-style") == "path",
		CAFile:        r("storage-ca-file", "s3-ca-file"),
		CADir:         r("storage-ca-path", "s3-ca-path"),
		NoVerify:      r("storage-verify-tls", "s3-verify-tls", "s3-verify-ssl") == "n",
		SSECKey:       location.Secret(r("s3-sse-customer-key")),
		RequesterPays: r("s3-requester-pays") == "y",
	}
	a.S3 = s3
	if s3.Bucket == "" || strings.ContainsAny(s3.Bucket, "/@:?# ") {
		return "s3-bucket is not set, or is not a bucket's name"
	}
	switch keyType := or(r("s3-key-type"), "shared"); keyType {
	case "shared":
		s3.AccessKey, s3.SecretKey = r("s3-key"), location.Secret(r("s3-key-secret"))
		s3.SessionToken = location.Secret(r("s3-token"))
		if s3.AccessKey == "" || s3.SecretKey == "" {
			return "s3-key and s3-key-secret are not both set"
		}
	case "auto":
		s3.InstanceRole = true
	case "web-id":
		s3.WebIdentity = true
	case "pod-id": // the SDK's chain has it
	default:
		return fmt.Sprintf("credentials of type %q are only known to pgBackRest (s3-key-type)", keyType)
	}
	ep, port := r("s3-endpoint"), r("storage-port", "s3-port")
	if ep == "" {
		return "s3-endpoint is not set"
	}
	u, ok := endpoint(ep)
	if _, err := strconv.ParseUint(port, 10, 16); !ok || port != "" && err != nil {
		return "its endpoint or port is not understood"
	}
	s3.Endpoint = u
	host := r("storage-host", "s3-host")
	switch {
	case host != "":
		s3.Connect = joinHostPort(host, or(port, portOf(u)))
	case port != "":
		s3.Endpoint = withPort(u, port)
	}
	if isIP(s3.Endpoint) {
		s3.PathStyle = true
	}
	return ""
}
