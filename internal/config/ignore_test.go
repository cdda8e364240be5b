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
		{"10.0.0.1 the printer\n10.0.0.2 10.0.0.3", "10.0.0.1/32 10.0.0.2/32", "f:1: \"the printer\" after 10.0.0.1 was not read; one entry a line, put # before a comment\n" +
			"f:2: \"10.0.0.3\" after 10.0.0.2 was not read; one entry a line, put # before a comment"},
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
		if got := prefixes(list.Prefixes); got != tt.entries {
			t.Errorf("%.60q: got %s, want %s", tt.text, got, tt.entries)
		}
		if got := strings.Join(mistakes(t, err), "\n"); got != tt.mistakes {
			t.Errorf("%.60q\n got %s\nwant %s", tt.text, got, tt.mistakes)
		}
	}
}

// others is what an ignore file names beside addresses, with the lines.
func others(i Ignore) string {
	var words []string
	for _, e := range i.Names {
		words = append(words, fmt.Sprintf("%d:%s", e.Line, e.Value))
	}
	for _, e := range i.Countries {
		words = append(words, fmt.Sprintf("%d:country:%s", e.Line, e.Value))
	}
	for _, e := range i.Systems {
		words = append(words, fmt.Sprintf("%d:AS%d", e.Line, e.Value))
	}
	return strings.Join(words, " ")
}

func TestParseIgnoreNames(t *testing.T) {
	for _, tt := range []struct{ text, entries, mistake string }{
		{"uptime.example.net\nUptime.Example.NET. # the same\n10.0.0.1", "1:uptime.example.net 2:uptime.example.net", ""},
		{"router.lan\n163.com\na_b.example.net\nxn--bcher-kva.example\n1.2.example.net\nas64496.example.net\ncountry.example.net", "1:router.lan 2:163.com 3:a_b.example.net 4:xn--bcher-kva.example 5:1.2.example.net 6:as64496.example.net 7:country.example.net", ""},
		{"country:IS\ncountry:no\nCOUNTRY:Gb", "1:country:IS 2:country:NO 3:country:GB", ""},
		{"AS64496\nas1\nAS4294967295", "1:AS64496 2:AS1 3:AS4294967295", ""},

		{"localhost", "", "a name is written in full, with a dot, such as localhost.example.net"},
		{"uptime_example", "", "a name needs a dot; did you mean uptime.example?"},
		{"*.example.net", "", "stars are not read: a name is asked for its addresses; did you mean example.net?"},
		{"uptime.example.net/24", "", "a name has no prefix length; did you mean uptime.example.net?"},
		{"uptime.example.net:443", "", "ports cannot be ignored; did you mean uptime.example.net?"},
		{"a.example.net,b.example.net", "", "one entry a line; did you mean a.example.net?"},
		{"https://uptime.example.net/x", "", "addresses of pages are not read; did you mean uptime.example.net?"},
		{"b\u00fccher.example", "", "a name is written in the form xn--, as the DNS has it"},
		{"a..example.net", "", "no name: up to 63 letters, digits and - between dots, 253 in all"},
		{"-a.example.net", "", "no name: up to 63 letters, digits and - between dots, 253 in all"},
		{strings.Repeat("a", 64) + ".example", "", "no name: up to 63 letters, digits and - between dots, 253 in all"},
		{strings.Repeat("a.", 126) + "aa", "", "no name: up to 63 letters, digits and - between dots, 253 in all"},

		// a slip in an address makes no name of it
		{"203.0.113.999", "", "no address; an IPv4 address is four numbers from 0 to 255"},
		{"203.0.113.l0", "", "no address; write one like 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32"},
		{"10.0.0.x", "", "no address; write one like 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32"},
		{"10.0.0.1x", "", "no address; write one like 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32"},
		{"2001:db8::g", "", "no IPv6 address"},
		{"fe80:1", "", "no IPv6 address"},

		{"country:Iceland", "", "a country is two letters of ISO 3166-1, one country a line, such as country:IS"},
		{"country:IS,NO", "", "a country is two letters of ISO 3166-1, one country a line, such as country:IS"},
		{"country:", "", "a country is two letters of ISO 3166-1, one country a line, such as country:IS"},
		{"IS", "", "a country is written country:IS"},
		{"county:is", "", "did you mean country:IS?"},
		{"country=IS", "", "did you mean country:IS?"},
		{"geoip:IS", "", "did you mean country:IS?"},
		{"country:UK", "", "did you mean country:GB?"},
		{"AS-64496", "", "did you mean AS64496?"},
		{"ASN64496", "", "did you mean AS64496?"},
		{"as:064496", "", "did you mean AS64496?"},
		{"AS1.10", "", "a system is one number; did you mean AS65546?"},
		{"AS0", "", noSystem},
		{"AS4294967296", "", noSystem},
		{"AS64496x", "", noSystem},
		{"AS", "", noSystem},
	} {
		list, err := ParseIgnore("f", []byte(tt.text))
		if got := others(list); got != tt.entries {
			t.Errorf("%.60q: got %s, want %s", tt.text, got, tt.entries)
		}
		got := strings.Join(mistakes(t, err), "\n")
		if tt.mistake == "" && got != "" || tt.mistake != "" && got != fmt.Sprintf("f:1: %s: %s", quoted(tt.text), tt.mistake) {
			t.Errorf("%.60q\n got %s\nwant %s", tt.text, got, tt.mistake)
		}
	}
}

func TestIgnoreBounds(t *testing.T) {
	list, err := ParseIgnore("f", []byte(strings.Repeat("10.0.0.1\n", maxIgnored+5)))
	if len(list.Prefixes) != maxIgnored {
		t.Errorf("%d entries", len(list.Prefixes))
	}
	if got := strings.Join(mistakes(t, err), "\n"); got != "f:65537: more than 65536 entries; this one and what comes after it is left out" {
		t.Errorf("got %s", got)
	}
	// Cut inside a line: the part before it must not be read as an address.
	text := "10.0.0.1\n" + strings.Repeat(strings.Repeat("#", 1023)+"\n", 1024)
	text = text[:maxFile-5] + "\n10.77.0.22\n10.0.0.9\n"
	list, err = ParseIgnore("f", []byte(text))
	if got := prefixes(list.Prefixes); got != "10.0.0.1/32" {
		t.Errorf("got %s", got)
	}
	if got := strings.Join(mistakes(t, err), "\n"); got != fmt.Sprintf("f: more than %d bytes; what is above was not read", maxFile) {
		t.Errorf("got %s", got)
	}
	list, err = ParseIgnore("f", []byte(strings.Repeat("1", maxFile+1)))
	if list.Count() != 0 || err == nil {
		t.Errorf("got %v, %v", list, err)
	}
	list, err = ParseIgnore("f", []byte(strings.Repeat("a.example.net\n", maxIgnoredNames+5)+"10.0.0.1\n"))
	if len(list.Names) != maxIgnoredNames || len(list.Prefixes) != 1 {
		t.Errorf("%d names, %d networks", len(list.Names), len(list.Prefixes))
	}
	if got := strings.Join(mistakes(t, err), "\n"); got != "f:257: more than 256 DNS names; this one and those after it are left out" {
		t.Errorf("got %s", got)
	}
}
