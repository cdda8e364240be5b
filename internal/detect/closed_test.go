package detect

import (
	"net/netip"
	"testing"

	"portsentry/internal/decode"
)

func newStrangers(h Host) *Detector {
	return New(Options{Rules: rules(0, 0), Host: h, Strangers: h, Sources: 1024})
}

// other is a packet of a protocol without ports, or of SCTP.
func other(proto, icmp, chunk uint8) decode.Probe {
	return decode.Probe{Src: scanner, Dst: us, Proto: proto, ICMPType: icmp, SCTPChunk: chunk}
}

// over6 is p between two IPv6 addresses.
func over6(p decode.Probe) decode.Probe {
	p.Src = netip.MustParseAddr("2001:db8::9")
	return p
}

func TestContact(t *testing.T) {
	const (
		F, S, R, P, A, U = decode.FIN, decode.SYN, decode.RST, decode.PSH, decode.ACK, decode.URG
	)
	from := func(port uint16, p decode.Probe) decode.Probe { p.SrcPort = port; return p }
	bad := tcp(2, S)
	bad.Marks = decode.BadChecksum
	theirs := tcp(2, S)
	theirs.Dst = netip.MustParseAddr("192.0.2.77")
	accepted := tcp(2, 0)
	accepted.Accepted = true
	for _, c := range []struct {
		name    string
		probe   decode.Probe
		use     Use
		kind    Kind // KindNone: no contact
		outcome Outcome
	}{
		{"SYN", tcp(2, S), Free, KindSYN, Refused},
		{"SYN to a port of answers", tcp(40001, S), Free, KindSYN, Refused},
		{"FIN", tcp(2, F), Free, KindFIN, Refused},
		{"NULL", tcp(2, 0), Free, KindNULL, Refused},
		{"XMAS", tcp(2, F|P|U), Free, KindXMAS, Refused},
		{"odd", tcp(2, S|F), Free, KindOdd, Refused},
		{"FIN to a port of answers", tcp(40001, F), Free, KindNone, 0},
		{"ACK", tcp(2, A), Free, KindNone, 0},
		{"Maimon", tcp(2, F|A), Free, KindNone, 0},
		{"SYN-ACK", tcp(2, S|A), Free, KindNone, 0},
		{"RST", tcp(2, R), Free, KindNone, 0},
		{"UDP", udp(2), Free, KindUDP, Refused},
		{"UDP to a port of answers", udp(40001), Free, KindNone, 0},
		{"DHCP", from(67, udp(68)), Free, KindNone, 0},
		{"DHCPv6", over6(from(547, udp(546))), Free, KindNone, 0},
		{"to where the DHCP client is, from elsewhere", udp(68), Free, KindUDP, Refused},
		{"INIT", other(decode.ProtoSCTP, 0, 1), Free, KindINIT, Refused},
		{"COOKIE-ECHO", other(decode.ProtoSCTP, 0, 10), Free, KindCookie, Refused},
		{"SCTP data", other(decode.ProtoSCTP, 0, 0), Free, KindNone, 0},
		{"SCTP ABORT", other(decode.ProtoSCTP, 0, 6), Free, KindNone, 0},
		{"echo", other(decode.ProtoICMP, 8, 0), Free, KindEcho, Answered},
		{"echo over IPv6", over6(other(decode.ProtoICMPv6, 128, 0)), Free, KindEcho, Answered},
		{"timestamp", other(decode.ProtoICMP, 13, 0), Free, KindStamp, Answered},
		{"mask", other(decode.ProtoICMP, 17, 0), Free, KindMask, Silent},
		{"echo reply", other(decode.ProtoICMP, 0, 0), Free, KindNone, 0},
		{"unreachable", other(decode.ProtoICMP, 3, 0), Free, KindNone, 0},
		{"neighbour solicitation", over6(other(decode.ProtoICMPv6, 135, 0)), Free, KindNone, 0},
		{"ICMP over IPv6", over6(other(decode.ProtoICMP, 8, 0)), Free, KindProto, Refused},
		{"ICMPv6 over IPv4", other(decode.ProtoICMPv6, 128, 0), Free, KindProto, Refused},
		{"a protocol that nobody speaks", other(143, 0, 0), Free, KindProto, Refused},
		{"GRE", other(47, 0, 0), Free, KindNone, 0},
		{"to a service", tcp(2, S), Served, KindNone, 0},
		{"a datagram to a service", udp(2), Served, KindNone, 0},
		{"translated", tcp(2, S), Translated, KindNone, 0},
		{"an answer", udp(2), Reply, KindNone, 0},
		{"nobody could be asked", tcp(2, S), Unsure, KindNone, 0},
		{"to a trap", tcp(1, S), Free, KindNone, 0},
		{"a datagram to a trap", udp(69), Free, KindNone, 0},
		{"what no host takes", bad, Free, KindNone, 0},
		{"to somebody else", theirs, Free, KindNone, 0},
		{"from a socket of ours", accepted, Free, KindNone, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newStrangers(&fakeHost{use: c.use})
			k := Contact{Trap: true, Verified: true} // of the one before
			seen := d.Contact(&c.probe, &k)
			if seen != (c.kind != KindNone) {
				t.Fatalf("seen %v: %+v", seen, k)
			}
			want := Stats{}
			if c.use == Unsure {
				want.ContactUnsure = 1
			}
			if seen {
				want.Contacts = 1
				if k.Kind != c.kind || k.Outcome != c.outcome || k.Trap || k.Verified || k.Src != c.probe.Src || k.Dst != us ||
					k.DstPort != c.probe.DstPort || k.Proto != c.probe.Proto || k.Head != HeaderOf(&c.probe) {
					t.Errorf("%+v", k)
				}
			}
			if got := d.Stats(); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

// The kernel is asked last, about ports only, and told whether a connection would
// matter; and of Strangers, whatever they cost.
func TestContactAsks(t *testing.T) {
	traps, h := &fakeHost{}, &fakeHost{}
	d := New(Options{Rules: rules(0, 0), Host: traps, Strangers: h, Sources: 8})
	for _, c := range []struct {
		probe decode.Probe
		asked int
		bare  bool
	}{
		{tcp(2, decode.ACK), 0, false}, {udp(40001), 0, false}, {tcp(1, decode.SYN), 0, false},
		{other(decode.ProtoICMP, 8, 0), 0, false}, {other(decode.ProtoSCTP, 0, 1), 0, false}, {other(143, 0, 0), 0, false},
		{tcp(2, decode.SYN), 1, true}, {tcp(2, decode.FIN), 1, false}, {udp(2), 1, false},
	} {
		h.asked, h.bare = 0, false
		d.Contact(&c.probe, new(Contact))
		if h.asked != c.asked || h.bare != c.bare || traps.asked != 0 {
			t.Errorf("%+v: asked %d times, bare SYN %v, in the place of traps %d", c.probe, h.asked, h.bare, traps.asked)
		}
	}
	none := newDetector(h, 0, 0)
	if p := tcp(2, decode.SYN); none.Contact(&p, new(Contact)) {
		t.Error("a contact without Strangers")
	}
}

func TestHit(t *testing.T) {
	d := newStrangers(&fakeHost{})
	var s Sighting
	var c Contact
	p := tcp(1, decode.FIN)
	if !d.Observe(&p, &s) {
		t.Fatal("no sighting")
	}
	if Hit(&p, &s, &c); !c.Trap || c.Verified || c.Kind != KindFIN || c.Outcome != Refused || c.DstPort != 1 || c.Src != scanner {
		t.Errorf("%+v", c)
	}
	p.Accepted = true
	if !d.Observe(&p, &s) {
		t.Fatal("no sighting")
	}
	if Hit(&p, &s, &c); !c.Verified || c.Kind != KindConnect {
		t.Errorf("%+v", c)
	}
}

func TestContactAllocatesNothing(t *testing.T) {
	d := newStrangers(&fakeHost{})
	p := tcp(2, decode.SYN)
	var c Contact
	if n := testing.AllocsPerRun(1000, func() { d.Contact(&p, &c) }); n != 0 {
		t.Errorf("%v allocations a probe, want 0", n)
	}
}

func TestFoundBy(t *testing.T) {
	s := Scan{Kind: KindSYN, Direction: Block, Proto: 6, Verified: true, Ports: 5, Targets: 2, Probes: 9, Score: 23.5, First: 7}
	want := Found{Kind: KindSYN, Direction: Block, Proto: 6, Verified: true, First: 7, Ports: 5, Targets: 2, Probes: 9, Score: 23.5}
	if got := FoundBy(&s); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
