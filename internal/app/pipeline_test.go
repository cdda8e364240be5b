package app

import (
	"net/netip"
	"testing"
	"time"

	"portsentry/internal/capture"
	"portsentry/internal/config"
	"portsentry/internal/detect"
	"portsentry/internal/host"
	"portsentry/internal/pktgen"
)

// home is the real host, living at one more address.
type home struct{ *asHost }

var here = netip.MustParseAddr("192.0.2.1")

func (h home) Own(a netip.Addr) bool { return a == here || h.asHost.Own(a) }

// newPath is the packet path as the daemon wires it, with the real facts of
// this machine, and a SYN to a trap port that nothing listens on.
func newPath(tb testing.TB) (*pipeline, *queue, *capture.Frame) {
	tb.Helper()
	w, err := host.NewWatcher()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { w.Close() })
	var lookups [2]*host.Lookup
	for i, questions := range []int{host.Questions, strangerQuestions} {
		if lookups[i], err = host.NewLookup(questions); err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { lookups[i].Close() })
	}
	f := &facts{watcher: w}
	queue := newQueue()
	ports := config.PortSet{{First: 1, Last: 1}}.Bitmap()
	nothing := func(uint8, netip.AddrPort, netip.AddrPort) bool { return false }
	h, strangers := &asHost{facts: f, lookup: lookups[0], sent: nothing}, &asHost{facts: f, lookup: lookups[1], sent: nothing}
	p := &pipeline{
		facts: f, host: h, strangers: strangers, out: queue,
		detector: detect.New(detect.Options{Rules: detect.Rules{TCP: ports, UDP: ports}, Host: home{h}, Strangers: home{strangers}}),
	}
	packet := pktgen.Packet{
		Src: netip.MustParseAddr("203.0.113.9"), Dst: here,
		Proto: pktgen.ProtoTCP, SrcPort: 40000, DstPort: 1, Flags: pktgen.SYN, TTL: 64,
	}
	data, err := packet.AppendTo(nil, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return p, queue, &capture.Frame{
		Time: time.Now().UnixNano(), Data: data, WireLen: len(data),
		Link: capture.LinkNetwork, EtherType: 0x0800, PacketType: capture.PacketHost,
	}
}

// one takes the one sighting that was put in.
func one(tb testing.TB, q *queue) detect.Sighting {
	tb.Helper()
	b := q.take()
	if b == nil {
		tb.Fatal("no sighting")
	}
	defer q.back(b)
	if b.n != 1 {
		tb.Errorf("%d sightings", b.n)
	}
	return b.seen[0]
}

// What the kernel has judged is queued likewise, with what it knows besides; and
// nobody is asked.
func TestEventPath(t *testing.T) {
	p, queue, f := newPath(t)
	e := capture.Event{
		Kind: capture.EventProbe, Time: f.Time, Src: netip.MustParseAddr("203.0.113.9"), Dst: netip.MustParseAddr("198.51.100.77"),
		SrcPort: 40000, DstPort: 1, Proto: 6, Flags: 2, Times: 1, Held: true, Peer: true,
	}
	p.event(&e)
	s := one(t, queue)
	if s.Kind != detect.KindSYN || !s.Held || !s.Peer || s.Verified || s.Count != 1 {
		t.Errorf("%+v", s)
	}
	e.Kind, e.Times, e.Held = capture.EventCounted, 41, false
	p.event(&e)
	if s = one(t, queue); s.Count != 42 || s.Held || p.shown.Load() != 1 {
		t.Errorf("%+v stands for 41 more, %d shown", s, p.shown.Load())
	}
	e.Kind, e.Times = capture.EventVerified, 1
	p.event(&e)
	if s = one(t, queue); s.Kind != detect.KindConnect || !s.Verified {
		t.Errorf("%+v", s)
	}
	e.Kind = capture.EventLiving
	if p.event(&e); queue.take() != nil {
		t.Error("a sign of life is no sighting")
	}
	allocs := testing.AllocsPerRun(100, func() {
		e.Kind = capture.EventProbe
		p.event(&e)
		one(t, queue)
	})
	if allocs != 0 {
		t.Errorf("%v allocations an event", allocs)
	}
}

func TestPacketPath(t *testing.T) {
	p, queue, f := newPath(t)
	p.handle(f)
	if s := one(t, queue); s.Kind != detect.KindSYN || s.DstPort != 1 || !s.Triggered {
		t.Errorf("%+v", s)
	}
	// What finds no room is counted, and nobody waits for it.
	for range queueLen + 1 {
		p.handle(f)
	}
	if p.lost.Load() != 1 {
		t.Errorf("%d lost, want 1", p.lost.Load())
	}
}

func TestPacketPathAllocatesNothing(t *testing.T) {
	p, queue, f := newPath(t)
	if n := testing.AllocsPerRun(1000, func() {
		p.handle(f)
		one(t, queue)
	}); n != 0 {
		t.Errorf("%v allocations a packet, want 0", n)
	}
}

// BenchmarkPacketPath is decode and detect of a trap hit, host look-ups and the
// queue included.
func BenchmarkPacketPath(b *testing.B) {
	p, queue, f := newPath(b)
	b.ReportAllocs()
	for b.Loop() {
		p.handle(f)
		queue.back(queue.take())
	}
}
