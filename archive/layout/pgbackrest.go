package layout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/fastrewind/fastrewind/archive/codec"
	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/internal/fault"
)

// maxInfo is the most that is read of an archive.info: a history of a thousand upgrades is smaller.
const maxInfo = 1 << 20

// infoKeys are the keys of a stanza's archive.info and of its copy, which pgBackRest writes first.
func infoKeys(dir string) []string { return []string{dir + "archive.info", dir + "archive.info.copy"} }

// archiveInfo is what pgBackRest's archive.info says.
type archiveInfo struct {
	// pass is what everything else in the stanza is encrypted with; empty if nothing is.
	pass location.Secret
	dbs  []infoDB // ascending by id
}

// infoDB is one cluster that has archived into the stanza.
type infoDB struct {
	id       uint64 // pgBackRest's own count
	systemID uint64
	version  string // "15", "9.6"
}

// archiveID names the folder of the cluster's WAL.
func (d infoDB) archiveID() string { return fmt.Sprintf("%s-%d", d.version, d.id) }

// readInfo reads archive.info, or its copy if that cannot be read, and finds the folders of the cluster and the key.
func (r *Repository) readInfo(ctx context.Context) error {
	var first error
	for _, key := range infoKeys(r.dir) {
		info, err := r.readInfoObject(ctx, key)
		if err == nil {
			return r.choose(key, info)
		}
		if ctx.Err() != nil {
			return err
		}
		// A file that is there and bad says more than a copy that is missing.
		if first == nil || errors.Is(first, fs.ErrNotExist) {
			first = err
		}
	}
	switch {
	case errors.Is(first, fs.ErrNotExist):
		// Not ErrNotExist: that would say of each segment that it is missing.
		return fault.New("\"%s\" is not a pgBackRest stanza: it has no archive.info", r.bucket.Path(r.dir)).
			Advise("Check the stanza's name and the repository's path.")
	default:
		return first
	}
}

func (r *Repository) readInfoObject(ctx context.Context, key string) (archiveInfo, error) {
	body, _, err := r.bucket.Open(ctx, key)
	if err != nil {
		return archiveInfo{}, err
	}
	defer body.Close()
	where := r.bucket.Path(key)
	data, err := codec.ReadInfo(body, r.key)
	if errors.Is(err, codec.ErrDamaged) || errors.Is(err, codec.ErrKey) || errors.Is(err, codec.ErrTooLarge) {
		return archiveInfo{}, fault.Because(err, "could not read \"%s\": %s", where, err).Advise("%s", advice(err))
	}
	if err != nil {
		return archiveInfo{}, err
	}
	info, err := parseInfo(data)
	if err != nil {
		return archiveInfo{}, fault.Because(err, "could not understand \"%s\": %s", where, err)
	}
	return info, nil
}

// parseInfo reads an archive.info, decrypted. Its values are JSON.
func parseInfo(data []byte) (archiveInfo, error) {
	var info archiveInfo
	if len(data) > maxInfo {
		return info, errors.New("too large")
	}
	section := ""
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if line[0] == '[' && line[len(line)-1] == ']' {
			section = line[1 : len(line)-1]
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			// The line itself may be a secret decrypted wrongly, or the binary that a wrong passphrase makes.
			return info, errors.New("it is not what pgBackRest writes; encrypted with another passphrase?")
		}
		switch {
		case section == "backrest" && name == "backrest-format" && value != "5":
			return info, fmt.Errorf("its format is %.20q, only 5 is known", value)
		case section == "cipher" && name == "cipher-pass":
			var pass string
			if json.Unmarshal([]byte(value), &pass) != nil || pass == "" {
				return info, errors.New("its cipher-pass is not a text")
			}
			info.pass = location.Secret(pass)
		case section == "db:history":
			db, err := parseInfoDB(name, value)
			if err != nil {
				return info, err
			}
			info.dbs = append(info.dbs, db)
		}
	}
	if len(info.dbs) == 0 {
		return info, errors.New("it names no cluster in [db:history]")
	}
	slices.SortFunc(info.dbs, func(a, b infoDB) int {
		switch {
		case a.id < b.id:
			return -1
		case a.id > b.id:
			return 1
		}
		return 0
	})
	return info, nil
}

// parseInfoDB reads one line of [db:history]. What is called db-id there is the system identifier.
func parseInfoDB(name, value string) (infoDB, error) {
	var fields struct {
		SystemID uint64 `json:"db-id"`
		Version  string `json:"db-version"`
	}
	id, err := strconv.ParseUint(name, 10, 32)
	if err == nil {
		err = json.Unmarshal([]byte(value), &fields)
	}
	// The version becomes part of a path.
	if err != nil || !only(fields.Version, "0123456789.") || strings.HasPrefix(fields.Version, ".") {
		return infoDB{}, fmt.Errorf("[db:history] has an entry %.20q that makes no sense", name)
	}
	return infoDB{id: id, systemID: fields.SystemID, version: fields.Version}, nil
}

// choose takes the folders of the cluster that is wanted, and the key of the stanza.
func (r *Repository) choose(key string, info archiveInfo) error {
	r.ids = nil
	var has []string
	for _, db := range slices.Backward(info.dbs) {
		has = append(has, fmt.Sprintf("%s of system %d", db.archiveID(), db.systemID))
		if (r.cluster.SystemID == 0 || r.cluster.SystemID == db.systemID) &&
			(r.cluster.Major == 0 || strconv.Itoa(r.cluster.Major) == db.version) {
			r.ids = append(r.ids, db.archiveID())
		}
	}
	if len(r.ids) == 0 {
		wanted := ""
		if r.cluster.Major != 0 {
			wanted = fmt.Sprintf(", version %d", r.cluster.Major)
		}
		return fault.New("pgBackRest stanza \"%s\" has no WAL of the cluster with system identifier %d%s",
			r.archive.Stanza, r.cluster.SystemID, wanted).
			Advise("\"%s\" lists: %s. Is it another cluster's stanza?", r.bucket.Path(key), strings.Join(has, "; "))
	}
	if info.pass == "" {
		r.key = nil
		return nil
	}
	var err error
	r.key, err = codec.PgBackRestKey(info.pass)
	return err
}

// duplicates is an error if the objects found of one WAL file do not all hold the same.
func (r *Repository) duplicates(w walName, found []listed) error {
	for _, o := range found {
		if o.sha1 != found[0].sha1 {
			var keys []string
			for _, o := range found {
				keys = append(keys, r.bucket.Path(o.key))
			}
			advice := "Do several primaries archive into this stanza? Only one of them can be the right one."
			if r.cluster.SystemID == 0 {
				advice = "They may be of different clusters: the system identifier would tell."
			}
			return fault.New("WAL file \"%s\" is in pgBackRest stanza \"%s\" with different contents", w.name, r.archive.Stanza).
				Advise("%s Found: %s.", advice, strings.Join(keys, ", "))
		}
	}
	return nil
}
