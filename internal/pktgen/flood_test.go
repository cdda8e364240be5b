package pktgen

import (
	"bytes"
	"context"
	"errors"
	"math"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// TestVariationIsRebuilt compares every edited frame with one built anew.
func TestVariationIsRebuilt(t *testing.T) {
	v4, v6 := netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("2001:db8:5::/64")
	ports := []uint16{1, 11, 65535, 0}
	for _, c := range []struct {
		name   string
		packet Packet
		opts   FloodOpts
	}{
		{"tcp", syn4(), FloodOpts{SourcePrefix: v4, Sources: 70000, DstPorts: ports, VarySrcPort: true}},
		{"tcp6", syn6(), FloodOpts{SourcePrefix: v6, Sources: 70000, DstPorts: ports, VarySrcPort: true}},
		{"udp", with(syn4(), udp), FloodOpts{SourcePrefix: v4, Sources: 3, DstPorts: ports, VarySrcPort: true}},
		{"udp6 behind a header", with(syn6(), func(p *Packet) { udp(p); p.ExtHeaders = []ExtHeader{{DestOptions, 16}} }), FloodOpts{SourcePrefix: v6, Sources: 3, DstPorts: ports}},
		{"sctp", with(syn4(), sctp), FloodOpts{SourcePrefix: v4, Sources: 3, DstPorts: ports, VarySrcPort: true}},
		{"icmp", with(syn4(), func(p *Packet) { p.Proto = ProtoICMP }), FloodOpts{SourcePrefix: v4, Sources: 3}},
		{"icmp6", with(syn6(), func(p *Packet) { p.Proto = ProtoICMPv6 }), FloodOpts{SourcePrefix: v6, Sources: 3}},
		{"options and tags", with(syn4(), func(p *Packet) { p.IPOptions = make([]byte, 4); p.VLANs = []uint16{5} }), FloodOpts{DstPorts: ports}},
		{"nothing", syn4(), FloodOpts{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := newVariation(&c.packet, testLink, c.opts)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 200_000 {
				if i%977 != 0 && i > 500 && i < 130_000 { // sample the middle
					continue
				}
				v.edit(i%batch, i)
				want := c.packet
				if c.opts.Sources > 0 {
					want.Src = nth(c.opts.SourcePrefix, i%c.opts.Sources)
				}
				if c.opts.VarySrcPort {
					want.SrcPort = uint16(1024 + (40000-1024+i)%(65536-1024))
				}
				if len(c.opts.DstPorts) > 0 {
					want.DstPort = ports[i%len(ports)]
				}
				b, err := want.AppendTo(nil, testLink)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(v.frames[i%batch], b) {
					t.Fatalf("frame %d is\n%x, want\n%x", i, v.frames[i%batch], b)
				}
			}
		})
	}
}

func nth(p netip.Prefix, i int) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	n := len(b)
	for k := 0; k < 4; k++ {
		b[n-1-k] += byte(i >> (8 * k))
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func TestFloodRefusals(t *testing.T) {
	s := &Sender{link: *testLink}
	wide := netip.MustParsePrefix("198.18.0.0/24")
	for i, c := range []struct {
		p Packet
		o FloodOpts
	}{
		{syn4(), FloodOpts{}},
		{syn4(), FloodOpts{Count: maxFlood + 1}},
		{syn4(), FloodOpts{Count: 1, Rate: -1}},
		{syn4(), FloodOpts{Count: 1, Sources: 1}},
		{syn4(), FloodOpts{Count: 1, Sources: 257, SourcePrefix: wide}},
		{syn6(), FloodOpts{Count: 1, Sources: 2, SourcePrefix: wide}},
		{with(syn4(), func(p *Packet) { p.FragmentSize = 8 }), FloodOpts{Count: 1}},
		{with(syn4(), func(p *Packet) { p.Proto = ProtoICMP }), FloodOpts{Count: 1, VarySrcPort: true}},
		{with(syn4(), func(p *Packet) { sctp(p); p.BadChecksum = true }), FloodOpts{Count: 1}},
		{Packet{}, FloodOpts{Count: 1}},
	} {
		if sent, err := s.Flood(t.Context(), c.p, c.o); err == nil {
			t.Errorf("flood %d sent %+v", i, sent)
		}
	}
}

func TestEditAllocatesNothing(t *testing.T) {
	p := with(syn4(), udp)
	v, err := newVariation(&p, testLink, FloodOpts{
		SourcePrefix: netip.MustParsePrefix("198.18.0.0/15"), Sources: 1000, DstPorts: []uint16{1, 2}, VarySrcPort: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	if n := testing.AllocsPerRun(1000, func() { v.edit(i%batch, i); i++ }); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

// TestPacer holds the due times without a clock of the machine.
func TestPacer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pacer{start: time.Now(), rate: 1000}
		time.Sleep(10*time.Millisecond + 500*time.Microsecond)
		if n := p.wait(t.Context(), 0); n != 11 { // at 0, 1, ... 10 ms
			t.Errorf("%d frames are due after 10.5 ms", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if n := p.wait(ctx, 5000); n != 1 {
			t.Errorf("a cancelled wait gives %d", n)
		}
		if n := (&pacer{}).wait(t.Context(), 5); n != batch {
			t.Errorf("without a rate %d are due", n)
		}
	})
}

func TestFloodCountAndRate(t *testing.T) {
	scanner, host := pair(t)
	// Multicast listener reports and the like would be counted as well.
	if err := scanner.NS.Sysctl("net.ipv6.conf.all.disable_ipv6", "1"); err != nil {
		t.Fatal(err)
	}
	s := openTestSender(t, scanner)
	for _, c := range []struct {
		count int
		rate  float64
	}{{3000, 200_000}, {2000, 10_000}, {100, 500}, {50_000, 0}} {
		before := received(t, host)
		p := syn4()
		p.Dst = host.Addr4()
		sent, err := s.Flood(t.Context(), p, FloodOpts{
			Count: c.count, Rate: c.rate, DstPorts: []uint16{1, 11},
			SourcePrefix: netip.MustParsePrefix("198.18.0.0/15"), Sources: 1000,
		})
		if err != nil {
			t.Fatal(err)
		}
		in := received(t, host) - before
		t.Logf("%d at %.0f/s: %.0f/s, %d dropped, %d came in", c.count, c.rate, sent.Rate(), sent.Dropped, in)
		if sent.Frames != c.count || int(in) != c.count-sent.Dropped {
			t.Errorf("sent %+v, came in %d, want %d", sent, in, c.count)
		}
		// The pace is a lower bound on the time; how much later a busy machine is
		// done is not ours to say.
		if want := time.Duration(float64(c.count-1) / max(c.rate, 1) * 1e9); c.rate > 0 && sent.Took < want {
			t.Errorf("%d at %.0f/s took %v, want %v", c.count, c.rate, sent.Took, want)
		}
	}
}

func TestFloodEnds(t *testing.T) {
	scanner, _ := pair(t)
	s := openTestSender(t, scanner)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	sent, err := s.Flood(ctx, syn4(), FloodOpts{Count: maxFlood, Rate: 100})
	if !errors.Is(err, context.DeadlineExceeded) || sent.Frames < 1 || sent.Frames > 10 {
		t.Errorf("%+v, %v", sent, err)
	}
}

// BenchmarkFlood gives the frames a second at full speed, one core. On a veth
// pair the sender's core also runs the receiver's stack; here that throws the
// frames away early, because they are for another hardware address.
func BenchmarkFlood(b *testing.B) {
	scanner, host := pair(b)
	s := openTestSender(b, scanner)
	s.link.Dst = testLink.Dst
	p := syn4()
	p.Dst = host.Addr4()
	b.ReportAllocs()
	b.ResetTimer()
	sent, err := s.Flood(b.Context(), p, FloodOpts{
		Count: min(b.N, maxFlood), DstPorts: []uint16{1, 11},
		SourcePrefix: netip.MustParsePrefix("100.64.0.0/10"), Sources: 1 << 20,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(sent.Rate(), "frames/s")
	if math.IsNaN(sent.Rate()) {
		b.Fatal("no time passed")
	}
}
