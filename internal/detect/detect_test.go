package detect

import (
	"net/netip"
	"testing"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/decode"
)

var (
	us      = netip.MustParseAddr("192.0.2.1")
	scanner = netip.MustParseAddr("203.0.113.9")
)

// fakeHost is a host with an ephemeral range and chosen answers.
type fakeHost struct {
	use   Use
	asked int
	bare  bool
}

func (h *fakeHost) Own(a netip.Addr) bool      { return a == us }
func (h *fakeHost) Ephemeral(port uint16) bool { return port >= 32768 && port <= 60999 }
func (h *fakeHost) Use(_ *decode.Probe, bareSYN bool) Use {
	h.asked++
	h.bare = bareSYN
	return h.use
}

func rules(trigger int, window time.Duration) Rules {
	return Rules{
		TCP:     config.PortSet{{First: 1, Last: 1}, {First: 40000, Last: 40000}}.Bitmap(),
		UDP:     config.PortSet{{First: 69, Last: 69}, {First: 40000, Last: 40000}}.Bitmap(),
		Trigger: trigger, Window: window,
	}
}

func newDetector(h Host, trigger int, window time.Duration) *Detector {
	return New(Options{Rules: rules(trigger, window), Host: h, Sources: 1024})
}

func tcp(port uint16, flags uint16) decode.Probe {
	return decode.Probe{Src: scanner, Dst: us, Proto: decode.ProtoTCP, SrcPort: 5555, DstPort: port, Flags: flags}
}

func udp(port uint16) decode.Probe {
	return decode.Probe{Src: scanner, Dst: us, Proto: decode.ProtoUDP, SrcPort: 5555, DstPort: port}
}

func TestClassify(t *testing.T) {
	const (
		F, S, R, P, A, U = decode.FIN, decode.SYN, decode.RST, decode.PSH, decode.ACK, decode.URG
		E, C             = decode.ECE, decode.CWR
	)
	for _, c := range []struct {
		flags uint16
		kind  Kind
		text  string
	}{
		{S, KindSYN, "TCP SYN/Normal scan"},
		{S | E | C, KindSYN, "TCP SYN/Normal scan"}, // ECN set-up, RFC 3168 section 6.1.1
		{F, KindFIN, "TCP FIN scan"},
		{0, KindNULL, "TCP NULL scan"},
		{E, KindOdd, "Unknown Type: TCP Packet Flags: SYN: 0 FIN: 0 ACK: 0 PSH: 0 URG: 0 RST: 0"},
		{F | P | U, KindXMAS, "TCP XMAS scan"},
		{F | P | U | S, KindXMAS, "TCP XMAS scan"},
		{F | A, KindMaimon, "TCP Maimon scan"},
		{A, KindACK, "TCP ACK/Window scan"},
		{S | F, KindOdd, "Unknown Type: TCP Packet Flags: SYN: 1 FIN: 1 ACK: 0 PSH: 0 URG: 0 RST: 0"},
		{P, KindOdd, "Unknown Type: TCP Packet Flags: SYN: 0 FIN: 0 ACK: 0 PSH: 1 URG: 0 RST: 0"},
		{F | U, KindOdd, "Unknown Type: TCP Packet Flags: SYN: 0 FIN: 1 ACK: 0 PSH: 0 URG: 1 RST: 0"},
		{S | U, KindOdd, "Unknown Type: TCP Packet Flags: SYN: 1 FIN: 0 ACK: 0 PSH: 0 URG: 1 RST: 0"},
		{S | F | A, KindNone, ""}, // a SYN-ACK, whatever else: PortSentry never reported it
		{S | A, KindNone, ""},     // backscatter
		{R, KindNone, ""},         // backscatter
		{R | A, KindNone, ""},     // backscatter
		{S | R, KindNone, ""},     // PortSentry never reported it, and no stack answers it
		{P | A, KindNone, ""},     // data of an old connection
		{F | P | A, KindNone, ""}, // the same, closing
	} {
		if got := Classify(c.flags); got != c.kind {
			t.Errorf("Classify(%09b) = %v, want %v", c.flags, got, c.kind)
		} else if c.kind != KindNone && TypeText(got, c.flags) != c.text {
			t.Errorf("TypeText(%09b) = %q, want %q", c.flags, TypeText(got, c.flags), c.text)
		}
	}
}

func TestObserve(t *testing.T) {
	bad := tcp(1, decode.SYN)
	bad.Marks = decode.BadChecksum
	overlap := tcp(1, decode.RST)
	overlap.Marks = decode.Overlapping
	notOurs := tcp(1, decode.SYN)
	notOurs.Dst = netip.MustParseAddr("192.0.2.77")
	icmp := decode.Probe{Src: scanner, Dst: us, Proto: decode.ProtoICMP}
	for _, c := range []struct {
		name  string
		probe decode.Probe
		use   Use
		seen  bool
		stats Stats
	}{
		{"SYN to a trap", tcp(1, decode.SYN), Free, true, Stats{Sightings: 1}},
		{"UDP to a trap", udp(69), Free, true, Stats{Sightings: 1}},
		{"SYN to a port that is no trap", tcp(2, decode.SYN), Free, false, Stats{NoTrap: 1}},
		{"ICMP", icmp, Free, false, Stats{NoTrap: 1}},
		{"SYN to a served trap port", tcp(1, decode.SYN), Served, false, Stats{Served: 1}},
		{"SYN to a translated port", tcp(1, decode.SYN), Translated, false, Stats{Replies: 1}},
		{"UDP that answers a guest of ours", udp(69), Reply, false, Stats{Replies: 1}},
		{"nobody could be asked", tcp(1, decode.SYN), Unsure, false, Stats{Unsure: 1}},
		{"RST", tcp(1, decode.RST), Free, false, Stats{Noise: 1}},
		{"SYN inside the ephemeral range", tcp(40000, decode.SYN), Free, true, Stats{Sightings: 1}},
		{"FIN inside the ephemeral range", tcp(40000, decode.FIN), Free, false, Stats{Noise: 1}},
		{"ACK inside the ephemeral range", tcp(40000, decode.ACK), Free, false, Stats{Noise: 1}},
		{"UDP inside the ephemeral range", udp(40000), Free, false, Stats{Noise: 1}},
		{"a checksum no host would take", bad, Free, false, Stats{BadChecksum: 1}},
		{"a harmless face on contradictory fragments", overlap, Free, true, Stats{Sightings: 1}},
		{"not to us", notOurs, Free, false, Stats{NotOurs: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDetector(&fakeHost{use: c.use}, 0, 0)
			var s Sighting
			if got := d.Observe(&c.probe, &s); got != c.seen {
				t.Fatalf("Observe = %v, want %v", got, c.seen)
			}
			c.stats.Probes = 1
			if got := d.Stats(); got != c.stats {
				t.Errorf("Stats = %+v, want %+v", got, c.stats)
			}
			if c.seen && (s.Src != scanner || s.DstPort != c.probe.DstPort || !s.Triggered || s.Count != 1) {
				t.Errorf("Sighting = %+v", s)
			}
		})
	}
}

// The kernel is asked only about what could still be a sighting, and told
// whether a connection would matter.
func TestObserveAsksLast(t *testing.T) {
	h := &fakeHost{}
	d := newDetector(h, 0, 0)
	var s Sighting
	for _, p := range []decode.Probe{tcp(2, decode.SYN), tcp(1, decode.RST), tcp(40000, decode.ACK), udp(40000)} {
		d.Observe(&p, &s)
	}
	if h.asked != 0 {
		t.Errorf("asked %d times about packets that are no evidence anyway", h.asked)
	}
	syn, ack := tcp(1, decode.SYN), tcp(1, decode.ACK)
	if d.Observe(&syn, &s); !h.bare {
		t.Error("a bare SYN was not asked about as one")
	}
	if d.Observe(&ack, &s); h.bare {
		t.Error("an ACK was asked about as a bare SYN")
	}
}

func TestCaptureKeepsBadChecksums(t *testing.T) {
	d := newDetector(&fakeHost{}, 0, 0)
	d.o.Capture = true
	p := tcp(1, decode.SYN)
	p.Marks = decode.BadChecksum
	var s Sighting
	if !d.Observe(&p, &s) || !s.BadChecksum {
		t.Errorf("in a capture a wrong checksum is a mark: seen with %+v", s)
	}
}

// COMPAT 1.5: N fires from the Nth hit on; 0 and 1 are the same; packets count,
// over all ports and both protocols; there is no upper bound.
func TestTrigger(t *testing.T) {
	for _, c := range []struct{ trigger, fired int }{{0, 5}, {1, 5}, {2, 4}, {3, 3}, {5, 1}, {50, 0}, {51, 0}, {70000, 0}} {
		d := newDetector(&fakeHost{}, c.trigger, 0)
		fired := 0
		for i := range 5 {
			p := tcp(1, decode.SYN)
			if i%2 == 1 {
				p = udp(69)
			}
			p.Time = int64(i) * int64(24*time.Hour)
			var s Sighting
			if d.Observe(&p, &s) && s.Triggered {
				fired++
			}
		}
		if fired != c.fired {
			t.Errorf("SCAN_TRIGGER=%d fired %d times of 5, want %d", c.trigger, fired, c.fired)
		}
	}
}

func TestTriggerWindow(t *testing.T) {
	d := newDetector(&fakeHost{}, 2, time.Minute)
	for i, c := range []struct {
		at    time.Duration
		fired bool
	}{
		{0, false}, {2 * time.Minute, false}, {3 * time.Minute, true}, {10 * time.Minute, false},
		{9 * time.Minute, true}, // late, and after the one before it
	} {
		p := tcp(1, decode.SYN)
		p.Time = int64(c.at)
		var s Sighting
		d.Observe(&p, &s)
		if s.Triggered != c.fired {
			t.Errorf("hit %d at %v: triggered %v, want %v", i, c.at, s.Triggered, c.fired)
		}
	}
}

// A flood of forged sources pushes out its own kind, not a source that came
// more than once, and needs no more memory than was there from the start.
func TestSourcesUnderFlood(t *testing.T) {
	s := newSources(1024)
	for range 3 {
		s.hit(scanner, 1, 0, 1, 0)
	}
	for i := range 1_000_000 {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		s.hit(a, int64(i), 0, 1, 0)
	}
	if got, _ := s.hit(scanner, 2_000_000, 0, 1, 0); got != 4 {
		t.Errorf("after a million forged sources the scanner's count is %d, want 4", got)
	}
	if s.evicted.Load() < 990_000 {
		t.Errorf("%d evictions counted of at least 990,000", s.evicted.Load())
	}
}

func TestObserveAllocatesNothing(t *testing.T) {
	d := newDetector(&fakeHost{}, 0, 0)
	p, i := tcp(1, decode.SYN), uint32(0)
	var s Sighting
	if n := testing.AllocsPerRun(1000, func() {
		i++
		p.Src = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		d.Observe(&p, &s)
	}); n != 0 {
		t.Errorf("%v allocations a probe, want 0", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	d := newDetector(&fakeHost{}, 0, 0)
	p := tcp(1, decode.SYN)
	var s Sighting
	b.ReportAllocs()
	for i := uint32(0); b.Loop(); i++ {
		p.Src = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		d.Observe(&p, &s)
	}
}

// TestContacts: what a trap socket of ours took needs no question, is proof of
// its source over TCP, and one port is told from several.
func TestContacts(t *testing.T) {
	d := newDetector(&fakeHost{use: Served}, 0, 0)
	for i, c := range []struct {
		probe             decode.Probe
		verified, several bool
	}{
		{udp(69), false, false},
		{tcp(1, 0), true, false},
		{tcp(1, 0), true, false},
		{udp(69), false, false},
		{tcp(40000, 0), true, true},
		{tcp(1, 0), true, true},
	} {
		c.probe.Accepted = true
		var s Sighting
		if !d.Observe(&c.probe, &s) {
			t.Fatalf("contact %d: not seen", i)
		}
		if s.Kind != KindConnect || s.Verified != c.verified || s.Several != c.several || s.Count != uint32(i+1) {
			t.Errorf("contact %d: %+v, want verified %v, several %v", i, s, c.verified, c.several)
		}
	}
	left := tcp(2, 0) // a port that is no trap any more
	left.Accepted = true
	if d.Observe(&left, new(Sighting)) {
		t.Error("a contact with no trap was seen")
	}
}

// TestServedPortsAsTraps is -S of 2.x: a listener does not spare who begins a
// conversation with its port, while a connection goes on unharmed.
func TestServedPortsAsTraps(t *testing.T) {
	r := rules(0, 0)
	r.TrapServed = true
	d := New(Options{Rules: r, Host: &fakeHost{use: Served}, Sources: 8})
	for _, c := range []struct {
		probe decode.Probe
		seen  bool
	}{{tcp(1, decode.SYN), true}, {udp(69), true}, {tcp(1, decode.ACK), false}, {tcp(1, decode.FIN), false}} {
		if got := d.Observe(&c.probe, new(Sighting)); got != c.seen {
			t.Errorf("%v: seen %v, want %v", c.probe, got, c.seen)
		}
	}
}

// TestSetRules changes the traps under way and forgets nobody.
func TestSetRules(t *testing.T) {
	d := newDetector(&fakeHost{}, 2, 0)
	var s Sighting
	p := tcp(1, decode.SYN)
	if !d.Observe(&p, &s) || s.Triggered {
		t.Fatalf("first hit: %+v", s)
	}
	r := rules(2, 0)
	r.TCP = config.PortSet{{First: 23, Last: 23}}.Bitmap()
	d.SetRules(r)
	if d.Observe(&p, &s) {
		t.Error("port 1 is no trap any more")
	}
	p = tcp(23, decode.SYN)
	if !d.Observe(&p, &s) || !s.Triggered || s.Count != 2 {
		t.Errorf("second hit: %+v", s)
	}
}

func TestParseKind(t *testing.T) {
	for k := KindNone; k <= KindWorm; k++ {
		if got := ParseKind(k.String()); got != k {
			t.Errorf("%v is read as %v", k, got)
		}
	}
	for _, word := range []string{"", "SYN", "synfin"} {
		if got := ParseKind(word); got != KindNone {
			t.Errorf("%q is read as %v", word, got)
		}
	}
	if next := KindWorm + 1; next.String() != "none" {
		t.Errorf("%v comes after KindWorm, and is not tried here", next)
	}
}
