package crowd

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

const (
	start  = int64(1_780_000_000) * 1e9
	ms     = int64(time.Millisecond)
	second = int64(time.Second)
	hour   = int64(time.Hour)

	nmap    = detect.Tool(1)
	masscan = detect.Tool(2)
)

var here = netip.MustParseAddr("198.51.100.7")

// scene is a Crowd and its packet time.
type scene struct {
	*Crowd
	t      *testing.T
	now    int64
	ticked int64
	rng    *rand.Rand
	groups []Group
	told   []Notice
}

func newScene(t *testing.T) *scene {
	s := &scene{Crowd: New(Options{}), t: t, now: start, ticked: start, rng: rand.New(rand.NewPCG(1, 2))}
	s.Tick(start)
	return s
}

// pass lets time pass, with a Tick a second (a minute, when there is much of it).
func (s *scene) pass(d int64) {
	step := second
	if d > hour {
		step = 60 * second
	}
	s.now += d
	for s.ticked+step <= s.now {
		s.ticked += step
		s.Tick(s.ticked)
	}
}

// stack is the SYN of a Linux client, bare that of a raw scanner.
func (s *scene) stack(src netip.Addr, port uint16, o detect.Outcome) *detect.Contact {
	ct := &detect.Contact{Time: s.now, Src: src, Dst: here, SrcPort: uint16(s.rng.Uint32()), DstPort: port,
		Proto: decode.ProtoTCP, Kind: detect.KindSYN, Outcome: o, Verified: o == detect.Answered, Spoke: o == detect.Answered}
	ct.Head = detect.Header{Dst: here, SrcPort: ct.SrcPort, DstPort: port, Proto: ct.Proto, Flags: decode.SYN, Window: 64240,
		MSS: 1460, OptionsLen: 20, Seq: s.rng.Uint32(), IPID: s.rng.Uint32() & 0xffff, TTL: 40 + uint8(s.rng.Uint32()%20), DF: true}
	return ct
}

func (s *scene) bare(src netip.Addr, port uint16, o detect.Outcome) *detect.Contact {
	ct := s.stack(src, port, o)
	ct.Verified, ct.Spoke = false, false
	ct.Head.Window, ct.Head.OptionsLen, ct.Head.DF = 1024, 4, false
	return ct
}

// fetch collects what was found since.
func (s *scene) fetch() {
	for g := range s.Groups() {
		found := false
		for i := range s.groups {
			if s.groups[i].ID == g.ID {
				s.groups[i], found = g, true
			}
		}
		if !found {
			s.groups = append(s.groups, g)
		}
	}
	for n := range s.Notices() {
		found := false
		for i := range s.told {
			if s.told[i].ID == n.ID {
				s.told[i], found = n, true
			}
		}
		if !found {
			s.told = append(s.told, n)
		}
	}
}

func (s *scene) nothing() {
	s.t.Helper()
	s.fetch()
	for _, g := range s.groups {
		s.t.Errorf("group that is none: %v of %d %v: %s", g.What, g.Count, g.Members[:min(6, len(g.Members))], g.Reason)
	}
	for _, n := range s.told {
		s.t.Errorf("notice of nothing: %v: %s", n.What, n.Reason)
	}
}

func (s *scene) group(w What) Group {
	s.t.Helper()
	s.fetch()
	if len(s.groups) != 1 || s.groups[0].What != w {
		for _, g := range s.groups {
			s.t.Logf("%d: %v of %d %v: %s", g.ID, g.What, g.Count, g.Members[:min(12, len(g.Members))], g.Reason)
		}
		s.t.Fatalf("%d groups, want one of %v", len(s.groups), w)
	}
	return s.groups[0]
}

func (s *scene) notice(k NoticeKind) Notice {
	s.t.Helper()
	s.fetch()
	if len(s.told) != 1 || s.told[0].What != k {
		for _, n := range s.told {
			s.t.Logf("%d: %v: %s", n.ID, n.What, n.Reason)
		}
		s.t.Fatalf("%d notices, want one of %v", len(s.told), k)
	}
	return s.told[0]
}

func ip4(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// anybody is a public address, elsewhere each time.
func (s *scene) anybody() netip.Addr {
	for {
		if a := ip4(s.rng.Uint32()); a.IsGlobalUnicast() && !a.IsPrivate() && a.As4()[0] < 224 && a.As4()[0] != 0 {
			return a
		}
	}
}

func TestShodanLikeSourcesAreNoCampaign(t *testing.T) {
	s := newScene(t)
	// Thirty addresses of a search engine's, all over the world, each with tools of
	// its own, each at a few ports that everybody asks for and one that nobody does.
	for i := range 30 {
		a := s.anybody()
		for j, port := range []uint16{22, 80, 443, 3389, uint16(2000 + i*7)} {
			ct := s.bare(a, port, detect.Refused)
			ct.Head.Window, ct.Head.MSS = uint16(1000+i*500), uint16(1400+i)
			s.Contact(ct, detect.Tool(3+i%5), uint64(0x1000+i*13+j%2))
			s.pass(20 * second)
		}
	}
	s.nothing()
}

func TestBounded(t *testing.T) {
	c := New(Options{Sources: 1 << 10, Probes: 1 << 8, Runs: 1 << 8, Areas: 1 << 8, Pairs: 1 << 10, Groups: 8, Members: 16})
	s := &scene{Crowd: c, t: t, now: start, ticked: start, rng: rand.New(rand.NewPCG(1, 2))}
	for i := range 20000 {
		ct := s.bare(ip4(0x0a000000+uint32(i*7)), uint16(i*31), detect.Refused)
		c.Contact(ct, nmap, uint64(i/20+1))
		ct.SrcPort, ct.Head.TTL = 50000, 41
		c.Contact(ct, nmap, uint64(i/20+1))
		s.now += second / 10
	}
	st := c.Stats()
	if st.Evicted == 0 || st.Groups == 0 || st.Members == 0 {
		t.Fatalf("nothing was dropped, nothing was bounded: %+v", st)
	}
	n := 0
	for g := range c.Groups() {
		n++
		if len(g.Members) > 16 || g.Count < len(g.Members) {
			t.Errorf("group of %d names %d", g.Count, len(g.Members))
		}
	}
	if n > 8 {
		t.Errorf("%d groups at a time", n)
	}
}

// The zero time, times before it and times that go back are no reason to fall over.
func TestOddTimes(t *testing.T) {
	s := newScene(t)
	for _, now := range []int64{0, -5 * second, start, start - hour, 1<<63 - 1, -1 << 63, start} {
		s.now = now
		s.Contact(s.bare(s.anybody(), 99, detect.Refused), nmap, 7)
		s.Backscatter(&decode.Probe{Time: now, Src: s.anybody(), Dst: here, Proto: decode.ProtoTCP, Flags: decode.SYN | decode.ACK})
		s.Tick(now)
	}
	s.Finish()
}

// One packet with a time far ahead, as damaged captures have them, blinds nobody.
func TestOnePacketAhead(t *testing.T) {
	s := newScene(t)
	ct := s.bare(s.anybody(), 80, detect.Silent)
	ct.Time = start + 1000*24*hour
	s.Contact(ct, 0, 0)
	for range 20_000 {
		s.Contact(s.bare(s.anybody(), 80, detect.Silent), 0, 0)
		s.pass(ms)
	}
	if !s.flood.on {
		t.Error("no flood is seen after a packet of the future")
	}
}
