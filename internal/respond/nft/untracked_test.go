package nft

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"portsentry/internal/judge"
)

func untracked() Options {
	o := traps()
	o.Untracked = true
	return o
}

// Nothing is tracked for rules that do without, and what stands goes on when they come
// and go.
func TestNothingIsTracked(t *testing.T) {
	l := newLab(t)
	l.serve(l.host, "tcp", "10.9.0.1:80")
	table := l.open(untracked())
	old, err := l.dial(l.scanner, "tcp", "10.9.0.1:80", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Ban(t.Context(), ban("10.9.0.2/32", judge.Soft, time.Minute)); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{untracked(), traps(), untracked()} {
		l.reconfigure(table, o)
		if err := echo(old); err != nil {
			t.Errorf("untracked %v: the connection is cut: %v", o.Untracked, err)
		}
		if _, err := l.dial(l.scanner, "tcp", "10.9.0.1:80", patience); !silent(err) {
			t.Errorf("untracked %v: the banned source gets %v", o.Untracked, err)
		}
		if table.Untracked() != o.Untracked {
			t.Errorf("Untracked is %v", table.Untracked())
		}
	}
	l = newLab(t)
	l.serve(l.host, "tcp", "10.9.0.1:80")
	l.open(untracked())
	if old, err = l.dial(l.scanner, "tcp", "10.9.0.1:80", time.Second); err == nil {
		err = echo(old)
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := l.tracked(); n != "0" {
		t.Errorf("%s connections are tracked", n)
	}
}

// What this host has sent is remembered, and what strangers have it send is not.
func TestSent(t *testing.T) {
	l := newLab(t)
	l.serve(l.scanner, "tcp", "10.9.0.2:5000")
	l.serve(l.scanner, "tcp", "[fd09::2]:5000")
	l.serve(l.host, "tcp", "10.9.0.1:80")
	l.marked("udp", "10.9.0.1:69")
	table := l.open(untracked())
	r := l.raw()
	sent := func(proto uint8, remote, local net.Addr) bool {
		return table.Sent(proto, netip.MustParseAddrPort(remote.String()), netip.MustParseAddrPort(local.String()))
	}
	ours := make(map[string]net.Conn)
	for _, to := range []string{"10.9.0.2:5000", "[fd09::2]:5000"} {
		c, err := l.dial(l.host, "tcp", to, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		ours[to] = c
		if !sent(unix.IPPROTO_TCP, c.RemoteAddr(), c.LocalAddr()) {
			t.Errorf("the SYN to %s is not remembered", to)
		}
		u, err := l.dial(l.host, "udp", to, time.Second)
		if err == nil {
			_, err = u.Write([]byte("x"))
		}
		if err != nil {
			t.Fatal(err)
		}
		if !sent(unix.IPPROTO_UDP, u.RemoteAddr(), u.LocalAddr()) {
			t.Errorf("the datagram to %s is not remembered", to)
		}
		if sent(unix.IPPROTO_TCP, u.RemoteAddr(), u.LocalAddr()) {
			t.Errorf("a datagram to %s counts as TCP", to)
		}
	}

	theirs, err := l.dial(l.scanner, "tcp", "10.9.0.1:80", time.Second)
	if err == nil {
		err = echo(theirs)
	}
	if err != nil {
		t.Fatal(err)
	}
	if sent(unix.IPPROTO_TCP, theirs.LocalAddr(), theirs.RemoteAddr()) {
		t.Error("a connection from outside, and what it was answered, count as sent")
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the FIN that answers theirs is remembered", func() bool {
		return sent(unix.IPPROTO_TCP, theirs.LocalAddr(), theirs.RemoteAddr())
	})

	stranger, closed := netip.MustParseAddr("203.0.113.9"), netip.AddrPortFrom(hostV4, 4321)
	for _, flags := range []byte{syn, ack} { // each is answered with a reset
		r.send(l.tcp(stranger, 5000, closed.Port(), flags))
	}
	eventually(t, "two resets", func() bool { r.poll(); return r.answers[stranger] >= 2 })
	if table.Sent(unix.IPPROTO_TCP, netip.AddrPortFrom(stranger, 5000), closed) {
		t.Error("a reset that answers a stranger is remembered")
	}
	r.send(l.udp(stranger, 5000, 69))
	eventually(t, "the answer of a trap socket", func() bool { r.poll(); return r.answers[stranger] >= 3 })
	if table.Sent(unix.IPPROTO_UDP, netip.AddrPortFrom(stranger, 5000), netip.AddrPortFrom(hostV4, 69)) {
		t.Error("the answer of a trap socket is remembered")
	}

	l.reconfigure(table, traps())
	c := ours["10.9.0.2:5000"]
	if sent(unix.IPPROTO_TCP, c.RemoteAddr(), c.LocalAddr()) {
		t.Error("remembered by rules that have connections tracked")
	}
}

// What finds no room is counted, and the packet goes its way. Strangers who have a
// service answer take no room from what this host begins.
func TestSentIsBounded(t *testing.T) {
	l := newLab(t)
	l.echoUDP(l.host, "10.9.0.1:5353")
	o := untracked()
	o.DynamicSize = 4
	table := l.open(o)
	r := l.raw()
	const strangers = 50
	source := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}) }
	for i := range strangers {
		r.send(l.udp(source(i), 5000, 5353))
	}
	for i := range strangers {
		eventually(t, "an answer for everybody", func() bool { r.poll(); return r.answers[source(i)] == 1 })
	}
	// The kernel may let a set grow somewhat over its size.
	if s := l.stats(table); s.Unremembered < strangers/2 || s.Unremembered > strangers-4 {
		t.Errorf("%d of %d found no room among 4", s.Unremembered, strangers)
	}
	c, err := l.dial(l.host, "udp", "10.9.0.2:5000", time.Second)
	if err == nil {
		_, err = c.Write([]byte("x"))
	}
	if err != nil {
		t.Fatal(err)
	}
	if !table.Sent(unix.IPPROTO_UDP, netip.MustParseAddrPort(c.RemoteAddr().String()), netip.MustParseAddrPort(c.LocalAddr().String())) {
		t.Error("strangers have taken the room of what this host begins")
	}
}

// An exchange lasts as long as either side sends.
func TestSentIsRefreshed(t *testing.T) {
	l := newLab(t)
	table := l.open(untracked())
	r := l.raw()
	c, err := l.dial(l.host, "udp", "10.9.0.2:5000", time.Second)
	if err == nil {
		_, err = c.Write([]byte("x"))
	}
	if err != nil {
		t.Fatal(err)
	}
	local := netip.MustParseAddrPort(c.LocalAddr().String())
	flow := flowKey(unix.IPPROTO_UDP, netip.MustParseAddrPort(c.RemoteAddr().String()), local)
	left := func() time.Duration {
		table.mu.Lock()
		defer table.mu.Unlock()
		e, there, err := table.get(place{&table.lay.v4, table.lay.v4.sent, flow})
		if err != nil || !there {
			t.Fatalf("the flow is not there: %v", err)
		}
		return e.left
	}
	begin := left()
	eventually(t, "time goes by", func() bool { return left() < begin-50*time.Millisecond })
	now := left()
	r.send(l.udp(scannerV4, 5000, local.Port()))
	eventually(t, "the datagram that came counts", func() bool { return left() > now })
}

// A handshake that is not done when its source is softly banned goes on: with
// TCP_DEFER_ACCEPT that may be seconds.
func TestHandshakesUnderWayGoOn(t *testing.T) { bothWays(t, testHandshakesUnderWayGoOn) }

func testHandshakesUnderWayGoOn(t *testing.T, traps func() Options) {
	l := newLab(t)
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 10)
		}), err)
	}}
	var ln net.Listener
	l.in(l.host, func() (err error) { ln, err = lc.Listen(t.Context(), "tcp4", ":80"); return err })
	defer ln.Close()
	table := l.open(traps())
	c, err := l.dial(l.scanner, "tcp", "10.9.0.1:80", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Ban(t.Context(), ban("10.9.0.2/32", judge.Soft, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	if err := ln.(*net.TCPListener).SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := ln.Accept(); err != nil {
		t.Errorf("the connection is cut: %v", err)
	}
	// An ACK is no handshake.
	before := l.stats(table).DroppedSoft
	l.raw().send(l.tcp(scannerV4, 4000, 80, ack))
	eventually(t, "an ACK to the listener is dropped", func() bool { return l.stats(table).DroppedSoft > before })
}

// Who is limited gets his answer when the connection is gone.
func TestRestOfAConnectionOfTheLimited(t *testing.T) {
	l := newLab(t)
	l.serve(l.scanner, "tcp", "10.9.0.2:5000")
	table := l.open(untracked())
	c, err := l.dial(l.host, "tcp", "10.9.0.2:5000", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	local := netip.MustParseAddrPort(c.LocalAddr().String())
	if err := table.Ban(t.Context(), ban("10.9.0.2/32", judge.Limited, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.(*net.TCPConn).SetLinger(0), c.Close()); err != nil { // with a reset
		t.Fatal(err)
	}
	r := l.raw()
	r.send(l.tcp(scannerV4, 5000, local.Port(), ack))
	eventually(t, "a reset for what was on its way", func() bool { r.poll(); return r.answers[scannerV4] > 0 })
}

// A soft ban drops what asks and what begins something, and leaves answers and parts.
func TestSoftWithoutTracking(t *testing.T) {
	l := newLab(t)
	table := l.open(untracked())
	r := l.raw()
	v4, v6 := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8::9")
	for _, p := range []string{v4.String() + "/32", v6.String() + "/128"} {
		if err := table.Ban(t.Context(), ban(p, judge.Soft, time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	from := make(map[bool]*net.UDPConn) // sockets of the host, that have sent, by family
	for _, remote := range []netip.Addr{v4, v6} {
		l.in(l.host, func() error {
			c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(remote, 5000)))
			if err != nil {
				return err
			}
			t.Cleanup(func() { c.Close() })
			from[remote.Is4()] = c
			_, err = c.Write([]byte("question"))
			return err
		})
	}
	icmp4 := func(kind uint8) []byte {
		return l.frame(v4, layers.IPProtocolICMPv4, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, 0)})
	}
	icmp6 := func(kind uint8) []byte {
		return l.frame(v6, layers.IPProtocolICMPv6, gopacket.Payload{kind, 0, 0, 0, 0, 0, 0, 0})
	}
	sctp := func(chunk byte) []byte {
		return l.frame(v4, layers.IPProtocolSCTP, gopacket.Payload{0x13, 0x88, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, chunk, 0, 0, 4})
	}
	port := func(v4 bool) uint16 { return uint16(from[v4].LocalAddr().(*net.UDPAddr).Port) }
	later := l.frame(v6, layers.IPProtocolIPv6Fragment, gopacket.Payload{unix.IPPROTO_UDP, 0, 0, 8, 0, 0, 0, 1, 'l', 'a', 't', 'e', 'r', ' ', ' ', ' '})
	first := l.frame(v6, layers.IPProtocolIPv6Fragment, gopacket.Payload{unix.IPPROTO_UDP, 0, 0, 1, 0, 0, 0, 1, 0x13, 0x88, 0, 8, 0, 16, 0, 0})
	for _, c := range []struct {
		what  string
		frame []byte
		drops bool
	}{
		{"a SYN", l.tcp(v4, 5000, 80, syn), true},
		{"a SYN by IPv6", l.tcp(v6, 5000, 80, syn), true},
		{"an ACK that is for nobody", l.tcp(v4, 5000, 80, ack), true},
		{"a datagram", l.udp(v4, 5000, 80), true},
		{"a datagram by IPv6", l.udp(v6, 5000, 80), true},
		{"an answer", l.udp(v4, 5000, port(true)), false},
		{"an answer by IPv6", l.udp(v6, 5000, port(false)), false},
		{"an answer from elsewhere", l.udp(v4, 5001, port(true)), true},
		{"the first fragment of a datagram", first, true},
		{"a later fragment", later, false},
		{"an echo request", icmp4(8), true},
		{"an echo reply", icmp4(0), false},
		{"a timestamp request", icmp4(13), true},
		{"a timestamp reply", icmp4(14), false},
		{"an information request", icmp4(15), true},
		{"a mask request", icmp4(17), true},
		{"an error", icmp4(3), false},
		{"an echo request by IPv6", icmp6(128), true},
		{"an echo reply by IPv6", icmp6(129), false},
		{"packet too big", icmp6(2), false},
		{"INIT of SCTP", sctp(1), true},
		{"DATA of SCTP", sctp(0), false},
	} {
		before := l.stats(table).DroppedSoft
		r.send(c.frame)
		r.send(l.tcp(v4, 5001, 81, syn)) // dropped behind it
		dropped := func() uint64 { return l.stats(table).DroppedSoft - before }
		want := uint64(1)
		if c.drops {
			want = 2
		}
		eventually(t, c.what, func() bool { return dropped() >= want })
		if got := dropped(); got != want {
			t.Errorf("%s: dropped %v", c.what, !c.drops)
		}
	}
}
