package main

import (
	"testing"
	"time"
)

func TestDurationValue(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "1": time.Second, "90s": 90 * time.Second, "250ms": 250 * time.Millisecond, "30 min": 30 * time.Minute,
		"2h": 2 * time.Hour, "7d": 7 * 24 * time.Hour,
	} {
		var d durationValue
		if err := d.Set(text); err != nil || time.Duration(d) != want {
			t.Errorf("%q: %v, %v; want %v", text, time.Duration(d), err, want)
		}
	}
	for _, text := range []string{"", "s", "-1", "1.5h", "1m", "1 year", "99999999999999d", "1h30min"} {
		var d durationValue
		if err := d.Set(text); err == nil {
			t.Errorf("%q was taken for %v", text, time.Duration(d))
		}
	}
}

func TestRateValue(t *testing.T) {
	for text, want := range map[string]int64{
		"32": 32 << 10, "32.0": 32 << 10, "100k": 100 << 10, "100 k": 100 << 10, "  100\tk  ": 100 << 10, "+100": 100 << 10,
		"1M": 1 << 20, "2.5M": 5 << 19, ".5M": 1 << 19, "1.M": 1 << 20, "1e3": 1000 << 10, "1e-1M": 107374182400 / 1024 / 1000,
		"100.7": 103116, "1048577": 1048577 << 10, "100000M": 100000 << 20, "1e15": 1e15 * 1024,
	} {
		var r rateValue
		if err := r.Set(text); err != nil || int64(r) != want {
			t.Errorf("%q: %d, %v; want %d", text, r, err, want)
		}
		var again rateValue
		if err := again.Set(r.String()); err != nil || again != r {
			t.Errorf("%q: written %q, read %d, %v", text, &r, again, err)
		}
	}
	for text, want := range map[string]string{
		"":          `transfer rate "" is not a valid value`,
		"fast":      `transfer rate "fast" is not a valid value`,
		".":         `transfer rate "." is not a valid value`,
		"k":         `transfer rate "k" is not a valid value`,
		"inf":       `transfer rate "inf" is not a valid value`,
		"1e999":     `invalid transfer rate "1e999": Numerical result out of range`,
		"0":         "transfer rate must be greater than zero",
		"-5M":       "transfer rate must be greater than zero",
		"0x40":      "transfer rate must be greater than zero",
		"100K":      `invalid --max-rate unit: "K"`,
		"100 kB":    `invalid --max-rate unit: "kB"`,
		"1 M B":     `invalid --max-rate unit: "M B"`,
		"1G":        `invalid --max-rate unit: "G"`,
		"1,5M":      `invalid --max-rate unit: ",5M"`,
		"100e":      `invalid --max-rate unit: "e"`,
		"31.9":      `transfer rate "31.9" is out of range`,
		"0.01M":     `transfer rate "0.01M" is out of range`,
		"1e300":     `transfer rate "1e300" is out of range`,
		"1e300M":    `transfer rate "1e300M" is out of range`,
		"1e308M":    `transfer rate "1e308M" is out of range`,
		"100\nM\n.": "invalid --max-rate unit: \"M\n.\"",
	} {
		r := rateValue(1)
		if err := r.Set(text); err == nil || err.Error() != want || r != 1 {
			t.Errorf("%q was taken for %d, or refused with %v; want %s", text, r, err, want)
		}
	}
}
