package main

import (
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/rewind"
)

// The kinds of values that options take. Each is a pflag.Value whose errors are *fault.Error in PostgreSQL's words.

// numberValue is a number of things done at the same time, with the texts of PostgreSQL's other programs that take -j
// (option_utils.c).
type numberValue struct {
	n    *int
	name string // as complaints call it
}

func (v *numberValue) String() string { return strconv.Itoa(*v.n) }
func (v *numberValue) Type() string   { return "NUM" }
func (v *numberValue) Set(s string) error {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return fault.Because(err, "invalid value \"%s\" for option %s", s, v.name)
	}
	if err != nil || n < 1 || n > maxJobs {
		return fault.New("%s must be in range %d..%d", v.name, 1, maxJobs)
	}
	*v.n = int(n)
	return nil
}

// durationValue is a length of time with a unit as in postgresql.conf (ms, s, min, h, d), or in seconds without one.
type durationValue time.Duration

func (d *durationValue) String() string { return time.Duration(*d).String() }
func (d *durationValue) Type() string   { return "TIME" }
func (d *durationValue) Set(s string) error {
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyz ")
	units := map[string]time.Duration{
		"ms": time.Millisecond, "s": time.Second, "": time.Second, "min": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
	}
	unit, known := units[strings.TrimSpace(s[len(digits):])]
	n, err := strconv.ParseInt(digits, 10, 64)
	if !known || err != nil || n < 0 || n > math.MaxInt64/int64(unit) {
		return fault.New("invalid length of time \"%s\"", s).
			WithHint("Give a whole number, and ms, s, min, h or d after it; without a unit it is seconds.")
	}
	*d = durationValue(time.Duration(n) * unit)
	return nil
}

// rateValue is a number of bytes per second, written as pg_basebackup's --max-rate: kB/s, or with a suffix, of 1024 bytes
// the kB. It has that option's texts, too (parse_max_rate, pg_basebackup.c), and its least value, but not its greatest,
// 1 GB/s, and a fraction of a kB counts.
type rateValue int64

const (
	leastRate = 32      // kB/s, as pg_basebackup's
	mostRate  = 1 << 50 // kB/s: nothing is as fast, and as bytes it is a number still
)

// ratePattern is the number and what follows it, without the blanks around. C's strtod takes more, but hexadecimal,
// infinite and undefined rates are nobody's wish.
var ratePattern = regexp.MustCompile(`(?s)^\s*([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)\s*(.*?)\s*$`)

func (r *rateValue) String() string { return strconv.FormatFloat(float64(*r)/1024, 'f', -1, 64) }
func (r *rateValue) Type() string   { return "RATE" }
func (r *rateValue) Set(s string) error {
	m := ratePattern.FindStringSubmatch(s)
	if m == nil {
		return fault.New("transfer rate \"%s\" is not a valid value", s).WithHint(rateHint)
	}
	rate, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return fault.Because(err, "invalid transfer rate \"%s\": %s", s, fault.M(syscall.ERANGE))
	}
	if rate <= 0 {
		return fault.New("transfer rate must be greater than zero")
	}
	switch m[2] {
	case "", "k":
	case "M":
		rate *= 1024
	default:
		return fault.New("invalid --max-rate unit: \"%s\"", m[2]).WithHint(rateHint)
	}
	if rate < leastRate || rate > mostRate {
		return fault.New("transfer rate \"%s\" is out of range", s).WithHint("The least is %d kB per second.", leastRate)
	}
	*r = rateValue(rate * 1024)
	return nil
}

const rateHint = "Give a number of kilobytes per second, or a number with k or M after it."

// choiceValue is on, off or auto.
type choiceValue rewind.Choice

func (c *choiceValue) String() string { return string(*c) }
func (c *choiceValue) Type() string   { return "auto|on|off" }
func (c *choiceValue) Set(s string) error {
	if s == string(rewind.ChoiceAuto) {
		*c = choiceValue(rewind.ChoiceAuto)
		return nil
	}
	on, err := parseSwitch(s)
	if err != nil {
		return fault.New("invalid value \"%s\": it must be auto, on or off", s)
	}
	*c = choiceValue(rewind.ChoiceOff)
	if on {
		*c = choiceValue(rewind.ChoiceOn)
	}
	return nil
}

// listValue collects the values of an option that may be given several times; in the environment they are separated by
// blanks.
type listValue []string

func (l *listValue) String() string { return strings.Join(*l, " ") }
func (l *listValue) Type() string   { return "LIST" }
func (l *listValue) Set(s string) error {
	if s != "" {
		*l = append(*l, s)
	}
	return nil
}
