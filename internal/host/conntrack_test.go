package host

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// A router: guest 10.8.1.2 - here - outside 10.8.2.9. The guest is masqueraded,
// port 8080 of ours is published to its port 80.
func TestConntrack(t *testing.T) {
	enterSpace(t)
	guest, outside := newSpace(t), newSpace(t)
	join(t, "in", "10.8.1.1/24 fd08:1::1/64", guest, "eth0", "10.8.1.2/24 fd08:1::2/64")
	join(t, "out", "10.8.2.1/24 fd08:2::1/64", outside, "eth0", "10.8.2.9/24 fd08:2::9/64")
	guest.do(func() { command(t, "ip route add default via 10.8.1.1") })
	command(t, "sysctl -qw net.ipv4.ip_forward=1",
		"nft add table ip nat",
		"nft add chain ip nat pre { type nat hook prerouting priority -100 ; }",
		"nft add chain ip nat post { type nat hook postrouting priority 100 ; }",
		"nft add rule ip nat post oif out masquerade",
		"nft add rule ip nat pre iif out tcp dport 8080 dnat to 10.8.1.2:80",
		"nft add table inet seen",
		"nft add chain inet seen in { type filter hook input priority 0 ; }",
		"nft add rule inet seen in ct state established accept")

	tcp := func(s *space, to string) (c *net.TCPConn) {
		s.do(func() {
			c = closing[*net.TCPConn](t)(net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addrPort(to))))
		})
		return c
	}
	listen := func(s *space, at string) {
		s.do(func() { listenTCP(t, "tcp", at, "") })
	}
	listen(outside, "10.8.2.9:443")
	listen(outside, "[fd08:2::9]:443")
	listen(guest, "10.8.1.2:80")
	listenTCP(t, "tcp4", "10.8.2.1:22", "")

	masqueraded := localOf(tcp(guest, "10.8.2.9:443"))
	published := localOf(tcp(outside, "10.8.2.1:8080"))
	served := localOf(tcp(outside, "10.8.2.1:22"))
	own := localOf(closing[*net.TCPConn](t)(net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addrPort("10.8.2.9:443")))))
	own6 := localOf(closing[*net.TCPConn](t)(net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addrPort("[fd08:2::9]:443")))))
	query := closing[*net.UDPConn](t)(net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addrPort("10.8.2.9:53"))))
	if _, err := query.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	var stray netip.AddrPort // a datagram to nobody makes an entry of its own
	outside.do(func() {
		c := closing[*net.UDPConn](t)(net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addrPort("10.8.2.1:69"))))
		c.Write([]byte("?"))
		stray = localOf(c)
	})

	ct := closing[*Conntrack](t)(NewConntrack())
	atOut := netip.AddrPortFrom(addr("10.8.2.1"), masqueraded.Port())
	tests := []struct {
		name             string
		proto            uint8
		src, dst         netip.AddrPort
		found, ours, nat bool
		assured          bool
	}{
		{"reply to a masqueraded guest", unix.IPPROTO_TCP, addrPort("10.8.2.9:443"), atOut, true, true, false, true},
		{"request of a masqueraded guest", unix.IPPROTO_TCP, masqueraded, addrPort("10.8.2.9:443"), true, false, false, true},
		{"client of a published port", unix.IPPROTO_TCP, published, addrPort("10.8.2.1:8080"), true, false, true, true},
		{"client of a served port", unix.IPPROTO_TCP, served, addrPort("10.8.2.1:22"), true, false, false, true},
		{"reply to our own connection", unix.IPPROTO_TCP, addrPort("10.8.2.9:443"), own, true, true, false, true},
		{"reply to our own, IPv6", unix.IPPROTO_TCP, addrPort("[fd08:2::9]:443"), own6, true, true, false, true},
		{"reply to our own query", unix.IPPROTO_UDP, addrPort("10.8.2.9:53"), localOf(query), true, true, false, false},
		{"stray datagram", unix.IPPROTO_UDP, stray, addrPort("10.8.2.1:69"), true, false, false, false},
		{"stranger", unix.IPPROTO_TCP, addrPort("10.8.2.9:444"), addrPort("10.8.2.1:22"), false, false, false, false},
		{"stranger, IPv6", unix.IPPROTO_TCP, addrPort("[fd08:2::9]:444"), addrPort("[fd08:2::1]:22"), false, false, false, false},
		{"same ends, other protocol", unix.IPPROTO_UDP, addrPort("10.8.2.9:443"), own, false, false, false, false},
	}
	for _, tt := range tests {
		f, found, err := ct.Find(tt.proto, tt.src, tt.dst)
		if err != nil || found != tt.found {
			t.Errorf("%s: Find = %v, %v, %v", tt.name, f, found, err)
			continue
		}
		if found && (f.Ours(tt.src) != tt.ours || f.Translated() != tt.nat || f.Assured != tt.assured) {
			t.Errorf("%s: ours %v, translated %v, assured %v: %+v", tt.name, f.Ours(tt.src), f.Translated(), f.Assured, f)
		}
	}
	f, _, _ := ct.Find(unix.IPPROTO_TCP, published, addrPort("10.8.2.1:8080"))
	if f.ReplySrc != addrPort("10.8.1.2:80") || f.ReplyDst != published {
		t.Errorf("published port: %+v", f)
	}

	here, there := addrPort("10.8.2.1:22"), addrPort("[fd08:2::1]:22")
	stranger, stranger6 := addrPort("10.8.2.9:444"), addrPort("[fd08:2::9]:444")
	if n := testing.AllocsPerRun(100, func() {
		ct.Find(unix.IPPROTO_TCP, served, here)
		ct.Find(unix.IPPROTO_TCP, stranger, here)
		ct.Find(unix.IPPROTO_TCP, stranger6, there)
	}); n != 0 {
		t.Errorf("three look-ups allocate %v times", n)
	}
}

func TestConntrackWithoutHooks(t *testing.T) {
	enterSpace(t)
	listenTCP(t, "tcp4", "127.0.0.1:22", "")
	c := localOf(closing[net.Conn](t)(net.Dial("tcp4", "127.0.0.1:22")))
	ct, err := NewConntrack()
	if errors.Is(err, ErrNoConntrack) {
		t.Skip("the kernel has no conntrack")
	}
	closing[*Conntrack](t)(ct, err)
	if _, found, err := ct.Find(unix.IPPROTO_TCP, c, addrPort("127.0.0.1:22")); found || err != nil {
		t.Errorf("Find = %v, %v where nothing is tracked", found, err)
	}
}

func FuzzParseFlow(f *testing.F) {
	f.Add(appendTupleRequest(nil, unix.IPPROTO_TCP, addrPort("192.0.2.1:1"), addrPort("192.0.2.2:2"))[unix.SizeofNlMsghdr:])
	f.Add(appendTupleRequest(nil, unix.IPPROTO_TCP, addrPort("[2001:db8::1]:1"), addrPort("[2001:db8::2]:2"))[unix.SizeofNlMsghdr:])
	f.Fuzz(func(t *testing.T, b []byte) {
		if flow, ok := parseFlow(b); ok && (!flow.OrigSrc.IsValid() || !flow.ReplyDst.IsValid()) {
			t.Errorf("%x gives %+v", b, flow)
		}
	})
}

func BenchmarkConntrack(b *testing.B) {
	enterSpace(b)
	ct := closing[*Conntrack](b)(NewConntrack())
	src, dst := addrPort("10.8.2.9:444"), addrPort("10.8.2.1:22")
	b.ReportAllocs()
	for b.Loop() {
		ct.Find(unix.IPPROTO_TCP, src, dst)
	}
}
