package sight_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// dial connects from ns to an address, from a local one that may be "".
func dial(ns *pktgen.NS, network, local, remote string) (net.Conn, error) {
	var c net.Conn
	err := ns.Do(func() (err error) {
		d := net.Dialer{Timeout: patience}
		if local != "" {
			from := netip.MustParseAddrPort(local)
			d.LocalAddr = net.TCPAddrFromAddrPort(from)
			if network == "udp" {
				d.LocalAddr = net.UDPAddrFromAddrPort(from)
			}
		}
		c, err = d.DialContext(context.Background(), network, remote)
		return err
	})
	return c, err
}

// TestServiceStarts starts two hundred services on trap ports, one after the
// other, and connects to each at once. Half of the ports were probed before. The
// probe is seen, the client of the service never is.
func TestServiceStarts(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	w, _ := listen(t, l, map[string]string{"TCP_PORTS": "1000-1999", "UDP_PORTS": "1000-1999"})
	inIPv6 := func(port int) bool { return port%4 >= 2 }
	var want []string
	for port := 1000; port < 1200; port += 2 {
		p := w.packet(port, inIPv6(port), nil)
		w.sendPacket(t, p)
		opts := "not set"
		if p.Src.Is6() {
			opts = "unknown"
		}
		want = append(want, scanLine(p.Src, "TCP", port, synScan, opts))
	}
	slices.Sort(want)
	if d := cmp.Diff(want, w.scans(t)); d != "" {
		t.Errorf("before (-want +got):\n%s", d)
	}
	for port := 1000; port < 1200; port++ {
		address := netip.AddrPortFrom(w.packet(port, inIPv6(port), nil).Dst, uint16(port)).String()
		// The service stays: what comes late from a client of one that has ended
		// is another matter.
		listenOn(t, l.Host.NS, "tcp", address)
		c, err := dial(l.Scanner.NS, "tcp", "", address)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()

		listenOn(t, l.Host.NS, "udp", address)
		if c, err = dial(l.Scanner.NS, "udp", "", address); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprint(c, "hello"); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if got := w.scans(t); got != nil {
		t.Errorf("%d clients of services, the first: %s", len(got), got[0])
	}
}

// TestServiceEnds: a port is a trap again with the first packet after its
// service has ended.
func TestServiceEnds(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	w, _ := listen(t, l, map[string]string{"TCP_PORTS": "1000"})
	var server net.Listener
	err := l.Host.NS.Do(func() (err error) {
		server, err = net.Listen("tcp", ":1000")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	w.sendPacket(t, w.packet(1000, false, nil))
	if got := w.scans(t); got != nil {
		t.Errorf("while it is served: %q", got)
	}
	server.Close()
	w.sendPacket(t, w.packet(1000, false, nil))
	want := []string{scanLine(l.Scanner.Addr4(), "TCP", 1000, synScan, "not set")}
	if d := cmp.Diff(want, w.scans(t)); d != "" {
		t.Errorf("after it has ended (-want +got):\n%s", d)
	}
}

// TestManyClients: a busy service on a trap port, whose clients leave in every
// way there is, while the port next to it is scanned.
func TestManyClients(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	w, _ := listen(t, l, map[string]string{"TCP_PORTS": "1000-1001"})
	address := netip.AddrPortFrom(l.Host.Addr4(), 1000).String()
	var server net.Listener
	err := l.Host.NS.Do(func() (err error) {
		server, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for i := 0; ; i++ {
			c, err := server.Accept()
			if err != nil {
				return
			}
			if i%3 == 0 {
				c.(*net.TCPConn).SetLinger(0)
			}
			fmt.Fprint(c, "welcome")
			c.Close()
		}
	}()
	for i := range 100 {
		c, err := dial(l.Scanner.NS, "tcp", "", address)
		if errors.Is(err, unix.ECONNRESET) {
			continue // the server was faster
		}
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			c.(*net.TCPConn).SetLinger(0)
		} else {
			fmt.Fprint(c, "hello")
			c.SetReadDeadline(time.Now().Add(patience))
			c.Read(make([]byte, 100))
		}
		c.Close()
		// And what is left of a connection that everybody has forgotten.
		for _, flags := range []uint16{pktgen.ACK, pktgen.FIN | pktgen.ACK, pktgen.FIN, pktgen.PSH | pktgen.ACK} {
			w.sendPacket(t, w.packet(1000, false, func(p *pktgen.Packet) { p.Flags, p.SrcPort = flags, uint16(20000+i) }))
		}
	}
	w.sendPacket(t, w.packet(1001, false, nil))
	want := []string{scanLine(l.Scanner.Addr4(), "TCP", 1001, synScan, "not set")}
	if d := cmp.Diff(want, w.scans(t)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
