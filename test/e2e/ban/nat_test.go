package ban_test

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// published is the port of the host that leads to the guest's port 80. It is on
// the trap list as well.
const published = 2222

var (
	guestNet = netip.MustParsePrefix("10.78.0.0/24")
	guest    = netip.MustParseAddr("10.78.0.2")
)

// house is a host with a guest behind it: a port published to him, and his way
// out masqueraded.
func house(t *testing.T) (s *stage, inside *pktgen.NS) {
	s = newStage(t)
	inside = s.Space(t)
	s.Join(t, s.Host.NS, inside, []netip.Prefix{netip.MustParsePrefix("10.78.0.1/24")}, []netip.Prefix{netip.PrefixFrom(guest, 24)})
	check(t, s.Host.NS.Sysctl("net.ipv4.ip_forward", "1"))
	check(t, inside.Route(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.78.0.1")))
	lab.Command(t, s.Scanner.NS, "ip", "route", "add", guestNet.String(), "via", s.Host.Addr4().String())
	rules := filepath.Join(t.TempDir(), "nat.nft")
	check(t, os.WriteFile(rules, []byte(`table ip nat {
	chain pre {
		type nat hook prerouting priority dstnat
		iifname `+s.Host.Name+` tcp dport `+strconv.Itoa(published)+` dnat to `+guest.String()+`:80
	}
	chain post {
		type nat hook postrouting priority srcnat
		ip saddr `+guestNet.String()+` oifname `+s.Host.Name+` masquerade
	}
}
`), 0o600))
	lab.Command(t, s.Host.NS, "nft", "-f", rules)
	s.serve(s.Host.NS, served...)
	s.serve(inside, 80)
	return s, inside
}

// Who uses a port published to a guest does not scan, though it is on the trap
// list and nobody on the host itself listens there; with bans and without.
func TestClientsOfAPublishedPort(t *testing.T) {
	for name, config := range map[string]map[string]string{
		"banning":  {"TCP_PORTS": "1,2222,80"},
		"log only": {"TCP_PORTS": "1,2222,80", "BLOCK_TCP": "0", "BLOCK_UDP": "0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := house(t)
			d := s.start(config)
			const count, each = 100, 5
			for i := range count {
				for range each {
					c, _, err := s.dial(nth(clients, 1+i), published, 3*time.Second)
					if err != nil {
						t.Fatalf("%v; scan lines %q, bans %+v, sets %v", err, d.scans(), d.bans(), s.sets())
					}
					if i%10 == 0 {
						check(t, echo(c, 1<<12))
					}
					c.Close()
				}
			}
			s.seen(d)
			if lines, bans := d.scans(), d.bans(); len(lines)+len(bans) > 0 {
				t.Errorf("%d connections: %d scan lines, %d bans, the first %.1q %.1v", count*each, len(lines), len(bans), lines, bans)
			}
			if config["BLOCK_TCP"] == "0" {
				if s.hasTable() {
					t.Error("log only, and there is a table")
				}
				return
			}
			for name, elements := range s.sets() {
				t.Errorf("in set %s: %v", name, elements)
			}
		})
	}
}

// Answers to what a masqueraded guest sent arrive at ports of the host that may
// be trap ports. Nobody is scanning.
func TestRepliesToAMasqueradedGuest(t *testing.T) {
	t.Parallel()
	s, inside := house(t)
	d := s.start(nil)
	const count = 30
	for i := range count {
		server := nth(clients, 1+i)
		answering, stop := s.udpEcho(server, 5000)
		for _, port := range []uint16{1, 7} { // trap ports of UDP
			c := s.dialInside(inside, "udp", port, answering)
			check(t, c.SetDeadline(time.Now().Add(soon)))
			for range 3 {
				_, err := c.Write([]byte("question"))
				check(t, err)
				_, err = c.Read(make([]byte, 100))
				check(t, err)
			}
			c.Close()
		}
		stop()
	}
	s.serve(s.Scanner.NS, 5000)
	for i := range count {
		for _, port := range []uint16{1, 11} { // trap ports of TCP
			c := s.dialInside(inside, "tcp", port, netip.AddrPortFrom(nth(clients, 1+i), 5000))
			check(t, echo(c, 1<<12))
			c.Close()
		}
	}
	s.seen(d)
	if lines, bans := d.scans(), d.bans(); len(lines)+len(bans) > 0 {
		t.Errorf("%d scan lines, %d bans: %q %v", len(lines), len(bans), lines, bans)
	}
	if d.counter("replies_total") == 0 {
		t.Error("not one answer came to a trap port: masquerading gave other ports, and the test shows nothing")
	}
}

// udpEcho answers datagrams to one of the scanner's addresses.
func (s *stage) udpEcho(a netip.Addr, port uint16) (at netip.AddrPort, stop func()) {
	s.t.Helper()
	at = netip.AddrPortFrom(a, port)
	var c *net.UDPConn
	check(s.t, s.Scanner.NS.Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	}))
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	return at, func() { c.Close() }
}

// dialInside opens a connection in a guest from a port of its own choice.
func (s *stage) dialInside(ns *pktgen.NS, network string, from uint16, to netip.AddrPort) (c net.Conn) {
	s.t.Helper()
	check(s.t, ns.Do(func() (err error) {
		d := net.Dialer{Timeout: soon, Control: reuse, LocalAddr: &net.TCPAddr{Port: int(from)}}
		if network == "udp" {
			d.LocalAddr = &net.UDPAddr{Port: int(from)}
		}
		c, err = d.DialContext(s.t.Context(), network, to.String())
		return err
	}))
	return c
}

// A banned source does not get to guests either, neither by the published port
// nor by way of the host.
func TestBannedFromGuestsToo(t *testing.T) {
	t.Parallel()
	s, _ := house(t)
	d := s.start(nil)
	innocent, scanner := nth(clients, 1), nth(clients, 2)
	ways := map[string]netip.AddrPort{
		"published": netip.AddrPortFrom(s.Host.Addr4(), published), "forwarded": netip.AddrPortFrom(guest, 80),
	}
	for name, to := range ways {
		for _, a := range []netip.Addr{innocent, scanner} {
			c, _, err := s.dialTo(a, to, soon)
			if err != nil {
				t.Fatalf("%s, before the hit: %v", name, err)
			}
			c.Close()
		}
	}
	s.forge(s.tcp(scanner, 40000, trap, pktgen.SYN))
	d.waitBan(scanner)
	for name, to := range ways {
		if _, _, err := s.dialTo(innocent, to, soon); err != nil {
			t.Errorf("%s, an innocent: %v", name, err)
		}
		if _, _, err := s.dialTo(scanner, to, 300*time.Millisecond); err == nil {
			t.Errorf("%s: a banned scanner still gets through", name)
		}
	}
}
