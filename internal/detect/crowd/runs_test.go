package crowd

import (
	"testing"

	"portsentry/internal/detect"
)

func TestTwoRunsAreTwoCampaigns(t *testing.T) {
	s := newScene(t)
	a, b := s.anybody(), s.anybody()
	c, d := s.anybody(), s.anybody()
	for i := range 100 {
		for _, m := range []struct {
			ct  *detect.Contact
			run uint64
			sp  uint16
		}{
			{s.bare(a, uint16(1000+2*i), detect.Refused), 0x1234, 41000},
			{s.bare(b, uint16(1001+2*i), detect.Refused), 0x1234, 41001},
			{s.bare(c, uint16(1000+2*i), detect.Refused), 0x9876, 52000},
			{s.bare(d, uint16(1001+2*i), detect.Refused), 0x9876, 52000},
		} {
			m.ct.SrcPort = m.sp
			s.Contact(m.ct, nmap, m.run)
		}
		s.pass(100 * ms)
	}
	s.fetch()
	if len(s.groups) != 2 || s.groups[0].What != Run || s.groups[1].What != Run || s.groups[0].Count != 2 || s.groups[1].Count != 2 {
		t.Fatalf("want two runs of two sources: %+v", s.groups)
	}
	if s.groups[0].ID == s.groups[1].ID {
		t.Error("two runs have one number")
	}
	// A new phase of the first has a new key, and the same sources.
	ct := s.bare(a, 5000, detect.Refused)
	ct.SrcPort = 60000
	if id := s.Contact(ct, nmap, 0x4444); id != s.groups[0].ID {
		t.Errorf("the next phase belongs to %d, want %d", id, s.groups[0].ID)
	}
	e := s.anybody()
	ct = s.bare(e, 5001, detect.Refused)
	ct.SrcPort = 60001
	if id := s.Contact(ct, nmap, 0x4444); id != s.groups[0].ID {
		t.Errorf("another source of the next phase belongs to %d, want %d", id, s.groups[0].ID)
	}
}

// The key of nmap has 16 bits: the same one by accident, from other source ports or at
// another time, is another run; the same one made with another tool is too.
func TestSameKeyByAccident(t *testing.T) {
	s := newScene(t)
	at := func(sport uint16, tool detect.Tool) {
		ct := s.bare(s.anybody(), 99, detect.Refused)
		ct.SrcPort = sport
		if id := s.Contact(ct, tool, 0x1234); id != 0 {
			t.Errorf("source port %d, tool %d: campaign %d", sport, tool, id)
		}
	}
	at(40000, nmap)
	at(45000, nmap)
	at(40001, masscan)
	s.pass(hour)
	at(40000, nmap)
	s.nothing()
}

// A key that is the source port joins neighbours only.
func TestKeyIsPort(t *testing.T) {
	s := newScene(t)
	for i, a := range []uint32{0xcb007105, 0x01020304, 0xcb00ff01} {
		ct := s.bare(ip4(a), uint16(99+i), detect.Refused)
		ct.SrcPort = 45678
		if id := s.Contact(ct, masscan, 2<<32|45678); (id != 0) != (i == 2) {
			t.Errorf("%v: campaign %d", ct.Src, id)
		}
	}
	if g := s.group(Run); g.Count != 2 {
		t.Errorf("group of %d", g.Count)
	}
}

// How often a thousand sources with keys of their own fall into one group.
func TestKeysOfThousands(t *testing.T) {
	s := newScene(t)
	grouped := 0
	for range 1000 {
		ct := s.bare(s.anybody(), uint16(s.rng.Uint32()), detect.Refused)
		ct.SrcPort = uint16(33000 + s.rng.Uint32()%31000)
		s.Contact(ct, nmap, uint64(1+s.rng.Uint32()%0xffff))
		s.pass(500 * ms)
	}
	s.fetch()
	for _, g := range s.groups {
		if g.What == Run {
			grouped += g.Count
		}
	}
	if grouped > 4 {
		t.Errorf("%d of a thousand independent sources were grouped", grouped)
	}
}
