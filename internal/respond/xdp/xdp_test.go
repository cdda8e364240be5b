package xdp

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cilium/ebpf"
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
		"one is of everybody": append(many(70)[60:], banOf("192.0.2.0/24", judge.Soft, time.Hour), banOf("0.0.0.0/0", judge.Soft, time.Hour)),
	} {
		err := m.BanAll(t.Context(), bans)
		if err == nil || what == "no room" != errors.Is(err, bpf.ErrBansFull) {
			t.Errorf("%s: %v", what, err)
		}
		same(t, existing(t, m), before)
	}
	// What has ended stands in nobody's way, for long.
	ended := make([]bpf.Ban, 40)
	for i := range ended {
		ended[i] = entry(&many(100)[60+i])
		ended[i].Until = time.Now().Add(-time.Second)
	}
	if err := s.PutBans(ended); err != nil {
		t.Fatal(err)
	}
	late := banOf("198.51.100.1/32", judge.Soft, time.Hour)
	m.swept = time.Now() // a flood does not have every entry looked at for each ban
	full := func() bool {
		select {
		case <-m.Full():
			return true
		default:
			return false
		}
	}
	if !full() || full() {
		t.Error("it is not told once that there was no room")
	}
	if err := m.BanAll(t.Context(), []respond.Ban{late}); !errors.Is(err, bpf.ErrBansFull) || !full() {
		t.Errorf("just after a sweep: %v", err)
	}
	m.swept = time.Time{}
	banAll(t, m, late)
	if n := len(existing(t, m)); n != len(there)+1 {
		t.Errorf("%d bans", n)
	}
}

// Whoever takes bans out of the table is found out, also one of a range inside another.
func TestHolds(t *testing.T) {
	needRoot(t)
	mount := t.TempDir()
	if err := unix.Mount("bpf", mount, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(mount, unix.MNT_DETACH) })
	folder := filepath.Join(mount, "ours")
	m, _ := open(t, bpf.SensorOptions{Folder: folder})
	remove := func(p netip.Prefix) { // as `bpftool map delete` does
		addr := p.Addr().As16()
		bits := binary.NativeEndian.AppendUint32(nil, uint32(p.Bits()+128-p.Addr().BitLen()))
		name, key := "bans", append(append(addr[:], bits...), 0, 0, 0, 0)
		if bpf.IsNet(p) {
			name, key = "nets", append(bits, addr[:]...)
		}
		table, err := ebpf.LoadPinnedMap(filepath.Join(folder, name), nil)
		if err == nil {
			err = table.Delete(key)
			table.Close()
		}
		if err != nil {
			t.Fatalf("%v: %v", p, err)
		}
	}
	bans := append(many(20), banOf("198.51.100.0/24", judge.Soft, time.Hour), banOf("198.51.0.0/16", judge.Full, 0),
		banOf("2001:db8:7:700::/56", judge.Soft, time.Hour), banOf("2001:db8:0:1::/64", judge.Limited, time.Hour))
	banAll(t, m, bans...)
	holds := func(want ...int) {
		t.Helper()
		if missing, err := m.Holds(t.Context(), bans); err != nil || !slices.Equal(missing, want) {
			t.Errorf("missing %v, %v, want %v", missing, err, want)
		}
	}
	holds()
	for _, i := range []int{3, 20, 23} {
		remove(bans[i].Prefix)
	}
	holds(3, 20, 23)
	for _, i := range []int{3, 20, 23} {
		banAll(t, m, bans[i])
	}
	holds()
}

func BenchmarkHolds(b *testing.B) {
	m, _ := open(b, bpf.SensorOptions{})
	bans := many(512)
	banAll(b, m, bans...)
	b.ReportAllocs()
	for b.Loop() {
		if missing, err := m.Holds(b.Context(), bans); err != nil || len(missing) > 0 {
			b.Fatal(missing, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(bans)), "ns/ban")
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
	m, _ := open(t, bpf.SensorOptions{Bans: n})
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
