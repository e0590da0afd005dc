package pg

import (
	"fmt"
	"strings"
	"time"
)

// BackupLabelName is the file that makes a starting server begin replay where it says.
const BackupLabelName = "backup_label"

// BackupLabel tells a starting server from where to replay (read_backup_label, xlogrecovery.c; written as by
// createBackupLabel, pg_rewind.c: no LABEL line).
type BackupLabel struct {
	Redo       LSN // START WAL LOCATION: first record to replay
	SegSize    uint32
	TLI        TLI // of the segment that holds Redo
	Checkpoint LSN // CHECKPOINT LOCATION
	Method     string
	From       string
	StartTime  time.Time
	WideLSN    bool // how positions are to be written: Version.WideLSN of the cluster
}

// The BACKUP METHOD and BACKUP FROM that pg_rewind writes. "standby" makes the server believe pg_control's
// minRecoveryPoint.
const (
	BackupMethodRewind = "pg_rewind"
	BackupFromStandby  = "standby"
)

// labelTime is C's "%Y-%m-%d %H:%M:%S %Z". Of zones that have no name but their offset, Go's MST reads those of whole
// hours only.
const (
	labelTime       = "2006-01-02 15:04:05 MST"
	labelTimeOffset = "2006-01-02 15:04:05 -0700"
)

// Encode gives the file's content.
func (l BackupLabel) Encode() []byte {
	text := LSN.String
	if l.WideLSN {
		text = LSN.Wide
	}
	return fmt.Appendf(nil,
		"START WAL LOCATION: %s (file %s)\nCHECKPOINT LOCATION: %s\nBACKUP METHOD: %s\nBACKUP FROM: %s\nSTART TIME: %s\n",
		text(l.Redo), SegmentName(l.TLI, l.Redo.Seg(l.SegSize), l.SegSize), text(l.Checkpoint), l.Method, l.From,
		l.StartTime.Format(labelTime))
}

// ParseBackupLabel reads what Encode writes and what a base backup leaves: the two locations, method and origin; all
// other lines (LABEL, START TIMELINE, …) are for people and are skipped. segSize is the cluster's, in bytes.
func ParseBackupLabel(data []byte, segSize uint32) (BackupLabel, error) {
	l := BackupLabel{SegSize: segSize}
	var seenStart, seenCheckpoint bool
	for line := range strings.Lines(string(data)) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ": ")
		if !ok {
			return BackupLabel{}, fmt.Errorf("invalid line %q in backup_label: expected \"KEY: value\"", line)
		}
		var err error
		switch key {
		case "START WAL LOCATION":
			where, file, _ := strings.Cut(value, " (file ")
			if l.Redo, err = ParseLSN(where); err != nil {
				return BackupLabel{}, fmt.Errorf("START WAL LOCATION in backup_label: %w", err)
			}
			if l.TLI, _, ok = ParseSegmentName(strings.TrimSuffix(file, ")"), segSize); !ok {
				return BackupLabel{}, fmt.Errorf("START WAL LOCATION in backup_label: invalid segment name in %q", value)
			}
			seenStart = true
		case "CHECKPOINT LOCATION":
			if l.Checkpoint, err = ParseLSN(value); err != nil {
				return BackupLabel{}, fmt.Errorf("CHECKPOINT LOCATION in backup_label: %w", err)
			}
			seenCheckpoint = true
		case "BACKUP METHOD":
			l.Method = value
		case "BACKUP FROM":
			l.From = value
		case "START TIME":
			if l.StartTime, err = time.Parse(labelTime, value); err != nil {
				l.StartTime, err = time.Parse(labelTimeOffset, value)
			}
			if err != nil {
				return BackupLabel{}, fmt.Errorf("START TIME in backup_label: %w", err)
			}
		}
	}
	if !seenStart || !seenCheckpoint {
		return BackupLabel{}, fmt.Errorf("backup_label lacks its START WAL LOCATION or CHECKPOINT LOCATION line")
	}
	return l, nil
}
