package xdp

import (
	"net/netip"
	"testing"
	"time"

	"portsentry/internal/bpf"
	"portsentry/internal/judge"
	"portsentry/internal/pktgen"
	"portsentry/internal/respond"
)

// A ban that replaces another goes on counting, one that begins anew does not.
func TestCounts(t *testing.T) {
	l := newLab(t)
	m, _ := l.sense(bpf.Rules{})
	src := netip.MustParsePrefix("192.0.2.9/32")
	drops := func(want uint64) {
		t.Helper()
		if l.passes(l.packet(src.Addr(), pktgen.ProtoTCP, served, pktgen.SYN)) {
			t.Error("passed")
		}
		if n, alive, ok := m.Counts(src); n != want || alive || !ok {
			t.Errorf("%d dropped, want %d; alive %v, %v", n, want, alive, ok)
		}
	}
	banAll(t, m, banOf(src.String(), judge.Soft, time.Minute))
	drops(1)
	drops(2)
	banAll(t, m, banOf(src.String(), judge.Full, time.Hour))
	drops(3)
	if err := m.Unban(t.Context(), respond.Ban{Prefix: src}); err != nil {
		t.Fatal(err)
	}
	if _, _, ok := m.Counts(src); ok {
		t.Error("a pardon counts")
	}
	banAll(t, m, banOf(src.String(), judge.Soft, time.Minute))
	drops(1)
}

// The ban of an address and that of its /64 do not lift each other.
func TestAddressAndNetwork(t *testing.T) {
	l := newLab(t)
	m, _ := l.sense(bpf.Rules{})
	const address, network = "2001:db8:0:7::7/128", "2001:db8:0:7::/64"
	for _, c := range []struct {
		what             string
		address, network respond.Ban
		service, other   bool // what of TCP passes
	}{
		{"limited address in a soft network", banOf(address, judge.Limited, time.Hour), banOf(network, judge.Soft, time.Hour), false, false},
		{"soft address in a limited network", banOf(address, judge.Soft, time.Hour), banOf(network, judge.Limited, time.Hour), false, false},
		{"pardoned address in a soft network", banOf(address, judge.Soft, -time.Hour), banOf(network, judge.Soft, time.Hour), false, false},
		{"both limited", banOf(address, judge.Limited, time.Hour), banOf(network, judge.Limited, time.Hour), true, false},
		{"both pardoned", banOf(address, judge.Limited, -time.Hour), banOf(network, judge.Limited, -time.Hour), true, true},
	} {
		banAll(t, m, c.address, c.network)
		src := netip.MustParsePrefix(address).Addr()
		service := l.passes(l.packet(src, pktgen.ProtoTCP, served, pktgen.SYN))
		other := l.passes(l.packet(src, pktgen.ProtoTCP, closed, pktgen.SYN))
		if service != c.service || other != c.other {
			t.Errorf("%s: %v, %v", c.what, service, other)
		}
	}
	one, both := banOf(address, judge.Soft, time.Hour), banOf(network, judge.Soft, time.Hour)
	one.Scope, both.Scope = judge.TCPOnly, judge.UDPOnly
	banAll(t, m, one, both)
	for _, proto := range []uint8{pktgen.ProtoTCP, pktgen.ProtoUDP} {
		if l.passes(l.packet(netip.MustParsePrefix(address).Addr(), proto, closed, pktgen.SYN)) {
			t.Errorf("protocol %d passes two bans of one protocol each", proto)
		}
	}
}

// What user space says of a source comes before what the program has begun.
func TestProvisional(t *testing.T) {
	l := newLab(t)
	m, s := l.sense(bpf.Rules{TCP: bpf.BanAll})
	next := netip.MustParseAddr("192.0.2.20")
	banned := func() netip.Addr {
		t.Helper()
		next = next.Next()
		l.passes(l.packet(next, pktgen.ProtoTCP, trap, pktgen.SYN))
		if l.passes(l.packet(next, pktgen.ProtoTCP, served, pktgen.SYN)) {
			t.Fatal("the program has begun no ban")
		}
		return next
	}
	reach := func(what string, src netip.Addr, other bool) {
		t.Helper()
		if !l.passes(l.packet(src, pktgen.ProtoTCP, served, pktgen.SYN)) {
			t.Errorf("%s: no way to the service", what)
		}
		if got := l.passes(l.packet(src, pktgen.ProtoTCP, closed, pktgen.SYN)); got != other {
			t.Errorf("%s: passes %v, want %v", what, got, other)
		}
	}
	ctx, whom := t.Context(), func(a netip.Addr) respond.Ban {
		return banOf(netip.PrefixFrom(a, 32).String(), judge.Limited, time.Hour)
	}

	src := banned()
	if err := m.Revoke(ctx, netip.AddrFrom16(src.As16())); err != nil { // IPv4 in IPv6
		t.Fatal(err)
	}
	reach("revoked", src, true)
	src = banned()
	if err := m.Unban(ctx, whom(src)); err != nil {
		t.Fatal(err)
	}
	reach("lifted", src, true)
	src = banned()
	banAll(t, m, whom(src))
	reach("limited", src, false)
	if err := m.Revoke(ctx, src); err != nil {
		t.Fatal(err)
	}
	reach("confirmed, then revoked", src, false)
	src = banned()
	b := whom(src)
	b.Until = time.Now().Add(-time.Second)
	banAll(t, m, b)
	reach("banned until a moment ago", src, true)

	// A pardon outlasts what it is about, and no longer.
	p, there, err := s.Ban(netip.PrefixFrom(src, 32))
	if left := time.Until(p.Until); err != nil || !there || left < pardonTime-time.Second || left > pardonTime {
		t.Errorf("%v: %v left, %v", p, left, err)
	}
}
