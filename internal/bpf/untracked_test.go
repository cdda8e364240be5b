package bpf_test

import (
	"net/netip"
	"testing"

	"portsentry/internal/bpf"
)

// Where connection tracking cannot be asked, a SYN to a trap bans as ever. What may
// answer something of ours is left to user space, and of the banned it passes only
// where nftables looks again.
func TestUntracked(t *testing.T) {
	rules := bpf.Rules{Sense: true, TCP: bpf.BanAll, UDP: bpf.BanAll}
	r := rigUp(t, bpf.OpenUntracked, bpf.SensorOptions{}, rules)
	if tracked := newRig(t, bpf.SensorOptions{}, rules); !tracked.Tracks() {
		t.Fatal("this kernel has no connection tracking to be asked")
	}
	asked := outcome{verdict: pass, what: bpf.WhatQuestion, tally: bpf.Tally{Events: 1}}
	for i, src := range []func(int) netip.Addr{source, source6} {
		r.check("SYN", frame(t, tcp(src(i), trap, syn)), banned)
		r.check("FIN", frame(t, tcp(src(10+i), trap, fin)), asked)
		r.check("ACK", frame(t, tcp(src(20+i), trap, ack)), asked)
		r.check("datagram", frame(t, udp(src(30+i), trap)), asked)

		r.ban(prefix(src(40)), bpf.Soft, bpf.BanAll)
		r.check("soft, ACK: of somebody behind us, for all that is known", frame(t, tcp(src(40), noTrap, ack)), nothing)
		r.check("soft, datagram", frame(t, udp(src(40), noTrap)), soft)
		rules.Nftables = true
		r.rules(rules)
		r.check("soft, datagram, nftables looks again", frame(t, udp(src(40), noTrap)), nothing)
		r.check("soft, SYN", frame(t, tcp(src(40), noTrap, syn)), soft)
		rules.Nftables = false
		r.rules(rules)
	}
}
