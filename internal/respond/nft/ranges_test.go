package nft

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// Every address is in the segment of the range that ends last of those that have it,
// and in one only.
func TestSegments(t *testing.T) {
	now := time.Now()
	at := func(minutes int) time.Time {
		if minutes == 0 {
			return time.Time{}
		}
		return now.Add(time.Duration(minutes) * time.Minute)
	}
	for _, tc := range []struct {
		name   string
		ranges map[string]int // minutes, 0 for ever
		want   []string       // first-last of
	}{
		{"none", nil, nil},
		{"one", map[string]int{"192.0.2.0/24": 5}, []string{"192.0.2.0-192.0.2.255 192.0.2.0/24"}},
		{"all there is", map[string]int{"0.0.0.0/1": 5, "128.0.0.0/1": 5},
			[]string{"0.0.0.0-127.255.255.255 0.0.0.0/1", "128.0.0.0-255.255.255.255 128.0.0.0/1"}},
		{"a longer one at the beginning", map[string]int{"192.0.2.0/24": 5, "192.0.2.0/25": 9},
			[]string{"192.0.2.0-192.0.2.127 192.0.2.0/25", "192.0.2.128-192.0.2.255 192.0.2.0/24"}},
		{"a longer one at the end", map[string]int{"192.0.2.0/24": 5, "192.0.2.128/25": 0},
			[]string{"192.0.2.0-192.0.2.127 192.0.2.0/24", "192.0.2.128-192.0.2.255 192.0.2.128/25"}},
		{"a shorter one within", map[string]int{"192.0.2.0/24": 5, "192.0.2.64/26": 2}, []string{"192.0.2.0-192.0.2.255 192.0.2.0/24"}},
		{"three deep", map[string]int{"192.0.2.0/24": 5, "192.0.2.64/26": 2, "192.0.2.64/28": 9},
			[]string{"192.0.2.0-192.0.2.63 192.0.2.0/24", "192.0.2.64-192.0.2.79 192.0.2.64/28", "192.0.2.80-192.0.2.255 192.0.2.0/24"}},
		{"halves that cover the whole", map[string]int{"192.0.2.0/24": 5, "192.0.2.0/25": 8, "192.0.2.128/25": 9},
			[]string{"192.0.2.0-192.0.2.127 192.0.2.0/25", "192.0.2.128-192.0.2.255 192.0.2.128/25"}},
		{"one that has ended", map[string]int{"192.0.2.0/24": -1, "192.0.2.64/26": 2}, []string{"192.0.2.64-192.0.2.127 192.0.2.64/26"}},
		{"IPv6", map[string]int{"2001:db8::/32": 5, "2001:db8:ffff:ff00::/56": 9},
			[]string{"2001:db8::-2001:db8:ffff:feff:ffff:ffff:ffff:ffff 2001:db8::/32",
				"2001:db8:ffff:ff00::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff 2001:db8:ffff:ff00::/56"}},
	} {
		r := make(ranges)
		for p, minutes := range tc.ranges {
			r[netip.MustParsePrefix(p)] = rangeBan{judge.Soft, at(minutes)}
		}
		var got []string
		for _, parts := range r.segments(newLayout(1), now) {
			for _, s := range parts {
				got = append(got, s.IPRange.String()+" "+s.of.String())
				if want := r[s.of].until; !s.until.Equal(want) {
					t.Errorf("%s: %v until %v, want %v", tc.name, s, s.until, want)
				}
			}
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s:\n got %q\nwant %q", tc.name, got, tc.want)
		}
	}
}

// What a banned range leaves its addresses, on this host and on the way through, while
// its neighbours and whom to spare get through. It ends by itself.
func TestRangeBan(t *testing.T) { bothWays(t, testRangeBan) }

func testRangeBan(t *testing.T, traps func() Options) {
	l := newLab(t)
	o := traps()
	o.Spare = []netip.Prefix{netip.MustParsePrefix("203.0.113.200/32")}
	table := l.open(o)
	in, spared, out := netip.MustParseAddr("203.0.113.9"), o.Spare[0].Addr(), netip.MustParseAddr("203.0.114.9")
	inside, outside := netip.MustParseAddr("2001:db8:7:7ff::9"), netip.MustParseAddr("2001:db8:7:800::9")
	answered := func(who netip.Addr) bool { // the host refuses what it does not drop
		r := l.raw()
		r.send(l.tcp(who, 40001, 80, syn))
		r.send(l.tcp(out, 40002, 80, syn)) // who is never banned here: both have been looked at by now
		eventually(t, "an answer to the other", func() bool { r.poll(); return r.answers[out] > 0 })
		return r.answers[who] > 0
	}
	for _, strength := range []judge.Strength{judge.Soft, judge.Full} {
		if err := table.BanAll(t.Context(), []respond.Ban{
			ban("203.0.113.0/24", strength, time.Hour), ban("2001:db8:7:700::/56", strength, time.Hour),
		}); err != nil {
			t.Fatal(err)
		}
		for who, want := range map[netip.Addr]bool{in: false, spared: true, inside: false, outside: true} {
			if got := answered(who); got != want {
				t.Errorf("%v ban: %v answered: %v, want %v", strength, who, got, want)
			}
			if got := l.has(table, who.String()); (got.Strength == strength) != (who != outside) || who == in && got.Prefix.String() != "203.0.113.0/24" {
				t.Errorf("%v: %+v", who, got)
			}
		}
	}
	if err := table.Unban(t.Context(), respond.Ban{Prefix: netip.MustParsePrefix("2001:db8:7:700::/56")}); err != nil {
		t.Fatal(err)
	}
	// One that is shorter within one that is longer, and the other way round.
	if err := table.BanAll(t.Context(), []respond.Ban{
		ban("203.0.113.0/24", judge.Soft, 700*time.Millisecond), ban("203.0.113.128/25", judge.Soft, time.Hour),
		ban("198.51.100.0/24", judge.Soft, time.Hour), ban("198.51.100.0/25", judge.Soft, 700*time.Millisecond),
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the ban", func() bool { return answered(in) })
	for who, want := range map[string]bool{"203.0.113.130": false, "198.51.100.1": false, "198.51.100.254": false, "203.0.113.1": true} {
		if got := answered(netip.MustParseAddr(who)); got != want {
			t.Errorf("%v answered: %v, want %v", who, got, want)
		}
	}
	sameBans(t, l.existing(table), []respond.Ban{ban("203.0.113.128/25", judge.Soft, time.Hour), ban("198.51.100.0/24", judge.Soft, time.Hour)})
}

// All or none, also where some are ranges, and no more than there is room for.
func TestManyRanges(t *testing.T) {
	l := newLab(t)
	table := l.open(traps())
	var bans []respond.Ban
	p := netip.MustParsePrefix("10.0.0.0/24")
	for range maxRanges {
		bans = append(bans, respond.Ban{Prefix: p, Strength: judge.Soft, Until: time.Now().Add(time.Hour)})
		a := p.Addr().As4()
		if a[2]++; a[2] == 0 {
			a[1]++
		}
		p = netip.PrefixFrom(netip.AddrFrom4(a), 24)
	}
	begin := time.Now()
	if err := table.BanAll(t.Context(), bans); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d ranges: %v", len(bans), time.Since(begin))
	begin = time.Now()
	if err := table.Ban(t.Context(), bans[7]); err != nil {
		t.Fatal(err)
	}
	t.Logf("one of them again: %v", time.Since(begin))
	one := ban("203.0.113.9/32", judge.Soft, time.Hour)
	if err := table.BanAll(t.Context(), []respond.Ban{one, ban("11.0.0.0/24", judge.Soft, time.Hour)}); !errors.Is(err, ErrManyRanges) {
		t.Errorf("one more: %v", err)
	}
	bad := one
	bad.Strength, bad.Scope = judge.Full, judge.TCPOnly
	if err := table.BanAll(t.Context(), []respond.Ban{ban("10.0.0.0/24", judge.Full, time.Hour), bad}); err == nil {
		t.Error("a ban that there is not was taken")
	}
	if table.Takes(&respond.Ban{Prefix: netip.MustParsePrefix("10.0.0.0/24"), Strength: judge.Limited}) ||
		table.Takes(&respond.Ban{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Strength: judge.Soft}) {
		t.Error("takes what it cannot do")
	}
	sameBans(t, l.existing(table), bans)
	// Ten end, and there is room again.
	for _, b := range bans[:10] {
		if err := table.Unban(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.Ban(t.Context(), ban("11.0.0.0/24", judge.Soft, time.Hour)); err != nil {
		t.Error(err)
	}
	sameBans(t, l.existing(l.open(traps())), append(bans[10:], ban("11.0.0.0/24", judge.Soft, time.Hour)))
}

// What somebody has taken out is told, one by one, and by whom nothing is told where
// the whole table is gone.
func TestHolds(t *testing.T) {
	l := newLab(t)
	table := l.open(traps())
	bans := append(some(), many(300)...)
	bans = append(bans, ban("192.0.2.64/26", judge.Soft, time.Hour), ban("192.0.2.64/30", judge.Soft, time.Minute)) // within a longer one
	if err := table.BanAll(t.Context(), bans); err != nil {
		t.Fatal(err)
	}
	holds := func() []int {
		t.Helper()
		missing, err := table.Holds(context.Background(), bans)
		if err != nil {
			t.Fatal(err)
		}
		return missing
	}
	if got := holds(); len(got) > 0 {
		t.Fatalf("missing at first: %v", got)
	}
	named := func(name string) string { // as it is now
		for _, i := range table.lay.nets() {
			if i.name == name {
				return i.set.Name
			}
		}
		return name
	}
	index := func(p string) int {
		return slices.IndexFunc(bans, func(b respond.Ban) bool { return b.Prefix == netip.MustParsePrefix(p) })
	}
	for _, tc := range []struct {
		set, element string
		missing      int
	}{
		{"full4", "203.0.113.1", 0}, {"soft4", "203.0.113.2", 1}, {"lim4", "203.0.113.3", 2}, {"soft6", "2001:db8::1", 3},
		{"full6n", "2001:db8:0:1::", 4}, {"part4", "203.0.113.4 . udp", 5}, {"soft4", "11.0.1.43", index("11.0.1.43/32")},
		{"softnet4", "198.51.100.0/25", index("198.51.100.0/24")}, {"softnet4", "198.51.100.128/25", index("198.51.100.128/25")},
		{"fullnet6", "2001:db8:7:700::/56", index("2001:db8:7:700::/56")},
	} {
		l.command(l.hostName, "nft", "delete", "element", "inet", "portsentry", named(tc.set), "{ "+tc.element+" }")
		if got := holds(); !slices.Equal(got, []int{tc.missing}) {
			t.Errorf("without %s of %s: %v, want %d", tc.element, tc.set, got, tc.missing)
		}
		if err := table.BanAll(t.Context(), bans[tc.missing:tc.missing+1]); err != nil {
			t.Fatal(err)
		}
		if got := holds(); len(got) > 0 {
			t.Errorf("%s put back, yet missing: %v", tc.element, got)
		}
	}
	l.command(l.hostName, "nft", "flush", "set", "inet", "portsentry", "soft4")
	if got := holds(); len(got) != 301 {
		t.Errorf("of a set that was flushed %d are missing, want 301", len(got))
	}
	l.command(l.hostName, "nft", "flush", "ruleset")
	if got, err := table.Holds(t.Context(), bans); !errors.Is(err, ErrLost) || len(got) > 0 {
		t.Errorf("without the table: %v, %v", got, err)
	}
}

func BenchmarkHolds(b *testing.B) {
	table := newLab(b).open(traps())
	bans := many(512)
	if err := table.BanAll(context.Background(), bans); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if missing, err := table.Holds(context.Background(), bans); err != nil || len(missing) > 0 {
			b.Fatal(missing, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(bans)), "ns/ban")
}
