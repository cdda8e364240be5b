package route

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/test/banlab"
)

// lab is a banlab with routes.
type lab struct {
	*banlab.Lab
	t *testing.T
}

func newLab(t *testing.T) *lab {
	t.Helper()
	return &lab{banlab.New(t), t}
}

func (l *lab) open() *Routes {
	l.t.Helper()
	var r *Routes
	if err := l.Host.Do(func() (err error) { r, err = Open(); return err }); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { r.Close() })
	return r
}

// blackholes are the lines of `ip route` for them.
func (l *lab) blackholes() []string {
	var out []string
	for line := range strings.Lines(l.Run("ip", "-4", "route") + l.Run("ip", "-6", "route")) {
		if strings.HasPrefix(line, "blackhole") {
			out = append(out, strings.Join(strings.Fields(line), " "))
		}
	}
	return out
}

func TestAnswersStop(t *testing.T) {
	l := newLab(t)
	r := l.open()
	until := time.Now().Add(time.Minute)
	for _, src := range []netip.Addr{banlab.Near4, banlab.Far4, banlab.Near6, banlab.Far6} {
		if !l.Answered(src) {
			t.Fatalf("%v is not answered before any ban", src)
		}
	}
	bans := []respond.Ban{banlab.Ban(banlab.Single(banlab.Near4), until), banlab.Ban(banlab.Single(banlab.Near6), until), banlab.Ban(netip.PrefixFrom(banlab.Far6, 64), until)}
	if err := r.BanAll(t.Context(), bans); err != nil {
		t.Fatal(err)
	}
	for src, want := range map[netip.Addr]bool{
		banlab.Near4: false, banlab.Near6: false, banlab.Far6: false, banlab.Far6.Next(): false,
		banlab.Gateway4: true, banlab.Gateway6: true, banlab.Far4: true,
	} {
		if l.Answered(src) != want {
			t.Errorf("banned %v: %v answered %v, want %v", l.blackholes(), src, !want, want)
		}
	}
	for _, b := range bans {
		for range 2 { // a missing one is no error
			if err := r.Unban(t.Context(), b); err != nil {
				t.Error(err)
			}
		}
	}
	for _, src := range []netip.Addr{banlab.Near4, banlab.Near6, banlab.Far6} {
		if !l.Answered(src) {
			t.Errorf("%v is not answered after its ban", src)
		}
	}
	if left := l.blackholes(); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// The kernel keeps when a ban ends, and a later run takes over what is there.
func TestRestart(t *testing.T) {
	l := newLab(t)
	first := l.open()
	until := time.Now().Add(time.Hour)
	ended := time.Now().Add(-time.Minute)
	want := map[netip.Prefix]time.Time{
		banlab.Single(banlab.Near4): until, banlab.Single(banlab.Far4): ended, banlab.Single(banlab.Near6): until, netip.PrefixFrom(banlab.Far6, 64).Masked(): until,
	}
	for p, u := range want {
		if err := first.BanAll(t.Context(), []respond.Ban{banlab.Ban(p, u)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	l.Run("ip", "route", "add", "blackhole", "192.0.2.77")

	second := l.open()
	bans, err := second.Existing(t.Context())
	if err != nil || len(bans) != len(want) {
		t.Fatalf("Existing = %+v, %v; want %v", bans, err, want)
	}
	for _, b := range bans {
		if d := b.Until.Sub(want[b.Prefix]); d < 0 || d > time.Second || !second.Takes(&b) {
			t.Errorf("%+v; want it until %v", b, want[b.Prefix])
		}
	}
	// What the first run began is replaced by the second, not added to.
	if err := second.BanAll(t.Context(), []respond.Ban{banlab.Ban(banlab.Single(banlab.Near4), until.Add(-time.Minute))}); err != nil {
		t.Fatal(err)
	}
	if got := l.blackholes(); len(got) != len(want)+1 {
		t.Errorf("%d routes, want %d and somebody else's: %v", len(got), len(want), got)
	}
	for _, b := range bans {
		if err := second.Unban(t.Context(), b); err != nil {
			t.Error(err)
		}
	}
	if got := l.blackholes(); !slices.Equal(got, []string{"blackhole 192.0.2.77"}) {
		t.Errorf("left: %v, want somebody else's", got)
	}
}

func TestForeignRoutesStay(t *testing.T) {
	l := newLab(t)
	l.Run("ip", "route", "add", "blackhole", banlab.Far4.String(), "proto", "static", "metric", "5")
	l.Run("ip", "-6", "route", "add", "blackhole", banlab.Far6.String(), "proto", "static", "metric", "5")
	before := l.blackholes()
	r := l.open()
	if bans, err := r.Existing(t.Context()); len(bans) != 0 || err != nil {
		t.Errorf("Existing = %+v, %v", bans, err)
	}
	for _, a := range []netip.Addr{banlab.Far4, banlab.Far6} {
		b := banlab.Ban(banlab.Single(a), time.Now().Add(time.Minute))
		if err := r.BanAll(t.Context(), []respond.Ban{b}); err != nil {
			t.Fatal(err)
		}
		if err := r.Unban(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if err := r.Unban(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if after := l.blackholes(); !slices.Equal(before, after) {
		t.Errorf("before %v, after %v", before, after)
	}
}

// The last defence: gateways, own addresses and networks, and whoever has a
// route of the owner's. One that is refused takes the whole lot back.
func TestRefused(t *testing.T) {
	l := newLab(t)
	l.Run("ip", "route", "add", banlab.Near4.String(), "dev", "eth0")
	r := l.open()
	until := time.Now().Add(time.Minute)
	for _, c := range []struct {
		name string
		p    netip.Prefix
		want error
	}{
		{"the gateway", banlab.Single(banlab.Gateway4), ErrGateway},
		{"the gateway, IPv6", banlab.Single(banlab.Gateway6), ErrGateway},
		{"the gateway's /64", netip.PrefixFrom(banlab.Gateway6, 64), ErrGateway},
		{"an own address", banlab.Single(banlab.Own4), ErrNotUsed},
		{"one with a route of the owner's", banlab.Single(banlab.Near4), ErrNotUsed},
	} {
		err := r.BanAll(t.Context(), []respond.Ban{banlab.Ban(banlab.Single(banlab.Far4), until), banlab.Ban(c.p, until)})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if left := l.blackholes(); len(left) != 0 {
			t.Fatalf("%s: left behind: %v", c.name, left)
		}
	}
	for _, src := range []netip.Addr{banlab.Gateway4, banlab.Gateway6, banlab.Near4, banlab.Far4} {
		if !l.Answered(src) {
			t.Errorf("%v is not answered", src)
		}
	}
}

func TestTakes(t *testing.T) {
	until := time.Now().Add(time.Minute)
	r := &Routes{}
	for _, c := range []struct {
		prefix   string
		scope    judge.Scope
		strength judge.Strength
		until    time.Time
		want     bool
	}{
		{"203.0.113.9/32", judge.AllProtocols, judge.Soft, until, true},
		{"203.0.113.9/32", judge.AllProtocols, judge.Full, until, true},
		{"2001:db8::9/128", judge.AllProtocols, judge.Soft, until, true},
		{"2001:db8::/64", judge.AllProtocols, judge.Soft, until, true},
		{"203.0.113.9/32", judge.AllProtocols, judge.Limited, until, false},
		{"203.0.113.9/32", judge.TCPOnly, judge.Soft, until, false},
		{"203.0.113.9/32", judge.AllProtocols, judge.Soft, time.Time{}, false},
		{"0.0.0.0/0", judge.AllProtocols, judge.Full, until, false},
		{"203.0.113.0/24", judge.AllProtocols, judge.Full, until, true},
		{"203.0.113.0/24", judge.TCPOnly, judge.Soft, until, false},
		{"::/0", judge.AllProtocols, judge.Full, until, false},
		{"2001:db8::/48", judge.AllProtocols, judge.Full, until, true},
		{"127.0.0.1/32", judge.AllProtocols, judge.Full, until, false},
		{"224.0.0.1/32", judge.AllProtocols, judge.Full, until, false},
		{"255.255.255.255/32", judge.AllProtocols, judge.Full, until, false},
		{"169.254.169.254/32", judge.AllProtocols, judge.Full, until, false},
		{"fe80::1/128", judge.AllProtocols, judge.Full, until, false},
		{"::ffff:203.0.113.9/128", judge.AllProtocols, judge.Full, until, false},
	} {
		b := respond.Ban{Prefix: netip.MustParsePrefix(c.prefix), Scope: c.scope, Strength: c.strength, Until: c.until}
		if r.Takes(&b) != c.want {
			t.Errorf("%+v: taken %v, want %v", c, !c.want, c.want)
		}
	}
}

// A ban never ends before its time, and the metric is never one of today's.
func TestMetric(t *testing.T) {
	for _, c := range []struct {
		t    time.Time
		want uint32
	}{
		{time.Unix(1_800_000_000, 0), 1_800_000_000},
		{time.Unix(1_800_000_000, 1), 1_800_000_001},
		{time.Unix(-5, 0), 1},
		{time.Unix(1<<40, 0), 1<<32 - 1},
	} {
		if got := metric(c.t); got != c.want {
			t.Errorf("%v: %d, want %d", c.t, got, c.want)
		}
	}
}
