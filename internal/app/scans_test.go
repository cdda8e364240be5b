package app

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"portsentry/internal/capture"
	"portsentry/internal/config"
	"portsentry/internal/detect"
)

// finder is a scanner that remembers what it was shown, and finds a scan with every
// nth contact.
type finder struct {
	seen []detect.Contact
	nth  int
	scan detect.Scan
}

func (f *finder) Contact(c *detect.Contact) *detect.Scan {
	f.seen = append(f.seen, *c)
	if f.nth == 0 || len(f.seen)%f.nth > 0 {
		return nil
	}
	f.scan = detect.Scan{Source: c.Src, Kind: c.Kind, Direction: detect.Vertical, Proto: c.Proto, Ports: len(f.seen), Targets: 1, Probes: len(f.seen), Score: 24}
	return &f.scan
}

func TestScansOfPackets(t *testing.T) {
	p, queue, f := newPath(t)
	f.Data[23] = 3 // destination port, which is no trap, and nobody's
	find := &finder{nth: 2}
	p.handle(f)
	if len(find.seen) > 0 || queue.take() != nil {
		t.Error("a contact without a scanner")
	}
	p.scans.Store(newScans(find))
	f.ChecksumPartial = true
	p.handle(f)
	if len(find.seen) != 1 || queue.take() != nil {
		t.Fatalf("%d contacts, and perhaps a sighting", len(find.seen))
	}
	c := find.seen[0]
	if c.Src != netip.MustParseAddr("203.0.113.9") || c.Dst != here || c.Kind != detect.KindSYN || c.Outcome != detect.Refused || c.Trap || c.Time != f.Time {
		t.Errorf("%+v", c)
	}
	p.handle(f)
	want := detect.Found{Kind: detect.KindSYN, Direction: detect.Vertical, Proto: 6, Ports: 2, Targets: 1, Probes: 2, Score: 24}
	s := one(t, queue)
	if s.Scan != want || s.Count != 2 || !s.Triggered || s.Verified || s.Src != c.Src || s.DstPort != c.DstPort || s.Time != f.Time || s.TTL != 64 {
		t.Errorf("%+v", s)
	}
}

// A hit on a trap is a contact as well, and what comes of it goes along.
func TestScansOfTraps(t *testing.T) {
	p, queue, f := newPath(t)
	find := &finder{nth: 2}
	p.scans.Store(newScans(find))
	for i := range 3 {
		if i == 2 { // what the trap decides alone is looked at for what it is part of
			p.detector.SetRules(detect.Rules{TCP: config.PortSet{{First: 1, Last: 1}}.Bitmap(), UDP: new(config.Bitmap)})
		} else {
			p.detector.SetRules(detect.Rules{TCP: config.PortSet{{First: 1, Last: 1}}.Bitmap(), UDP: new(config.Bitmap), Trigger: 3})
		}
		p.handle(f)
		s := one(t, queue)
		if len(find.seen) != i+1 || !find.seen[i].Trap || find.seen[i].Outcome != detect.Refused {
			t.Fatalf("%+v", find.seen)
		}
		if s.Count != uint32(i+1) || s.Triggered != (i > 0) || (s.Scan.Kind == detect.KindSYN) != (i == 1) {
			t.Errorf("%d: %+v", i, s)
		}
	}
}

// What the kernel says of ports that are no traps is believed; what it asks is asked.
func TestScansOfEvents(t *testing.T) {
	p, queue, f := newPath(t)
	find := &finder{}
	closed := capture.Event{
		Kind: capture.EventProbe, Closed: true, Time: f.Time, Src: netip.MustParseAddr("203.0.113.9"), Dst: netip.MustParseAddr("198.51.100.77"),
		SrcPort: 40000, DstPort: 3, Proto: 6, Flags: 2, Times: 1, Peer: true,
	}
	p.event(&closed) // nobody finds scans: not lost on anybody
	p.scans.Store(newScans(find))
	question, counted, ping, trap, hit := closed, closed, closed, closed, closed
	question.Kind = capture.EventQuestion
	counted.Kind, counted.Times = capture.EventCounted, 41
	ping.Proto, ping.ICMPType = 1, 8
	trap.DstPort = 1 // since a moment ago
	hit.Closed, hit.DstPort, hit.Held = false, 1, true
	for _, e := range []*capture.Event{&closed, &question, &counted, &ping, &trap} {
		if p.event(e); queue.take() != nil {
			t.Errorf("%+v is sighted", e)
		}
	}
	p.event(&hit)
	if s := one(t, queue); !s.Held || s.Count != 1 {
		t.Errorf("%+v", s)
	}
	var got []detect.Kind
	for _, c := range find.seen {
		got = append(got, c.Kind)
	}
	// The question is about an address that is not ours.
	if want := []detect.Kind{detect.KindSYN, detect.KindSYN, detect.KindEcho, detect.KindSYN}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if p.shown.Load() != 0 {
		t.Error("what is for no trap counts as a trap's")
	}
	find.nth = 1
	p.event(&closed)
	if s := one(t, queue); !s.Peer || s.Scan.Kind != detect.KindSYN || s.Kind != detect.KindSYN {
		t.Errorf("%+v", s)
	}
}

// Successes are looked at before what fails behind them, and there is room for so
// many.
func TestSuccesses(t *testing.T) {
	p, _, f := newPath(t)
	k := success{5, netip.MustParseAddr("203.0.113.9"), netip.AddrPortFrom(here, 443)}
	p.succeeded(k) // nobody finds scans
	f.Data[23] = 3 // no trap
	f.ChecksumPartial = true
	find := &finder{}
	p.scans.Store(newScans(find))
	for range maxSuccesses + 3 {
		p.succeeded(k)
	}
	if n := p.unnoted.Load(); n != 3 {
		t.Errorf("no room for %d", n)
	}
	p.handle(f)
	if len(find.seen) != maxSuccesses+1 {
		t.Fatalf("%d contacts", len(find.seen))
	}
	want := detect.Contact{Time: 5, Src: k.who, Dst: here, DstPort: 443, Proto: 6, Kind: detect.KindSYN, Outcome: detect.Answered}
	if first, last := find.seen[0], find.seen[maxSuccesses]; first != want || last.Outcome != detect.Refused || last.DstPort != 3 {
		t.Errorf("first %+v, last %+v", first, last)
	}
}

func TestScansAllocateNothing(t *testing.T) {
	p, _, f := newPath(t)
	f.Data[23], f.ChecksumPartial = 3, true
	find := &finder{seen: make([]detect.Contact, 0, 4096)}
	p.scans.Store(newScans(find))
	if n := testing.AllocsPerRun(1000, func() {
		p.succeeded(success{})
		p.handle(f)
	}); n != 0 || len(find.seen) < 2000 {
		t.Errorf("%v allocations a packet, %d contacts", n, len(find.seen))
	}
}

// However many questions are asked about what is for no trap, and left unasked:
// those about traps are asked.
func TestFloodOfStrangers(t *testing.T) {
	p, queue, f := newPath(t)
	trap := *f
	trap.Data = slices.Clone(f.Data)
	f.Data[23] = 3
	f.ChecksumPartial, trap.ChecksumPartial = true, true
	f.Data[33], trap.Data[33] = 1, 1 // FIN: each asks for itself
	find := &finder{}
	p.scans.Store(newScans(find))
	for range 100_000 {
		if p.handle(f); p.detector.Stats().ContactUnsure > 100 {
			break
		}
	}
	p.handle(&trap)
	one(t, queue)
	if s := p.detector.Stats(); s.ContactUnsure == 0 || s.Unsure > 0 {
		t.Errorf("%+v", s)
	}
}

// BenchmarkStrangerPath is decode and detect of a SYN to a port that is no trap, host
// look-ups included, with a scanner that costs nothing: where nobody is, and to a
// service.
func BenchmarkStrangerPath(b *testing.B) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	for name, port := range map[string]int{"nobody": 3, "service": l.Addr().(*net.TCPAddr).Port} {
		b.Run(name, func(b *testing.B) {
			p, _, f := newPath(b)
			binary.BigEndian.PutUint16(f.Data[22:], uint16(port))
			f.ChecksumPartial = true
			p.scans.Store(newScans(nobody{}))
			b.ReportAllocs()
			for b.Loop() {
				p.handle(f)
			}
		})
	}
}

type nobody struct{}

func (nobody) Contact(*detect.Contact) *detect.Scan       { return nil }
func (nobody) Shared(map[netip.Addr]uint64) []detect.Scan { return nil }
func (nobody) Remember()                                  {}
func (nobody) Together(*detect.Contact)                   {}

func TestDatagramPorts(t *testing.T) {
	for _, c := range []struct {
		name   string
		traps  config.PortSet
		served []uint16
		want   config.PortSet
	}{
		{"all but those we send from", nil, nil, config.PortSet{{First: 1, Last: 32767}, {First: 61000, Last: 65535}}},
		{"served", nil, []uint16{1, 53, 53, 123, 65535, 40000}, config.PortSet{{First: 2, Last: 52}, {First: 54, Last: 122}, {First: 124, Last: 32767}, {First: 61000, Last: 65534}}},
		{"traps", config.PortSet{{First: 53, Last: 53}, {First: 34555, Last: 34556}}, []uint16{53, 54, 34555}, config.PortSet{{First: 1, Last: 53}, {First: 55, Last: 32767}, {First: 34555, Last: 34556}, {First: 61000, Last: 65535}}},
	} {
		if got := datagramPorts(c.traps, c.served, 32768, 60999); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func (f *finder) Shared(map[netip.Addr]uint64) []detect.Scan { return nil }
func (f *finder) Remember()                                  {}
func (f *finder) Together(c *detect.Contact)                 { f.seen = append(f.seen, *c) }

// A hit that is answered anyway is looked at as long as there are few.
func TestNaming(t *testing.T) {
	s := newScans(nobody{})
	now, n := int64(1e18), 0
	for range 1000 {
		if s.naming.may(now) {
			n++
		}
	}
	if n != 513 {
		t.Errorf("%d at once", n)
	}
	n = 0
	for range 10_000 {
		now += int64(time.Millisecond)
		if s.naming.may(now) {
			n++
		}
	}
	if n < 1990 || n > 2010 {
		t.Errorf("%d in ten seconds", n)
	}
}
