package bpf_test

import (
	"net/netip"
	"testing"
	"time"

	"portsentry/internal/bpf"
)

// The packet that decides is dropped, and so is what follows, until it ends.
func TestProvisionalBan(t *testing.T) {
	rules := bpf.Rules{Sense: true, TCP: bpf.BanTCP, UDP: bpf.BanUDP, Provisional: time.Minute}
	r := newRig(t, bpf.SensorOptions{}, rules)
	for _, src := range []netip.Addr{from4, from6} {
		r.check("hit", frame(t, tcp(src, trap, syn)), banned)
		r.check("again", frame(t, tcp(src, trap, syn)), soft)
		r.check("another port", frame(t, tcp(src, noTrap, syn)), soft)
		r.check("a protocol that the ban is not about", frame(t, udp(src, noTrap)), nothing)
		r.check("a hit by that protocol", frame(t, udp(src, trap)), banned)
		r.check("now about both", frame(t, udp(src, noTrap)), soft)
		r.check("now about both", frame(t, tcp(src, noTrap, syn)), soft)
	}
	r.check("somebody else", frame(t, tcp(source(1), noTrap, syn)), nothing)

	rules.LimitedOnly = true
	r.rules(rules)
	r.check("limited by rule", frame(t, tcp(source(2), trap, syn)), limited)
	r.check("then", frame(t, udp(source(2), noTrap)), narrow)
	rules.LimitedOnly = false
	r.rules(rules)
	for i, src := range []netip.Addr{source(3), source6(3)} {
		r.must(r.MarkPeer(src.As16()))
		r.check("peer", frame(t, tcp(src, trap, syn)), limited)
		r.check("then", frame(t, udp(src, noTrap)), narrow)
		if e := r.eventsOf(t, frame(t, tcp(source(100+i), trap, ack))); e.Ip&bpf.IPPeer != 0 {
			t.Error("somebody else is called a peer")
		}
		rules.TCP = 0
		r.rules(rules)
		another := src.Next()
		r.must(r.MarkPeer(another.As16()))
		if e := r.eventsOf(t, frame(t, tcp(another, trap, syn))); e.Ip&bpf.IPPeer == 0 {
			t.Error("a peer is not called one")
		}
		rules.TCP = bpf.BanTCP
		r.rules(rules)
	}

	rules.Provisional = 30 * time.Millisecond
	r.rules(rules)
	r.check("short", frame(t, tcp(source(5), trap, syn)), outcome{
		verdict: drop, what: bpf.WhatProbe, made: uint8(bpf.Soft), tally: bpf.Tally{Sighted: 1, Hits: 1, Events: 1}})
	bpf.Eventually(t, "it ends by itself", func() bool { return r.run(frame(t, tcp(source(5), noTrap, syn))) == pass })
	r.counted()
	r.check("and begins anew", frame(t, tcp(source(5), trap, syn)), banned)
}

// eventsOf runs b and gives its one event.
func (r *rig) eventsOf(t *testing.T, b []byte) bpf.Event {
	t.Helper()
	r.verdictOf("probe", b, pass)
	all := r.events()
	r.counted()
	if len(all) != 1 {
		t.Fatalf("%d events", len(all))
	}
	return all[0].Event
}

// A flood of forged sources pushes out nobody that user space has banned, and
// gets not one of its own packets through.
func TestForgedHits(t *testing.T) {
	const forged = 100_000
	r := newRig(t, bpf.SensorOptions{RingBytes: 1 << 20}, bpf.Rules{Sense: true, TCP: bpf.BanAll, Provisional: 5 * time.Minute})
	r.ban(prefix(from4), bpf.Full, bpf.BanAll)
	r.check("first of all", frame(t, tcp(source(1<<21), trap, syn)), banned)
	for i := range forged {
		b := frame(t, tcp(source(i), trap, syn))
		r.verdictOf("forged", b, drop)
	}
	c := r.counted()
	if c.Sighted != forged || c.Hits != forged || c.HitsFull < forged/10 || c.Events+c.Counted != forged || c.Uncounted == 0 {
		t.Errorf("%+v", c)
	}
	if n := len(r.events()); uint64(n) != c.Events {
		t.Errorf("%d events in the ring, %d counted", n, c.Events)
	}
	r.check("banned before", frame(t, tcp(from4, noTrap, syn)), full)
	r.check("provisionally", frame(t, tcp(source(1<<21), noTrap, syn)), soft)
}

// What finds no room in the ring is counted by source, and handed out once.
func TestMissed(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{RingBytes: 4096}, bpf.Rules{Sense: true})
	b := frame(t, tcp(from4, trap, syn))
	for range 100 {
		r.verdictOf("probe", b, pass)
	}
	r.verdictOf("another", frame(t, udp(from6, trap)), pass)
	told := uint32(0)
	for turn := range 3 {
		got := map[netip.Addr]uint32{}
		r.must(r.Missed(func(e *bpf.Event) {
			if e.What != bpf.WhatCounted || e.Dport != trap {
				t.Errorf("%+v", *e)
			}
			got[netip.AddrFrom16(e.Src.B).Unmap()] += e.Times
		}))
		switch turn {
		case 0:
			told = uint32(len(r.events()))
			if told == 0 || got[from4] != 100-told || got[from6] != 1 || len(got) != 2 {
				t.Errorf("%d told, missed %v", told, got)
			}
			r.verdictOf("room again", b, pass)
			if n := len(r.events()); n != 1 {
				t.Errorf("%d events once there is room", n)
			}
		default:
			if len(got) != 0 {
				t.Errorf("handed out again: %v", got)
			}
		}
	}
	c := r.counted()
	if c.Counted != uint64(101-told) || c.Uncounted != 0 || c.Events != uint64(told)+1 {
		t.Errorf("%+v", c)
	}
}

// A source always has the same worker.
func TestWorkers(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{Workers: 3}, bpf.Rules{Sense: true})
	each := [3]int{}
	for i := range 300 {
		for _, src := range []netip.Addr{source(i), source6(i)} {
			r.verdictOf("SYN", frame(t, tcp(src, trap, syn)), pass)
			r.verdictOf("UDP", frame(t, udp(src, trap)), pass)
			all := r.events()
			if len(all) != 2 || all[0].worker != all[1].worker || int(all[0].Ip>>bpf.IPWorkerShift) != all[0].worker {
				t.Fatalf("%v: %+v", src, all)
			}
			each[all[0].worker]++
		}
	}
	for _, n := range each {
		if n < 150 {
			t.Errorf("600 sources, divided %v", each)
			break
		}
	}
}

// A hit that is added to an earlier one takes nothing away of what that has
// counted, or learned.
func TestHitGoesOn(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true, Verify: true, TCP: bpf.BanTCP, UDP: bpf.BanUDP, Provisional: time.Minute})
	for _, src := range []netip.Addr{from4, from6} {
		r.verdictOf("hit, and challenge", frame(t, tcp(src, trap, syn)), transmit)
		for range 3 {
			r.verdictOf("kept out", frame(t, tcp(src, noTrap, syn)), drop)
		}
		r.verdictOf("its answer", frame(t, tcp(src, trap, rst)), drop)
		r.verdictOf("hit by another protocol", frame(t, udp(src, trap)), drop)
		r.ban(prefix(src), bpf.Soft, bpf.BanAll)
		b, there, err := r.Ban(prefix(src))
		r.must(err)
		if !there || b.Dropped != 5 || !b.Alive {
			t.Errorf("%v: 5 packets were dropped and a RST was seen, the ban says %+v", src, b)
		}
	}
}
