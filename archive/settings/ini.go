package settings

import (
	"errors"
	"strings"

	"github.com/fastrewind/fastrewind/archive/location"
)

// setting is one value in a configuration file.
type setting struct {
	value location.Secret // any of them may be one
	file  string
}

// ini is the settings of pgBackRest's configuration files, by section and name.
type ini map[string]map[string]setting

var errINI = errors.New("neither a section, nor a setting, nor a comment")

// parse adds the content of a file: sections in brackets, NAME=VALUE lines, comments after #. Values are raw text: neither
// quotes nor backslashes mean anything. A later value replaces an earlier one. line is where an error is.
func (i ini) parse(data []byte, file string) (line int, err error) {
	section := ""
	for text := range strings.Lines(string(data)) {
		line++
		text = strings.TrimSpace(text)
		switch {
		case text == "" || text[0] == '#' || text[0] == ';':
			continue
		case text[0] == '[' && text[len(text)-1] == ']':
			section = strings.TrimSpace(text[1 : len(text)-1])
			if i[section] == nil {
				i[section] = map[string]setting{}
			}
			continue
		}
		name, value, ok := strings.Cut(text, "=")
		name = strings.TrimSpace(name)
		if !ok || name == "" || section == "" {
			return line, errINI
		}
		i[section][name] = setting{location.Secret(strings.TrimSpace(value)), file}
	}
	return line, nil
}
