package judge

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

type fakePeers []netip.Addr

func (p fakePeers) Has(a netip.Addr) bool {
	for _, x := range p {
		if x == a {
			return true
		}
	}
	return false
}

func (p fakePeers) Any(net netip.Prefix) bool {
	for _, x := range p {
		if net.Contains(x) {
			return true
		}
	}
	return false
}

type fakeHistory struct {
	bans, neighbours int
	proved           map[int]int // by bits
	narrow           bool        // nothing wider than a /64 can be banned
}

func (h fakeHistory) Bans(netip.Prefix, bool) int            { return h.bans }
func (h fakeHistory) Neighbours(netip.Addr) int              { return h.neighbours }
func (h fakeHistory) Proved(_ netip.Addr, bits int) int      { return h.proved[bits] }
func (h fakeHistory) Bannable(netip.Addr, netip.Prefix) bool { return !h.narrow }

func set(addrs ...string) map[netip.Addr]struct{} {
	m := make(map[netip.Addr]struct{})
	for _, a := range addrs {
		m[addr(a)] = struct{}{}
	}
	return m
}

func trust() *Trust {
	return NewTrust(TrustFrom{
		Ignore:     []netip.Prefix{prefix("198.51.100.99/24"), prefix("2001:db8:1::/48")},
		Own:        set("192.0.2.1", "2001:db8::1"),
		Broadcasts: set("192.0.2.255"),
		Gateways:   []netip.Addr{addr("192.0.2.254"), addr("fe80::1%eth0")},
		Resolvers:  []netip.Addr{addr("9.9.9.9")},
		Logins:     []netip.Addr{addr("203.0.113.7")},
	})
}

var policy = Policy{
	BlockTCP: config.BlockBan, BlockUDP: config.BlockBan, Evidence: config.EvidenceAny,
	BanUnverified: 10 * time.Minute, BanVerified: time.Hour, BanMost: 7 * 24 * time.Hour, BanFactor: 2,
}

func hit(src string, kind detect.Kind) *detect.Sighting {
	s := &detect.Sighting{Src: addr(src), Dst: addr("192.0.2.1"), DstPort: 1, Proto: decode.ProtoTCP, Kind: kind, Count: 1, Triggered: true}
	if kind == detect.KindUDP {
		s.Proto = decode.ProtoUDP
	}
	return s
}

func TestSpared(t *testing.T) {
	j := New(policy, trust(), fakePeers{}, fakeHistory{})
	for src, want := range map[string]Spared{
		"203.0.113.9":      NotSpared,
		"2001:db8:2::9":    NotSpared,
		"198.51.100.1":     Ignored, // host bits in the entry do not matter
		"2001:db8:1:5::9":  Ignored,
		"192.0.2.1":        Own,
		"192.0.2.254":      Gateway,
		"fe80::1":          Gateway, // the zone does not matter
		"9.9.9.9":          Resolver,
		"203.0.113.7":      Login,
		"127.0.0.53":       Martian,
		"0.0.0.0":          Martian,
		"255.255.255.255":  Martian,
		"224.0.0.1":        Martian,
		"192.0.2.255":      Martian, // broadcast of our subnet
		"::1":              Martian,
		"ff02::1":          Martian,
		"::":               Martian,
		"::ffff:192.0.2.9": Martian, // no host sends it on a wire, RFC 4942 section 2.2
	} {
		v := j.Decide(hit(src, detect.KindSYN))
		if v.Spared != want {
			t.Errorf("%s: spared as %q, want %q", src, v.Spared, want)
		}
		if want != NotSpared && (v.Strength != Nothing || v.Prefix.IsValid() || v.Reason == "") {
			t.Errorf("%s is spared, yet %+v", src, v)
		}
	}
	same := hit("203.0.113.9", detect.KindSYN)
	same.Dst = same.Src
	if v := j.Decide(same); v.Spared != Own {
		t.Errorf("source equals destination: spared as %q, want own", v.Spared)
	}
}

func TestStrength(t *testing.T) {
	verified := policy
	verified.Evidence = config.EvidenceVerified
	logOnly := policy
	logOnly.BlockTCP = config.BlockNone
	command := policy
	command.BlockTCP, command.BlockUDP = config.BlockCommand, config.BlockCommand
	untriggered := hit("203.0.113.9", detect.KindSYN)
	untriggered.Triggered = false
	for _, c := range []struct {
		name     string
		policy   Policy
		s        *detect.Sighting
		strength Strength
		scope    Scope
		says     string
	}{
		{"SYN", policy, hit("203.0.113.9", detect.KindSYN), Soft, AllProtocols, "unverified"},
		{"UDP", policy, hit("203.0.113.9", detect.KindUDP), Soft, AllProtocols, "unverified"},
		{"ACK", policy, hit("203.0.113.9", detect.KindACK), Limited, AllProtocols, "old connection"},
		{"Maimon", policy, hit("203.0.113.9", detect.KindMaimon), Limited, AllProtocols, "old connection"},
		{"peer", policy, hit("203.0.113.50", detect.KindSYN), Limited, AllProtocols, "connection to a served port"},
		{"verified only", verified, hit("203.0.113.9", detect.KindSYN), Limited, AllProtocols, "BLOCK_EVIDENCE"},
		{"log only", logOnly, hit("203.0.113.9", detect.KindSYN), Nothing, AllProtocols, "log only"},
		{"log only is by protocol", logOnly, hit("203.0.113.9", detect.KindUDP), Soft, AllProtocols, "unverified"},
		{"command, TCP", command, hit("203.0.113.9", detect.KindSYN), Soft, TCPOnly, "unverified"},
		{"command, UDP", command, hit("203.0.113.9", detect.KindUDP), Soft, UDPOnly, "unverified"},
		{"not triggered", policy, untriggered, Nothing, AllProtocols, "SCAN_TRIGGER"},
	} {
		v := New(c.policy, trust(), fakePeers{addr("203.0.113.50")}, fakeHistory{}).Decide(c.s)
		if v.Strength != c.strength || v.Scope != c.scope || !strings.Contains(v.Reason, c.says) || v.Evidence != E1 {
			t.Errorf("%s: %v, %v, %v, %q; want %v, %v, E1, ...%s...", c.name, v.Strength, v.Scope, v.Evidence, v.Reason, c.strength, c.scope, c.says)
		}
	}
}

func TestLengthDoublesToTheMost(t *testing.T) {
	for before, want := range []time.Duration{10 * time.Minute, 20 * time.Minute, 40 * time.Minute, time.Hour, time.Hour} {
		v := New(policy, trust(), fakePeers{}, fakeHistory{bans: before}).Decide(hit("203.0.113.9", detect.KindSYN))
		if v.Length != want {
			t.Errorf("after %d bans: %v, want %v", before, v.Length, want)
		}
	}
}

func TestWidenTo64(t *testing.T) {
	for _, c := range []struct {
		name, src  string
		neighbours int
		peers      fakePeers
		want       string
	}{
		{"first address", "2001:db8:2::9", 0, nil, "2001:db8:2::9/128"},
		{"second address of the /64", "2001:db8:2::9", 1, nil, "2001:db8:2::/64"},
		{"a peer lives there", "2001:db8:2::9", 1, fakePeers{addr("2001:db8:2::77")}, "2001:db8:2::9/128"},
		{"we live there", "2001:db8::9", 1, nil, "2001:db8::9/128"},
		{"the gateway lives there", "fe80::9", 1, nil, "fe80::9/128"},
		{"everybody of IPv4 comes through a translator", "64:ff9b::203.0.113.9", 5, nil, "64:ff9b::203.0.113.9/128"},
		{"so do the clients of a Teredo server", "2001:0:c000:201::9", 5, nil, "2001:0:c000:201::9/128"},
		{"IPv4 is never widened", "203.0.113.9", 5, nil, "203.0.113.9/32"},
	} {
		v := New(policy, trust(), c.peers, fakeHistory{neighbours: c.neighbours}).Decide(hit(c.src, detect.KindSYN))
		if v.Prefix != prefix(c.want) {
			t.Errorf("%s: %v, want %s", c.name, v.Prefix, c.want)
		}
	}
}

func TestIgnoreEverything(t *testing.T) {
	tr := NewTrust(TrustFrom{Ignore: []netip.Prefix{prefix("0.0.0.0/0")}})
	j := New(policy, tr, fakePeers{}, fakeHistory{})
	if v := j.Decide(hit("203.0.113.9", detect.KindSYN)); v.Spared != Ignored {
		t.Error("0.0.0.0/0 ignores every IPv4 address")
	}
	if v := j.Decide(hit("2001:db8::9", detect.KindSYN)); v.Spared == Ignored {
		t.Error("0.0.0.0/0 ignores no IPv6 address")
	}
}

func BenchmarkDecide(b *testing.B) {
	j := New(Policy{}, trust(), fakePeers{}, fakeHistory{})
	s := hit("203.0.113.9", detect.KindSYN)
	b.ReportAllocs()
	for b.Loop() {
		j.Decide(s)
	}
}

// TestVerified: one completed handshake with a trap ends no connection and
// spares what a peer is served; handshakes with several traps end everything.
func TestVerified(t *testing.T) {
	src := addr("203.0.113.9")
	policy := Policy{
		BlockTCP: config.BlockBan, BlockUDP: config.BlockBan, Evidence: config.EvidenceVerified,
		BanUnverified: 10 * time.Minute, BanVerified: time.Hour,
	}
	for _, c := range []struct {
		name    string
		several bool
		peers   fakePeers
		want    Strength
	}{
		{"one trap port", false, nil, Soft},
		{"one trap port, connected", false, fakePeers{src}, Limited},
		{"several", true, nil, Full},
		{"several, connected", true, fakePeers{src}, Full},
	} {
		j := New(policy, trust(), c.peers, fakeHistory{bans: 3})
		s := detect.Sighting{
			Src: src, Dst: addr("192.0.2.1"), DstPort: 11, Proto: decode.ProtoTCP, Kind: detect.KindConnect,
			Verified: true, Several: c.several, Count: 1, Triggered: true,
		}
		v := j.Decide(&s)
		if v.Evidence != E2 || v.Strength != c.want || v.Length != time.Hour {
			t.Errorf("%s: %v %v for %v, want E2 %v for 1h", c.name, v.Evidence, v.Strength, v.Length, c.want)
		}
	}
	j := New(policy, trust(), fakePeers{}, fakeHistory{})
	s := detect.Sighting{Src: src, Dst: addr("192.0.2.1"), DstPort: 69, Proto: decode.ProtoUDP, Kind: detect.KindConnect, Count: 1, Triggered: true}
	if v := j.Decide(&s); v.Evidence != E1 || v.Strength != Limited {
		t.Errorf("a datagram to a trap socket: %v %v, want E1 limited", v.Evidence, v.Strength)
	}
}

// TestShowOwn is -L of 2.x: our own probes are shown like anybody's, and never
// answered.
func TestShowOwn(t *testing.T) {
	j := New(Policy{BlockTCP: config.BlockBan, ShowOwn: true}, trust(), fakePeers{}, fakeHistory{})
	s := detect.Sighting{Src: addr("192.0.2.1"), Dst: addr("192.0.2.1"), DstPort: 1, Proto: decode.ProtoTCP, Kind: detect.KindSYN, Count: 1, Triggered: true}
	if v := j.Decide(&s); v.Spared != NotSpared || v.Strength != Nothing || v.Block != config.BlockNone {
		t.Errorf("%+v", v)
	}
}

// A scan that touches no trap is unverified, and earns what a trap hit earns: of TCP
// and UDP. Other protocols are named.
func TestScans(t *testing.T) {
	j := New(Policy{BlockTCP: config.BlockBan, BlockUDP: config.BlockBan, BanUnverified: time.Minute, BanVerified: time.Hour}, trust(), fakePeers{addr("203.0.113.5")}, fakeHistory{})
	scan := func(src string, proto uint8, k detect.Kind) Verdict {
		return j.Decide(&detect.Sighting{
			Src: addr(src), Dst: addr("192.0.2.1"), DstPort: 1004, Proto: proto, Kind: k, Count: 5, Triggered: true,
			Scan: detect.Found{Kind: k, Proto: proto, Ports: 5, Targets: 1, Probes: 5, Score: 14.9},
		})
	}
	for _, c := range []struct {
		v        Verdict
		strength Strength
		reason   string
	}{
		{scan("203.0.113.9", decode.ProtoTCP, detect.KindSYN), Soft, "vertical syn scan of 5 ports of one address, unverified"},
		{scan("203.0.113.9", decode.ProtoUDP, detect.KindUDP), Soft, "vertical udp scan of 5 ports of one address, unverified"},
		{scan("203.0.113.5", decode.ProtoTCP, detect.KindSYN), Limited, "connection to a served port"},
		{scan("203.0.113.9", decode.ProtoSCTP, detect.KindINIT), Nothing, "vertical sctp-init scan of 5 ports of one address; log only"},
		{scan("192.0.2.254", decode.ProtoTCP, detect.KindSYN), Nothing, Gateway.Reason()},
	} {
		if c.v.Strength != c.strength || c.v.Evidence != E1 || !strings.Contains(c.v.Reason, c.reason) {
			t.Errorf("%v, %v, %q; want %v, %q", c.v.Strength, c.v.Evidence, c.v.Reason, c.strength, c.reason)
		}
	}
}
