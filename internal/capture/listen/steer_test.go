package listen

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const banner = "go away"

// get connects, or sends a datagram, and returns what comes back.
func get(t testing.TB, network string, to netip.AddrPort) string {
	t.Helper()
	c := dial(t, network, to)
	if c == nil {
		return ""
	}
	defer c.Close()
	if strings.HasPrefix(network, "udp") {
		if _, err := c.Write([]byte("?")); err != nil {
			t.Errorf("%s %v: %v", network, to, err)
		}
		b := make([]byte, 2048)
		n, err := c.Read(b)
		if err != nil {
			t.Errorf("%s %v: %v", network, to, err)
		}
		return string(b[:n])
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("%s %v: %v", network, to, err)
	}
	return string(b)
}

func TestEveryPort(t *testing.T) {
	enterSpace(t)
	there := newPeer(t)
	start := time.Now()
	k := startTraps(t, Config{TCP: all(), UDP: all(), Banner: []byte(banner)})
	t.Logf("open after %v", time.Since(start))
	k.steered(t)
	if len(k.sockets) != 4 {
		t.Errorf("%d sockets", len(k.sockets))
	}
	tcp, udp, err := k.Ports()
	if err != nil || tcp.String() != "1-65535" || udp.String() != "1-32767,61000-65535" {
		t.Errorf("watched: %v tcp, %v udp, %v", tcp, udp, err)
	}
	if p := k.Problems(); len(p) != 1 || !strings.HasPrefix(p[0], "32768-60999/udp: ") {
		t.Errorf("problems: %q", p)
	}
	there.do(func() {
		asked := 0
		for _, network := range []string{"tcp4", "tcp6", "udp4", "udp6"} {
			to, proto, addr := here4, uint8(unix.IPPROTO_TCP), there4
			if strings.HasSuffix(network, "6") {
				to, addr = here6, there6
			}
			if strings.HasPrefix(network, "udp") {
				proto = unix.IPPROTO_UDP
			}
			for i := range 20 {
				if i == 10 && proto == unix.IPPROTO_UDP {
					// Or the answers are withheld, rightly.
					second := time.Now().Unix()
					eventually(t, "the next second", func() bool { return time.Now().Unix() > second })
				}
				port := 1 + rand.N[uint16](65535)
				for proto == unix.IPPROTO_UDP && !udp.Has(port) {
					port = 1 + rand.N[uint16](65535)
				}
				dst := end(to, port)
				before := len(k.seen(dst))
				if got := get(t, network, dst); got != banner {
					t.Errorf("%s %v: %q", network, dst, got)
				}
				asked++
				c := k.seen(dst)[before:]
				if len(c) != 1 || c[0].Proto != proto || c[0].Src.Addr() != netip.MustParseAddr(addr) ||
					proto == unix.IPPROTO_UDP && c[0].IfIndex == 0 || time.Since(time.Unix(0, c[0].Time)) > time.Minute {
					t.Errorf("%s %v: contacts %+v", network, dst, c)
				}
			}
		}
		if k.count() != asked {
			t.Errorf("%d contacts of %d", k.count(), asked)
		}
	})
	if s := k.Stats(); s.Banners != 80 || s.Contacts != 80 || s.Lost+s.Refused+s.Withheld+s.Cut+s.Failed+s.Starved != 0 {
		t.Errorf("%+v", s)
	}
}

// The host's own traffic is none of ours.
func TestOwnTraffic(t *testing.T) {
	enterSpace(t)
	there := newPeer(t)
	var resolver net.PacketConn
	var server net.Listener
	there.do(func() {
		var err error
		if resolver, err = net.ListenPacket("udp4", ":53"); err != nil {
			t.Error(err)
			return
		}
		if server, err = net.Listen("tcp4", ":80"); err != nil {
			t.Error(err)
		}
	})
	if resolver == nil || server == nil {
		t.FailNow()
	}
	go func() {
		defer resolver.Close()
		b := make([]byte, 100)
		for range 10 {
			_, from, err := resolver.ReadFrom(b)
			if err != nil {
				return
			}
			resolver.WriteTo([]byte("answer"), from)
		}
	}()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("page"))
			c.Close()
		}
	}()
	defer server.Close()
	k := startTraps(t, Config{TCP: all(), UDP: all(), Banner: []byte(banner)})
	k.steered(t)
	for range 10 {
		pc, err := net.ListenPacket("udp4", ":0") // not connected: whatever comes to its port
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		if _, err := pc.WriteTo([]byte("query"), net.UDPAddrFromAddrPort(end(there4, 53))); err != nil {
			t.Fatal(err)
		}
		if err := pc.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		if n, _, err := pc.ReadFrom(b); err != nil || string(b[:n]) != "answer" {
			t.Errorf("query: %q, %v", b[:n], err)
		}
	}
	for i := range 10 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{Port: 900 + i}}
		if i%2 == 0 {
			d.LocalAddr = nil
		}
		c, err := d.Dial("tcp4", end(there4, 80).String())
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); err != nil || string(b) != "page" {
			t.Errorf("page: %q, %v", b, err)
		}
		c.Close()
	}
	if k.count() != 0 {
		t.Errorf("contacts: %+v", k.contacts)
	}
}

// A bind elsewhere does not take our port out, and ours does not theirs.
func TestTwoNamespaces(t *testing.T) {
	enterSpace(t)
	there := newPeer(t)
	var theirs *Traps
	there.do(func() {
		var err error
		if theirs, err = Open(Config{TCP: ports(2000, 2001), UDP: ports(2000)}); err != nil {
			t.Error(err)
		}
	})
	if theirs == nil {
		t.FailNow()
	}
	defer theirs.Close()
	ours := startTraps(t, Config{TCP: ports(2000, 2001), UDP: ports(2000), Banner: []byte(banner)})
	ours.steered(t)
	if theirs.Method() != "sk_lookup" {
		t.Fatal(theirs.Problems())
	}
	l, err := net.Listen("tcp", ":2000")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	pc, err := net.ListenPacket("udp", ":2000")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	for _, c := range []struct {
		traps    *Traps
		tcp, udp string
	}{{ours.Traps, "2001", ""}, {theirs, "2000-2001", "2000"}} {
		tcp, udp, err := c.traps.Ports()
		if err != nil || tcp.String() != c.tcp || udp.String() != c.udp {
			t.Errorf("%v tcp, %v udp, %v; want %q, %q", tcp, udp, err, c.tcp, c.udp)
		}
	}
}

func TestCloseEndsSteering(t *testing.T) {
	enterSpace(t)
	k, err := Open(Config{TCP: all(), UDP: all()})
	if err != nil {
		t.Fatal(err)
	}
	if k.Method() != "sk_lookup" {
		t.Fatal(k.Problems())
	}
	done := make(chan error)
	go func() { done <- k.Run(context.Background(), (&trap{}).handle) }()
	c := dial(t, "tcp4", end("127.0.0.1", 2000))
	if c == nil {
		t.FailNow()
	}
	if err := k.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := k.Close(); err != nil {
		t.Error(err)
	}
	if err := k.SetPorts(all(), all(), nil); err == nil {
		t.Error("ports set though closed")
	}
	if _, err := net.Dial("tcp4", "127.0.0.1:2000"); err == nil {
		t.Error("somebody accepts still")
	}
	// The kernel lets go of programs a moment after their links.
	eventually(t, "no program", func() bool {
		l, err := net.Listen("tcp4", "127.0.0.1:2000")
		if err != nil {
			return false
		}
		l.Close()
		return true
	})
}

// With nothing taken nothing wakes Run up.
func TestSleepsWhileNothingIsTaken(t *testing.T) {
	enterSpace(t)
	k, err := Open(Config{TCP: all(), UDP: all()})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	l := &loop{Traps: k}
	if got := l.timeout(time.Now()); got != -1 {
		t.Errorf("wakes up after %d ms", got)
	}
	s, err := net.Listen("tcp", ":2000")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	fd := k.steering.kernel.FD()
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(p, 1000); err != nil || n != 1 {
		t.Fatalf("nobody tells of the port: %d, %v", n, err)
	}
	if err := l.event(fd, time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := l.timeout(time.Now()); got < 0 || got > 500 {
		t.Errorf("wakes up after %d ms", got)
	}
	if n, err := unix.Poll(p, 0); err != nil || n != 0 {
		t.Errorf("ready still: %d, %v", n, err)
	}
	l.after(time.Now().Add(time.Second))
	if _, ok := k.steering.taken[0][2000]; !ok {
		t.Errorf("taken: %v", k.steering.taken)
	}
}
