package crowd

import (
	"net/netip"
	"testing"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// A /24 shares out one sweep, a port a source, minutes apart.
func TestNetworkSharesOutSweep(t *testing.T) {
	for _, gap := range []int64{second, 300 * second, hour, 6 * hour} {
		s := newScene(t)
		for i := range 250 {
			s.Contact(s.stack(ip4(0xcb007100+uint32(i*37%250)), uint16(7000+i*3), detect.Refused), 0, 0)
			s.pass(gap)
		}
		g := s.group(Network)
		if g.Count < 245 {
			t.Errorf("gap %d s: %d members of 250", gap/second, g.Count)
		}
	}
}

func TestNetworkIPv6SharesOutSweep(t *testing.T) {
	for _, place := range []int{15, 7} { // in the interface, or in the /64 within the /48
		s := newScene(t)
		for i := range 20 {
			a := netip.MustParseAddr("2001:db8:1::1").As16()
			a[place] = byte(i + 1)
			ct := s.stack(netip.AddrFrom16(a), uint16(7000+i*3), detect.Refused)
			ct.Dst = netip.MustParseAddr("2001:db8:99::1")
			s.Contact(ct, 0, 0)
			s.pass(60 * second)
		}
		if g := s.group(Network); g.Count != 20 {
			t.Errorf("byte %d: %d members of 20", place, g.Count)
		}
	}
}

// A botnet all over the world shares out one sweep; its header is its own.
func TestSignatureSharesOutSweep(t *testing.T) {
	s := newScene(t)
	for i := range 300 {
		ct := s.bare(s.anybody(), uint16(3400+i*11), detect.Refused)
		ct.Head.Window = 5840
		s.Contact(ct, 0, 0)
		s.pass(20 * second)
	}
	if g := s.group(Sweep); g.Count < 290 {
		t.Errorf("%d members of 300", g.Count)
	}
}

// Half of a /24 are people who share an address each: they fail now and then, at things
// of their own and at what is known to be gone.
func TestSharedAddressesAreNoSweep(t *testing.T) {
	s := newScene(t)
	for range 100_000 {
		a := ip4(0xcb007100 + s.rng.Uint32()%128)
		switch s.rng.Uint32() % 20 {
		case 0: // one in twenty fails, at anything
			s.Contact(s.stack(a, uint16(s.rng.Uint32()), detect.Refused), 0, 0)
		default:
			s.Contact(s.stack(a, 443, detect.Answered), 0, 0)
		}
		s.pass(second)
	}
	s.nothing()
}

// Every client address is new, and no client ever comes twice.
func TestClientsOfServedPort(t *testing.T) {
	s := newScene(t)
	for i := range 10_000 {
		s.Contact(s.stack(ip4(0xcb000000+uint32(i)*3), 443, detect.Answered), 0, 0)
		if i%50 == 0 {
			s.Contact(s.stack(s.anybody(), uint16(s.rng.Uint32()), detect.Refused), 0, 0)
		}
		s.pass(second / 40)
	}
	s.nothing()
}

// A service moved away, and all clients go on asking; and five services of one host
// are down at once.
func TestDeadPortIsNoSweep(t *testing.T) {
	for name, ports := range map[string][]uint16{"moved": {8123}, "down": {8123, 8124, 9000, 1194, 7001, 7002}} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			for range 3000 {
				a := ip4(0xcb007100 + s.rng.Uint32()%200)
				p := ports[s.rng.Uint32()%uint32(len(ports))]
				if s.now < start+600*second {
					s.Contact(s.stack(s.anybody(), p, detect.Answered), 0, 0)
				} else {
					for range 3 { // clients try again
						s.Contact(s.stack(a, p, detect.Refused), 0, 0)
						s.pass(3 * second)
					}
				}
				s.pass(4 * second)
			}
			s.nothing()
		})
	}
}

// As above, but what had been served before the start is not known.
func TestUnknownDeadPortIsNoSweep(t *testing.T) {
	s := newScene(t)
	for range 3000 {
		a := ip4(0xcb007100 + s.rng.Uint32()%200)
		for range 3 {
			s.Contact(s.stack(a, 8123, detect.Silent), 0, 0)
			s.pass(3 * second)
		}
		s.pass(20 * second)
	}
	s.nothing()
}

// One who scans everything, and three who meet him in his network, share out nothing.
func TestOneScannerIsNoNetwork(t *testing.T) {
	s := newScene(t)
	for i := range 1000 {
		s.Contact(s.bare(ip4(0xcb007109), uint16(1000+i), detect.Refused), nmap, 0)
		if i%300 == 0 {
			s.Contact(s.stack(ip4(0xcb007120+uint32(i)), uint16(40+i), detect.Refused), 0, 0)
		}
		s.pass(100 * ms)
	}
	s.nothing()
}

// Hosts of one office look for peers all over the world, and send logs that nobody
// acknowledges.
func TestPeersAreNoSweep(t *testing.T) {
	s := newScene(t)
	for range 5000 {
		a := ip4(0xc0a80100 + 1 + s.rng.Uint32()%30)
		ct := s.stack(a, uint16(1024+s.rng.Uint32()%60000), detect.Silent)
		ct.Dst = s.anybody()
		s.Contact(ct, 0, 0)
		log := s.stack(a, uint16(514+s.rng.Uint32()%10), detect.Silent)
		log.Proto, log.Kind = decode.ProtoUDP, detect.KindUDP
		s.Contact(log, 0, 0)
		s.pass(2 * second)
	}
	s.nothing()
}

// One side of the traffic of an office only: nobody is seen to answer.
func TestOneSideIsNoSweep(t *testing.T) {
	s := newScene(t)
	for range 3000 {
		ct := s.stack(ip4(0xc0a80101+s.rng.Uint32()%40), []uint16{443, 80, 53, 993, 5222}[s.rng.Uint32()%5], detect.Silent)
		ct.Dst = ip4(0x8efa0000 + s.rng.Uint32()%0xffff)
		s.Contact(ct, 0, 0)
		s.pass(second)
	}
	s.nothing()
}

// The sweep goes on while a flood in forged names hits one port.
func TestSweepWithinFlood(t *testing.T) {
	s := newScene(t)
	for i := range 50 {
		for range 15 * 300 {
			s.Contact(s.bare(ip4(s.rng.Uint32()), 80, detect.Silent), 0, 0)
			s.pass(second / 300)
		}
		s.Contact(s.stack(ip4(0xcb007100+uint32(i)), uint16(7000+i*3), detect.Refused), 0, 0)
	}
	if !s.flood.on {
		t.Error("no flood")
	}
	if g := s.group(Network); g.Count != 50 {
		t.Errorf("%d members of 50", g.Count)
	}
}

// Who fails in the network days after the sweep has nothing to do with it.
func TestSweepIsOver(t *testing.T) {
	s := newScene(t)
	for i := range 20 {
		s.Contact(s.stack(ip4(0xcb007100+uint32(i)), uint16(7000+i*3), detect.Refused), 0, 0)
		s.pass(60 * second)
	}
	s.pass(60 * hour)
	if id := s.Contact(s.stack(ip4(0xcb0071f0), 4711, detect.Refused), 0, 0); id != 0 {
		t.Errorf("campaign %d", id)
	}
	if g := s.group(Network); g.Count != 20 {
		t.Errorf("%d members of 20", g.Count)
	}
}
