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
