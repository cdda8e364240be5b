package bpf_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"portsentry/internal/bpf"
	"portsentry/internal/pktgen"
)

// Outcomes of what is for no trap.
var (
	open      = outcome{verdict: pass, what: bpf.WhatProbe | bpf.WhatNoTrap, tally: bpf.Tally{Closed: 1, Events: 1}}
	openAsked = outcome{verdict: pass, what: bpf.WhatQuestion | bpf.WhatNoTrap, tally: bpf.Tally{Events: 1}}
)

// asking is an ICMP message of that type, of the source's family, with a right
// checksum.
func asking(t testing.TB, src netip.Addr, kind byte) []byte {
	t.Helper()
	b, at := icmp(t, src, kind), ethernet+ipv4Fixed
	if !src.Is4() {
		at = ethernet + ipv6Fixed
	}
	was := uint16(8) << 8
	if !src.Is4() {
		was = 128 << 8
	}
	// RFC 1624: take the word out, and put the new one in.
	sum := uint32(^binary.BigEndian.Uint16(b[at+2:])) + uint32(^was) + uint32(kind)<<8
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[at+2:], ^uint16(sum>>16+sum))
	return b
}

// Every kind of packet that begins something at a port, in both families: told of,
// and no more, whatever a trap would bring about.
func TestClosedPorts(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{})
	i := 0
	for _, c := range []struct {
		name   string
		flags  uint16
		begins bool
	}{
		{"SYN", syn, true},
		{"SYN with ECN", syn | ece | cwr, true},
		{"FIN", fin, true},
		{"NULL", 0, true},
		{"XMAS", fin | psh | urg, true},
		{"XMAS with SYN", fin | psh | urg | syn, true},
		{"SYN FIN", syn | fin, true},
		{"PSH", psh, true},
		{"ECE alone", ece, true},
		{"Maimon", fin | ack, false},
		{"ACK", ack, false},
		{"SYN ACK", syn | ack, false},
		{"RST", rst, false},
		{"RST ACK", rst | ack, false},
		{"SYN RST", syn | rst, false},
		{"PSH ACK", psh | ack, false},
		{"all", 0x1ff, false},
	} {
		for _, src := range []func(int) netip.Addr{source, source6} {
			i++
			want := nothing
			if c.begins {
				want = open
			}
			name := fmt.Sprintf("%s from %v", c.name, src(i))
			for _, rules := range []bpf.Rules{
				{Sense: true, Scans: true},
				{Sense: true, Scans: true, TCP: bpf.BanAll, UDP: bpf.BanAll, TrapServed: true, Verify: true},
			} {
				r.rules(rules)
				r.check(name, frame(t, tcp(src(i), noTrap, c.flags)), want)
			}
			late := nothing
			if c.flags&^(ece|cwr) == syn {
				late = open
			}
			r.check(name+", where answers arrive", frame(t, tcp(src(i), latePort+1, c.flags)), late)
			r.rules(bpf.Rules{Scans: true})
			r.check(name+", nobody wants to know", frame(t, tcp(src(i), noTrap, c.flags)), nothing)
		}
	}
	r.rules(bpf.Rules{Sense: true, Scans: true, UDP: bpf.BanAll})
	for _, src := range []netip.Addr{from4, from6} {
		r.check("datagram", frame(t, udp(src, noTrap)), open)
		r.check("datagram where answers arrive", frame(t, udp(src, latePort+1)), nothing)
		dhcp := udp(src, 68)
		r.check("datagram to where a DHCP client is", frame(t, dhcp), open)
		if dhcp.SrcPort = 67; !src.Is4() {
			dhcp.SrcPort, dhcp.DstPort = 547, 546
		}
		r.check("from a DHCP server", frame(t, dhcp), nothing)
		r.check("a trap is a trap", frame(t, tcp(src, trap, syn)), sighted)
		r.check("datagram to a trap", frame(t, udp(src, trap)), banned)
		r.check("its source is kept out", frame(t, udp(src, noTrap)), soft)
	}
}

// What has no ports: once for each source and what it asks for.
func TestClosedOthers(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true, Scans: true})
	raw := func(src netip.Addr, proto uint8) []byte {
		p := tcp(src, 0, 0)
		p.Proto, p.SrcPort = proto, 0
		p.Payload = make([]byte, 8)
		return frame(t, p)
	}
	sctp := func(src netip.Addr, port uint16, chunk byte) []byte {
		p := tcp(src, port, 0)
		p.Proto = pktgen.ProtoSCTP
		b := frame(t, p)
		at := ethernet + ipv4Fixed
		if !src.Is4() {
			at = ethernet + ipv6Fixed
		}
		b[at+12] = chunk
		return b
	}
	for name, c := range map[string]struct {
		frame []byte
		begin bool
	}{
		"echo":                   {asking(t, from4, 8), true},
		"timestamp":              {asking(t, from4, 13), true},
		"mask":                   {asking(t, from4, 17), true},
		"echo over IPv6":         {asking(t, from6, 128), true},
		"echo reply":             {asking(t, from4, 0), false},
		"unreachable":            {asking(t, from4, 3), false},
		"echo reply over IPv6":   {asking(t, from6, 129), false},
		"neighbour solicitation": {asking(t, from6, 135), false},
		"INIT":                   {sctp(from4, 80, 1), true},
		"INIT over IPv6":         {sctp(from6, 80, 1), true},
		"COOKIE-ECHO":            {sctp(from4, 80, 10), true},
		"SCTP data":              {sctp(from4, 80, 0), false},
		"SCTP ABORT":             {sctp(from6, 80, 6), false},
		"protocol 143":           {raw(from4, 143), true},
		"protocol 143 over IPv6": {raw(from6, 143), true},
		"ICMP over IPv6":         {raw(from6, 1), true},
		"ICMPv6 over IPv4":       {raw(from4, 58), true},
		"GRE":                    {raw(from4, 47), false},
		"OSPF over IPv6":         {raw(from6, 89), false},
		"no next header":         {raw(from6, 59), false},
	} {
		want := nothing
		if c.begin {
			want = open
		}
		r.check(name, c.frame, want)
		r.check(name+", again", c.frame, nothing)
	}
	r.check("INIT to another port", sctp(from4, 81, 1), open)
	r.check("echo from another source", asking(t, source(1), 8), open)
	other := icmpTo(t, from4, other4)
	r.check("echo to somebody else", other, nothing)
	wrong := asking(t, source(2), 8)
	wrong[ethernet+ipv4Fixed+3]++
	r.check("echo with a wrong checksum", wrong, bad)
	wrong6 := asking(t, source6(2), 128)
	wrong6[ethernet+ipv6Fixed+2]++
	r.check("the same over IPv6", wrong6, bad)
	short := asking(t, source(3), 8)
	r.check("echo cut short", short[:ethernet+ipv4Fixed+7], nothing)
	long := tcp(source(4), 0, 0)
	long.Proto, long.Payload = pktgen.ProtoICMP, make([]byte, 1400)
	r.check("a long echo", frame(t, long), open)

	r.run(sctp(source(5), 80, 10))
	r.run(asking(t, source(5), 17))
	all := r.events()
	if len(all) != 2 || all[0].Options[0] != 10 || all[0].Dport != 80 || all[0].Sport != anyone || all[0].OptionsLen != 0 ||
		all[1].Options[0] != 17 || all[1].Options[1] != 0 {
		t.Errorf("%+v", all)
	}
}

func icmpTo(t testing.TB, src, dst netip.Addr) []byte {
	t.Helper()
	p := tcp(src, 1, 0)
	p.Proto, p.Dst = pktgen.ProtoICMP, dst
	return frame(t, p)
}

// Whoever is there is asked of the sockets, and of connection tracking.
func TestClosedIsNotServed(t *testing.T) {
	rules := bpf.Rules{Sense: true, Scans: true}
	r := newRig(t, bpf.SensorOptions{}, rules)
	port := fmt.Sprint(noTrap)
	l := bpf.Listening(t, "tcp", ":"+port, 0)
	datagrams, err := net.ListenPacket("udp", ":"+port)
	r.must(err)
	for i, src := range []func(int) netip.Addr{source, source6} {
		for range 3 {
			for _, flags := range []uint16{syn, fin, 0, syn | fin} {
				r.check("to a listener", frame(t, tcp(src(1), noTrap, flags)), nothing)
			}
			r.check("datagram to a socket", frame(t, udp(src(1), noTrap)), nothing)
		}
		r.check("its neighbour", frame(t, tcp(src(1), noTrap+1, syn)), open)
		r.check("datagram to its neighbour", frame(t, udp(src(1), noTrap+1)), open)
		through, through6 := tcp(src(2), noTrap+1, syn), udp(src(2), noTrap+1)
		through.Dst, through6.Dst = []netip.Addr{other4, other6}[i], []netip.Addr{other4, other6}[i]
		r.check("on the way through", frame(t, through), nothing)
		r.check("datagram on the way through", frame(t, through6), nothing)
	}
	bpf.Command(t, "conntrack -I -t 100 -p udp --orig-src "+own4.String()+" --orig-dst "+from4.String()+" --sport 30 --dport 50123")
	r.check("an answer", frame(t, udp(from4, 30)), nothing)
	bpf.Command(t, "conntrack -I -t 100 -p tcp --state ESTABLISHED --orig-src "+from4.String()+" --orig-dst "+own4.String()+" --sport 50123 --dport 31 --dst-nat 10.0.0.5")
	r.check("translated", frame(t, tcp(from4, 31, syn)), nothing)
	// Somebody was there a moment ago; then nobody is any more.
	r.must(l.Close())
	r.must(datagrams.Close())
	bpf.Eventually(t, "the service to be forgotten", func() bool {
		r.run(frame(t, tcp(from4, noTrap, syn)))
		r.run(frame(t, udp(from6, noTrap)))
		return len(r.events()) == 2
	})
	r.counted()
	rules.Elsewhere = true
	r.rules(rules)
	r.check("who is there cannot be known", frame(t, tcp(source(100), 33, syn)), openAsked)
	r.check("the same of UDP", frame(t, udp(source6(100), 33)), openAsked)

	wrong := frame(t, tcp(source(101), 34, syn))
	wrong[ethernet+ipv4Fixed+16]++
	r.check("what no host takes", wrong, bad)
}

// Bans hold at ports that are no traps as before.
func TestClosedUnderBans(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true, Scans: true})
	for _, src := range []netip.Addr{from4, from6} {
		for strength, want := range map[bpf.Strength]outcome{bpf.Limited: narrow, bpf.Soft: soft, bpf.Full: full} {
			r.ban(prefix(src), strength, bpf.BanAll)
			r.check("SYN", frame(t, tcp(src, noTrap, syn)), want)
			r.check("datagram", frame(t, udp(src, noTrap)), want)
		}
		r.ban(prefix(src), bpf.Soft, bpf.BanUDP)
		r.check("what the ban is not about", frame(t, tcp(src, noTrap, syn)), open)
	}
}

// A fragment of TCP may begin something at any port; nothing else of a datagram that
// comes in pieces does.
func TestClosedFragments(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true, Scans: true})
	pieces := func(p pktgen.Packet) [][]byte {
		p.FragmentSize, p.Payload = 8, make([]byte, 100)
		f, err := p.Frames(wire)
		r.must(err)
		return f
	}
	probe := pieces(tcp(from4, noTrap, syn))
	r.check("first", probe[0], raw)
	r.check("second", probe[1], raw)
	r.check("of UDP", pieces(udp(from4, noTrap))[0], nothing)
	through := tcp(from4, noTrap, syn)
	through.Dst = other4
	r.check("on the way through", pieces(through)[0], nothing)
}

// What is for no trap takes half of the ring and no more: the rest is counted by
// source, and traps are told of as ever. Each packet is found again.
func TestClosedShare(t *testing.T) {
	const size, sources, each = 64 << 10, 50, 40
	record := 8 + binary.Size(bpf.Event{})
	r := newRig(t, bpf.SensorOptions{RingBytes: size}, bpf.Rules{Sense: true, Scans: true})
	for i := range sources * each {
		src := source(i % sources)
		if i%2 == 1 {
			src = source6(i % sources)
		}
		r.verdictOf("closed", frame(t, tcp(src, noTrap, syn)), pass)
	}
	c := r.counted()
	room := uint64(size/2/record + 1)
	if c.Closed != sources*each || c.Events != room || c.ClosedCounted != c.Closed-room || c.Counted+c.Uncounted+c.ClosedLost != 0 {
		t.Errorf("%d for no trap, room for %d: %+v", sources*each, room, c)
	}
	traps := size/2/record - 1
	for i := range traps {
		r.verdictOf("trap", frame(t, tcp(source(1000+i), trap, syn)), pass)
	}
	if c = r.counted(); c.Events != uint64(traps) || c.Counted != 0 {
		t.Errorf("%d traps: %+v", traps, c)
	}
	for range 5 {
		r.verdictOf("trap", frame(t, tcp(source(1), trap, syn)), pass)
	}
	if c = r.counted(); c.Counted == 0 || c.ClosedCounted != 0 {
		t.Errorf("no room at all: %+v", c)
	}
	if n, err := r.Counted(); err != nil || n != c.Counted+sources*each-room {
		t.Errorf("%d counted, %v", n, err)
	}
	var missed, ofTraps uint64
	for range 2 {
		r.must(r.Missed(func(e *bpf.Event) {
			switch e.What {
			case bpf.WhatCounted | bpf.WhatNoTrap:
				missed += uint64(e.Times)
			case bpf.WhatCounted:
				ofTraps += uint64(e.Times)
			default:
				t.Errorf("%+v", e)
			}
		}))
	}
	if missed != sources*each-room || ofTraps != c.Counted {
		t.Errorf("%d and %d of traps counted by source", missed, ofTraps)
	}
	if all := r.events(); len(all) != int(room)+traps+5-int(c.Counted) {
		t.Errorf("%d events", len(all))
	}
}

// More sources than there is room for are counted in all.
func TestClosedLost(t *testing.T) {
	const room = 1 << 13
	r := newRig(t, bpf.SensorOptions{RingBytes: 4 << 10}, bpf.Rules{Sense: true, Scans: true})
	for i := range room + 500 {
		r.verdictOf("closed", frame(t, tcp(source(i), noTrap, syn)), pass)
	}
	if c := r.counted(); c.ClosedCounted != c.Closed-c.Events || c.ClosedLost != c.ClosedCounted-room {
		t.Errorf("%+v", c)
	}
	r.events()
	r.run(frame(t, tcp(from4, trap, syn)))
	if all := r.events(); len(all) != 1 {
		t.Errorf("%d events of a trap", len(all))
	}
}

// A source's worker is whose ring has its events, and the same for all of a /64.
func TestWorkerOf(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{Workers: 3}, bpf.Rules{Sense: true, Scans: true})
	for i := range 60 {
		src := []netip.Addr{source(i), source6(i)}[i%2]
		r.run(frame(t, tcp(src, noTrap, syn)))
		all := r.events()
		if len(all) != 1 || all[0].worker != r.WorkerOf(src) {
			t.Errorf("%v: %d events, worker %d", src, len(all), r.WorkerOf(src))
		}
		if next := src.Next(); next.Is6() {
			r.run(frame(t, tcp(next, noTrap, syn)))
			if more := r.events(); len(more) != 1 || more[0].worker != all[0].worker {
				t.Errorf("%v and %v: %+v", src, next, more)
			}
		}
	}
}
