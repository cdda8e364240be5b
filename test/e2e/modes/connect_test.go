package modes_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

const banner = "nobody asked you to come here"

// dial opens a connection from ns.
func dial(ns *pktgen.NS, network string, to netip.AddrPort) (c net.Conn, err error) {
	err = ns.Do(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		var d net.Dialer
		c, err = d.DialContext(ctx, network, to.String())
		return err
	})
	return c, err
}

// says is what whoever listens at to says before it hangs up.
func says(t *testing.T, ns *pktgen.NS, to netip.AddrPort) string {
	t.Helper()
	c, err := dial(ns, "tcp", to)
	if err != nil {
		t.Errorf("%s: %v", to, err)
		return ""
	}
	defer c.Close()
	check(t, c.SetDeadline(time.Now().Add(5*time.Second)))
	text, err := io.ReadAll(c)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s: %v", to, err)
	}
	return string(text)
}

// serve listens in ns with bind and listen alone, and says word to whoever comes.
func serve(t *testing.T, ns *pktgen.NS, at, word string) io.Closer {
	t.Helper()
	var l net.Listener
	check(t, ns.Do(func() (err error) {
		l, err = net.Listen("tcp", at)
		return err
	}))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte(word))
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close() })
	return l
}

// TestConnectEveryPort: with all ports as traps there is one socket for each
// protocol and family, a banner at every port of both, and a service that starts
// on one of them gets its first connection.
func TestConnectEveryPort(t *testing.T) {
	l := lab.New(t)
	d := start(t, l, map[string]string{"TCP_PORTS": "1-65535", "UDP_PORTS": "1-65535", "PORT_BANNER": banner}, "--connect")
	t.Logf("ready after %s", d.ReadyAfter)
	sockets := lab.Command(t, l.Host.NS, "ss", "-Hlntu")
	if n := strings.Count(sockets, "\n"); n != 4 {
		t.Errorf("%d listening sockets, want 4:\n%s", n, sockets)
	}
	for range 20 {
		p := uint16(rand.IntN(65535) + 1)
		for _, host := range []netip.Addr{l.Host.Addr4(), l.Host.Addr6()} {
			if got := says(t, l.Scanner.NS, netip.AddrPortFrom(host, p)); got != banner {
				t.Errorf("port %d of %s said %q", p, host, got)
			}
			d.waitScan("protocol: [TCP] "+port(int(p)), "type: [Connect]", "IP opts: [unknown]")
		}
	}

	const at = 8080
	traps := len(d.scans(port(at)))
	service := serve(t, l.Host.NS, ":"+strconv.Itoa(at), "welcome")
	for _, host := range []netip.Addr{l.Host.Addr4(), l.Host.Addr6()} {
		if got := says(t, l.Scanner.NS, netip.AddrPortFrom(host, at)); got != "welcome" {
			t.Errorf("the service at %s said %q", host, got)
		}
	}
	check(t, service.Close())
	to := netip.AddrPortFrom(l.Host.Addr4(), at)
	lab.Wait(t, time.Second+patience/4, "a trap again when the service has ended", func() bool {
		c, err := dial(l.Scanner.NS, "tcp", to)
		if err != nil {
			return false
		}
		defer c.Close()
		check(t, c.SetDeadline(time.Now().Add(5*time.Second)))
		text, _ := io.ReadAll(c)
		return string(text) == banner
	})
	lab.Wait(t, patience, "a line of the trap that came back", func() bool { return len(d.scans(port(at))) > traps })
}

// TestConnectBannerUDP: the answer comes from the very port that was asked.
func TestConnectBannerUDP(t *testing.T) {
	l := lab.New(t)
	d := start(t, l, map[string]string{"TCP_PORTS": "1", "UDP_PORTS": "7,69", "PORT_BANNER": banner}, "--connect")
	for _, host := range []netip.Addr{l.Host.Addr4(), l.Host.Addr6()} {
		c, err := dial(l.Scanner.NS, "udp", netip.AddrPortFrom(host, 69))
		check(t, err)
		defer c.Close()
		_, err = c.Write([]byte("who is there?"))
		check(t, err)
		check(t, c.SetDeadline(time.Now().Add(5*time.Second)))
		buf := make([]byte, 512)
		n, err := c.Read(buf)
		if err != nil || string(buf[:n]) != banner {
			t.Errorf("%s said %q, %v", host, buf[:n], err)
		}
	}
	d.waitScan("protocol: [UDP] "+port(69), "type: [Connect]")
}

// TestConnectOwnQuery: a question that this host asks from a socket without a
// peer gets its answer, and its server is no scanner.
func TestConnectOwnQuery(t *testing.T) {
	l := lab.New(t)
	d := start(t, l, map[string]string{"TCP_PORTS": "1-65535", "UDP_PORTS": "1-65535", "PORT_BANNER": banner}, "--connect")
	var server, client net.PacketConn
	check(t, l.Scanner.NS.Do(func() (err error) {
		server, err = net.ListenPacket("udp4", "0.0.0.0:53")
		return err
	}))
	defer server.Close()
	check(t, l.Host.NS.Do(func() (err error) {
		client, err = net.ListenPacket("udp4", "0.0.0.0:0")
		return err
	}))
	defer client.Close()
	for range 20 {
		_, err := client.WriteTo([]byte("question"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(l.Scanner.Addr4(), 53)))
		check(t, err)
		buf := make([]byte, 64)
		check(t, server.SetDeadline(time.Now().Add(5*time.Second)))
		n, from, err := server.ReadFrom(buf)
		check(t, err)
		_, err = server.WriteTo(append([]byte("answer to "), buf[:n]...), from)
		check(t, err)
		check(t, client.SetDeadline(time.Now().Add(5*time.Second)))
		n, _, err = client.ReadFrom(buf)
		if err != nil || !bytes.Equal(buf[:n], []byte("answer to question")) {
			t.Fatalf("%q, %v", buf[:n], err)
		}
	}
	// A connection made from here is as little of a scan.
	service := serve(t, l.Scanner.NS, ":80", "page")
	defer service.Close()
	if got := says(t, l.Host.NS, netip.AddrPortFrom(l.Scanner.Addr4(), 80)); got != "page" {
		t.Errorf("the server said %q", got)
	}
	if got := d.scans(); len(got) > 0 {
		t.Errorf("own traffic was reported:\n%s", strings.Join(got, "\n"))
	}
}

// TestConnectResetAtOnce: nmap's connect scan, and who resets the connection
// before anybody took it, are reported with their address.
func TestConnectResetAtOnce(t *testing.T) {
	l := lab.New(t)
	d := start(t, l, map[string]string{"TCP_PORTS": "11", "UDP_PORTS": "7"}, "--connect")
	c, err := dial(l.Scanner.NS, "tcp", netip.AddrPortFrom(l.Host.Addr4(), 11))
	check(t, err)
	check(t, c.(*net.TCPConn).SetLinger(0))
	check(t, c.Close())
	d.waitScan(from(l.Scanner.Addr4()), port(11), "type: [Connect]")
	out := lab.Nmap(t, l.Scanner.NS, "-sT", "-p11,12", l.Host.Addr4().String())
	if !strings.Contains(out, "11/tcp open") || !strings.Contains(out, "12/tcp closed") {
		t.Errorf("nmap says:\n%s", out)
	}
	lab.Wait(t, patience, "nmap's connection", func() bool { return len(d.scans(port(11))) == 2 })
}

// TestConnectBans: a completed handshake is proof. One port ends what is new,
// several end everything, for a peer as well.
func TestConnectBans(t *testing.T) {
	l := lab.New(t)
	d := start(t, l, map[string]string{
		"TCP_PORTS": "1,11,15", "UDP_PORTS": "7", "BLOCK_TCP": "1", "BLOCK_UDP": "1", "BLOCK_METHOD": "nftables", "BAN_TIME": "2h",
	}, "--connect")
	serve(t, l.Host.NS, ":80", "page")
	if c, err := dial(l.Scanner.NS, "tcp", netip.AddrPortFrom(l.Host.Addr4(), 11)); err != nil {
		t.Fatal(err)
	} else {
		c.Close()
	}
	d.waitScan(from(l.Scanner.Addr4()), port(11), "blocked: [true]")
	out, err := d.Command(t.Context(), "bans", "--json")
	check(t, err)
	if !bytes.Contains(out, []byte(`"E2"`)) || !bytes.Contains(out, []byte(`"soft"`)) {
		t.Errorf("the ban is not one on proof:\n%s", out)
	}
	if c, err := dial(l.Scanner.NS, "tcp", netip.AddrPortFrom(l.Host.Addr4(), 80)); err == nil {
		c.Close()
		t.Error("the banned scanner got to a service")
	}
	_, err = d.Command(t.Context(), "unban", l.Scanner.Addr4().String())
	check(t, err)

	// With a connection to a service: that goes on after one trap, not after two.
	peer, err := dial(l.Scanner.NS, "tcp", netip.AddrPortFrom(l.Host.Addr4(), 80))
	check(t, err)
	defer peer.Close()
	c, err := dial(l.Scanner.NS, "tcp", netip.AddrPortFrom(l.Host.Addr4(), 15))
	check(t, err)
	c.Close()
	lab.Wait(t, patience, "the ban on proof from two ports", func() bool {
		out, err := d.Command(t.Context(), "bans", "--json")
		return err == nil && bytes.Contains(out, []byte(`"full"`))
	})
}

// TestConnectAndStealth: one protocol accepts, the other is watched below the
// sockets.
func TestConnectAndStealth(t *testing.T) {
	l := lab.New(t)
	d := start(t, l, map[string]string{"TCP_PORTS": "11", "UDP_PORTS": "7", "LOG_FORMAT": "2.x"}, "-tcp", "-sudp", "--foreground", "-l", "stdout")
	send := sender(t, l.Scanner)
	check(t, send.SendPacket(syn(l, 11))) // a SYN alone: connect mode does not see it
	udp := syn(l, 7)
	udp.Proto = pktgen.ProtoUDP
	check(t, send.SendPacket(udp))
	d.waitScan("protocol: [UDP]", port(7), "type: [UDP]")
	if c, err := dial(l.Scanner.NS, "tcp", netip.AddrPortFrom(l.Host.Addr4(), 11)); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	d.waitScan("protocol: [TCP]", port(11), "type: [Connect]")
	if got := d.scans(); len(got) != 2 {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

// TestConnectBusyPort: a port that a service has is left to it, and named.
func TestConnectBusyPort(t *testing.T) {
	l := lab.New(t)
	serve(t, l.Host.NS, ":11", "mine")
	d := start(t, l, map[string]string{"TCP_PORTS": "11,15", "UDP_PORTS": "7"}, "--connect")
	if got := says(t, l.Scanner.NS, netip.AddrPortFrom(l.Host.Addr4(), 11)); got != "mine" {
		t.Errorf("the service said %q", got)
	}
	if d.count("11/tcp") == 0 {
		text, _ := os.ReadFile(string(d.Err))
		t.Errorf("the busy port is not named:\n%s", text)
	}
	if got := d.scans(); len(got) > 0 {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}
