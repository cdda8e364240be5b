package config

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func prefixes(list []netip.Prefix) string {
	var words []string
	for _, p := range list {
		words = append(words, p.String())
	}
	return strings.Join(words, " ")
}

func TestParseIgnore(t *testing.T) {
	for _, tt := range []struct{ text, entries, mistakes string }{
		// addresses and networks
		{"10.0.0.2\n10.0.0.2/32\n10.0.0.0/24\n", "10.0.0.2/32 10.0.0.2/32 10.0.0.0/24", ""},
		{"10.0.0.99/24", "10.0.0.0/24", ""},
		{"0.0.0.0/0\n::/0", "0.0.0.0/0 ::/0", ""},
		{"10.9.8.7/0", "0.0.0.0/0", ""},
		{"127.0.0.1/32\n0.0.0.0", "127.0.0.1/32 0.0.0.0/32", ""},
		{"10.0.0.9/255.255.255.0\n10.0.0.9/255.255.255.255\n10.0.0.9/0.0.0.0", "10.0.0.0/24 10.0.0.9/32 0.0.0.0/0", ""},
		{"::1\n2001:DB8::ABCD\n2001:db8::1/32\nfe80::1/10", "::1/128 2001:db8::abcd/128 2001:db8::/32 fe80::/10", ""},
		{"::ffff:10.1.2.3\n::ffff:10.1.2.3/120\n::FFFF:a01:203/104\n::ffff:1.2.3.4/96", "10.1.2.3/32 10.1.2.0/24 10.0.0.0/8 0.0.0.0/0", ""},

		// lines
		{"10.0.0.2 # text\n10.0.0.3# text\n# 10.0.0.4\n  # x\n#", "10.0.0.2/32 10.0.0.3/32", ""},
		{"  10.0.0.2\n\t10.0.0.3\t \n", "10.0.0.2/32 10.0.0.3/32", ""},
		{"10.77.0.22", "10.77.0.22/32", ""},
		{"10.0.0.2\r\n\r\n   \r\n\t\n10.0.0.3\r", "10.0.0.2/32 10.0.0.3/32", ""},
		{"\xef\xbb\xbf10.0.0.2", "10.0.0.2/32", ""},
		{"", "", ""},

		// slips: the good lines stay
		{"10.0.0.1\n10.0.0.0/33\n10.0.0.2", "10.0.0.1/32 10.0.0.2/32", `f:2: "10.0.0.0/33": the prefix length must be from 0 to 32`},
		{"::/129\n10.0.0.0/99999999999999999999", "", "f:1: \"::/129\": the prefix length must be from 0 to 128\nf:2: \"10.0.0.0/99999999999999999999\": the prefix length must be from 0 to 32"},
		{"10.0.0.0/", "", `f:1: "10.0.0.0/": "" is no prefix length (0 to 32)`},
		{"10.0.0.0/-1", "", `f:1: "10.0.0.0/-1": -1 is no prefix length (0 to 32)`},
		{"::1/255.255.255.0", "", `f:1: "::1/255.255.255.0": 255.255.255.0 is no prefix length (0 to 128)`},
		{"10.0.0.0/255.0.255.0", "", `f:1: "10.0.0.0/255.0.255.0": 255.0.255.0 has a gap; a mask is ones and then zeros`},
		{"10.0.0.0/0.0.0.255", "", `f:1: "10.0.0.0/0.0.0.255": 0.0.0.255 is the mask upside down; did you mean 10.0.0.0/24?`},
		{"::ffff:10.0.0.0/24", "", `f:1: "::ffff:10.0.0.0/24": an IPv4 address in IPv6 form has a prefix length from 96 to 128; did you mean 10.0.0.0/24?`},
		{"fe80::1%eth0/64", "", `f:1: "fe80::1%eth0/64": interfaces cannot be named here; did you mean fe80::1?`},
		{"10.0.0.1 the printer\n10.0.0.2 10.0.0.3", "10.0.0.1/32 10.0.0.2/32", "f:1: \"the printer\" after 10.0.0.1 was not read; one address a line, put # before a comment\n" +
			"f:2: \"10.0.0.3\" after 10.0.0.2 was not read; one address a line, put # before a comment"},
		{"router.lan\nlocalhost\n10.0.0.2", "10.0.0.2/32", "f:1: \"router.lan\": host names are not read here; write the address\nf:2: \"localhost\": host names are not read here; write the address"},
		{"10.77.2", "", `f:1: "10.77.2": an IPv4 address has four numbers; did you mean 10.77.2.0/24? (PortSentry 1.x and 2.x read 10.77.0.2)`},
		{"10.", "", `f:1: "10.": no address; an IPv4 address is four numbers from 0 to 255`},
		{"10.0/16", "", `f:1: "10.0/16": an IPv4 address has four numbers; did you mean 10.0.0.0/16?`},
		{"010.0.0.07", "", `f:1: "010.0.0.07": leading zeros make a number octal for some programs; did you mean 10.0.0.7?`},
		{"010.0.0.0/8", "", `f:1: "010.0.0.0/8": leading zeros make a number octal for some programs; did you mean 10.0.0.0/8?`},
		{"10.0.*\n10.0.*.*", "", "f:1: \"10.0.*\": stars are not read; did you mean 10.0.0.0/16?\nf:2: \"10.0.*.*\": stars are not read; did you mean 10.0.0.0/16?"},
		{"*.1\n1.2.3.4.5\n300.1.1.1\n1..2\n7\n10.0.0.1.", "", `f:1: "*.1": no address; an IPv4 address is four numbers from 0 to 255
f:2: "1.2.3.4.5": no address; an IPv4 address is four numbers from 0 to 255
f:3: "300.1.1.1": no address; an IPv4 address is four numbers from 0 to 255
f:4: "1..2": no address; an IPv4 address is four numbers from 0 to 255
f:5: "7": no address; an IPv4 address is four numbers from 0 to 255
f:6: "10.0.0.1.": no address; did you mean 10.0.0.1?`},
		{"[::1]\n10.0.0.1:22\n[::1]:22\n10.0.0.1-10.0.0.9\n10.0.0.1-9\n1:2\n/24\n10.0.0.1,10.0.0.2", "", `f:1: "[::1]": no brackets here; did you mean ::1?
f:2: "10.0.0.1:22": ports cannot be ignored; did you mean 10.0.0.1?
f:3: "[::1]:22": no brackets here; did you mean ::1?
f:4: "10.0.0.1-10.0.0.9": ranges are not read; write networks, such as 10.0.0.0/24
f:5: "10.0.0.1-9": ranges are not read; write networks, such as 10.0.0.0/24
f:6: "1:2": no IPv6 address
f:7: "/24": no address; an IPv4 address is four numbers from 0 to 255
f:8: "10.0.0.1,10.0.0.2": no address; write one like 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32`},
		{"10.0.0.1\n10.0.0.2\x00\n" + strings.Repeat("1", maxLine+1) + "\n10.0.0.3", "10.0.0.1/32 10.0.0.3/32",
			"f:2: a NUL byte; is this a text file, and not saved as UTF-16?\nf:3: 65537 bytes are too long for a line (65536 at most)"},
	} {
		list, err := ParseIgnore("f", []byte(tt.text))
		if got := prefixes(list); got != tt.entries {
			t.Errorf("%.60q: got %s, want %s", tt.text, got, tt.entries)
		}
		if got := strings.Join(mistakes(t, err), "\n"); got != tt.mistakes {
			t.Errorf("%.60q\n got %s\nwant %s", tt.text, got, tt.mistakes)
		}
	}
}

func TestIgnoreBounds(t *testing.T) {
	list, err := ParseIgnore("f", []byte(strings.Repeat("10.0.0.1\n", maxIgnored+5)))
	if len(list) != maxIgnored {
		t.Errorf("%d entries", len(list))
	}
	if got := strings.Join(mistakes(t, err), "\n"); got != "f:65537: more than 65536 entries; this one and what comes after it is left out" {
		t.Errorf("got %s", got)
	}
	// Cut inside a line: the part before it must not be read as an address.
	text := "10.0.0.1\n" + strings.Repeat(strings.Repeat("#", 1023)+"\n", 1024)
	text = text[:maxFile-5] + "\n10.77.0.22\n10.0.0.9\n"
	list, err = ParseIgnore("f", []byte(text))
	if got := prefixes(list); got != "10.0.0.1/32" {
		t.Errorf("got %s", got)
	}
	if got := strings.Join(mistakes(t, err), "\n"); got != fmt.Sprintf("f: more than %d bytes; what is above was not read", maxFile) {
		t.Errorf("got %s", got)
	}
	list, err = ParseIgnore("f", []byte(strings.Repeat("1", maxFile+1)))
	if list != nil || err == nil {
		t.Errorf("got %v, %v", list, err)
	}
}
