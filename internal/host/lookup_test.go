package host

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func question(port uint16, at time.Time, anyPeer bool) *Question {
	return &Question{
		Time: at.UnixNano(), Proto: unix.IPPROTO_TCP, AnyPeer: anyPeer,
		Src: netip.MustParseAddrPort("127.0.0.9:40000"),
		Dst: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port),
	}
}

// An answer holds for what came before it was asked and for nothing later: a
// service that starts is safe with its first packet, and a flood from before
// costs one question.
func TestLookupHoldsForThePast(t *testing.T) {
	enterSpace(t)
	l, err := NewLookup(Questions)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	before := time.Now()
	if got := l.Use(question(7, before, true)); got != Free {
		t.Fatalf("nothing listens: %v", got)
	}
	asked := l.slot(question(7, before, true)).asked
	if got := l.Use(question(7, before, true)); got != Free || l.slot(question(7, before, true)).asked != asked {
		t.Errorf("a second packet of the same past: %v, asked again", got)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:7")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if got := l.Use(question(7, time.Now(), true)); got != Served {
		t.Errorf("the first packet to a service that started: %v", got)
	}
	listener.Close()
	if got := l.Use(question(7, time.Now(), true)); got != Free {
		t.Errorf("after the service stopped: %v", got)
	}
}

// A connection belongs to its source: what is true of one peer is not taken to
// be true of others.
func TestLookupConnectionIsOfOnePeer(t *testing.T) {
	enterSpace(t)
	l, err := NewLookup(Questions)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:7")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", "127.0.0.1:7")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	listener.Close()
	now := time.Now()
	q := question(7, now, true)
	q.Src = c.LocalAddr().(*net.TCPAddr).AddrPort()
	if got := l.Use(q); got != Served {
		t.Errorf("the peer of a connection: %v", got)
	}
	if got := l.Use(question(7, now, true)); got != Free {
		t.Errorf("another source: %v", got)
	}
}

func TestLookupBudget(t *testing.T) {
	enterSpace(t)
	l, err := NewLookup(Questions)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	now := time.Now()
	l.Use(question(9, now, false))
	l.tokens, l.filled = 0, now.Add(time.Hour).UnixNano() // spent, and nothing comes in
	if got := l.Use(question(9, now, false)); got != Unsure {
		t.Errorf("with the budget spent: %v, want no answer rather than a wrong one", got)
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	enterSpace(t)
	l, err := NewLookup(Questions)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	q := question(9, time.Now().Add(time.Hour), true)
	q.Time = 1 // long ago: one question serves all
	if n := testing.AllocsPerRun(100, func() { l.Use(q) }); n != 0 {
		t.Errorf("%v allocations a cached answer", n)
	}
	q.AnyPeer = false
	if n := testing.AllocsPerRun(100, func() { l.Use(q) }); n != 0 {
		t.Errorf("%v allocations a question", n)
	}
}

// What destination NAT hands to somebody else is no trap here, not even for the
// first packet of all, which we see before connection tracking does.
func TestLookupTranslated(t *testing.T) {
	enterSpace(t)
	l := closing[*Lookup](t)(NewLookup(Questions))
	if l.conntrack == nil {
		t.Skip("no connection tracking in this kernel")
	}
	command(t, "nft add table ip nat")
	command(t, "nft add chain ip nat out { type nat hook output priority -100 ; }")
	command(t, "nft add rule ip nat out tcp dport 8080 dnat to 127.0.0.1:9090")
	closing[net.Listener](t)(net.Listen("tcp", "127.0.0.1:9090"))
	src := netip.MustParseAddrPort("127.0.0.1:41000")
	q := question(8080, time.Now().Add(time.Minute), true) // younger than can be, so that it is waited for
	q.Src = src
	waited := 0
	l.sleep = func(time.Duration) {
		waited++
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(src)}
		closing[net.Conn](t)(d.DialContext(t.Context(), "tcp", "127.0.0.1:8080"))
	}
	if got := l.Use(q); got != Translated || waited != 1 {
		t.Errorf("a client of a translated port: %v after %d waits", got, waited)
	}
}

// Many ports at once cost one listing, and a listener among them is found.
func TestLookupListsForMany(t *testing.T) {
	enterSpace(t)
	l, err := NewLookup(Questions)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	listener, err := net.Listen("tcp", "[::]:150")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	at := time.Now()
	for port := uint16(1); port <= 300; port++ {
		want := Free
		if port == 150 {
			want = Served
		}
		if got := l.Use(question(port, at, true)); got != want {
			t.Errorf("port %d: %v, want %v", port, got, want)
		}
	}
	if l.listed == 0 {
		t.Error("three hundred ports were asked about one by one")
	}
	late, err := net.Listen("tcp", "127.0.0.1:77")
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if got := l.Use(question(77, time.Now(), true)); got != Served {
		t.Errorf("a service that started after the listing: %v", got)
	}
}

// marked opens sockets as the traps of connect mode are.
func marked(t testing.TB) *net.ListenConfig {
	t.Helper()
	lc := &net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, TrapMark) })
		return errors.Join(cerr, err)
	}}
	lc.SetMultipathTCP(false)
	return lc
}

// A trap socket of ours is nothing that serves, be it asked about alone or among
// many, and a service beside it or after it is one.
func TestLookupPassesOverTrapSockets(t *testing.T) {
	enterSpace(t)
	l := closing[*Lookup](t)(NewLookup(Questions))
	trap := closing[net.Listener](t)(marked(t).Listen(t.Context(), "tcp4", "127.0.0.1:23"))
	closing[net.PacketConn](t)(marked(t).ListenPacket(t.Context(), "udp4", "127.0.0.1:23"))
	closing[net.Listener](t)(net.Listen("tcp4", "127.0.0.2:23"))
	ask := func(proto uint8, dst string) Use {
		q := question(0, time.Now(), true)
		q.Proto, q.Dst = proto, addrPort(dst)
		return l.Use(q)
	}
	for _, c := range []struct {
		proto uint8
		dst   string
		want  Use
	}{
		{unix.IPPROTO_TCP, "127.0.0.1:23", Free},
		{unix.IPPROTO_UDP, "127.0.0.1:23", Free},
		{unix.IPPROTO_TCP, "127.0.0.2:23", Served},
	} {
		if got := ask(c.proto, c.dst); got != c.want {
			t.Errorf("%d %s: %v, want %v", c.proto, c.dst, got, c.want)
		}
	}

	// Connected to the trap: true of this source, and nothing about others.
	client := closing[net.Conn](t)(net.Dial("tcp4", "127.0.0.1:23"))
	closing[net.Conn](t)(trap.Accept())
	trap.Close()
	closing[net.Listener](t)(net.Listen("tcp4", "127.0.0.1:23"))
	q := question(23, time.Now(), true)
	q.Src = localOf(client)
	if got := l.Use(q); got != Free {
		t.Errorf("the end of a connection to a trap: %v", got)
	}
	if got := l.Use(question(23, time.Unix(0, q.Time), true)); got != Served {
		t.Errorf("another source, to the service that took the port: %v", got)
	}

	var ports tcpServed
	many := closing[net.Listener](t)(marked(t).Listen(t.Context(), "tcp6", "[::]:999"))
	if err := ports.list(l.sockets.diag); err != nil || ports.has(999) || !ports.has(23) {
		t.Errorf("listed: trap %v, service %v, %v", ports.has(999), ports.has(23), err)
	}
	many.Close()
}

// In advanced mode, where all ports are asked about all the time: a service that
// starts on one is safe with its first packet, one that stops is none from the
// next packet on, and what remains of its connections serves nobody else.
func TestLookupAdvanced(t *testing.T) {
	enterSpace(t)
	l := closing[*Lookup](t)(NewLookup(Questions))
	scan := func() { // a block of the ring: enough for a listing
		t.Helper()
		at := time.Now()
		// On a busy machine a listing may have been slow, and is then put off.
		for n := 0; n < 100 || l.listed < at.UnixNano(); n++ {
			port := uint16(60000 + n%5000)
			if got := l.Use(question(port, at, true)); got != Free {
				t.Fatalf("port %d: %v", port, got)
			}
			if n > 50_000 {
				t.Fatal("not listed")
			}
		}
	}
	for round := range 20 {
		scan()
		if got := l.Use(question(8080, time.Now(), true)); got != Free {
			t.Fatalf("round %d, before the service: %v", round, got)
		}
		early := time.Now() // captured before it starts, asked about after
		service, err := net.Listen("tcp4", "127.0.0.1:8080")
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Use(question(8080, time.Now(), true)); got != Served {
			t.Fatalf("round %d, first packet to the service: %v", round, got)
		}
		scan()
		if got := l.Use(question(8080, time.Now(), true)); got != Served {
			t.Fatalf("round %d, service in a scan: %v", round, got)
		}
		if got := l.Use(question(8080, early, true)); got != Served {
			t.Errorf("round %d, a packet just before the service: %v", round, got)
		}
		// It closes first, so TIME_WAIT stays here.
		client := closing[net.Conn](t)(net.Dial("tcp4", "127.0.0.1:8080"))
		server := closing[net.Conn](t)(service.Accept())
		server.Close()
		client.Close()
		service.Close()
		if round%2 == 0 {
			scan()
		}
		if got := l.Use(question(8080, time.Now(), true)); got != Free {
			t.Fatalf("round %d, after the service: %v", round, got)
		}
		q := question(8080, time.Now(), false)
		q.Src = localOf(client)
		if got := l.Use(q); got != Served {
			t.Errorf("round %d, last packet of its connection: %v", round, got)
		}
		q.Src = netip.AddrPortFrom(q.Src.Addr(), q.Src.Port()^1)
		if got := l.Use(q); got != Free {
			t.Errorf("round %d, another port of the same source: %v", round, got)
		}
	}
}

// Answers to be judged: whatever the kernel might send, no panic, and a mark is
// found only where it stands.
func FuzzIsTrap(f *testing.F) {
	mark := native.AppendUint32(native.AppendUint16(native.AppendUint16(nil, 8), attrMark), TrapMark)
	f.Add(append(make([]byte, diagAnswerSize), mark...))
	f.Add(make([]byte, diagAnswerSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if isTrap(b) && !bytes.Contains(b[diagAnswerSize:], mark[4:]) {
			t.Errorf("% x", b)
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	enterSpace(b)
	l := closing[*Lookup](b)(NewLookup(Questions))
	closing[net.Listener](b)(net.Listen("tcp4", "127.0.0.1:7"))
	q := question(7, time.Now(), false)
	b.Run("socket", func(b *testing.B) {
		for b.Loop() {
			l.socket(q, l.slot(q), q.Time)
		}
	})
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			l.list(l.sockets, q.Time)
		}
	})
}
