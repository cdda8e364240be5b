package xdp

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/bpf"
	"portsentry/internal/judge"
	"portsentry/internal/pktgen"
	"portsentry/internal/respond"
)

func banOf(p string, strength judge.Strength, length time.Duration) respond.Ban {
	b := respond.Ban{Prefix: netip.MustParsePrefix(p), Strength: strength, Since: time.Now()}
	if length != 0 {
		b.Until = time.Now().Add(length)
	}
	return b
}

func banAll(t testing.TB, m *Method, bans ...respond.Ban) {
	t.Helper()
	if err := m.BanAll(t.Context(), bans); err != nil {
		t.Fatal(err)
	}
}

func existing(t testing.TB, m *Method) []respond.Ban {
	t.Helper()
	bans, err := m.Existing(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(bans, func(a, b respond.Ban) int { return a.Prefix.Compare(b.Prefix) })
	return bans
}

// same compares bans, times to the millisecond.
func same(t testing.TB, got, want []respond.Ban) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d bans, want %d", len(got), len(want))
		return
	}
	for i := range got {
		g, w := got[i], want[i]
		if g.Until.IsZero() != w.Until.IsZero() || g.Until.Sub(w.Until).Abs() > 20*time.Millisecond || !g.Since.Equal(w.Since) {
			t.Errorf("%v from %v until %v, want %v until %v", g.Prefix, g.Since, g.Until, w.Since, w.Until)
		}
		g.Since, g.Until, w.Since, w.Until = time.Time{}, time.Time{}, time.Time{}, time.Time{}
		if g != w {
			t.Errorf("%+v, want %+v", g, w)
		}
	}
}

// The numbers of the program are those of package judge.
func TestWords(t *testing.T) {
	for program, ours := range map[bpf.Strength]judge.Strength{
		bpf.Pardon: judge.Nothing, bpf.Limited: judge.Limited, bpf.Soft: judge.Soft, bpf.Full: judge.Full,
	} {
		if uint8(program) != uint8(ours) {
			t.Errorf("%v is %d in the program", ours, program)
		}
	}
	for _, s := range []judge.Scope{judge.AllProtocols, judge.TCPOnly, judge.UDPOnly} {
		if got := scope(protos(s)); got != s {
			t.Errorf("%v comes back as %v", s, got)
		}
	}
	odd := ban(&bpf.Ban{Strength: bpf.Soft, Evidence: 77, Kind: 77, Protos: bpf.BanOther})
	if odd.Evidence != judge.E3 || odd.Kind != "" || odd.Scope != judge.AllProtocols {
		t.Errorf("%+v", odd)
	}
}

func TestTakes(t *testing.T) {
	m := New(nil)
	for _, c := range []struct {
		prefix   string
		strength judge.Strength
		scope    judge.Scope
		want     bool
	}{
		{"192.0.2.1/32", judge.Full, judge.AllProtocols, true},
		{"192.0.2.1/32", judge.Soft, judge.TCPOnly, true},
		{"192.0.2.1/32", judge.Limited, judge.UDPOnly, true},
		{"2001:db8::/64", judge.Soft, judge.AllProtocols, true},
		{"2001:db8::1/128", judge.Soft, judge.AllProtocols, true},
		{"192.0.2.1/32", judge.Full, judge.TCPOnly, false},
		{"192.0.2.1/32", judge.Nothing, judge.AllProtocols, false},
		{"192.0.2.0/24", judge.Soft, judge.AllProtocols, false},
		{"2001:db8::/48", judge.Soft, judge.AllProtocols, false},
		{"::ffff:192.0.2.1/128", judge.Soft, judge.AllProtocols, false},
	} {
		b := respond.Ban{Prefix: netip.MustParsePrefix(c.prefix), Strength: c.strength, Scope: c.scope}
		if m.Takes(&b) != c.want {
			t.Errorf("%v ban, %v, of %s: want %v", c.strength, c.scope, c.prefix, c.want)
		}
		if !c.want && m.BanAll(t.Context(), []respond.Ban{b}) == nil {
			t.Errorf("%v ban, %v, of %s was made", c.strength, c.scope, c.prefix)
		}
	}
}

// whole are bans of every kind, with everything that is kept of them.
func whole() []respond.Ban {
	now := time.Now()
	var bans []respond.Ban
	for f, first := range prefixes("192.0.2.1/32", "2001:db8:0:1::1/128", "2001:db8:0:100::/64") {
		for i, b := range kinds() {
			b.Prefix = netip.PrefixFrom(nth(first.Addr(), i), first.Bits())
			b.Since, b.Evidence, b.Times = now.Add(-time.Duration(i)*time.Hour), judge.E1+judge.Evidence(i%3), i+1
			b.Kind, b.Port, b.Proto = "xmas", uint16(65535-i), pktgen.ProtoTCP
			if i == 3 {
				b.Until, b.Kind = time.Time{}, ""
			}
			if f == 2 {
				b.Kind, b.Proto = "udp", pktgen.ProtoUDP
			}
			bans = append(bans, b)
		}
	}
	slices.SortFunc(bans, func(a, b respond.Ban) int { return a.Prefix.Compare(b.Prefix) })
	return bans
}

// The next run finds the bans of this one, and what they have dropped.
func TestExisting(t *testing.T) {
	needRoot(t)
	mount := t.TempDir()
	if err := unix.Mount("bpf", mount, "bpf", 0, ""); err != nil {
		t.Fatalf("mount a BPF file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	})
	folder := filepath.Join(mount, "sensor")
	first, err := bpf.OpenSensor(bpf.SensorOptions{Folder: folder})
	if err != nil {
		t.Fatal(err)
	}
	m := New(first)
	want := whole()
	banAll(t, m, want...)
	banAll(t, m, banOf("192.0.2.100/32", judge.Soft, time.Hour), banOf("192.0.2.101/32", judge.Soft, time.Millisecond))
	if err := m.Unban(t.Context(), banOf("192.0.2.100/32", judge.Soft, 0)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the short ban to end", func() bool { return len(existing(t, m)) == len(want) })
	same(t, existing(t, m), want)
	if err := first.Leave(); err != nil {
		t.Fatal(err)
	}
	m, _ = open(t, bpf.SensorOptions{Folder: folder})
	same(t, existing(t, m), want)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Existing(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("no time left: %v", err)
	}
}

// BanAll changes nothing if it cannot do all.
func TestAllOrNone(t *testing.T) {
	m, s := open(t, bpf.SensorOptions{Bans: 100})
	there := many(60)
	banAll(t, m, there...)
	before := existing(t, m)
	for what, bans := range map[string][]respond.Ban{
		"no room": func() []respond.Ban {
			bans := many(120)[50:] // ten are there already
			for i := range bans {
				bans[i].Strength, bans[i].Times = judge.Full, 9
			}
			return bans
		}(),
		"one is a network": append(many(70)[60:], banOf("192.0.2.0/24", judge.Soft, time.Hour)),
	} {
		err := m.BanAll(t.Context(), bans)
		if err == nil || what == "no room" != errors.Is(err, bpf.ErrBansFull) {
			t.Errorf("%s: %v", what, err)
		}
		same(t, existing(t, m), before)
	}
	// What has ended stands in nobody's way.
	ended := make([]bpf.Ban, 40)
	for i := range ended {
		ended[i] = entry(&many(100)[60+i])
		ended[i].Until = time.Now().Add(-time.Second)
	}
	if err := s.PutBans(ended); err != nil {
		t.Fatal(err)
	}
	banAll(t, m, banOf("198.51.100.1/32", judge.Soft, time.Hour))
	if n := len(existing(t, m)); n != len(there)+1 {
		t.Errorf("%d bans", n)
	}
}

func TestRepeats(t *testing.T) {
	m, _ := open(t, bpf.SensorOptions{})
	bans := append(many(10), many(10)...)
	for i := range bans[10:] {
		bans[10+i].Strength = judge.Full
	}
	banAll(t, m, bans...)
	same(t, existing(t, m), bans[10:])
	if _, _, ok := m.Counts(netip.MustParsePrefix("192.0.2.77/32")); ok {
		t.Error("counts for somebody who is not banned")
	}
}

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
	reach := func(what string, src netip.Addr, want bool) {
		t.Helper()
		if got := l.passes(l.packet(src, pktgen.ProtoTCP, served, pktgen.SYN)); got != want {
			t.Errorf("%s: passes %v, want %v", what, got, want)
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
	reach("limited", src, true)
	if err := m.Revoke(ctx, src); err != nil {
		t.Fatal(err)
	}
	if l.passes(l.packet(src, pktgen.ProtoTCP, closed, pktgen.SYN)) {
		t.Error("a confirmed ban was revoked")
	}
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

// Forged sources that may not be banned do not fill the table.
func TestPardonsAreBounded(t *testing.T) {
	m, s := open(t, bpf.SensorOptions{})
	a := netip.MustParseAddr("127.0.0.1")
	for i := range maxPardons + 1 {
		if err := m.Revoke(t.Context(), a); (i == maxPardons) != errors.Is(err, ErrPardons) {
			t.Fatalf("revocation %d: %v", i, err)
		}
		a = a.Next()
	}
	if left, err := s.Sweep(); left != maxPardons || err != nil {
		t.Errorf("%d entries, %v", left, err)
	}
	banAll(t, m, banOf("192.0.2.1/32", judge.Soft, time.Hour))
}

// Run takes out what has ended, and sleeps while nothing is there.
func TestRun(t *testing.T) {
	_, s := open(t, bpf.SensorOptions{})
	entries := func() (n int) {
		if err := s.EachBan(func(*bpf.Ban) bool { n++; return true }); err != nil {
			t.Error(err)
		}
		return n
	}
	synctest.Test(t, func(t *testing.T) {
		m := New(s)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		synctest.Wait()
		if err := m.put([]bpf.Ban{{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Since: time.Now(), Until: time.Now().Add(time.Hour), Strength: bpf.Soft}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		ended := time.Now()
		if err := s.PutBans([]bpf.Ban{{Prefix: netip.MustParsePrefix("192.0.2.2/32"), Since: ended, Until: ended, Strength: bpf.Soft}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(sweepEvery - time.Second)
		synctest.Wait()
		if n := entries(); n != 2 {
			t.Errorf("%d entries before it is time", n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := entries(); n != 1 {
			t.Errorf("%d entries, want the one that lasts", n)
		}
		if err := s.DeleteBan(netip.MustParsePrefix("192.0.2.1/32")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(sweepEvery)
		synctest.Wait()
		if err := s.Close(); err != nil { // a sweep would fail from now on
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if n := m.Stats().SweepsFailed; n != 0 {
			t.Errorf("woke up %d times for nothing", n)
		}
		m.filled <- struct{}{}
		synctest.Wait()
		if n := m.Stats().SweepsFailed; n != 1 {
			t.Errorf("%d sweeps failed, want 1", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A hundred thousand bans are one call, and a second.
func TestManyBans(t *testing.T) {
	const n = 100_000
	m, _ := open(t, bpf.SensorOptions{})
	bans := many(n)
	for _, what := range []string{"into an empty table", "over themselves"} {
		begin := time.Now()
		banAll(t, m, bans...)
		t.Logf("%d bans %s: %v", n, what, time.Since(begin))
	}
	begin := time.Now()
	got := existing(t, m)
	t.Logf("listed: %v", time.Since(begin))
	same(t, got, bans)
	begin = time.Now()
	for i := range bans {
		if _, _, ok := m.Counts(bans[i].Prefix); !ok {
			t.Fatalf("%v is not counted", bans[i].Prefix)
		}
	}
	t.Logf("counted one by one: %v", time.Since(begin))
}

// many are n soft bans of an hour, in the order of prefixes.
func many(n int) []respond.Ban {
	bans := make([]respond.Ban, n)
	addr, now := netip.MustParseAddr("11.0.0.0"), time.Now()
	for i := range bans {
		bans[i] = respond.Ban{
			Prefix: netip.PrefixFrom(addr, 32), Strength: judge.Soft, Evidence: judge.E1,
			Since: now, Until: now.Add(time.Hour), Times: 1, Kind: "syn", Port: 23, Proto: pktgen.ProtoTCP,
		}
		addr = addr.Next()
	}
	return bans
}
