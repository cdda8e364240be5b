package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"
)

// fresh asks until the answer is not put off: the share of CPU is bounded.
func fresh(t testing.TB, p *Peers) {
	t.Helper()
	eventually(t, "fresh peers", func() bool {
		err := p.Fresh()
		if err != nil && !errors.Is(err, ErrStale) {
			t.Fatal(err)
		}
		return err == nil
	})
}

func TestPeers(t *testing.T) {
	enterSpace(t)
	far := newSpace(t)
	join(t, "eth0", "10.7.0.1/24 fd07::1/64", far, "eth0", "10.7.0.2/24 10.7.0.3/24 10.7.0.4/24 10.7.0.5/24 fd07::2/64 fd07::3/64")
	dual := listenTCP(t, "tcp", ":22", "")
	var farListener net.Listener
	far.do(func() { farListener = listenTCP(t, "tcp4", "10.7.0.5:443", "") })

	connect := func(from, to string) (client *net.TCPConn, server net.Conn) {
		far.do(func() {
			client = closing[*net.TCPConn](t)(net.DialTCP("tcp", net.TCPAddrFromAddrPort(addrPort(from)), net.TCPAddrFromAddrPort(addrPort(to))))
		})
		return client, closing[net.Conn](t)(dual.Accept())
	}
	connect("10.7.0.2:0", "10.7.0.1:22")
	connect("[fd07::2]:0", "[fd07::1]:22")

	p := closing[*Peers](t)(NewPeers())
	for _, a := range []string{"10.7.0.2", "fd07::2"} {
		if !p.Has(addr(a)) {
			t.Errorf("%s connected before us and is not known", a)
		}
	}
	select {
	case c := <-p.Changes():
		slices.SortFunc(c.Added, netip.Addr.Compare)
		if !slices.Equal(c.Added, parseAll("10.7.0.2", "fd07::2")) || c.Removed != nil {
			t.Errorf("first change %v", c)
		}
	default:
		t.Error("no first change")
	}

	connect("10.7.0.3:0", "10.7.0.1:22")
	fresh(t, p)
	if !p.Has(addr("10.7.0.3")) {
		t.Error("connected after us and not known after Fresh")
	}

	// Closed by the server at once: known by its TIME_WAIT.
	client, server := connect("[fd07::3]:0", "[fd07::1]:22")
	server.Close()
	client.Close()
	fresh(t, p)
	if !p.Has(addr("fd07::3")) {
		t.Error("a short connection is not known")
	}

	// Our own connection to somebody makes him no peer, even after others came.
	closing[net.Conn](t)(net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(ends(farListener.Addr()))))
	connect("10.7.0.3:0", "10.7.0.1:22")
	fresh(t, p)
	if p.Has(addr("10.7.0.5")) {
		t.Error("a server of ours counts as a peer")
	}
	if p.Has(addr("10.7.0.4")) || p.Has(addr("127.0.0.1")) {
		t.Error("somebody who never connected is known")
	}

	// The listener goes, the connections stand.
	dual.Close()
	p.ask.Lock()
	err := p.list(p.opens)
	p.ask.Unlock()
	if err != nil || !p.Has(addr("10.7.0.3")) {
		t.Errorf("forgotten with the listener: %v", err)
	}
	if n := testing.AllocsPerRun(100, func() { p.Has(addr("10.7.0.3")) }); n != 0 {
		t.Errorf("Has allocates %v times", n)
	}
	if s := p.Stats(); s.Peers != 4 || s.Dropped != 0 || s.Failed != 0 || s.Listed < 4 {
		t.Errorf("stats %+v", s)
	}
}

func TestPeersRunTellsChanges(t *testing.T) {
	enterSpace(t)
	far := newSpace(t)
	join(t, "eth0", "10.7.0.1/24", far, "eth0", "10.7.0.2/24")
	l := listenTCP(t, "tcp", ":22", "")
	p := closing[*Peers](t)(NewPeers())
	if first := <-p.Changes(); first.Added != nil {
		t.Errorf("first change %v", first)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	far.do(func() {
		closing[net.Conn](t)(net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addrPort("10.7.0.1:22"))))
	})
	closing[net.Conn](t)(l.Accept())
	select {
	case c := <-p.Changes():
		if !slices.Equal(c.Added, parseAll("10.7.0.2")) || c.Removed != nil {
			t.Errorf("change %v", c)
		}
	case <-time.After(5 * time.Second):
		t.Error("no change within 5 s")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Who was seen by somebody else is known and told at once.
func TestPeersSee(t *testing.T) {
	enterSpace(t)
	p := closing[*Peers](t)(NewPeers())
	<-p.Changes()
	all := parseAll("10.7.0.2", "10.7.0.3", "fd07::2")
	p.See(all[0])
	if len(p.wake) != 1 {
		t.Error("Run would wait for its next listing")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	var seers sync.WaitGroup
	for _, a := range all {
		seers.Go(func() {
			for range 3 {
				p.See(a)
			}
		})
	}
	p.See(addr("127.0.0.2"))
	p.See(addr("::1"))
	seers.Wait()
	for _, a := range all {
		if !p.Has(a) {
			t.Errorf("%v was seen and is not known", a)
		}
	}
	var told []netip.Addr
	for len(told) < len(all) {
		select {
		case c := <-p.Changes():
			told = append(told, c.Added...)
			if c.Removed != nil {
				t.Errorf("change %v", c)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("told of %v within 5 s", told)
		}
	}
	slices.SortFunc(told, netip.Addr.Compare)
	if !slices.Equal(told, all) {
		t.Errorf("told of %v, want %v", told, all)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	// A listing, where none of them is connected, leaves them in the book.
	p.ask.Lock()
	err := p.list(p.opens)
	p.ask.Unlock()
	if s := p.Stats(); err != nil || s.Peers != len(all) || s.Failed != 0 {
		t.Errorf("stats %+v, %v", s, err)
	}
}

// At any moment the changes told so far make the set that the book holds, and
// no bound is passed.
func TestPeerBook(t *testing.T) {
	const size = 8
	b := newPeerBook(size, 24*time.Hour)
	told := map[netip.Addr]bool{}
	start := time.Now()
	round := func(hour int, addrs ...int) {
		t.Helper()
		now := start.Add(time.Duration(hour) * time.Hour)
		for _, n := range addrs {
			b.see(addr(fmt.Sprintf("192.0.2.%d", n)), now)
		}
		b.endRound(now)
		if hour%2 == 0 { // sometimes several rounds are one change
			c := b.take()
			for _, a := range c.Removed {
				if !told[a] {
					t.Errorf("hour %d: %v removed and was never added", hour, a)
				}
				delete(told, a)
			}
			for _, a := range c.Added {
				if told[a] {
					t.Errorf("hour %d: %v added twice", hour, a)
				}
				told[a] = true
			}
			for a := range b.seen {
				if !told[a] {
					t.Errorf("hour %d: %v not told", hour, a)
				}
			}
			if len(told) != len(b.seen) {
				t.Errorf("hour %d: told %v, known %v", hour, told, b.seen)
			}
		}
		if len(b.seen) > size || len(b.waiting) != 0 {
			t.Errorf("hour %d: %d known, %d waiting", hour, len(b.seen), len(b.waiting))
		}
	}
	has := func(n int) bool { _, ok := b.seen[addr(fmt.Sprintf("192.0.2.%d", n))]; return ok }

	round(0, 1, 2, 3)
	round(1, 1, 4)
	round(2, 1, 5)
	round(3, 1, 6, 7, 8) // full: 1 to 8
	round(4, 1, 9, 10)   // 2 and 3 have been away longest
	if has(2) || has(3) || !has(1) || !has(4) || !has(10) {
		t.Errorf("wrong ones made room: %v", b.seen)
	}
	round(5, 11, 12, 13, 14, 15, 16, 17, 18)
	if has(1) || !has(18) || b.dropped != 0 {
		t.Errorf("those who left stayed: %v, dropped %d", b.seen, b.dropped)
	}
	round(6, 11, 12, 13, 14, 15, 16, 17, 18, 19) // all are connected: no room for one more
	if has(19) || b.dropped != 1 {
		t.Errorf("somebody connected made room: %v, dropped %d", b.seen, b.dropped)
	}
	round(30, 11) // 24 hours to the moment: kept
	if !has(12) {
		t.Error("forgotten too early")
	}
	round(32, 11)
	if has(12) || !has(11) {
		t.Errorf("not forgotten after 24 hours: %v", b.seen)
	}
}

func TestParsePassiveOpens(t *testing.T) {
	const text = "Ip: Forwarding DefaultTTL\nIp: 2 64\nTcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails\nTcp: 1 200 120000 -1 24 4294967297 1\nUdp: x\n"
	if n, err := parsePassiveOpens([]byte(text)); n != 4294967297 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	for _, s := range []string{"", "Tcp: 1", "\nTcp: RtoAlgorithm\nTcp: 1 200 120000 -1", "\nTcp: a\nTcp: 1 2 3"} {
		if n, err := parsePassiveOpens([]byte(s)); err == nil {
			t.Errorf("%q gives %d", s, n)
		}
	}
}

func BenchmarkPeers(b *testing.B) {
	enterSpace(b)
	l := listenTCP(b, "tcp4", "127.0.0.1:22", "")
	p := closing[*Peers](b)(NewPeers())
	b.Run("tick", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.passiveOpens()
		}
	})
	list := func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := p.list(p.opens); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("list", list)
	for range 1000 {
		closing[net.Conn](b)(net.Dial("tcp4", l.Addr().String()))
		closing[net.Conn](b)(l.Accept())
	}
	b.Run("list1000", list)
	a := addr("127.0.0.1")
	b.Run("Has", func(b *testing.B) {
		for b.Loop() {
			p.Has(a)
		}
	})
}

// Who connects to a trap socket of ours is no peer by it; who connects to a
// service that takes the port over is.
func TestPeersPassOverTrapSockets(t *testing.T) {
	enterSpace(t)
	far := newSpace(t)
	join(t, "eth0", "10.7.0.1/24", far, "eth0", "10.7.0.2/24 10.7.0.3/24 10.7.0.4/24")
	service := listenTCP(t, "tcp", ":22", "")
	trap := closing[net.Listener](t)(marked(t).Listen(t.Context(), "tcp", ":23"))
	connect := func(from string, to string, l net.Listener) (client *net.TCPConn, server net.Conn) {
		far.do(func() {
			client = closing[*net.TCPConn](t)(net.DialTCP("tcp", net.TCPAddrFromAddrPort(addrPort(from)), net.TCPAddrFromAddrPort(addrPort(to))))
		})
		return client, closing[net.Conn](t)(l.Accept())
	}
	connect("10.7.0.2:0", "10.7.0.1:22", service)
	connect("10.7.0.2:0", "10.7.0.1:23", trap)
	connect("10.7.0.3:0", "10.7.0.1:23", trap)
	client, server := connect("10.7.0.4:0", "10.7.0.1:23", trap)
	server.Close() // TIME_WAIT, which bears no mark
	client.Close()
	p := closing[*Peers](t)(NewPeers())
	check := func(when string, want ...string) {
		t.Helper()
		fresh(t, p)
		got := p.List()
		slices.SortFunc(got, netip.Addr.Compare)
		if !slices.Equal(got, parseAll(want...)) {
			t.Errorf("%s: peers %v, want %v", when, got, want)
		}
	}
	check("at start", "10.7.0.2")
	connect("10.7.0.3:0", "10.7.0.1:23", trap)
	check("once more", "10.7.0.2")

	trap.Close()
	check("without the trap", "10.7.0.2")
	taken := listenTCP(t, "tcp", "10.7.0.1:24", "")
	connect("10.7.0.3:0", "10.7.0.1:24", taken)
	check("a service", "10.7.0.2", "10.7.0.3")
}

// A port that a trap held is a service's again, and standing connections to the
// trap still count for nothing.
func TestPeersOfAPortThatWasATrap(t *testing.T) {
	enterSpace(t)
	far := newSpace(t)
	join(t, "eth0", "10.7.0.1/24", far, "eth0", "10.7.0.2/24 10.7.0.3/24")
	trap := closing[net.Listener](t)(marked(t).Listen(t.Context(), "tcp4", "10.7.0.1:23"))
	connect := func(from string, l net.Listener) {
		far.do(func() {
			closing[*net.TCPConn](t)(net.DialTCP("tcp", net.TCPAddrFromAddrPort(addrPort(from)), net.TCPAddrFromAddrPort(addrPort("10.7.0.1:23"))))
		})
		closing[net.Conn](t)(l.Accept())
	}
	connect("10.7.0.2:0", trap)
	trap.Close()
	service := listenTCP(t, "tcp4", "10.7.0.1:23", "")
	connect("10.7.0.3:0", service)
	p := closing[*Peers](t)(NewPeers())
	if p.Has(addr("10.7.0.2")) || !p.Has(addr("10.7.0.3")) {
		t.Errorf("peers %v", p.List())
	}
}
