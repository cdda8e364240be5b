package detect

import (
	"net/netip"
	"testing"
)

func TestOneHost(t *testing.T) {
	for a, want := range map[string]string{
		"203.0.113.9":              "203.0.113.9/32",
		"2001:db8:1:2:3::4":        "2001:db8:1:2::/64",
		"fe80::9%eth0":             "fe80::/64",
		"64:ff9b::203.0.113.9":     "64:ff9b::cb00:7109/128", // everybody of IPv4 is in its /64
		"64:ff9b:1::203.0.113.9":   "64:ff9b:1::cb00:7109/128",
		"2001:0:c000:201::9":       "2001:0:c000:201::9/128", // all clients of a Teredo server
		"2002:c000:201:1::9":       "2002:c000:201:1::/64",   // 6to4: a network of one address
		"64:ff9a::203.0.113.9":     "64:ff9a::/64",
		"2001:1:c000:201:ffff::77": "2001:1:c000:201::/64",
	} {
		if got := OneHost(netip.MustParseAddr(a)); got != netip.MustParsePrefix(want) {
			t.Errorf("%s: %v, want %s", a, got, want)
		}
	}
}
