package pgbin

import "strings"

// shellWord quotes a word for a shell as stock does (appendShellString, src/fe_utils/string_utils.c). Nothing here is
// given to a shell; the words are shown to the user, who may want to.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'"'"'`) + "'"
}

// configArgs are the arguments that name a configuration file outside the data directory, if there is one.
func configArgs(configFile string) []string {
	if configFile == "" {
		return nil
	}
	return []string{"-c", "config_file=" + configFile}
}

// configWords are configArgs as stock writes them in a command: only the file's name is quoted.
func configWords(configFile string) string {
	if configFile == "" {
		return ""
	}
	return " -c config_file=" + shellWord(configFile)
}
