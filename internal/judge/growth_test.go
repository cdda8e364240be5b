package judge

import (
	"math"
	"net/netip"
	"testing"
	"time"

	"portsentry/internal/detect"
)

func TestGrowth(t *testing.T) {
	p := Policy{BanUnverified: 10 * time.Minute, BanVerified: time.Hour, BanMost: 7 * 24 * time.Hour, BanFactor: 2}
	flat, steep, odd, month, long := p, p, p, p, p
	month.BanVerified, long.BanUnverified = 30*24*time.Hour, 2*time.Hour
	flat.BanFactor, steep.BanFactor = 1, 100
	steep.BanMost = 366 * 24 * time.Hour
	odd.BanMost = time.Minute // less than BAN_TIME: a first ban is as long as it says
	for _, c := range []struct {
		name  string
		p     Policy
		e     Evidence
		times int
		want  time.Duration
	}{
		{"first", p, E1, 1, 10 * time.Minute},
		{"second", p, E1, 2, 20 * time.Minute},
		{"third", p, E1, 3, 40 * time.Minute},
		{"up to BAN_TIME", p, E1, 4, time.Hour},
		{"no further", p, E1, 1000, time.Hour},
		{"nor up to a BAN_TIME of a month", month, E1, 1000, time.Hour},
		{"a person says otherwise", long, E1, 1000, 2 * time.Hour},
		{"none is none before", p, E1, 0, 10 * time.Minute},
		{"first on proof", p, E2, 1, time.Hour},
		{"third on proof", p, E2, 3, 4 * time.Hour},
		{"up to BAN_TIME_MAX", p, E3, 9, 7 * 24 * time.Hour},
		{"all the same", flat, E2, 50, time.Hour},
		{"steep", steep, E2, 2, 100 * time.Hour},
		{"steep, no overflow", steep, E2, math.MaxInt, 366 * 24 * time.Hour},
		{"less than the first at most", odd, E2, 5, time.Hour},
	} {
		if got := c.p.Growth(c.e, c.times).Length(); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func FuzzGrowth(f *testing.F) {
	f.Add(int64(time.Minute), int64(time.Hour), 2, 5)
	f.Add(int64(math.MaxInt64), int64(math.MaxInt64), math.MaxInt, math.MaxInt)
	f.Fuzz(func(t *testing.T, base, most int64, factor, earlier int) {
		g := Growth{Base: time.Duration(max(base, 1)), Most: time.Duration(max(most, 1)), Factor: factor, Earlier: max(earlier, 0)}
		d := g.Length()
		if d < g.Base || d > max(g.Base, g.Most) {
			t.Errorf("%+v: %v", g, d)
		}
		longer := g
		if longer.Earlier < math.MaxInt {
			longer.Earlier++
		}
		if longer.Length() < d {
			t.Errorf("%+v: one more ban makes it shorter: %v, then %v", g, d, longer.Length())
		}
	})
}

// A /64 becomes a /56, and that a /48, only with proof against several, and only
// where nobody lives who is to be left alone.
func TestWidenWithProof(t *testing.T) {
	const src = "2001:db8:2:1234::9"
	proved := map[int]int{56: 2, 48: 2}
	for _, c := range []struct {
		name  string
		h     fakeHistory
		peers fakePeers
		e1    bool
		want  string
	}{
		{"third /64 of the /56", fakeHistory{neighbours: 1, proved: map[int]int{56: 2}}, nil, false, "2001:db8:2:1200::/56"},
		{"second /64", fakeHistory{neighbours: 1, proved: map[int]int{56: 1}}, nil, false, "2001:db8:2:1234::/64"},
		{"third /56 of the /48", fakeHistory{neighbours: 1, proved: proved}, nil, false, "2001:db8:2::/48"},
		{"/56s alone", fakeHistory{neighbours: 1, proved: map[int]int{48: 9}}, nil, false, "2001:db8:2:1234::/64"},
		{"first address of its /64", fakeHistory{proved: proved}, nil, false, "2001:db8:2:1234::9/128"},
		{"no proof", fakeHistory{neighbours: 1, proved: proved}, nil, true, "2001:db8:2:1234::/64"},
		{"a peer in the /48", fakeHistory{neighbours: 1, proved: proved}, fakePeers{addr("2001:db8:2:ff00::1")}, false, "2001:db8:2:1200::/56"},
		{"a peer in the /56", fakeHistory{neighbours: 1, proved: proved}, fakePeers{addr("2001:db8:2:1299::1")}, false, "2001:db8:2:1234::/64"},
		{"nothing bans so wide", fakeHistory{neighbours: 1, proved: proved, narrow: true}, nil, false, "2001:db8:2:1234::/64"},
	} {
		s := hit(src, detect.KindConnect)
		s.Verified = !c.e1
		if c.e1 {
			s.Kind = detect.KindSYN
		}
		v := New(policy, trust(), c.peers, c.h).Decide(s)
		if v.Prefix != prefix(c.want) {
			t.Errorf("%s: %v, want %s (%s)", c.name, v.Prefix, c.want, v.Reason)
		}
	}
	spared := NewTrust(TrustFrom{Ignore: []netip.Prefix{prefix("2001:db8:2:ffff::/64")}})
	s := hit(src, detect.KindConnect)
	s.Verified = true
	if v := New(policy, spared, fakePeers{}, fakeHistory{neighbours: 1, proved: proved}).Decide(s); v.Prefix != prefix("2001:db8:2:1200::/56") {
		t.Errorf("somebody in the /48 is to be spared: %v", v.Prefix)
	}
}
