package host

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// A router with a published port: what its banned client, a banned network or a banned
// server has open goes, through it and to it, and nothing else does.
func TestCut(t *testing.T) {
	enterSpace(t)
	guest, outside := newSpace(t), newSpace(t)
	join(t, "in", "10.8.1.1/24 fd08:1::1/64", guest, "eth0", "10.8.1.2/24 fd08:1::2/64")
	join(t, "out", "10.8.2.1/24 fd08:2::1/64", outside, "eth0", "10.8.2.9/24 fd08:2::9/64")
	guest.do(func() { command(t, "ip route add default via 10.8.1.1") })
	outside.do(func() { command(t, "ip address add 10.8.2.10/24 dev eth0") })
	command(t, "sysctl -qw net.ipv4.ip_forward=1",
		"nft add table ip nat",
		"nft add chain ip nat pre { type nat hook prerouting priority -100 ; }",
		"nft add chain ip nat post { type nat hook postrouting priority 100 ; }",
		"nft add rule ip nat post oif out masquerade",
		"nft add rule ip nat pre iif out tcp dport 8080 dnat to 10.8.1.2:80",
		"nft add table inet seen",
		"nft add chain inet seen in { type filter hook input priority 0 ; }",
		"nft add rule inet seen in ct state established accept")
	outside.do(func() {
		listenTCP(t, "tcp", "10.8.2.9:443", "")
		listenTCP(t, "tcp", "[fd08:2::9]:443", "")
	})
	guest.do(func() { listenTCP(t, "tcp", "10.8.1.2:80", "") })
	listenTCP(t, "tcp4", "10.8.2.1:22", "")

	type flow struct{ src, dst netip.AddrPort }
	open := func(s *space, from, to string) flow {
		var c *net.TCPConn
		dial := func() {
			var local *net.TCPAddr
			if from != "" {
				local = net.TCPAddrFromAddrPort(addrPort(from))
			}
			c = closing[*net.TCPConn](t)(net.DialTCP("tcp", local, net.TCPAddrFromAddrPort(addrPort(to))))
		}
		if s == nil {
			dial()
		} else {
			s.do(dial)
		}
		return flow{localOf(c), addrPort(to)}
	}
	banned := map[string]flow{
		"a client's, to us":               open(outside, "10.8.2.9:0", "10.8.2.1:22"),
		"a client's, of a published port": open(outside, "10.8.2.9:0", "10.8.2.1:8080"),
		"a guest's":                       open(guest, "", "10.8.2.9:443"),
		"our own":                         open(nil, "", "10.8.2.9:443"),
	}
	other := map[string]flow{
		"another client's": open(outside, "10.8.2.10:0", "10.8.2.1:22"),
		"another family":   open(nil, "", "[fd08:2::9]:443"),
	}
	ct := closing[*Conntrack](t)(NewConntrack())
	tracked := func(f flow) bool {
		_, found, err := ct.Find(unix.IPPROTO_TCP, f.src, f.dst)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	for name, f := range banned {
		if !tracked(f) {
			t.Fatalf("%s is not tracked to begin with", name)
		}
	}

	c := closing[*Cutter](t)(NewCutter())
	n, err := c.Cut(unix.AF_INET, func(a netip.Addr) bool { return a == addr("10.8.2.9") })
	if err != nil || n < len(banned) {
		t.Errorf("%d cut, %v; want %d at least", n, err, len(banned))
	}
	for name, f := range banned {
		if tracked(f) {
			t.Errorf("%s is still tracked", name)
		}
	}
	for name, f := range other {
		if !tracked(f) {
			t.Errorf("%s was cut, too", name)
		}
	}

	network := netip.MustParsePrefix("fd08:2::/48")
	if n, err := c.Cut(unix.AF_UNSPEC, network.Contains); err != nil || n == 0 || tracked(other["another family"]) || !tracked(other["another client's"]) {
		t.Errorf("a network: %d cut, %v", n, err)
	}

	// More than are taken out at once.
	outside.do(func() {
		u := closing[*net.UDPConn](t)(net.ListenUDP("udp", net.UDPAddrFromAddrPort(addrPort("10.8.2.9:999"))))
		for port := range uint16(cutAtOnce + 500) {
			if _, err := u.WriteToUDPAddrPort([]byte("?"), netip.AddrPortFrom(addr("10.8.2.1"), 10000+port)); err != nil {
				t.Fatal(err)
			}
		}
	})
	n, err = c.Cut(unix.AF_INET, func(a netip.Addr) bool { return a == addr("10.8.2.9") })
	if err != nil || n <= cutAtOnce {
		t.Errorf("of many: %d cut, %v", n, err)
	}
	if n, err := c.Cut(unix.AF_INET, func(a netip.Addr) bool { return a == addr("10.8.2.9") }); err != nil || n != 0 {
		t.Errorf("again: %d cut, %v", n, err)
	}
}
