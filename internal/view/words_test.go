package view

import (
	"testing"
	"time"
)

func TestSpan(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0 s": -time.Second, "59 s": 59*time.Second + 999*time.Millisecond, "1 min": time.Minute, "59 min": time.Hour - 1,
		"1 h": time.Hour, "3 h 12 min": 3*time.Hour + 12*time.Minute, "1 day": 24 * time.Hour, "1 day, 1 h": 25 * time.Hour, "12 days, 3 h": 291 * time.Hour,
	} {
		if got := Span(d); got != want {
			t.Errorf("Span(%v) = %q, want %q", d, got, want)
		}
	}
}

// What anybody may have sent does nothing on a terminal.
func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"a\x1b[2Jb\x07\u009b": "a?[2Jb??", "two\nlines\tand": "two lines and", "\u202eright to left": "?right to left", "Köln": "Köln",
	} {
		if got := Printable(in); got != want {
			t.Errorf("Printable(%q) = %q, want %q", in, got, want)
		}
	}
}
