package route

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"portsentry/internal/judge"
	"portsentry/internal/pktgen"
	"portsentry/internal/respond"
)

// lab is a host with a listener, and its default gateway, which speaks with many
// addresses.
type lab struct {
	t            *testing.T
	host, others *pktgen.NS
	addr4, addr6 netip.AddrPort // of the listener
}

var (
	gateway4 = netip.MustParseAddr("10.77.0.2")
	near4    = netip.MustParseAddr("10.77.0.3") // on the wire
	far4     = netip.MustParseAddr("198.51.100.7")
	gateway6 = netip.MustParseAddr("fd77::2")
	near6    = netip.MustParseAddr("fd77::3")
	far6     = netip.MustParseAddr("fd99:1::7")
	own4     = netip.MustParseAddr("10.77.0.1")
)

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root: network namespaces and routes")
		}
		t.Skip("needs root: network namespaces and routes")
	}
	n, err := pktgen.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	l := &lab{t: t}
	for _, ns := range []**pktgen.NS{&l.others, &l.host} {
		if *ns, err = n.NewNS(); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err = n.Link(l.others, l.host, []netip.Prefix{
		netip.PrefixFrom(gateway4, 24), netip.PrefixFrom(near4, 24), netip.PrefixFrom(far4, 32),
		netip.PrefixFrom(gateway6, 64), netip.PrefixFrom(near6, 64), netip.PrefixFrom(far6, 128), netip.PrefixFrom(far6.Next(), 128),
	}, []netip.Prefix{netip.PrefixFrom(own4, 24), netip.MustParsePrefix("fd77::1/64")})
	if err != nil {
		t.Fatal(err)
	}
	l.run("ip", "route", "add", "default", "via", gateway4.String())
	l.run("ip", "-6", "route", "add", "default", "via", gateway6.String())
	l.addr4 = l.listen("10.77.0.1:0")
	l.addr6 = l.listen("[fd77::1]:0")
	return l
}

// run runs a program on the host.
func (l *lab) run(args ...string) string {
	l.t.Helper()
	var out []byte
	err := l.host.Do(func() (err error) {
		out, err = exec.CommandContext(l.t.Context(), args[0], args[1:]...).CombinedOutput()
		return err
	})
	if err != nil {
		l.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

func (l *lab) listen(addr string) netip.AddrPort {
	l.t.Helper()
	var ln net.Listener
	err := l.host.Do(func() (err error) {
		ln, err = new(net.ListenConfig).Listen(l.t.Context(), "tcp", addr)
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { ln.Close() })
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// answered reports whether the host answers src.
func (l *lab) answered(src netip.Addr) bool {
	to := l.addr4
	if src.Is6() {
		to = l.addr6
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: src.AsSlice()}, Timeout: 300 * time.Millisecond}
	var conn net.Conn
	err := l.others.Do(func() (err error) {
		conn, err = d.DialContext(l.t.Context(), "tcp", to.String())
		return err
	})
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

func (l *lab) open() *Routes {
	l.t.Helper()
	var r *Routes
	if err := l.host.Do(func() (err error) { r, err = Open(); return err }); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { r.Close() })
	return r
}

// blackholes are the lines of `ip route` for them.
func (l *lab) blackholes() []string {
	var out []string
	for line := range strings.Lines(l.run("ip", "-4", "route") + l.run("ip", "-6", "route")) {
		if strings.HasPrefix(line, "blackhole") {
			out = append(out, strings.Join(strings.Fields(line), " "))
		}
	}
	return out
}

func ban(p netip.Prefix, until time.Time) respond.Ban {
	return respond.Ban{Prefix: p, Scope: judge.AllProtocols, Strength: judge.Soft, Until: until}
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func TestAnswersStop(t *testing.T) {
	l := newLab(t)
	r := l.open()
	until := time.Now().Add(time.Minute)
	for _, src := range []netip.Addr{near4, far4, near6, far6} {
		if !l.answered(src) {
			t.Fatalf("%v is not answered before any ban", src)
		}
	}
	bans := []respond.Ban{ban(single(near4), until), ban(single(near6), until), ban(netip.PrefixFrom(far6, 64), until)}
	if err := r.BanAll(t.Context(), bans); err != nil {
		t.Fatal(err)
	}
	for src, want := range map[netip.Addr]bool{
		near4: false, near6: false, far6: false, far6.Next(): false,
		gateway4: true, gateway6: true, far4: true,
	} {
		if l.answered(src) != want {
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
	for _, src := range []netip.Addr{near4, near6, far6} {
		if !l.answered(src) {
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
		single(near4): until, single(far4): ended, single(near6): until, netip.PrefixFrom(far6, 64).Masked(): until,
	}
	for p, u := range want {
		if err := first.BanAll(t.Context(), []respond.Ban{ban(p, u)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	l.run("ip", "route", "add", "blackhole", "192.0.2.77")

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
	if err := second.BanAll(t.Context(), []respond.Ban{ban(single(near4), until.Add(-time.Minute))}); err != nil {
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
	l.run("ip", "route", "add", "blackhole", far4.String(), "proto", "static", "metric", "5")
	l.run("ip", "-6", "route", "add", "blackhole", far6.String(), "proto", "static", "metric", "5")
	before := l.blackholes()
	r := l.open()
	if bans, err := r.Existing(t.Context()); len(bans) != 0 || err != nil {
		t.Errorf("Existing = %+v, %v", bans, err)
	}
	for _, a := range []netip.Addr{far4, far6} {
		b := ban(single(a), time.Now().Add(time.Minute))
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
	l.run("ip", "route", "add", near4.String(), "dev", "eth0")
	r := l.open()
	until := time.Now().Add(time.Minute)
	for _, c := range []struct {
		name string
		p    netip.Prefix
		want error
	}{
		{"the gateway", single(gateway4), ErrGateway},
		{"the gateway, IPv6", single(gateway6), ErrGateway},
		{"the gateway's /64", netip.PrefixFrom(gateway6, 64), ErrGateway},
		{"an own address", single(own4), ErrNotUsed},
		{"one with a route of the owner's", single(near4), ErrNotUsed},
	} {
		err := r.BanAll(t.Context(), []respond.Ban{ban(single(far4), until), ban(c.p, until)})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if left := l.blackholes(); len(left) != 0 {
			t.Fatalf("%s: left behind: %v", c.name, left)
		}
	}
	for _, src := range []netip.Addr{gateway4, gateway6, near4, far4} {
		if !l.answered(src) {
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
		{"203.0.113.0/24", judge.AllProtocols, judge.Full, until, false},
		{"::/0", judge.AllProtocols, judge.Full, until, false},
		{"2001:db8::/48", judge.AllProtocols, judge.Full, until, false},
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
