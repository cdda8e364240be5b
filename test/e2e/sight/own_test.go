package sight_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// server accepts connections in ns and greets each, until the test ends. It
// closes them when the client does or says "bye".
func server(t *testing.T, ns *pktgen.NS, address string) {
	t.Helper()
	var s net.Listener
	err := ns.Do(func() (err error) {
		s, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	go func() {
		for {
			c, err := s.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				fmt.Fprint(c, "welcome")
				buf := make([]byte, 100)
				for {
					n, err := c.Read(buf)
					if err != nil || bytes.Contains(buf[:n], []byte("bye")) {
						return
					}
				}
			}()
		}
	}()
}

// withConntrack makes the kernel of ns track connections, as any stateful
// firewall does.
func withConntrack(t *testing.T, ns *pktgen.NS) {
	t.Helper()
	for _, rule := range []string{
		"add table inet stateful", "add chain inet stateful in { type filter hook input priority 0; }",
		"add rule inet stateful in ct state established counter",
	} {
		lab.Command(t, ns, "nft", rule)
	}
}

// ways there are to end a connection of the host.
var ways = []func(c *net.TCPConn){
	func(c *net.TCPConn) { c.SetLinger(0) }, // reset
	func(*net.TCPConn) {},
	func(c *net.TCPConn) { // shut down, then close
		c.CloseWrite()
		io.Copy(io.Discard, c)
	},
	func(c *net.TCPConn) { // close second, of which the kernel remembers nothing
		fmt.Fprint(c, "bye")
		io.Copy(io.Discard, c)
	},
}

// TestOwnConnections: the host connects out, from every kind of local port, and
// every port is a trap. It is never taken for being scanned.
func TestOwnConnections(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		from    uint16 // first of the local ports; 0: the kernel chooses
		tracked bool   // by the firewall of the host
	}{
		{name: "from ip_local_port_range"},
		{name: "from low ports", from: 1000},
		{name: "from low ports, with connection tracking", from: 1000, tracked: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			if c.tracked {
				withConntrack(t, l.Host.NS)
			}
			// The kernel forgets a closed connection at once: the worst case.
			if err := l.Host.NS.Sysctl("net.ipv4.tcp_max_tw_buckets", "0"); err != nil {
				t.Fatal(err)
			}
			w, d := listen(t, l, map[string]string{"TCP_PORTS": "1-65535"})
			var open []*net.TCPConn
			for i := range 40 {
				local, remote := l.Host.Addr4(), l.Scanner.Addr4()
				if i%2 == 1 {
					local, remote = l.Host.Addr6(), l.Scanner.Addr6()
				}
				if i < 2 {
					server(t, l.Scanner.NS, netip.AddrPortFrom(remote, 443).String())
				}
				from := ""
				if c.from > 0 {
					from = netip.AddrPortFrom(local, c.from+uint16(i)).String()
				}
				o, err := dial(l.Host.NS, "tcp", from, netip.AddrPortFrom(remote, 443).String())
				if err != nil {
					t.Fatal(err)
				}
				o.SetDeadline(time.Now().Add(patience))
				if _, err := fmt.Fprint(o, "hello"); err != nil { // which is acknowledged
					t.Fatal(err)
				}
				if _, err := io.ReadFull(o, make([]byte, len("welcome"))); err != nil {
					t.Fatal(err)
				}
				open = append(open, o.(*net.TCPConn))
			}
			if got := w.scans(t); got != nil {
				t.Errorf("while they are open: %d lines, the first: %s", len(got), got[0])
			}
			if c.from > 0 && counter(t, d, "served_total") == 0 {
				t.Error("served_total is 0: nothing of the connections was even looked at")
			}
			for i, o := range open {
				ways[i/2%len(ways)](o)
				o.Close()
			}
			if got := w.scans(t); got != nil {
				t.Errorf("after they were closed: %d lines, the first: %s", len(got), got[0])
			}
		})
	}
}

// TestLatePackets sends what comes of connections and questions that the host
// has forgotten, and what comes of packets that somebody forged from it.
func TestLatePackets(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	w, _ := listen(t, l, map[string]string{"TCP_PORTS": "1-65535", "UDP_PORTS": "1-65535"})

	// Inside ip_local_port_range only a bare SYN asks for a service.
	late := []uint16{
		0, pktgen.FIN, pktgen.ACK, pktgen.FIN | pktgen.ACK, pktgen.PSH | pktgen.ACK, pktgen.FIN | pktgen.PSH | pktgen.ACK,
		pktgen.RST, pktgen.RST | pktgen.ACK, pktgen.SYN | pktgen.ACK, pktgen.FIN | pktgen.PSH | pktgen.URG, pktgen.SYN | pktgen.FIN,
	}
	for i, flags := range late {
		for _, port := range []int{32768, 40000 + i, 60999} {
			for _, v6 := range []bool{false, true} {
				w.sendPacket(t, w.packet(port, v6, func(p *pktgen.Packet) { p.Flags, p.SrcPort = flags, 443 }))
			}
		}
	}
	for _, v6 := range []bool{false, true} {
		w.sendPacket(t, w.packet(45000, v6, func(p *pktgen.Packet) { p.Proto, p.SrcPort, p.Flags = pktgen.ProtoUDP, 53, 0 }))
	}
	if got := w.scans(t); got != nil {
		t.Errorf("late packets: %q", got)
	}
	w.sendPacket(t, w.packet(45000, false, nil))
	want := []string{scanLine(l.Scanner.Addr4(), "TCP", 45000, synScan, "not set")}
	if d := cmp.Diff(want, w.scans(t)); d != "" {
		t.Errorf("a bare SYN (-want +got):\n%s", d)
	}

	// Backscatter, from many, to every trap.
	for _, flags := range []uint16{pktgen.SYN | pktgen.ACK, pktgen.RST, pktgen.RST | pktgen.ACK} {
		p := w.packet(1, false, func(p *pktgen.Packet) { p.Flags = flags })
		_, err := w.send.Flood(t.Context(), p, pktgen.FloodOpts{
			Count: 20_000, SourcePrefix: netip.MustParsePrefix("198.18.0.0/15"), Sources: 5000,
			DstPorts: []uint16{1, 11, 23, 80, 443, 8080, 45000}, VarySrcPort: true,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := w.scans(t); got != nil {
		t.Errorf("backscatter: %d lines, the first: %s", len(got), got[0])
	}
}

// TestAnswers: the host asks by UDP, from ports that are traps. Neither the
// answer nor, where anybody can know, a second and a late one is a probe.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		from    uint16 // 0: the kernel chooses
		tracked bool
	}{
		{"from ip_local_port_range", 0, false},
		{"from a low port, with connection tracking", 1053, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			if c.tracked {
				withConntrack(t, l.Host.NS)
			}
			w, _ := listen(t, l, map[string]string{"TCP_PORTS": "1-65535", "UDP_PORTS": "1-65535"})
			var resolver net.PacketConn
			err := l.Scanner.NS.Do(func() (err error) {
				resolver, err = net.ListenPacket("udp", netip.AddrPortFrom(l.Scanner.Addr4(), 53).String())
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			defer resolver.Close()
			resolver.SetDeadline(time.Now().Add(patience))
			from := netip.AddrPortFrom(l.Host.Addr4(), c.from).String()
			buf := make([]byte, 100)
			for range 20 {
				// A child that another test forks meanwhile holds the socket of before
				// until it execs, and its port with it.
				var q net.Conn
				lab.Wait(t, patience, "the port of the question before", func() bool {
					q, err = dial(l.Host.NS, "udp", from, resolver.LocalAddr().String())
					return !errors.Is(err, syscall.EADDRINUSE)
				})
				if err != nil {
					t.Fatal(err)
				}
				q.SetDeadline(time.Now().Add(patience))
				if _, err := fmt.Fprint(q, "who?"); err != nil {
					t.Fatal(err)
				}
				_, who, err := resolver.ReadFrom(buf)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := resolver.WriteTo([]byte("in time"), who); err != nil {
					t.Fatal(err)
				}
				if _, err := q.Read(buf); err != nil {
					t.Fatal(err)
				}
				q.Close()
				for range 2 {
					if _, err := resolver.WriteTo([]byte("too late"), who); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got := w.scans(t); got != nil {
				t.Errorf("%d lines, the first: %s", len(got), got[0])
			}
		})
	}
}

// TestKindsTracked: connection tracking makes entries for probes too. They hide
// none, but for what belongs to a connection of our own.
func TestKindsTracked(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	withConntrack(t, l.Host.NS)
	w, _ := listen(t, l, map[string]string{"TCP_PORTS": "1-65535", "UDP_PORTS": "1-65535"})
	var want []string
	for i, k := range []struct {
		scan, kind string
	}{
		{"-sS", synScan}, {"-sF", "TCP FIN scan"}, {"-sN", "TCP NULL scan"}, {"-sX", "TCP XMAS scan"},
		{"-sM", "TCP Maimon scan"}, {"-sA", "TCP ACK/Window scan"}, {"-sU", udpScan},
	} {
		port := 1000 + i
		lab.Nmap(t, l.Scanner.NS, k.scan, fmt.Sprintf("-p%d", port), l.Host.Addr4().String())
		want = append(want, scanLine(l.Scanner.Addr4(), protocol(k.scan), port, k.kind, "not set"))
	}
	slices.Sort(want)
	if d := cmp.Diff(want, slices.Compact(w.scans(t))); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
