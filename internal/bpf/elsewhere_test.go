package bpf_test

import (
	"net/netip"
	"testing"

	"portsentry/internal/bpf"
	"portsentry/internal/pktgen"
)

// Where a device of this host takes tagged frames, sockets may be bound to it, which
// cannot be found from below: who hits a trap there is for others to say, and of the
// banned only what opens something is dropped.
func TestTagsForADevice(t *testing.T) {
	rules := bpf.Rules{Sense: true, TCP: bpf.BanAll, UDP: bpf.BanAll, VLANs: true}
	r := newRig(t, bpf.SensorOptions{}, rules)
	tagged := func(p pktgen.Packet, tags ...uint16) []byte {
		p.VLANs = tags
		return frame(t, p)
	}
	asked := outcome{verdict: pass, what: bpf.WhatQuestion, tally: bpf.Tally{Events: 1}}
	for i, src := range []func(int) netip.Addr{source, source6} {
		r.check("SYN", tagged(tcp(src(i), trap, syn), 5), asked)
		r.check("SYN, the inner tag", tagged(tcp(src(10+i), trap, syn), 0, 5), asked)
		r.check("a priority is no VLAN", tagged(tcp(src(20+i), trap, syn), 0), banned)
		r.ban(prefix(src(30)), bpf.Soft, bpf.BanAll)
		r.check("soft, ACK", tagged(tcp(src(30), noTrap, ack), 5), nothing)
		r.check("soft, SYN", tagged(tcp(src(30), noTrap, syn), 5), soft)
		r.ban(prefix(src(31)), bpf.Full, bpf.BanAll)
		r.check("full", tagged(tcp(src(31), noTrap, ack), 5), full)
	}
}

// What Linux answers as a SYN bans as one.
func TestDecoratedSYN(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true, TCP: bpf.BanAll})
	for i, more := range []uint16{0x08, 0x20, 0x28} { // PSH, URG, both
		r.check("SYN and more", frame(t, tcp(source(i), trap, syn|more)), banned)
	}
	r.check("SYN and FIN is thrown away", frame(t, tcp(source(9), trap, syn|fin)), sighted)
}

// Nobody loses the address of this host by a ban of the DHCP server.
func TestLeases(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{})
	for src, ports := range map[netip.Addr][2]uint16{from4: {67, 68}, from6: {547, 546}} {
		r.ban(prefix(src), bpf.Full, bpf.BanAll)
		p := udp(src, ports[1])
		r.check("another client's", frame(t, p), full)
		p.SrcPort = ports[0]
		r.check("lease", frame(t, p), nothing)
	}
}
