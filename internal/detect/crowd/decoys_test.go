package crowd

import (
	"net/netip"
	"testing"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// decoyScan is nmap -D with n names, the real one at place me: each port in all names
// within some milliseconds, TTLs at random.
func decoyScan(s *scene, n int, ports []uint16, ttl func() uint8) []netip.Addr {
	var names []netip.Addr
	for range n {
		names = append(names, s.anybody())
	}
	for _, port := range ports {
		probe := s.bare(names[0], port, detect.Refused)
		for i, a := range names {
			ct := *probe
			ct.Src, ct.Time, ct.Head.TTL = a, s.now+int64(i)*ms/3, ttl()
			s.Contact(&ct, nmap, 0)
		}
		s.pass(10 * ms)
	}
	return names
}

func portsFrom(first, n int) []uint16 {
	var p []uint16
	for i := range n {
		p = append(p, uint16(first+i))
	}
	return p
}

func TestDecoys(t *testing.T) {
	for me := range 10 {
		s := newScene(t)
		ttl := func() uint8 { return 37 + uint8(s.rng.Uint32()%23) }
		names := decoyScan(s, 10, portsFrom(1000, 50), ttl)
		g := s.group(Decoys)
		if g.Count != 10 || len(g.Members) != 10 || g.Real.IsValid() {
			t.Fatalf("group of %d (%v), real %v", g.Count, g.Members, g.Real)
		}
		if g.Ports < 49 {
			t.Errorf("%d ports", g.Ports)
		}
		// -sV: the real one comes back.
		ct := s.stack(names[me], 1003, detect.Answered)
		if id := s.Contact(ct, 0, 0); id != g.ID {
			t.Errorf("place %d: the real one belongs to %d, the group is %d", me, id, g.ID)
		}
		if g = s.group(Decoys); g.Real != names[me] {
			t.Errorf("place %d: real one %v, want %v", me, g.Real, names[me])
		}
	}
}

// One port only, and few names: two, with a TTL that is fixed.
func TestFewDecoys(t *testing.T) {
	s := newScene(t)
	decoyScan(s, 10, []uint16{22}, func() uint8 { return 50 })
	if g := s.group(Decoys); g.Count != 10 {
		t.Errorf("one port: group of %d", g.Count)
	}
	s = newScene(t)
	decoyScan(s, 2, portsFrom(20, 5), func() uint8 { return 50 })
	if g := s.group(Decoys); g.Count != 2 {
		t.Errorf("two names: group of %d", g.Count)
	}
}

// ACK and FIN+ACK scans have sequence number 0; SCTP has none to see.
func TestDecoysWithoutSequence(t *testing.T) {
	for name, change := range map[string]func(*detect.Contact){
		"ack": func(ct *detect.Contact) {
			ct.Kind, ct.Head.Flags, ct.Head.Seq, ct.Head.Ack = detect.KindACK, decode.ACK, 0, 0xd0e1f203
			ct.Head.MSS, ct.Head.OptionsLen = 0, 0
		},
		"sctp": func(ct *detect.Contact) {
			ct.Kind, ct.Proto = detect.KindINIT, decode.ProtoSCTP
			ct.Head = detect.Header{Dst: ct.Dst, DstPort: ct.DstPort, Proto: decode.ProtoSCTP, IPID: 4711, PayloadLen: 20}
		},
	} {
		s := newScene(t)
		for port := range uint16(20) {
			probe := s.bare(s.anybody(), 1000+port, detect.Refused)
			change(probe)
			for i := range int64(10) {
				ct := *probe
				ct.Src, ct.Time, ct.Head.TTL = netip.AddrFrom4([4]byte{198, 51, 100, byte(10 * i)}), s.now+i*ms/3, 37+uint8(s.rng.Uint32()%23)
				s.Contact(&ct, nmap, 0)
			}
			s.pass(10 * ms)
		}
		if g := s.group(Decoys); g.Count != 10 {
			t.Errorf("%s: group of %d", name, g.Count)
		}
	}
}

// The name of a customer is borrowed: his own connection does not make him the scanner.
func TestDecoyIsCustomer(t *testing.T) {
	s := newScene(t)
	customer := s.anybody()
	s.Contact(s.stack(customer, 443, detect.Answered), 0, 0)
	real := s.anybody()
	for _, port := range portsFrom(20, 30) {
		p := s.bare(customer, port, detect.Refused)
		q := *p
		q.Src, q.Head.TTL = real, 38
		r := *p
		r.Src, r.Head.TTL = s.anybody(), 57
		for _, ct := range []*detect.Contact{p, &q, &r} {
			s.Contact(ct, nmap, 0)
		}
		s.pass(5 * ms)
	}
	s.Contact(s.stack(customer, 443, detect.Answered), 0, 0)
	if g := s.group(Decoys); g.Real.IsValid() {
		t.Errorf("the customer %v is called the real one", g.Real)
	}
	ct := s.stack(real, 22, detect.Answered)
	s.Contact(ct, 0, 0)
	if g := s.group(Decoys); g.Real != real {
		t.Errorf("real one %v, want %v", g.Real, real)
	}
}

// A router that translates addresses, seen on both of its sides: each packet in two
// names.
func TestTranslatedIsNoDecoy(t *testing.T) {
	s := newScene(t)
	for i := range 200 {
		ct := s.bare(ip4(0x0a000005), uint16(100+i), detect.Answered)
		ct.Head.TTL = 64
		s.Contact(ct, 0, 0)
		out := *ct
		out.Src, out.Head.TTL, out.Time = ip4(0xcb007105), 63, ct.Time+ms/10
		s.Contact(&out, 0, 0)
		s.pass(50 * ms)
	}
	s.nothing()
}

// Ordinary clients with a poor stack (MSS only) at the same ports at the same time.
func TestPoorStacksAreNoDecoys(t *testing.T) {
	s := newScene(t)
	for range 20000 {
		s.Contact(s.bare(s.anybody(), 443, detect.Answered), 0, 0)
		s.pass(3 * ms)
	}
	s.nothing()
}

func TestSamePacketInThousandNamesIsNoDecoy(t *testing.T) {
	s := newScene(t)
	first := s.bare(s.anybody(), 80, detect.Refused)
	for range 3000 {
		ct := *first
		ct.Src, ct.Time = s.anybody(), s.now
		s.Contact(&ct, 0, 0)
		s.pass(ms / 4)
	}
	s.fetch()
	for _, g := range s.groups {
		if g.What == Decoys {
			t.Errorf("%d names are called decoys", g.Count)
		}
	}
}

// A name that was borrowed does not stick to its owner.
func TestDecoyIsForgotten(t *testing.T) {
	s := newScene(t)
	names := decoyScan(s, 5, portsFrom(1000, 5), func() uint8 { return 50 })
	if id := s.Contact(s.stack(names[3], 80, detect.Refused), 0, 0); id == 0 {
		t.Error("no campaign")
	}
	s.pass(25 * hour)
	if id := s.Contact(s.stack(names[3], 80, detect.Refused), 0, 0); id != 0 {
		t.Errorf("campaign %d a day later", id)
	}
}

// UDP has no sequence number: IP ID, ports and length are what is the same.
func TestDecoysUDP(t *testing.T) {
	s := newScene(t)
	var names []netip.Addr
	for range 6 {
		names = append(names, s.anybody())
	}
	for port := range uint16(30) {
		probe := s.bare(names[0], 1000+port, detect.Silent)
		probe.Proto, probe.Kind = decode.ProtoUDP, detect.KindUDP
		probe.Head = detect.Header{IPID: s.rng.Uint32()&0xffff | 1, TTL: 50}
		for _, a := range names {
			ct := *probe
			ct.Src = a
			s.Contact(&ct, 0, 0)
		}
		s.pass(20 * ms)
	}
	if g := s.group(Decoys); g.Count != 6 {
		t.Errorf("group of %d", g.Count)
	}
}
