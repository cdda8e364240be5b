package xdp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"portsentry/internal/bpf"
	"portsentry/internal/judge"
	"portsentry/internal/pktgen"
	"portsentry/internal/respond"
	"portsentry/internal/respond/nft"
)

// kinds are what can be asked for.
func kinds() []respond.Ban {
	var out []respond.Ban
	for _, strength := range []judge.Strength{judge.Limited, judge.Soft, judge.Full} {
		for _, scope := range []judge.Scope{judge.AllProtocols, judge.TCPOnly, judge.UDPOnly} {
			if strength != judge.Full || scope == judge.AllProtocols {
				out = append(out, respond.Ban{Strength: strength, Scope: scope, Until: time.Now().Add(time.Hour)})
			}
		}
	}
	return out
}

// What a ban leaves its source is the same with XDP, alone and where connections
// are tracked, as with nftables.
func TestAsNftables(t *testing.T) {
	table := func(l *lab) *nft.Table {
		var table *nft.Table
		err := l.host.NS.Do(func() (err error) { table, err = nft.Open(nft.Options{}); return err })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = table.Close(context.Background()) })
		return table
	}
	l := newLab(t)
	want := outcomes(l, table(l))
	for _, tracked := range []bool{false, true} {
		t.Run(fmt.Sprintf("tracked=%v", tracked), func(t *testing.T) {
			l := newLab(t)
			if tracked {
				table(l)
			}
			m, _ := l.sense(bpf.Rules{})
			got := outcomes(l, m)
			for _, what := range slices.Sorted(maps.Keys(want)) {
				if got[what] != want[what] {
					t.Errorf("%s: passes %v, with nftables %v", what, got[what], want[what])
				}
			}
		})
	}
	passed := 0
	for _, p := range want {
		if p {
			passed++
		}
	}
	if passed == 0 || passed == len(want) {
		t.Errorf("%d of %d passed with nftables: the test sees nothing", passed, len(want))
	}
}

// outcomes says of every kind of ban which packets get through it.
func outcomes(l *lab, m respond.Method) map[string]bool {
	l.t.Helper()
	out := make(map[string]bool)
	for _, first := range prefixes("192.0.2.1/32", "2001:db8:0:1::1/128", "2001:db8:0:100::/64", "192.0.3.0/28") {
		var bans []respond.Ban
		for i, b := range kinds() {
			if bpf.IsNet(first) {
				i *= 16
			}
			b.Prefix = netip.PrefixFrom(nth(first.Addr(), i), first.Bits())
			if m.Takes(&b) {
				bans = append(bans, b)
			}
		}
		if err := m.BanAll(l.t.Context(), bans); err != nil {
			l.t.Fatal(err)
		}
		icmp := uint8(pktgen.ProtoICMP)
		if first.Addr().Is6() {
			icmp = pktgen.ProtoICMPv6
		}
		for _, b := range append(bans, respond.Ban{Prefix: netip.PrefixFrom(nth(first.Addr(), 144), first.Bits())}) {
			src := b.Prefix.Addr()
			if !b.Prefix.IsSingleIP() {
				src = src.Next()
			}
			for what, p := range map[string]pktgen.Packet{
				"SYN to a service":      l.packet(src, pktgen.ProtoTCP, served, pktgen.SYN),
				"SYN":                   l.packet(src, pktgen.ProtoTCP, closed, pktgen.SYN),
				"ACK":                   l.packet(src, pktgen.ProtoTCP, closed, pktgen.ACK),
				"datagram to a service": l.packet(src, pktgen.ProtoUDP, served, 0),
				"datagram":              l.packet(src, pktgen.ProtoUDP, closed, 0),
				"echo request":          l.packet(src, icmp, 0, 0),
			} {
				before, _ := counted(m, b.Prefix)
				passed := l.passes(p)
				if after, counts := counted(m, b.Prefix); counts && (after-before == 1) == passed {
					l.t.Errorf("%v ban of %v: %s passed %v and %d packets more were counted", b.Strength, b.Prefix, what, passed, after-before)
				}
				out[fmt.Sprintf("%v ban, %v, of %v: %s", b.Strength, b.Scope, b.Prefix, what)] = passed
			}
		}
	}
	for _, to := range []netip.Addr{l.host.Addr4(), l.host.Addr6()} {
		established(l, m, to, out)
	}
	return out
}

// established bans the scanner's own address while it has a connection, in each
// way and then not at all.
func established(l *lab, m respond.Method, to netip.Addr, out map[string]bool) {
	l.t.Helper()
	client, server := l.connect(to)
	who := l.scanner.Addr4()
	if to.Is6() {
		who = l.scanner.Addr6()
	}
	for _, b := range kinds() {
		b.Prefix = netip.PrefixFrom(who, who.BitLen())
		if err := m.BanAll(l.t.Context(), []respond.Ban{b}); err != nil {
			l.t.Fatal(err)
		}
		if _, err := client.Write([]byte("x")); err != nil {
			l.t.Fatal(err)
		}
		l.passes(l.packet(l.fence, pktgen.ProtoTCP, closed, pktgen.SYN))
		got := drain(l.t, server) > 0
		out[fmt.Sprintf("%v ban, %v, of %v: its connection", b.Strength, b.Scope, b.Prefix)] = got
		if err := m.Unban(l.t.Context(), b); err != nil {
			l.t.Fatal(err)
		}
		if !got { // lifted, it is repeated and arrives
			eventually(l.t, "the rest of the connection", func() bool { return drain(l.t, server) > 0 })
		}
	}
}

// connect opens a connection from the scanner to a port of the host.
func (l *lab) connect(to netip.Addr) (client net.Conn, server syscall.RawConn) {
	l.t.Helper()
	var ln net.Listener
	var at net.Conn
	err := l.host.NS.Do(func() (err error) { ln, err = net.Listen("tcp", netip.AddrPortFrom(to, 0).String()); return err })
	if err == nil {
		defer ln.Close()
		err = l.scanner.NS.Do(func() (err error) {
			client, err = net.DialTimeout("tcp", ln.Addr().String(), 5*time.Second)
			return err
		})
	}
	if err == nil {
		at, err = ln.Accept()
	}
	if err == nil {
		server, err = at.(*net.TCPConn).SyscallConn()
	}
	if err != nil {
		l.t.Fatal(errors.Join(errors.New("connect"), err))
	}
	l.t.Cleanup(func() { client.Close(); at.Close() })
	return client, server
}

func counted(m respond.Method, p netip.Prefix) (uint64, bool) {
	c, counts := m.(respond.Counter)
	if !counts {
		return 0, false
	}
	n, _, ok := c.Counts(p)
	return n, ok
}

// nth is the address i behind a; of IPv6 in the /64 i behind its own.
func nth(a netip.Addr, i int) netip.Addr {
	if a.Is4() {
		b := a.As4()
		b[3] += byte(i)
		return netip.AddrFrom4(b)
	}
	b := a.As16()
	b[7] += byte(i)
	return netip.AddrFrom16(b)
}
