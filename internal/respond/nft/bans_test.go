package nft

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

var _ respond.Method = (*Table)(nil)

func ban(p string, s judge.Strength, d time.Duration) respond.Ban {
	return respond.Ban{Prefix: netip.MustParsePrefix(p), Strength: s, Until: time.Now().Add(d)}
}

// has asks for the ban in force about addr.
func (l *lab) has(t *Table, addr string) respond.Ban {
	l.t.Helper()
	b, ok, err := t.Has(context.Background(), netip.MustParseAddr(addr))
	if err != nil {
		l.t.Fatal(err)
	}
	if ok != (b.Strength != judge.Nothing) {
		l.t.Fatalf("ok %v with %+v", ok, b)
	}
	return b
}

// A ban replaces what was there: length up and down, strength, scope.
func TestBanReplaces(t *testing.T) {
	onBothKernels(t, testBanReplaces)
}

// onBothKernels runs a test with what the kernel can do and with what one
// before Linux 6.3 could.
func onBothKernels(t *testing.T, test func(*testing.T, *lab, *Table)) {
	for _, destroys := range []bool{true, false} {
		t.Run(fmt.Sprintf("destroys=%v", destroys), func(t *testing.T) {
			l := newLab(t)
			table := l.open(traps())
			if destroys && !table.destroys {
				t.Skip("this kernel cannot destroy elements (Linux 6.3 can)")
			}
			table.destroys = destroys
			test(t, l, table)
		})
	}
}

func testBanReplaces(t *testing.T, l *lab, table *Table) {
	for _, p := range []string{"203.0.113.9/32", "2001:db8::9/128", "2001:db8:0:1::/64"} {
		prefix := netip.MustParsePrefix(p)
		inside := prefix.Addr()
		if prefix.Bits() == 64 {
			inside = inside.Next()
		}
		for i, step := range []struct {
			strength judge.Strength
			scope    judge.Scope
			length   time.Duration
		}{
			{judge.Soft, judge.AllProtocols, time.Minute},
			{judge.Soft, judge.AllProtocols, time.Hour},
			{judge.Soft, judge.AllProtocols, 10 * time.Minute},
			{judge.Full, judge.AllProtocols, 24 * 365 * time.Hour},
			{judge.Limited, judge.AllProtocols, time.Minute},
			{judge.Soft, judge.TCPOnly, time.Minute},
			{judge.Soft, judge.TCPOnly, time.Hour},
			{judge.Soft, judge.AllProtocols, 0},
			{judge.Limited, judge.AllProtocols, time.Minute},
		} {
			b := respond.Ban{Prefix: prefix, Strength: step.strength, Scope: step.scope}
			if step.length != 0 {
				b.Until = time.Now().Add(step.length)
			}
			if err := table.Ban(t.Context(), b); err != nil {
				t.Fatalf("%v step %d: %v", p, i, err)
			}
			got := l.has(table, inside.String())
			if got.Prefix != prefix || got.Strength != step.strength || got.Scope != step.scope ||
				got.Until.Sub(b.Until).Abs() > 2*time.Second {
				t.Errorf("%v step %d: got %+v, want %+v", p, i, got, b)
			}
			if all := l.existing(table); len(all) != 1 {
				t.Errorf("%v step %d: %d bans, want 1", p, i, len(all))
			}
		}
		for range 2 { // the second time it is not there
			if err := table.Unban(t.Context(), respond.Ban{Prefix: prefix}); err != nil {
				t.Fatal(err)
			}
		}
		if got := l.has(table, inside.String()); got.Strength != judge.Nothing {
			t.Errorf("lifted, yet %+v", got)
		}
	}
	if err := table.Ban(t.Context(), ban("::ffff:203.0.113.9/128", judge.Soft, time.Minute)); err == nil {
		t.Error("a ban of an IPv4-mapped address was taken")
	}
}

// Confirming less than the provisional ban did takes effect at once.
func TestConfirmLimited(t *testing.T) {
	onBothKernels(t, testConfirmLimited)
}

func testConfirmLimited(t *testing.T, l *lab, table *Table) {
	l.serve(l.host, "tcp", "10.9.0.1:80")
	if _, err := l.dial(l.scanner, "tcp", "10.9.0.1:1", patience); !silent(err) {
		t.Fatalf("trap: %v, want silence", err)
	}
	if got := l.has(table, "10.9.0.2"); got.Strength != judge.Soft || time.Until(got.Until) > 10*time.Second {
		t.Errorf("provisional: %+v", got)
	}
	if err := table.Ban(t.Context(), ban("10.9.0.2/32", judge.Limited, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.dial(l.scanner, "tcp", "10.9.0.1:80", time.Second); err != nil {
		t.Errorf("served port: %v", err)
	}
	if _, err := l.dial(l.scanner, "tcp", "10.9.0.1:999", patience); !silent(err) {
		t.Errorf("closed port: %v, want silence", err)
	}
}

func TestBansEndByThemselves(t *testing.T) { bothWays(t, testBansEndByThemselves) }

func testBansEndByThemselves(t *testing.T, traps func() Options) {
	l := newLab(t)
	table := l.open(traps())
	bans := []respond.Ban{
		ban("203.0.113.1/32", judge.Full, 50*time.Millisecond), ban("203.0.113.2/32", judge.Soft, 50*time.Millisecond),
		ban("203.0.113.3/32", judge.Limited, 50*time.Millisecond), ban("2001:db8::/64", judge.Soft, 50*time.Millisecond),
		ban("203.0.113.9/32", judge.Soft, time.Hour),
	}
	if err := table.BanAll(t.Context(), bans); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the short bans to end", func() bool {
		all := l.existing(table)
		return len(all) == 1 && all[0].Prefix == bans[4].Prefix
	})
	// One that has ended already lifts what is there.
	if err := table.Ban(t.Context(), ban("203.0.113.9/32", judge.Soft, -time.Second)); err != nil {
		t.Fatal(err)
	}
	if got := l.has(table, "203.0.113.9"); got.Strength != judge.Nothing {
		t.Errorf("%+v", got)
	}
}

func TestNeighbourOfA64(t *testing.T) { bothWays(t, testNeighbourOfA64) }

func testNeighbourOfA64(t *testing.T, traps func() Options) {
	l := newLab(t)
	l.serve(l.host, "tcp", "[fd09::1]:80")
	table := l.open(traps())
	r := l.raw()
	in, out := netip.MustParseAddr("2001:db8:0:5::7"), netip.MustParseAddr("2001:db8:0:6::7")
	for _, strength := range []judge.Strength{judge.Soft, judge.Full} {
		if err := table.Ban(t.Context(), ban("2001:db8:0:5::/64", strength, time.Minute)); err != nil {
			t.Fatal(err)
		}
		before := r.synAcks[out]
		r.send(l.tcp(in, 1, 80, syn))
		port := uint16(strength) * 10000
		eventually(t, "an answer to the neighbouring /64", func() bool {
			port++ // again until the way back is known: neighbour discovery may lose the first
			r.send(l.tcp(out, port, 80, syn))
			r.poll()
			return r.synAcks[out] > before
		})
		if r.answers[in] != 0 {
			t.Errorf("%d answers into the banned /64", r.answers[in])
		}
	}
}

func TestNeighbourDiscoveryOfABannedSource(t *testing.T) {
	bothWays(t, testNeighbourDiscoveryOfABannedSource)
}

func testNeighbourDiscoveryOfABannedSource(t *testing.T, traps func() Options) {
	l := newLab(t)
	table := l.open(traps())
	if err := table.Ban(t.Context(), ban("fd09::2/128", judge.Full, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := table.Ban(t.Context(), ban("fd09::/64", judge.Full, time.Minute)); err != nil {
		t.Fatal(err)
	}
	l.command(l.scannerName, "ip", "-6", "neigh", "flush", "dev", "wire")
	if _, err := l.dial(l.scanner, "tcp", "[fd09::1]:80", patience); !silent(err) {
		t.Errorf("%v, want silence", err)
	}
	l.in(l.scanner, func() error {
		neighbours, err := netlink.NeighList(l.wire.Attrs().Index, netlink.FAMILY_V6)
		if !slices.ContainsFunc(neighbours, func(n netlink.Neigh) bool {
			return n.IP.Equal(net.IP(hostV6.AsSlice())) && slices.Equal(n.HardwareAddr, l.hostMAC)
		}) {
			t.Errorf("the host was not found: %v", neighbours)
		}
		return err
	})
}

// guest puts a third namespace behind the host.
func (l *lab) guest() (addr string, serve func(port string)) {
	l.t.Helper()
	ns, name := l.namespace("g")
	l.in(l.host, func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "guest"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns))})
	})
	l.in(l.host, func() error { return up("guest", "10.10.0.1/24") })
	l.in(ns, func() error { return up("eth0", "10.10.0.2/24") })
	l.awaitCarrier(l.host, "guest")
	l.awaitCarrier(ns, "eth0")
	l.command(name, "ip", "route", "add", "default", "via", "10.10.0.1")
	l.command(l.hostName, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	l.command(l.scannerName, "ip", "route", "add", "10.10.0.0/24", "via", "10.9.0.1")
	l.guestNS = ns
	return "10.10.0.2", func(port string) { l.serve(ns, "tcp", "10.10.0.2:"+port) }
}

func TestForwardedTrafficOfABannedSource(t *testing.T) {
	l := newLab(t)
	addr, serve := l.guest()
	serve("80")
	table := l.open(traps())
	reach := func() error { _, err := l.dial(l.scanner, "tcp", addr+":80", patience); return err }
	if _, err := l.dial(l.scanner, "tcp", addr+":80", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	for _, strength := range []judge.Strength{judge.Soft, judge.Full} {
		if err := table.Ban(t.Context(), ban("10.9.0.2/32", strength, time.Minute)); err != nil {
			t.Fatal(err)
		}
		if err := reach(); !silent(err) {
			t.Errorf("strength %d: %v, want silence", strength, err)
		}
	}
	if s := l.stats(table); s.DroppedSoft == 0 || s.DroppedFull == 0 {
		t.Errorf("stats %+v", s)
	}
	// What passes through is judged by its own host: a probe of a guest is none of ours.
	if err := table.Unban(t.Context(), ban("10.9.0.2/32", judge.Full, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.dial(l.scanner, "tcp", addr+":1", time.Second); err == nil || silent(err) {
		t.Errorf("guest's closed port: %v, want a refusal", err)
	}
}

// A published port that is also a trap, and answers to a masqueraded guest
// that come to trap ports, ban nobody.
func TestNATBansNobody(t *testing.T) {
	l := newLab(t)
	addr, serve := l.guest()
	serve("11")
	l.nftFile(`table ip nat {
		chain pre { type nat hook prerouting priority dstnat; iifname "eth0" tcp dport 11 dnat to ` + addr + `; }
		chain post { type nat hook postrouting priority srcnat; ip saddr 10.10.0.0/24 oifname "eth0" masquerade; }
	}`)
	table := l.open(traps())
	c, err := l.dial(l.scanner, "tcp", "10.9.0.1:11", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := echo(c); err != nil {
		t.Error(err)
	}

	// The guest asks from port 7 of UDP and port 1 of TCP, both traps of the host.
	l.echoUDP(l.scanner, "10.9.0.2:5353")
	l.serve(l.scanner, "tcp", "10.9.0.2:8080")
	l.in(l.guestNS, func() error {
		u, err := net.DialUDP("udp", &net.UDPAddr{Port: 7}, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.9.0.2:5353")))
		if err != nil {
			return err
		}
		defer u.Close()
		if err := echo(u); err != nil {
			t.Errorf("guest over UDP: %v", err)
		}
		d := net.Dialer{LocalAddr: &net.TCPAddr{Port: 1}, Timeout: time.Second}
		c, err := d.Dial("tcp", "10.9.0.2:8080")
		if err != nil {
			return err
		}
		defer c.Close()
		if err := echo(c); err != nil {
			t.Errorf("guest over TCP: %v", err)
		}
		return nil
	})
	if s := l.stats(table); s.TrapHits != 0 {
		t.Errorf("stats %+v", s)
	}
	if err := table.Ban(t.Context(), ban("10.9.0.2/32", judge.Soft, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.dial(l.scanner, "tcp", "10.9.0.1:11", patience); !silent(err) {
		t.Errorf("published port, banned: %v, want silence", err)
	}
}

func TestOpenWithoutPrivilege(t *testing.T) {
	newLab(t)
	errs := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its lost capability
		h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var d [2]unix.CapUserData
		err := unix.Capget(&h, &d[0])
		d[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err := errors.Join(err, unix.Capset(&h, &d[0])); err != nil {
			errs <- err
			return
		}
		_, err = Open(traps())
		errs <- err
	}()
	if err := <-errs; !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v, want a permission error", err)
	} else {
		t.Log(err)
	}
}

// Packets are looked up in sets of full bans once there is one, which every packet would
// pay for otherwise.
func TestLookedUpOnlyWhereThereAreBans(t *testing.T) { bothWays(t, testLookedUpOnlyWhereThereAreBans) }

func testLookedUpOnlyWhereThereAreBans(t *testing.T, traps func() Options) {
	l := newLab(t)
	l.serve(l.host, "tcp", "10.9.0.1:80")
	table := l.open(traps())
	expect := func(when string, v4, v6 bool) {
		t.Helper()
		rules := l.listed()
		if got4, got6 := strings.Contains(rules, "@full4 jump full"), strings.Contains(rules, "@full6 jump full"); got4 != v4 || got6 != v6 {
			t.Errorf("%s: looked up IPv4 %v, IPv6 %v", when, got4, got6)
		}
		c, err := l.dial(l.scanner, "tcp", "10.9.0.1:80", patience)
		if err == nil {
			c.Close()
		}
		if v4 != silent(err) {
			t.Errorf("%s: %v", when, err)
		}
	}
	expect("at first", false, false)
	if err := table.Ban(t.Context(), ban("2001:db8::7/128", judge.Full, time.Minute)); err != nil {
		t.Fatal(err)
	}
	expect("one of IPv6", false, true)
	for range 2 {
		if err := table.Ban(t.Context(), ban("10.9.0.2/32", judge.Full, time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	expect("one of IPv4", true, true)
	if n := strings.Count(l.listed(), "@full4 jump full"); n != 1 {
		t.Errorf("%d rules for one set", n)
	}
	l.reconfigure(table, traps())
	expect("with other rules", true, true)

	again := func() {
		t.Helper()
		if err := table.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect("closed", true, true)
		table = l.open(traps())
	}
	again()
	expect("opened again", true, true)
	if err := table.Unban(t.Context(), ban("2001:db8::7/128", judge.Full, time.Minute)); err != nil {
		t.Fatal(err)
	}
	again()
	expect("opened again without one of IPv6", true, false)
}
