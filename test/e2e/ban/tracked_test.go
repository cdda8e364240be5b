package ban_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// What the tests below hold no socket of this host remembers: it rests on the XDP
// program, which sees what is sent, or on connection tracking, which the firewall
// table brings with it.

func needsMemory(t *testing.T) {
	t.Helper()
	if all := methods(); !slices.Contains(all, "nftables") && !slices.Contains(all, "xdp") {
		t.Skip("nothing is remembered without the table and the program: BLOCK_METHOD is " + method())
	}
}

// awaitStandby waits until the table has nothing tracked any more, where it stands by.
func (d *daemon) awaitStandby() {
	d.t.Helper()
	if method() == "auto" {
		lab.Wait(d.t, soon, "the table on standby", func() bool {
			st, err := d.Status(d.t.Context())
			check(d.t, err)
			return slices.Contains(st.StandBy, "nftables")
		})
	}
}

// socket opens an unconnected UDP socket in ns.
func socket(t *testing.T, ns *pktgen.NS, at netip.AddrPort) (c *net.UDPConn) {
	t.Helper()
	check(t, ns.Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	}))
	t.Cleanup(func() { c.Close() })
	return c
}

// asks sends a datagram and reports whether it is answered.
func asks(t *testing.T, c *net.UDPConn, at netip.AddrPort, limit time.Duration) bool {
	t.Helper()
	check(t, c.SetDeadline(time.Now().Add(limit)))
	_, err := c.WriteToUDPAddrPort([]byte("question"), at)
	check(t, err)
	_, err = c.Read(make([]byte, 100))
	return err == nil
}

// An exchange of datagrams, as of a tunnel or of HTTP/3, is a connection that exists:
// what is forged in the name of the other end does not cut it, but nothing new begins.
// The service has one socket for everybody, at a port to which no answers come
// otherwise, so the socket does not tell the one from the other.
func TestDatagramsOfBeforeGoOn(t *testing.T) {
	t.Parallel()
	needsMemory(t)
	const port = 4500
	s := newStage(t)
	service := socket(t, s.Host.NS, netip.AddrPortFrom(netip.IPv6Unspecified(), port))
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := service.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			service.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	d := s.start(nil)
	d.awaitStandby()
	for _, a := range []netip.Addr{nth(clients, 1), nth(clients6, 1)} {
		at := netip.AddrPortFrom(s.host(a), port)
		old := socket(t, s.Scanner.NS, netip.AddrPortFrom(a, 5001))
		for range 3 {
			if !asks(t, old, at, soon) {
				t.Fatalf("%v: the service does not answer", a)
			}
		}

		s.forge(s.tcp(a, 40000, trap, pktgen.SYN))
		if b := d.waitBan(a); b.Strength != "soft" {
			t.Fatalf("not banned as a stranger: %+v", b)
		}
		for range 3 {
			if !asks(t, old, at, soon) {
				t.Fatalf("%v: the exchange was cut by a SYN that anybody can forge", a)
			}
		}
		if asks(t, socket(t, s.Scanner.NS, netip.AddrPortFrom(a, 5002)), at, 300*time.Millisecond) {
			t.Errorf("%v is banned, and a new exchange is answered", a)
		}
	}
}

// What answers something that this host has sent from a trap port is no probe, also
// where it comes after the socket is gone: a second answer by UDP, the rest of what
// was on its way by TCP.
func TestAnswersToSocketsThatAreGone(t *testing.T) {
	needsMemory(t)
	t.Run("as usual", func(t *testing.T) { answersToSocketsThatAreGone(t, nil) })
	if method() == "auto" {
		t.Run("read from the ring", func(t *testing.T) { answersToSocketsThatAreGone(t, map[string]string{"CAPTURE": "afpacket"}) })
	}
}

func answersToSocketsThatAreGone(t *testing.T, config map[string]string) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Scanner.NS, 5000)
	d := s.start(config)
	d.awaitStandby()

	a := nth(clients, 1)
	from, to := netip.AddrPortFrom(a, 5000), netip.AddrPortFrom(s.host(a), trapUDP)
	theirs, ours := socket(t, s.Scanner.NS, from), socket(t, s.Host.NS, to)
	_, err := ours.WriteToUDPAddrPort([]byte("question"), from)
	check(t, err)
	check(t, theirs.SetDeadline(time.Now().Add(soon)))
	_, err = theirs.Read(make([]byte, 100))
	check(t, err)
	check(t, ours.Close())
	_, err = theirs.WriteToUDPAddrPort([]byte("answer"), to)
	check(t, err)
	_, err = theirs.WriteToUDPAddrPort(make([]byte, 3000), to) // in fragments
	check(t, err)

	b := nth(clients, 2)
	c := s.dialInside(s.Host.NS, "tcp", trap2, netip.AddrPortFrom(b, 5000))
	check(t, echo(c, 1<<12))
	check(t, c.(*net.TCPConn).SetLinger(0)) // closed with a reset, which leaves nothing behind
	check(t, c.Close())
	s.forge(s.tcp(b, 5000, trap2, pktgen.ACK), s.tcp(b, 5000, trap2, pktgen.ACK|pktgen.PSH), s.tcp(b, 5000, trap2, pktgen.ACK|pktgen.FIN))

	s.seen(d)
	if lines, bans := d.scans(), d.bans(); len(lines)+len(bans) > 0 {
		t.Errorf("%d scan lines, %d bans: %q %v", len(lines), len(bans), lines, bans)
	}
	if d.counter("replies_total") == 0 {
		t.Error("nothing counted as an answer, so the test shows nothing")
	}
}

// A connection that this host opened before anything was tracked goes on, whatever is
// forged in the name of its remote end, and though that one speaks first.
func TestConnectionsOlderThanTrackingGoOn(t *testing.T) {
	t.Parallel()
	for _, family := range []netip.Prefix{clients, clients6} {
		s := newStage(t)
		remote := nth(family, 1)
		there := netip.AddrPortFrom(remote, 5000).String()
		var l net.Listener
		var ours net.Conn
		check(t, s.Scanner.NS.Do(func() (err error) {
			l, err = net.Listen("tcp", there)
			return err
		}))
		defer l.Close()
		check(t, s.Host.NS.Do(func() (err error) {
			ours, err = net.Dial("tcp", there)
			return err
		}))
		defer ours.Close()
		theirs, err := l.Accept()
		check(t, err)
		defer theirs.Close()
		d := s.start(nil)
		s.forge(s.tcp(remote, 40000, trap, pktgen.SYN))
		d.waitBan(remote)
		_, err = theirs.Write([]byte("news"))
		check(t, err)
		check(t, ours.SetDeadline(time.Now().Add(soon)))
		if _, err := ours.Read(make([]byte, 10)); err != nil {
			t.Errorf("a connection to %v was cut: %v", remote, err)
		}
	}
}
