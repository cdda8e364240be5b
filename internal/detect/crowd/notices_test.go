package crowd

import (
	"testing"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

func TestForgedFlood(t *testing.T) {
	for name, o := range map[string]struct {
		many   bool
		answer detect.Outcome
	}{"one port": {false, detect.Refused}, "served port": {false, detect.Answered}, "many ports": {true, detect.Silent}} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			for range 600 { // an ordinary ten minutes
				s.Contact(s.stack(s.anybody(), 443, detect.Answered), 0, 0)
				s.pass(second)
			}
			from := s.now
			for range 60_000 {
				port := uint16(80)
				if o.many {
					port = uint16(s.rng.Uint32())
				}
				ct := s.bare(ip4(s.rng.Uint32()), port, o.answer)
				ct.Head.TTL = uint8(s.rng.Uint32())
				s.Contact(ct, 0, 0)
				s.pass(ms)
			}
			if !s.flood.on {
				t.Error("no flood while there is one")
			}
			if s.Flooding() != o.many || s.Flooded(decode.ProtoTCP, 22) || s.Flooded(decode.ProtoTCP, 80) == o.many {
				t.Error("the flood is at other ports")
			}
			to := s.now
			s.pass(60 * second)
			if s.flood.on {
				t.Error("a flood that is over")
			}
			n := s.notice(Flood)
			if n.First < from-2*second || n.First > from+second || n.End < to-second || n.End > to {
				t.Errorf("from %d to %d s, want %d to %d", n.First/second, n.End/second, from/second, to/second)
			}
			if n.Sources < 59_000 || n.Sources > 61_000 || (n.Port == 80) == o.many {
				t.Errorf("%+v", n)
			}
		})
	}
}

// A crowd of people comes at once, and completes its handshakes.
func TestCrowdOfPeopleIsNoFlood(t *testing.T) {
	s := newScene(t)
	for range 10_000 {
		s.Contact(s.stack(s.anybody(), 443, detect.Answered), 0, 0)
		s.pass(ms)
	}
	s.pass(60 * second)
	s.nothing()
}

// One who is very fast is no flood, and does not hide one.
func TestFastScannerIsNoFlood(t *testing.T) {
	s := newScene(t)
	a := s.anybody()
	for i := range 65_535 {
		s.Contact(s.bare(a, uint16(i), detect.Refused), nmap, 0)
		s.pass(ms / 20)
	}
	s.nothing()
}

func TestWorm(t *testing.T) {
	s := newScene(t)
	from := s.now
	for range 500 {
		s.Contact(s.stack(s.anybody(), 37215, detect.Refused), 0, 0)
		s.pass(30 * second)
	}
	s.pass(4 * hour)
	n := s.notice(Worm)
	if n.Port != 37215 || n.First < from || n.End == 0 || n.Packets < 450 || n.Packets > 500 || n.Sources < 400 || n.Sources > int(n.Packets) {
		t.Errorf("%+v", n)
	}
}

func TestFewSourcesAreNoWorm(t *testing.T) {
	s := newScene(t)
	for range 500 {
		s.Contact(s.stack(s.anybody(), 37215, detect.Refused), 0, 0)
		s.pass(600 * second)
	}
	s.nothing()
}

func TestBackscatterStorm(t *testing.T) {
	for _, victims := range []uint32{1, 100} {
		s := newScene(t)
		s.pass(100 * second)
		from := s.now
		for range 5000 {
			p := decode.Probe{Time: s.now, Src: ip4(0xcb007100 + s.rng.Uint32()%victims), Dst: here, Proto: decode.ProtoTCP,
				SrcPort: 80, DstPort: uint16(s.rng.Uint32()), Flags: decode.SYN | decode.ACK, Seq: s.rng.Uint32()}
			if s.rng.Uint32()%4 == 0 {
				p.Flags = decode.RST | decode.ACK
			}
			s.Backscatter(&p)
			s.pass(10 * ms)
		}
		s.pass(60 * second)
		n := s.notice(Backscatter)
		if n.Packets != 5000 || n.First < from-second || n.First > from+second || n.End < from+49*second || n.End > from+51*second {
			t.Errorf("%+v", n)
		}
		if n.Victim.IsValid() != (victims == 1) || n.Sources < int(victims)*9/10 || n.Sources > int(victims)*11/10 {
			t.Errorf("%d victims: %d, %v", victims, n.Sources, n.Victim)
		}
		if len(s.groups) != 0 {
			t.Error("backscatter makes groups")
		}
	}
}

// The late packets of one's own conversations.
func TestFewLatePacketsAreNoStorm(t *testing.T) {
	s := newScene(t)
	for range 5000 {
		s.Backscatter(&decode.Probe{Time: s.now, Src: s.anybody(), Dst: here, Proto: decode.ProtoTCP, SrcPort: 443,
			DstPort: uint16(s.rng.Uint32()), Flags: decode.RST})
		s.pass(second)
	}
	s.nothing()
}

func TestZombie(t *testing.T) {
	s := newScene(t)
	watcher := s.anybody()
	for i := range 200 {
		if i >= 6 {
			s.pass(second / 2)
		} else {
			s.pass(30 * ms)
		}
		s.Backscatter(&decode.Probe{Time: s.now, Src: watcher, Dst: here, Proto: decode.ProtoTCP, SrcPort: uint16(52000 + i%256),
			DstPort: 80, Flags: decode.SYN | decode.ACK, Seq: 77000 + uint32(i), Window: 1024})
	}
	s.pass(hour)
	n := s.notice(Zombie)
	if n.Victim != watcher || n.Port != 80 || n.Packets != 200 || n.End == 0 {
		t.Errorf("%+v", n)
	}
}

// nmap gives up after six probes with a host that has no IP ID to watch.
func TestZombieTried(t *testing.T) {
	s := newScene(t)
	for i := range 6 {
		s.Backscatter(&decode.Probe{Time: s.now, Src: s.anybody(), Dst: here, Proto: decode.ProtoTCP, SrcPort: 80,
			DstPort: uint16(s.rng.Uint32()), Flags: decode.SYN | decode.ACK, Seq: s.rng.Uint32()})
		s.Backscatter(&decode.Probe{Time: s.now, Src: ip4(0xcb007105), Dst: here, Proto: decode.ProtoTCP, SrcPort: uint16(37191 + i),
			DstPort: 80, Flags: decode.SYN | decode.ACK, Seq: 1966937875 + uint32(i)})
		s.pass(30 * ms)
	}
	if n := s.notice(Zombie); n.Packets != 6 || n.Victim != ip4(0xcb007105) {
		t.Errorf("%+v", n)
	}
}

func TestNoZombie(t *testing.T) {
	for name, probe := range map[string]func(s *scene, i int, p *decode.Probe){
		"flooded victim": func(s *scene, _ int, p *decode.Probe) { p.SrcPort, p.DstPort = 80, uint16(s.rng.Uint32()) },
		"flooded from one port": func(s *scene, _ int, p *decode.Probe) {
			p.SrcPort, p.DstPort, p.Seq = 80, 1234, s.rng.Uint32()
		},
		"retransmissions": func(_ *scene, _ int, p *decode.Probe) { p.SrcPort, p.DstPort, p.Seq = 80, 1234, 5 },
		"target of a scan in our name": func(_ *scene, i int, p *decode.Probe) {
			p.SrcPort, p.DstPort = uint16(i), 80
			if i%10 != 0 {
				p.Flags = decode.RST | decode.ACK
			}
		},
		"all ports of a target, open": func(s *scene, i int, p *decode.Probe) {
			p.SrcPort, p.DstPort, p.Time = uint16(i), 80, start+int64(i)*ms
		},
		"open ports of a target": func(s *scene, i int, p *decode.Probe) { p.SrcPort, p.DstPort = uint16(i*97), 80 },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			a := s.anybody()
			for i := range 200 {
				p := decode.Probe{Time: s.now, Src: a, Dst: here, Proto: decode.ProtoTCP, Flags: decode.SYN | decode.ACK, Seq: s.rng.Uint32()}
				probe(s, i, &p)
				s.Backscatter(&p)
				s.pass(second / 2)
			}
			s.nothing()
		})
	}
}
