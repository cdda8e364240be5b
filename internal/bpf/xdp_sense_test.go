package bpf_test

import (
	"bytes"
	"encoding/binary"
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

const (
	fin = pktgen.FIN
	syn = pktgen.SYN
	rst = pktgen.RST
	psh = pktgen.PSH
	ack = pktgen.ACK
	urg = pktgen.URG
	ece = pktgen.ECE
	cwr = pktgen.CWR
	ae  = pktgen.AE
)

// Every kind of probe, log only and armed, in both families.
func TestKinds(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true})
	armed := bpf.Rules{Sense: true, TCP: bpf.BanAll, UDP: bpf.BanAll}
	const bannable, seen, passed = 0, 1, 2
	i := 0
	for _, c := range []struct {
		name  string
		flags uint16
		is    int
	}{
		{"SYN", syn, bannable},
		{"SYN with ECN", syn | ece | cwr, bannable},
		{"FIN", fin, bannable},
		{"NULL", 0, bannable},
		{"XMAS", fin | psh | urg, bannable},
		{"XMAS with SYN", fin | psh | urg | syn, bannable},
		{"Maimon", fin | ack, seen},
		{"ACK", ack, seen},
		{"SYN FIN", syn | fin, seen},
		{"PSH", psh, seen},
		{"FIN URG", fin | urg, seen},
		{"ECE alone", ece, seen},
		{"AE alone", ae, seen},
		{"SYN ACK", syn | ack, passed},
		{"SYN ACK FIN", syn | ack | fin, passed},
		{"RST", rst, passed},
		{"RST ACK", rst | ack, passed},
		{"SYN RST", syn | rst, passed},
		{"PSH ACK", psh | ack, passed},
		{"FIN PSH ACK", fin | psh | ack, passed},
		{"URG ACK", urg | ack, passed},
		{"all", 0x1ff, passed},
	} {
		for _, src := range []func(int) netip.Addr{source, source6} {
			i++
			name := fmt.Sprintf("%s from %v", c.name, src(i))
			b := frame(t, tcp(src(i), trap, c.flags))
			r.rules(bpf.Rules{Sense: true})
			r.check(name, b, []outcome{sighted, sighted, noise}[c.is])
			r.check(name+", no trap", frame(t, tcp(src(i), noTrap, c.flags)), nothing)
			r.rules(armed)
			r.check(name+", armed", b, []outcome{banned, sighted, noise}[c.is])
		}
	}
	for _, src := range []netip.Addr{from4, from6} {
		b := frame(t, udp(src, trap))
		r.rules(bpf.Rules{Sense: true})
		r.check("UDP", b, sighted)
		r.check("UDP, no trap", frame(t, udp(src, noTrap)), nothing)
		r.rules(bpf.Rules{Sense: true, TCP: bpf.BanAll})
		r.check("UDP, only TCP armed", b, sighted)
		r.rules(armed)
		r.check("UDP, armed", b, banned)
	}
	r.rules(bpf.Rules{})
	r.check("nobody wants to know", frame(t, tcp(source(9999), trap, syn)), outcome{verdict: pass, tally: bpf.Tally{Sighted: 1}})
}

// Inside ip_local_port_range only a bare SYN is evidence.
func TestEphemeralRange(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true, TCP: bpf.BanAll, UDP: bpf.BanAll})
	r.check("FIN", frame(t, tcp(from4, latePort, fin)), noise)
	r.check("ACK", frame(t, tcp(from4, latePort, ack)), noise)
	r.check("SYN FIN", frame(t, tcp(from6, latePort, syn|fin)), noise)
	r.check("UDP", frame(t, udp(from4, latePort)), noise)
	r.check("SYN", frame(t, tcp(from4, latePort, syn)), banned)
	r.check("SYN", frame(t, tcp(from6, latePort, syn|ece|cwr)), banned)
}

// What no host would take, and what is not for us.
func TestNoEvidence(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true, TCP: bpf.BanAll, UDP: bpf.BanAll})
	edit := func(p pktgen.Packet, change func(b []byte)) []byte {
		b := frame(t, p)
		change(b)
		return b
	}
	const l4, l6 = ethernet + ipv4Fixed, ethernet + ipv6Fixed
	bad4, options := tcp(from4, trap, syn), tcp(from4, trap, syn)
	bad4.BadIPChecksum = true
	options.IPOptions, options.BadIPChecksum = make([]byte, 40), true
	through, through6 := tcp(from4, trap, syn), udp(from6, trap)
	through.Dst, through6.Dst = other4, other6
	mapped := tcp(from6, trap, syn)
	mapped.Src = netip.MustParseAddr("::ffff:203.0.113.7")
	much := tcp(source(7), trap, syn)
	much.Payload = bytes.Repeat([]byte("odd"), 467)
	some := udp(from6, trap)
	some.Payload = make([]byte, 125)
	toMapped := tcp(from6, trap, syn)
	toMapped.Dst = netip.AddrFrom16(own4.As16())
	for _, c := range []struct {
		name  string
		frame []byte
		want  outcome
	}{
		{"IPv4 checksum", frame(t, bad4), bad},
		{"IPv4 checksum, 60 bytes of header", frame(t, options), bad},
		{"TCP data offset 4", edit(tcp(from4, trap, syn), func(b []byte) { b[l4+12] = 4 << 4 }), bad},
		{"TCP data offset beyond the packet", edit(tcp(from6, trap, syn), func(b []byte) { b[l6+12] = 6 << 4 }), bad},
		{"UDP length 7", edit(udp(from4, trap), func(b []byte) { b[l4+5] = 7 }), bad},
		{"UDP length beyond the packet", edit(udp(from6, trap), func(b []byte) { b[l6+5] = 9 }), bad},
		{"UDP without checksum over IPv6", edit(udp(from6, trap), func(b []byte) { b[l6+6], b[l6+7] = 0, 0 }), bad},
		{"IPv4 header of 16 bytes", edit(tcp(from4, trap, syn), func(b []byte) { b[ethernet] = 0x44 }), nothing},
		{"IPv4 total length below the header", edit(tcp(from4, trap, syn), func(b []byte) { b[ethernet+3] = 19 }), nothing},
		{"IPv4 total length inside TCP", edit(tcp(from4, trap, syn), func(b []byte) { b[ethernet+3] = 39 }), nothing},
		{"IPv6 length inside TCP", edit(tcp(from6, trap, syn), func(b []byte) { b[ethernet+5] = 19 }), nothing},
		{"version 5", edit(tcp(from4, trap, syn), func(b []byte) { b[ethernet] = 0x55 }), nothing},
		{"version 4 as IPv6", edit(tcp(from6, trap, syn), func(b []byte) { b[ethernet] = 0x40 }), nothing},
		{"ARP", edit(tcp(from4, trap, syn), func(b []byte) { b[13] = 6 }), nothing},
		{"TCP checksum", edit(tcp(from4, trap, syn), func(b []byte) { b[l4+16]++ }), bad},
		{"TCP checksum over IPv6", edit(tcp(from6, trap, syn), func(b []byte) { b[l6+17]++ }), bad},
		{"UDP checksum", edit(udp(from4, trap), func(b []byte) { b[l4+7] ^= 4 }), bad},
		{"UDP checksum over IPv6", edit(udp(from6, trap), func(b []byte) { b[l6+7] ^= 4 }), bad},
		{"last byte of much data", edit(much, func(b []byte) { b[len(b)-1]++ }), bad},
		{"first byte of data over IPv6", edit(some, func(b []byte) { b[l6+8]++ }), bad},
		{"on the way through", frame(t, through), elsewhere},
		{"on the way through, IPv6", frame(t, through6), elsewhere},
		{"from an IPv4-mapped address", frame(t, mapped), raw},
		{"to an IPv4-mapped address of ours", frame(t, toMapped), nothing},
		{"ICMP", icmp(t, from4, 8), nothing},
		{"IPv4 total length 0", edit(tcp(source(1), trap, syn), func(b []byte) {
			b[ethernet+3] = 0
			b[ethernet+11] += 40 // its checksum
			if b[ethernet+11] < 40 {
				b[ethernet+10]++
			}
		}), banned},
		{"UDP without checksum", edit(udp(source(2), trap), func(b []byte) { b[l4+6], b[l4+7] = 0, 0 }), banned},
		{"UDP length 0 over IPv6", edit(udp(source6(3), trap), func(b []byte) {
			b[l6+5] = 0
			b[l6+7] += 8
			if b[l6+7] < 8 {
				b[l6+6]++
			}
		}), banned},
		{"much data", frame(t, much), banned},
		{"TCP checksum left to the card", edit(tcp(source(5), trap, syn), partial), banned},
		{"UDP checksum left to the card over IPv6", edit(udp(source6(6), trap), partial), banned},
		{"link padding", append(frame(t, tcp(source(4), trap, syn)), make([]byte, 6)...), banned},
	} {
		r.check(c.name, c.frame, c.want)
	}
}

// partial takes all but the pseudo-header out of the checksum of a frame, as a
// sender does that leaves it to a card.
func partial(b []byte) {
	l4, addrs, proto := ethernet+ipv4Fixed, b[ethernet+12:ethernet+20], b[ethernet+9]
	if b[ethernet]>>4 == 6 {
		l4, addrs, proto = ethernet+ipv6Fixed, b[ethernet+8:ethernet+40], b[ethernet+6]
	}
	at := l4 + 16
	if proto == pktgen.ProtoUDP {
		at = l4 + 6
	}
	sum := uint32(len(b)-l4) + uint32(proto)
	for i := 0; i < len(addrs); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(addrs[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[at:], uint16(sum+sum>>16))
}

// All that is known of a packet is carried.
func TestEventFields(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true})
	options := []byte{2, 4, 5, 0xb4, 4, 2, 1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 3, 3, 7, 0}
	p4 := pktgen.Packet{
		Src: from4, Dst: own4, Proto: pktgen.ProtoTCP, SrcPort: 1234, DstPort: trap, Flags: fin | psh | urg | ae,
		Seq: 0x01020304, Ack: 0x05060708, Window: 1025, Urgent: 777, TCPOptions: options,
		TTL: 37, IPID: 54321, DF: true, IPOptions: []byte{7, 7, 4, 0, 0, 0, 0, 0}, Payload: []byte("hello"),
		VLANs: []uint16{0x3064, 0x0fff}, QinQ: true,
	}
	p6 := p4
	p6.Src, p6.Dst, p6.IPOptions, p6.DF, p6.IPID, p6.VLANs = from6, own6, nil, false, 0, p4.VLANs[:1]
	p6.ExtHeaders = []pktgen.ExtHeader{{Type: pktgen.HopByHop, Len: 8}, {Type: pktgen.DestOptions, Len: 24}}
	u := udp(from4, trap)
	u.Payload = make([]byte, 1200)
	for _, c := range []struct {
		p    pktgen.Packet
		want bpf.Event
	}{
		{p4, bpf.Event{Ipid: 54321, Vlans: 2, Vlan: [2]uint16{0x064, 0xfff}, Ip: bpf.IPDontFragment | bpf.IPOptions}},
		{p6, bpf.Event{Vlans: 1, Vlan: [2]uint16{0x064}, Ip: bpf.IPv6, Marks: 64}},
		{u, bpf.Event{}},
	} {
		b := frame(t, c.p)
		r.verdictOf("probe", b, pass)
		all := r.events()
		if len(all) != 1 {
			t.Fatalf("%d events", len(all))
		}
		got, want := all[0].Event, c.want
		if got.Time == 0 || got.Ifindex == 0 {
			t.Errorf("time %d, interface %d", got.Time, got.Ifindex)
		}
		want.Time, want.Ifindex = got.Time, got.Ifindex
		want.Src.B, want.Dst.B = c.p.Src.As16(), c.p.Dst.As16()
		want.Sport, want.Dport, want.Proto = c.p.SrcPort, c.p.DstPort, c.p.Proto
		want.Flags, want.Window, want.Urgent, want.Seq, want.Ack = c.p.Flags, c.p.Window, c.p.Urgent, c.p.Seq, c.p.Ack
		want.Length, want.Times, want.What, want.Payload = uint32(len(b)), 1, bpf.WhatProbe, uint16(len(c.p.Payload))
		if want.Ttl = c.p.TTL; want.Ttl == 0 {
			want.Ttl = 64
		}
		if c.p.TCPOptions != nil {
			want.OptionsLen = 24
			copy(want.Options[:], options)
		} else {
			want.Options = got.Options // nobody reads them
		}
		if got != want {
			t.Errorf("\n got %+v\nwant %+v", got, want)
		}
	}
}

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
