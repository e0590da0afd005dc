package main

import (
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/fastrewind/fastrewind/internal/fault"
)

// A variable that nobody reads is refused, as a name that nobody knows is in the configuration file: a mistyped
// FASTREWIND_DRY_RUN would otherwise be a rewind for real.

// variablePrefix is what the variables of options begin with.
const variablePrefix = "FASTREWIND_"

// foreignVariables begin with our prefix and are not for us: those of our own tests, and what Kubernetes puts into every
// container beside a service that is called fastrewind, or fastrewind-something.
var foreignVariables = regexp.MustCompile(`^FASTREWIND_(TEST_.*|SURVIVAL_ROUNDS|` +
	`([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?))$`)

// variableNames are the names of all variables of the environment.
func variableNames() []string {
	environ := os.Environ()
	names := make([]string, len(environ))
	for i, v := range environ {
		names[i], _, _ = strings.Cut(v, "=")
	}
	return names
}

// refuseUnknown refuses variables with our prefix that are no option's. As always, an empty one counts as not set.
func (p *process) refuseUnknown(self program) error {
	all := &options{flags: pflag.NewFlagSet("", pflag.ContinueOnError)}
	all.define(self)
	known := []string{confVariable}
	all.flags.VisitAll(func(f *pflag.Flag) { known = append(known, variable(f.Name)) })
	names := p.names()
	slices.Sort(names)
	var refused []error
	for _, name := range names {
		if !strings.HasPrefix(name, variablePrefix) || slices.Contains(known, name) || foreignVariables.MatchString(name) {
			continue
		}
		if value, _ := p.env(name); value == "" {
			continue
		}
		// The value is not shown: it may be a password.
		f := fault.New("unrecognized environment variable \"%s\"", name).
			Advise("Variables are named by long options in capitals, with _ for -; see fastrewind --help. " +
				"Unset what is not one of them.").Ours()
		if meant := closest(name, known); meant != "" {
			f = f.WithHint("Perhaps you meant \"%s\".", meant)
		}
		refused = append(refused, f)
	}
	return errors.Join(refused...)
}

// closest is the known variable that name was meant to be, or empty: the one that the fewest changes lead to, by the rule that
// PostgreSQL has for names of options, at most 4 changes and at most half of the name (getClosestMatch, varlena.c).
func closest(name string, known []string) string {
	name = strings.TrimPrefix(name, variablePrefix)
	meant, least := "", min(4, len(name)/2)+1
	for _, k := range known {
		if n := changes(name, strings.TrimPrefix(k, variablePrefix)); n < least {
			meant, least = k, n
		}
	}
	return meant
}

// changes is how many characters must be put in, taken out or replaced to get from a to b (Levenshtein distance), in capitals.
func changes(a, b string) int {
	a, b = strings.ToUpper(a), strings.ToUpper(b)
	row := make([]int, len(b)+1) // from the beginning of a that was looked at, to each beginning of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0] // a[:i] to b[:j]
		row[0] = i + 1
		for j := range len(b) {
			replace := before
			if a[i] != b[j] {
				replace++
			}
			before = row[j+1]
			row[j+1] = min(replace, before+1, row[j]+1)
		}
	}
	return row[len(b)]
}
