package crowd

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// nobodyScans says that whatever belongs together, nobody of it is called a scanner.
func (s *scene) nobodyScans() {
	s.t.Helper()
	s.fetch()
	for _, g := range s.groups {
		if g.Shared {
			s.t.Errorf("called scanners: %v of %d %v: %s", g.What, g.Count, g.Members[:min(6, len(g.Members))], g.Reason)
		}
	}
}

// A sweep of ports of one address, and one of a few ports of many addresses.
func TestSharersScan(t *testing.T) {
	for name, what := range map[string]func(ct *detect.Contact, i int){
		"ports": func(ct *detect.Contact, i int) { ct.DstPort = uint16(7000 + i*3) },
		"block": func(ct *detect.Contact, i int) {
			ct.DstPort, ct.Dst = uint16(7000+i%16*5), ip4(0xc6336400+uint32(i/16))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			for i := range 120 {
				ct := s.stack(ip4(0xcb007100+uint32(i*37%40)), 0, detect.Refused)
				what(ct, i)
				s.Contact(ct, 0, 0)
				s.pass(30 * second)
				if s.fetch(); i == 5 && len(s.groups) == 1 && s.groups[0].Shared {
					t.Error("called scanners at once")
				}
			}
			if g := s.group(Network); !g.Shared {
				t.Errorf("no scanners: %+v", g)
			}
		})
	}
}

// Names that one forger takes at random are no scanners, though they share out what he
// tries.
func TestForgedSharersAreNoScan(t *testing.T) {
	s := newScene(t)
	for range 400 {
		s.Contact(s.stack(s.anybody(), uint16(1+s.rng.Uint32()%60000), detect.Silent), 0, 0)
		s.pass(second / 10)
	}
	s.fetch()
	for _, g := range s.groups {
		if g.Shared {
			t.Errorf("called scanners: %v, %d members: %s", g.What, len(g.Members), g.Reason)
		}
	}
	if len(s.groups) == 0 {
		t.Error("there is no group: this shows nothing")
	}
}

// A run from several addresses is a scan when together they have failed at enough; one of
// which all try the same few things is none.
func TestRunScans(t *testing.T) {
	for _, ports := range []int{2, 12} {
		s := newScene(t)
		for i := range 12 {
			ct := s.bare(ip4(0xcb007100+uint32(i%6)*0x1000000), uint16(7000+i%ports*3), detect.Refused)
			ct.SrcPort = 50000
			s.Contact(ct, nmap, 0x1234)
			s.pass(second)
		}
		if g := s.group(Run); g.Shared != (ports > 5) {
			t.Errorf("%d ports: %+v", ports, g)
		}
	}
}

// In whose name decoys come is no scanner for that.
func TestDecoysDoNotShare(t *testing.T) {
	s := newScene(t)
	var names []netip.Addr
	for range 6 {
		names = append(names, s.anybody())
	}
	for i := range 12 {
		one := *s.bare(names[0], uint16(7000+i*3), detect.Refused)
		one.SrcPort, one.Head.SrcPort = 50000, 50000
		for _, n := range names {
			one.Src, one.Head.TTL = n, 40+uint8(s.rng.Uint32()%20)
			s.Contact(&one, nmap, 0x1234)
		}
		s.pass(second)
	}
	if g := s.group(Decoys); g.Shared {
		t.Errorf("%+v", g)
	}
}

// A campus of file sharers: each has a port of its own, and most are gone when somebody of
// a provider's network asks for them, once or twice each, all with one kind of system.
func TestGonePeersAreNoScan(t *testing.T) {
	for _, repeats := range []int{1, 2} {
		s := newScene(t)
		type peer struct {
			a    netip.Addr
			port uint16
		}
		var gone []peer
		for i := range 400 {
			gone = append(gone, peer{ip4(0xc6330000 + s.rng.Uint32()%0x4000), uint16(10000 + i*101)})
		}
		for range repeats {
			for i, p := range gone {
				ct := s.stack(ip4(0xcb007100+uint32(i%200)), p.port, detect.Silent)
				ct.Dst = p.a
				s.Contact(ct, 0, 0)
				s.pass(40 * second)
			}
		}
		s.nobodyScans()
	}
}

// A popular peer is gone: everybody asks for it by TCP and by UDP.
func TestPopularPeerIsNoScan(t *testing.T) {
	s := newScene(t)
	for i := range 3000 {
		a := s.anybody()
		if i%3 == 0 {
			a = ip4(0xcb007100 + s.rng.Uint32()%250)
		}
		s.Contact(s.stack(a, 51413, detect.Refused), 0, 0)
		ct := s.stack(a, 51413, detect.Refused)
		ct.Proto, ct.Kind = decode.ProtoUDP, detect.KindUDP
		s.Contact(ct, 0, 0)
		s.pass(5 * second)
	}
	for _, g := range s.groups {
		t.Errorf("%+v", g)
	}
	s.nobodyScans()
}

// Customers behind one network ask for the games of a host that had them yesterday, which
// is longer than anybody here remembers, over and over.
func TestGoneServicesAreNoScan(t *testing.T) {
	for _, services := range []int{3, 6, 12, 20, 40} {
		for run := range 10 {
			s := newScene(t)
			s.rng = rand.New(rand.NewPCG(uint64(run), uint64(services)))
			for range 600 {
				a := ip4(0xcb007100 + s.rng.Uint32()%100)
				s.Contact(s.stack(a, uint16(27015+s.rng.Uint32()%uint32(services)), detect.Refused), 0, 0)
				s.pass(20 * second)
			}
			s.nobodyScans()
		}
	}
}

// Resolvers of a provider answer too late, to ports that an own resolver sends from.
func TestLateAnswersAreNoScan(t *testing.T) {
	s := newScene(t)
	for range 2000 {
		ct := s.stack(ip4(0xcb007100+s.rng.Uint32()%60), uint16(1024+s.rng.Uint32()%60000), detect.Refused)
		ct.Proto, ct.Kind, ct.SrcPort = decode.ProtoUDP, detect.KindUDP, 53
		s.Contact(ct, 0, 0)
		s.pass(20 * second)
	}
	s.nothing()
}

// A watching service asks from sixty places for a dozen ports of ours, of which half are
// shut, each place in its turn.
func TestWatchersAreNoScan(t *testing.T) {
	s := newScene(t)
	var places []netip.Addr
	for i := range 60 {
		a := s.anybody()
		if i >= 30 {
			a = ip4(0xcb007100 + uint32(i))
		}
		places = append(places, a)
	}
	for i := range 6000 {
		port, out := uint16(9000+i%12), detect.Answered
		if i%2 == 0 {
			out = detect.Refused
		}
		s.Contact(s.stack(places[i*7%60], port, out), 0, 0)
		s.pass(10 * second)
	}
	s.nobodyScans()
}
