package judge

import (
	"net/netip"
	"slices"
	"testing"
)

// fakeGeo has one network.
type fakeGeo struct {
	network netip.Prefix
	entry   string
}

func (g fakeGeo) Entry(p netip.Prefix) string {
	if g.network.Overlaps(p) {
		return g.entry
	}
	return ""
}

// TestTrustLookedUp: names, countries and systems spare like addresses, and the
// reason names them.
func TestTrustLookedUp(t *testing.T) {
	few := []netip.Prefix{prefix("198.18.0.0/16")}
	tr := NewTrust(TrustFrom{
		Ignore: []netip.Prefix{prefix("192.0.2.0/24")},
		Names:  map[netip.Addr]string{addr("203.0.113.7"): "uptime.example.net", addr("2001:db8::7"): "uptime.example.net", addr("192.0.2.9"): "uptime.example.net", addr("127.0.0.1"): "evil.example.net"},
		Geo:    fakeGeo{prefix("198.18.0.0/16"), "country:IS"},
		Few:    few,
		Own:    set("192.0.2.1"), Gateways: []netip.Addr{addr("198.18.0.1")},
	})
	for _, c := range []struct {
		prefix string
		as     Spared
		reason string
	}{
		{"203.0.113.7/32", Ignored, "in the ignore file (uptime.example.net)"},
		{"2001:db8::7/128", Ignored, "in the ignore file (uptime.example.net)"},
		{"2001:db8::/64", Ignored, "in the ignore file (uptime.example.net)"},
		{"203.0.113.0/24", Ignored, "in the ignore file (uptime.example.net)"},
		{"203.0.113.8/32", NotSpared, ""},
		{"192.0.2.9/32", Ignored, "in the ignore file"}, // by its network already
		{"198.18.5.5/32", Ignored, "in the ignore file (country:IS)"},
		{"198.18.0.0/24", Gateway, "a gateway of this host"},
		{"198.19.0.0/16", NotSpared, ""},
		{"127.0.0.1/32", Martian, "an address no host sends from"}, // whatever a name says
	} {
		p := prefix(c.prefix)
		as := tr.Within(p)
		if as != c.as || tr.Reason(p, as) != c.reason {
			t.Errorf("%s: %v, %q; want %v, %q", p, as, tr.Reason(p, as), c.as, c.reason)
		}
	}
	list := tr.Prefixes()
	for _, want := range []string{"203.0.113.7/32", "2001:db8::7/128", "198.18.0.0/16", "192.0.2.0/24", "198.18.0.1/32"} {
		if !slices.Contains(list, prefix(want)) {
			t.Errorf("no %s among %v", want, list)
		}
	}
	for range 20 {
		if !slices.Equal(list, tr.Prefixes()) {
			t.Fatal("the same trust gives another list")
		}
	}
	if n := testing.AllocsPerRun(100, func() { tr.Spares(addr("203.0.113.8"), netip.Addr{}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
