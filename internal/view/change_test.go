package view_test

import (
	"strings"
	"testing"
	"time"

	"portsentry/internal/view"
)

func TestParseTarget(t *testing.T) {
	for in, want := range map[string]string{
		"203.0.113.9": "203.0.113.9/32", "203.0.113.9/32": "203.0.113.9/32", "::ffff:203.0.113.9": "203.0.113.9/32",
		"203.0.113.0/24": "203.0.113.0/24", "::ffff:203.0.113.0/120": "203.0.113.0/24", "0.0.0.0/0": "0.0.0.0/0",
		"2001:DB8::9": "2001:db8::9/128", "2001:db8::9/128": "2001:db8::9/128", "2001:db8:1:2::/64": "2001:db8:1:2::/64",
		"fe80::1%eth0": "fe80::1/128", "::/0": "::/0",
	} {
		if got, err := view.ParseTarget(in); err != nil || got.String() != want {
			t.Errorf("ParseTarget(%q) = %v, %v; want %s", in, got, err, want)
		}
	}
	const give = " is no address; give one like 203.0.113.9 or 2001:db8::9"
	for in, want := range map[string]string{
		"203.0.113.999":      `"203.0.113.999"` + give,
		"":                   `""` + give,
		"/24":                `"/24"` + give,
		"host.example":       `"host.example"` + give,
		"203.0.113":          `"203.0.113"` + give,
		"10.0.0.0/33":        `"10.0.0.0/33" is no range: "33" is no length from 0 to 32; give one like 203.0.113.0/24 or 2001:db8::/64`,
		"10.0.0.0/":          `"10.0.0.0/" is no range: "" is no length from 0 to 32; give one like 203.0.113.0/24 or 2001:db8::/64`,
		"10.0.0.0/08":        `"10.0.0.0/08" is no range: "08" is no length from 0 to 32; give one like 203.0.113.0/24 or 2001:db8::/64`,
		"10.0.0.0/8/8":       `"10.0.0.0/8/8" is no range: "8/8" is no length from 0 to 32; give one like 203.0.113.0/24 or 2001:db8::/64`,
		"203.0.113.9/24":     `"203.0.113.9/24" names a range by an address in it; did you mean 203.0.113.0/24 or 203.0.113.9?`,
		"2001:db8::9/64":     `"2001:db8::9/64" names a range by an address in it; did you mean 2001:db8::/64 or 2001:db8::9?`,
		"::ffff:10.1.2.3/90": `"::ffff:10.1.2.3/90" names a range by an address in it; did you mean ::ffc0:0:0/90 or ::ffff:10.1.2.3?`,
	} {
		if got, err := view.ParseTarget(in); err == nil || err.Error() != want {
			t.Errorf("ParseTarget(%q) = %v, %v; want %s", in, got, err, want)
		}
	}
}

func TestLengthsAndReasons(t *testing.T) {
	for in, want := range map[string]time.Duration{"90": 90 * time.Second, "1h30m": 90 * time.Minute, "2d": 48 * time.Hour} {
		if got, err := view.ParseLength(in); err != nil || got != want {
			t.Errorf("ParseLength(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "0", "-1h", "1y", "1.5h", "400d", "1h 2m"} {
		if got, err := view.ParseLength(in); err == nil {
			t.Errorf("ParseLength(%q) = %v", in, got)
		}
	}
	if _, err := view.ParseWithin("25h"); err == nil {
		t.Error("a change may wait for more than a day")
	}
	for in, ok := range map[string]bool{
		"": true, "ticket 4711": true, "Zürich": true,
		"two\nlines": false, "\x1b[2J": false, "\xff": false, strings.Repeat("x", 201): false,
	} {
		if _, err := view.CheckReason(in); (err == nil) != ok {
			t.Errorf("CheckReason(%q): %v", in, err)
		}
	}
}
