package bpf_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

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
