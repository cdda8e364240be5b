package host

import (
	"net"
	"net/netip"
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
	l, err := NewLookup()
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
	l, err := NewLookup()
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
	l, err := NewLookup()
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
	l, err := NewLookup()
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

// What destination NAT hands to somebody else is no trap here, and a flow of a
// stranger's own making is no answer to us.
func TestLookupTranslated(t *testing.T) {
	enterSpace(t)
	l, err := NewLookup()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.conntrack == nil {
		t.Skip("no connection tracking in this kernel")
	}
	command(t, "nft add table ip nat")
	command(t, "nft add chain ip nat out { type nat hook output priority -100 ; }")
	command(t, "nft add rule ip nat out tcp dport 8080 dnat to 127.0.0.1:9090")
	listener, err := net.Listen("tcp", "127.0.0.1:9090")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c, err := net.Dial("tcp", "127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	q := question(8080, time.Now(), true)
	q.Src = c.LocalAddr().(*net.TCPAddr).AddrPort()
	if got := l.Use(q); got != Translated {
		t.Errorf("a client of a translated port: %v", got)
	}
}

// Many ports at once cost one listing, and a listener among them is found.
func TestLookupListsForMany(t *testing.T) {
	enterSpace(t)
	l, err := NewLookup()
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
