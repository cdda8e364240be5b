package full

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

var (
	scanner = netip.MustParseAddr("198.51.100.7")
	host    = netip.MustParseAddr("192.0.2.1")
	start   = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()
)

// bench runs contacts through an engine, a moment after each other.
type bench struct {
	*Engine
	t   testing.TB
	now int64
	gap time.Duration
}

func newBench(t testing.TB, o Options) *bench {
	return &bench{Engine: New(o), t: t, now: start, gap: time.Millisecond}
}

func syn(src, dst netip.Addr, port uint16, out detect.Outcome) detect.Contact {
	return detect.Contact{
		Src: src, Dst: dst, SrcPort: 40000, DstPort: port, Proto: decode.ProtoTCP, Kind: detect.KindSYN, Outcome: out,
		Head: detect.Header{Dst: dst, SrcPort: 40000, DstPort: port, Proto: decode.ProtoTCP, Flags: decode.SYN, MSS: 1460, OptionsLen: 4},
	}
}

func (b *bench) see(c detect.Contact) *detect.Scan {
	c.Time = b.now
	b.now += int64(b.gap)
	return b.Contact(&c)
}

// found are the scans by what they are.
func (b *bench) found() (out []string) {
	for s := range b.Scans() {
		out = append(out, fmt.Sprintf("%v %v %v ports %d targets %d", s.Source, s.Kind, s.Direction, s.Ports, s.Targets))
	}
	return out
}

func (b *bench) none(what string) {
	b.t.Helper()
	if got := b.found(); got != nil {
		b.t.Errorf("%s: %q", what, got)
	}
}

func (b *bench) only(what, want string) {
	b.t.Helper()
	if got := b.found(); len(got) != 1 || got[0] != want {
		b.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func (b *bench) reset() { b.Engine = New(b.o) }

// The fifth distinct port at which nobody is decides, at whatever speed.
func TestFifthFailureDecides(t *testing.T) {
	for _, gap := range []time.Duration{time.Microsecond, 15 * time.Second, 5 * time.Minute, time.Hour, 6 * time.Hour} {
		for _, out := range []detect.Outcome{detect.Silent, detect.Refused} {
			b := newBench(t, Options{})
			b.gap = gap
			for i := range uint16(5) {
				s := b.see(syn(scanner, host, 1000+i, out))
				if (s != nil) != (i == 4) {
					t.Fatalf("%v: scan %+v at failure %d", gap, s, i+1)
				}
			}
			b.only(gap.String(), "198.51.100.7 syn vertical ports 5 targets 1")
		}
	}
}

// What a scanner finds open is part of his scan, whether he finds it before the
// decision, right after it or later.
func TestOpenPortsCount(t *testing.T) {
	for _, open := range []uint16{0, 1, 4, 5, 6, 11} {
		for _, kind := range []detect.Kind{detect.KindSYN, detect.KindUDP} {
			b := newBench(t, Options{})
			for i := range uint16(12) {
				c := syn(scanner, host, 1000+i, detect.Refused)
				if i == open {
					c.Outcome, c.Ended = detect.Answered, kind == detect.KindSYN
				}
				if c.Kind = kind; kind == detect.KindUDP {
					c.Proto = decode.ProtoUDP
					c.Head = detect.Header{Dst: host, SrcPort: 40000, DstPort: c.DstPort, Proto: decode.ProtoUDP}
				}
				b.see(c)
			}
			b.only(fmt.Sprintf("%v, the open one at %d", kind, open), fmt.Sprintf("198.51.100.7 %v vertical ports 12 targets 1", kind))
		}
	}
}

// The same port again and again is one failure.
func TestRepeatedFailure(t *testing.T) {
	b := newBench(t, Options{})
	for range 1000 {
		for _, port := range []uint16{389, 636, 88, 445} {
			b.see(syn(scanner, host, port, detect.Silent))
		}
	}
	b.none("four dead ports, a thousand times")
}

// Who finds what he looks for is forgiven one failure, and cannot buy more.
func TestSuccess(t *testing.T) {
	spoke := func(port uint16) detect.Contact {
		c := syn(scanner, host, port, detect.Answered)
		c.Verified, c.Spoke = true, true
		return c
	}
	b := newBench(t, Options{})
	for i := range uint16(20) {
		b.see(spoke(8000 + i))
	}
	for i := range uint16(5) {
		b.see(syn(scanner, host, 1000+i, detect.Refused))
	}
	b.none("five failures after twenty successes")
	b.see(syn(scanner, host, 1005, detect.Refused))
	if len(b.found()) != 1 {
		t.Error("six failures after twenty successes are not found")
	}

	b.reset()
	for i := range uint16(100) { // a client that fails as often as it finds
		b.see(spoke(8000 + i))
		b.see(syn(scanner, host, 1000+i, detect.Refused))
	}
	b.none("every second contact is good")
	// What is found open and left at once is no success.
	b.reset()
	for i := range uint16(5) {
		b.see(syn(scanner, host, 8000+i, detect.Answered))
		b.see(syn(scanner, host, 1000+i, detect.Refused))
	}
	if len(b.found()) != 1 {
		t.Error("a scanner that finds every second port open is not found")
	}
}

// Those whom a client cannot reach lie scattered; a sweep goes through a network.
func TestNetworks(t *testing.T) {
	b := newBench(t, Options{})
	for i := range 500 {
		c := syn(scanner, netip.AddrFrom4([4]byte{byte(20 + i%100), byte(i * 7), byte(i * 13), 9}), 6346, detect.Silent)
		c.Head.OptionsLen, c.Head.Window = 20, 64240
		b.see(c)
	}
	b.none("500 peers that are gone")
	for i := range byte(5) {
		b.see(syn(scanner, netip.AddrFrom4([4]byte{192, 0, 2, i}), 22, detect.Silent))
	}
	b.only("five addresses of a network", "198.51.100.7 syn horizontal ports 1 targets 5")

	b.reset()
	for i := range byte(16) { // all the addresses of one name
		b.see(syn(scanner, netip.AddrFrom4([4]byte{192, 0, 2, i}), 443, detect.Silent))
	}
	b.none("a web site that cannot be reached")
	for i := range byte(20) {
		b.see(syn(scanner, netip.AddrFrom4([4]byte{192, 0, 2, 100 + i}), 443, detect.Silent))
	}
	if got := b.found(); len(got) != 1 {
		t.Errorf("a sweep of port 443: %q", got)
	}

	// All that is ours is one network.
	o := Options{Local: func(a netip.Addr) bool { return netip.MustParsePrefix("10.0.0.0/8").Contains(a) }}
	b = newBench(t, o)
	for i := range byte(5) {
		b.see(syn(scanner, netip.AddrFrom4([4]byte{10, i, 1, 1}), 22, detect.Silent))
	}
	b.only("five addresses of our networks", "198.51.100.7 syn horizontal ports 1 targets 5")
	b.reset()
	for i := range byte(8) {
		for port := range uint16(8) {
			b.see(syn(scanner, netip.AddrFrom4([4]byte{10, i, 1, 1}), 20+port, detect.Silent))
		}
	}
	b.only("a block", "198.51.100.7 syn block ports 8 targets 8")
}

// A host of IPv6 that changes its address within the /64 is one source; the /64
// beside it is another.
func TestIPv6Source(t *testing.T) {
	b := newBench(t, Options{})
	own := netip.MustParseAddr("2001:db8::1")
	for i := range uint16(5) {
		b.see(syn(netip.MustParseAddr(fmt.Sprintf("2001:db8:1:1::%d", i+1)), own, 1000+i, detect.Silent))
		if i < 4 {
			b.see(syn(netip.MustParseAddr("2001:db8:1:2::1"), own, 1000+i, detect.Silent))
		}
	}
	b.only("a /64", "2001:db8:1:1::1 syn vertical ports 5 targets 1")
	b.reset()
	for i := range uint16(20) {
		b.see(syn(netip.MustParseAddr(fmt.Sprintf("64:ff9b::203.0.113.%d", i+1)), own, 1000+i, detect.Silent))
	}
	if got := b.found(); len(got) != 0 {
		t.Errorf("clients behind a translator, one port each: %q", got)
	}
}

// Forged sources push out their own kind, not somebody who has shown something.
func TestForgedSources(t *testing.T) {
	if testing.Short() {
		t.Skip("a million contacts")
	}
	b := newBench(t, Options{Sources: 1 << 12})
	rng := rand.New(rand.NewPCG(1, 2))
	b.see(syn(scanner, host, 999, detect.Silent))
	for i := range uint16(4) {
		if s := b.see(syn(scanner, host, 1000+i, detect.Silent)); (s != nil) != (i == 3) {
			t.Fatalf("failure %d: %+v", i+2, s)
		}
		for range 1 << 16 {
			b.see(syn(netip.AddrFrom4([4]byte{100, byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32())}), host, 22, detect.Silent))
		}
	}
}

func BenchmarkContact(b *testing.B) {
	e := New(Options{})
	c := syn(scanner, host, 22, detect.Silent)
	b.ReportAllocs()
	for i := range b.N {
		c.Time = int64(i)
		c.Src = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		e.Contact(&c)
	}
}

// past remembers all, as the long tier would.
type past map[netip.Addr]detect.Memory

func (p past) Recall(a netip.Addr, _ int64) (detect.Memory, bool) { m, ok := p[a]; return m, ok }
func (p past) Keep(a netip.Addr, m detect.Memory)                 { p[a] = m }

// Five ports on five days with a restart after each: what was known goes on, and the
// same port does not count twice.
func TestPast(t *testing.T) {
	p := make(past)
	for day := range uint16(5) {
		b := newBench(t, Options{Past: p, Key: 99})
		b.now += int64(day) * int64(24*time.Hour)
		for port := range day + 1 {
			s := b.see(syn(scanner, host, 1000+port, detect.Silent))
			if (s != nil) != (day == 4 && port == 4) {
				t.Fatalf("day %d, port %d: %+v", day, port, s)
			}
		}
		b.Remember()
	}
}

// Services that end are asked for by those who have used them, and that is no search.
func TestServicesThatEnd(t *testing.T) {
	b := newBench(t, Options{})
	for _, out := range []detect.Outcome{detect.Answered, detect.Refused} {
		for port := range uint16(10) {
			c := syn(scanner, host, 5000+port, out)
			c.Spoke = true
			b.see(c)
		}
	}
	b.none("ten services of a machine that was switched off")
	for port := range uint16(6) { // what was found forgives one
		b.see(syn(scanner, host, 6000+port, detect.Refused))
	}
	if got := b.found(); len(got) != 1 {
		t.Errorf("six others: %q", got)
	}
}

// A machine that ends what it had open sends from a port of its own for each, and a
// scanner from one.
func TestTailsOfConnections(t *testing.T) {
	for _, kind := range []detect.Kind{detect.KindACK, detect.KindMaimon} {
		for step, want := range map[uint16]int{0: 1, 1: 1, 29: 0} {
			b := newBench(t, Options{Labels: named{}})
			for i := range uint16(20) {
				c := syn(scanner, host, 1000+i, detect.Silent)
				c.Kind, c.SrcPort, c.Head.SrcPort = kind, 40000+i*step, 40000+i*step
				b.see(c)
			}
			if got := b.found(); len(got) != want {
				t.Errorf("%v from ports %d apart: %q", kind, step, got)
			}
		}
	}
}

func TestContactAllocatesNothing(t *testing.T) {
	b := newBench(t, Options{Labels: named{}})
	c := syn(scanner, host, 80, detect.Answered)
	c.Spoke = true
	b.see(c)
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		i++
		c.Time, c.DstPort = start+int64(i), uint16(i%4)
		b.Contact(&c)
	}); n != 0 {
		t.Errorf("%v allocations a contact", n)
	}
}
