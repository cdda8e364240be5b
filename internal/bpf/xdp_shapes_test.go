package bpf_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"portsentry/internal/bpf"
	"portsentry/internal/pktgen"
)

// Cut at every length: no host takes any of it.
func TestTruncatedFrames(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true})
	extended := tcp(from6, trap, syn)
	extended.ExtHeaders = []pktgen.ExtHeader{{Type: pktgen.HopByHop, Len: 8}, {Type: pktgen.Routing, Len: 16}, {Type: pktgen.AuthHdr, Len: 16}}
	tagged := tcp(from4, trap, syn)
	tagged.VLANs = []uint16{5, 6}
	for _, c := range []struct {
		p     pktgen.Packet
		whole int
	}{
		{tcp(from4, trap, syn), ethernet + ipv4Fixed + 20},
		{tcp(from6, trap, syn), ethernet + ipv6Fixed + 20},
		{udp(from4, trap), ethernet + ipv4Fixed + 8},
		{udp(from6, trap), ethernet + ipv6Fixed + 8},
		{extended, ethernet + ipv6Fixed + 40 + 20},
		{tagged, ethernet + 8 + ipv4Fixed + 20},
	} {
		c.p.Payload = []byte("0123456789")
		if c.p.Proto == pktgen.ProtoTCP {
			c.p.TCPOptions = []byte{2, 4, 5, 0xb4}
		}
		b := frame(t, c.p)
		for n := ethernet; n < len(b); n++ {
			want := nothing
			if n >= c.whole {
				want = bad
			}
			r.check(fmt.Sprintf("%v, cut to %d of %d", c.p.Src, n, len(b)), b[:n], want)
		}
		r.check("whole", b, sighted)
	}
}

// A frame may come in several pieces, the first of them of any length.
func TestFramesInPieces(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true})
	extended := tcp(from6, trap, syn)
	extended.ExtHeaders = slices.Repeat([]pktgen.ExtHeader{{Type: pktgen.DestOptions, Len: 2048}}, 4)
	tagged := udp(from4, trap)
	tagged.VLANs = []uint16{5, 6}
	for _, p := range []pktgen.Packet{tcp(from4, trap, syn), tcp(from6, trap, syn), udp(from6, trap), tagged, extended} {
		p.Payload = make([]byte, 5000)
		r.check("as long as it comes", frame(t, p), sighted)
	}
	extended.ExtHeaders = extended.ExtHeaders[:1]
	for _, p := range []pktgen.Packet{tcp(from4, trap, syn), tcp(from6, trap, syn), udp(from6, trap), tagged, extended} {
		p.TCPOptions = []byte{2, 4, 5, 0xb4}
		b := frame(t, p)
		r.verdictOf("in one piece", b, pass)
		want := r.events()
		r.counted()
		for n := ethernet; n < len(b); n++ {
			verdict, err := r.Program().Run(&ebpf.RunOptions{Data: b, Context: [6]uint32{1: uint32(n)}}) // data_end
			if errors.Is(err, unix.EINVAL) {
				t.Skip("needs Linux 6.18, which lets a test say how long the first piece is")
			}
			r.must(err)
			got := r.events()
			if c := r.counted(); verdict != pass || len(got) != 1 || len(want) != 1 || c != sighted.tally {
				t.Fatalf("%v, %d bytes in the first piece: verdict %d, %+v", p.Src, n, verdict, c)
			}
			if got[0].Event.Time = want[0].Time; got[0].Event != want[0].Event {
				t.Fatalf("%v, %d bytes in the first piece:\n got %+v\nwant %+v", p.Src, n, got[0].Event, want[0].Event)
			}
		}
	}
}

// Up to six extension headers are read here, what is longer in user space.
func TestExtensionHeaders(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true})
	const dest, esp = pktgen.DestOptions, 50
	for _, c := range []struct {
		name string
		kind []uint8
		size int
		want outcome
	}{
		{"hop-by-hop", []uint8{0}, 8, sighted},
		{"hop-by-hop of 2048 bytes", []uint8{0}, 2048, sighted},
		{"routing", []uint8{43}, 8, sighted},
		{"destination options", []uint8{60}, 16, sighted},
		{"AH", []uint8{51}, 24, sighted},
		{"AH of 8 bytes", []uint8{51}, 8, sighted},
		{"mobility", []uint8{135}, 8, sighted},
		{"HIP", []uint8{139}, 40, sighted},
		{"shim6", []uint8{140}, 8, sighted},
		{"six of them", []uint8{0, 60, 43, 51, 135, 139}, 8, sighted},
		{"six long ones", slices.Repeat([]uint8{dest}, 6), 400, sighted},
		{"seven", []uint8{0, 60, 43, 51, 135, 139, 140}, 8, raw},
		{"a hundred", slices.Repeat([]uint8{dest}, 100), 8, raw},
		{"an atomic fragment", []uint8{pktgen.FragmentHdr}, 8, raw},
		{"the same behind others", []uint8{dest, pktgen.FragmentHdr}, 8, raw},
		{"hop-by-hop, not first", []uint8{dest, 0}, 8, nothing},
		{"ESP", []uint8{esp}, 8, nothing},
		{"ESP behind others", []uint8{dest, esp}, 8, nothing},
	} {
		for _, p := range []pktgen.Packet{tcp(from6, trap, syn), udp(from6, trap)} {
			for _, k := range c.kind {
				p.ExtHeaders = append(p.ExtHeaders, pktgen.ExtHeader{Type: k, Len: c.size})
			}
			b := frame(t, p)
			if c.name == "hop-by-hop, not first" {
				b[ethernet+6] = dest // pktgen's own order is the same
			}
			r.check(c.name, b, c.want)
		}
	}
}

func TestTags(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true})
	for n, want := range []outcome{sighted, sighted, sighted, nothing} {
		for _, qinq := range []bool{false, true} {
			if qinq && n == 0 {
				continue
			}
			for _, src := range []netip.Addr{from4, from6} {
				p := tcp(src, trap, syn)
				p.VLANs, p.QinQ = []uint16{1, 2, 3}[:n], qinq
				r.check(fmt.Sprintf("%d tags", n), frame(t, p), want)
			}
		}
	}
}

// Fragments that may hold a header for a trap are handed over as they are.
func TestFragments(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true})
	pieces := func(p pktgen.Packet, size int) [][]byte {
		p.FragmentSize, p.Payload = size, bytes.Repeat([]byte("x"), 4000)
		f, err := p.Frames(wire)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for _, size := range []int{8, 200, 248, 800, 3000} {
		first := pieces(tcp(from4, trap, syn), size)[0]
		r.verdictOf("first", first, pass)
		all, n := r.events(), min(len(first), bpf.RawBytes)
		if len(all) != 1 || all[0].Length != uint32(len(first)) || !bytes.Equal(all[0].raw[:n], first[:n]) {
			t.Errorf("%d bytes: %d events", len(first), len(all))
		}
	}
	r.counted()
	tiny := pieces(tcp(from4, trap, syn), 8)
	r.check("tiny, first", tiny[0], raw)
	r.check("tiny, second", tiny[1], raw)
	r.check("tiny, at 56", tiny[7], raw)
	r.check("tiny, at 64", tiny[8], nothing)
	r.check("first, no trap", pieces(tcp(from4, noTrap, syn), 8)[0], nothing)
	r.check("first of UDP", pieces(udp(from4, trap), 8)[0], raw)
	r.check("later of UDP", pieces(udp(from4, trap), 8)[1], nothing)
	for i, f := range pieces(tcp(from6, noTrap, syn), 512) {
		r.check(fmt.Sprintf("IPv6, %d", i), f, raw)
	}
	through := tcp(from4, trap, syn)
	through.Dst = other4
	r.check("on the way through", pieces(through, 8)[0], nothing)
	r.rules(bpf.Rules{TCP: bpf.BanAll})
	r.check("nobody wants to know", tiny[0], nothing)
}

// Linux takes off any number of tags that are for priority only, IEEE 802.1Q:
// behind them is the same packet.
func TestPriorityTags(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true})
	disguised := func(tags ...uint16) []byte {
		p := tcp(from4, trap, syn)
		p.VLANs = tags
		return frame(t, p)
	}
	for n := range 3 {
		r.check(fmt.Sprintf("%d tags", n), disguised(make([]uint16, n)...), sighted)
	}
	badDrop := bad
	badDrop.verdict = drop
	more := [][]byte{disguised(0, 0, 0), disguised(make([]uint16, 20)...), disguised(0, 0, 5), disguised(5, 0, 0), disguised(5, 6, 0)}
	for i, f := range more {
		r.check(fmt.Sprintf("more, %d, nobody is kept out", i), f, bad)
	}
	r.check("other tags are somebody else's", disguised(5, 6, 7), nothing)
	r.rules(bpf.Rules{Sense: true, TCP: bpf.BanAll})
	for i, f := range more {
		r.check(fmt.Sprintf("more, %d, a hit bans", i), f, badDrop)
	}
	r.rules(bpf.Rules{})
	r.ban(prefix(source(1)), bpf.Full, bpf.BanAll)
	for i, f := range more {
		r.check(fmt.Sprintf("more, %d, somebody is kept out", i), f, badDrop)
	}
}
