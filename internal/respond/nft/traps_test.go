package nft

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

const patience = 150 * time.Millisecond // for an answer over a veth that is not to come

func TestNmapInOrderFindsNothingOpen(t *testing.T) { bothWays(t, testNmapInOrderFindsNothingOpen) }

func testNmapInOrderFindsNothingOpen(t *testing.T, traps func() Options) {
	l := newLab(t)
	for _, port := range []string{"22", "80", "443"} {
		l.serve(l.host, "tcp", "10.9.0.1:"+port)
		l.serve(l.host, "tcp", "[fd09::1]:"+port)
	}
	l.open(traps())
	for _, target := range [][]string{{"10.9.0.1"}, {"-6", "fd09::1"}} {
		out := l.command(l.scannerName, "nmap", append([]string{"-n", "-Pn", "-sS", "-r", "-p1-1000", "--max-retries", "0", "--min-rate", "2000"}, target...)...)
		if !strings.Contains(out, "1000 filtered") && !strings.Contains(out, "All 1000 scanned ports") || strings.Contains(out, "open") {
			t.Errorf("nmap %v:\n%s", target, out)
		}
	}
}

func TestServedPortsAloneBanNobody(t *testing.T) { bothWays(t, testServedPortsAloneBanNobody) }

func testServedPortsAloneBanNobody(t *testing.T, traps func() Options) {
	l := newLab(t)
	l.serve(l.host, "tcp", "10.9.0.1:80")
	table := l.open(traps())
	out := l.command(l.scannerName, "nmap", "-n", "-Pn", "-sS", "-p22,80,443", "--max-retries", "1", "10.9.0.1")
	if !strings.Contains(out, "80/tcp  open") || strings.Count(out, "closed") != 2 {
		t.Errorf("nmap:\n%s", out)
	}
	if s := l.stats(table); s.TrapHits != 0 {
		t.Errorf("stats %+v", s)
	}
}

// At full speed no probe of a served port is answered behind the trap hit.
func TestNoAnswerBehindTheHit(t *testing.T) { bothWays(t, testNoAnswerBehindTheHit) }

func testNoAnswerBehindTheHit(t *testing.T, traps func() Options) {
	l := newLab(t)
	l.serve(l.host, "tcp", "10.9.0.1:80")
	l.serve(l.host, "tcp", "[fd09::1]:80")
	l.open(traps())
	r := l.raw()
	for _, src := range []string{"203.0.113.9", "2001:db8::9"} {
		src := netip.MustParseAddr(src)
		innocent := src.Next()
		frames := [][]byte{l.tcp(src, 999, 1, syn)}
		for i := range 3000 {
			frames = append(frames, l.tcp(src, uint16(1000+i), 80, syn))
		}
		r.send(l.tcp(innocent, 999, 80, syn))
		eventually(t, "an answer to who hit no trap", func() bool { r.poll(); return r.synAcks[innocent] > 0 })
		before := r.synAcks[innocent]
		for _, f := range frames {
			r.send(f)
		}
		r.send(l.tcp(innocent, 1999, 80, syn)) // answered behind all the others
		eventually(t, "an answer to who hit no trap", func() bool { r.poll(); return r.synAcks[innocent] > before })
		if seen := r.synAcks[src]; seen != 0 {
			t.Errorf("%v: %d of 3000 probes answered", src, seen)
		}
	}
}

// The kernel bans for exactly the kinds of probe it is trusted with, whatever
// the other flags, and within ip_local_port_range for a bare SYN only.
func TestKindsThatBan(t *testing.T) { bothWays(t, testKindsThatBan) }

func testKindsThatBan(t *testing.T, traps func() Options) {
	l := newLab(t)
	table := l.open(traps())
	a := l.hits(table)
	r := l.raw()
	source := func(flags int, port uint16) netip.Addr {
		return netip.AddrFrom4([4]byte{203, 0, byte(port >> 8), byte(flags)})
	}
	want := 0
	expected := make(map[netip.Addr]bool)
	for flags := range 256 {
		kind := detect.Classify(uint16(flags))
		for _, port := range []uint16{11, 40000} {
			if kind == detect.KindSYN || port == 11 && (kind == detect.KindFIN || kind == detect.KindNULL || kind == detect.KindXMAS || flags&(syn|fin|rst|ack) == syn) {
				expected[source(flags, port)] = true
				want++
			}
			r.send(l.tcp(source(flags, port), 5000, port, byte(flags)))
		}
	}
	r.send(l.udp(netip.MustParseAddr("203.1.0.1"), 5000, 7))
	r.send(l.udp(netip.MustParseAddr("203.1.0.2"), 5000, 40000)) // may be a late answer
	r.send(l.udp(netip.MustParseAddr("203.1.0.3"), 5000, 8))
	expected[netip.MustParseAddr("203.1.0.1")] = true
	want++
	eventually(t, fmt.Sprintf("%d hits", want), func() bool { return a.len() >= want })
	if s := l.stats(table); s.TrapHits != uint64(want) || s.Announced != uint64(want) || s.Lost != 0 {
		t.Errorf("want %d hits: %+v", want, s)
	}
	for addr := range expected {
		if a.of(addr) != 1 {
			t.Errorf("%v not announced once", addr)
		}
	}
	if got := len(l.addresses("hit4")); got != want {
		t.Errorf("%d provisional bans, want %d", got, want)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if h := a.last; h.Family != 4 || h.IfIndex == 0 || time.Since(time.Unix(0, h.Time)).Abs() > time.Minute || len(h.Packet) < 28 {
		t.Errorf("hit %+v", h)
	}
}

// A connection entry that a stray ACK made does not hide the SYN behind it.
func TestStrayACKHidesNoSYN(t *testing.T) { bothWays(t, testStrayACKHidesNoSYN) }

func testStrayACKHidesNoSYN(t *testing.T, traps func() Options) {
	l := newLab(t)
	table := l.open(traps())
	r := l.raw()
	src := netip.MustParseAddr("203.0.113.9")
	for _, flags := range []byte{ack, ack, fin | ack, syn} {
		r.send(l.tcp(src, 5000, 11, flags))
	}
	eventually(t, "the hit", func() bool { return l.stats(table).TrapHits == 1 })
}

func TestSparedSourcesSeeClosedAndAreNotBanned(t *testing.T) {
	bothWays(t, testSparedSourcesSeeClosedAndAreNotBanned)
}

func testSparedSourcesSeeClosedAndAreNotBanned(t *testing.T, traps func() Options) {
	l := newLab(t)
	o := traps()
	o.Spare = []netip.Prefix{netip.MustParsePrefix("10.9.0.2/32"), netip.MustParsePrefix("fd09::2/128")}
	table := l.open(o)
	if err := table.SetSpare(append(o.Spare, netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("198.51.100.128/25"))); err != nil {
		t.Fatal(err)
	}
	r := l.raw()
	for i := range 1000 {
		r.send(l.tcp(scannerV4, uint16(i), 1, syn))
		r.send(l.tcp(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 1000, 11, syn))
		r.send(l.tcp(scannerV6, uint16(i), 1, syn))
	}
	for _, addr := range []string{"10.9.0.1:1", "[fd09::1]:1"} {
		if _, err := l.dial(l.scanner, "tcp", addr, time.Second); err == nil || silent(err) {
			t.Errorf("%s: %v, want a refusal", addr, err)
		}
	}
	if s := l.stats(table); s.TrapHits != 0 {
		t.Errorf("stats %+v", s)
	}
	// Taken out, it is a source like any other.
	if err := table.SetSpare(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := l.dial(l.scanner, "tcp", "10.9.0.1:1", patience); !silent(err) {
		t.Errorf("%v, want silence", err)
	}
}

func TestConnectionGoesOnAfterAHit(t *testing.T) { bothWays(t, testConnectionGoesOnAfterAHit) }

func testConnectionGoesOnAfterAHit(t *testing.T, traps func() Options) {
	l := newLab(t)
	l.serve(l.host, "tcp", "10.9.0.1:80")
	l.open(traps())
	c, err := l.dial(l.scanner, "tcp", "10.9.0.1:80", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.dial(l.scanner, "tcp", "10.9.0.1:1", patience); !silent(err) {
		t.Errorf("trap: %v, want silence", err)
	}
	if err := echo(c); err != nil {
		t.Errorf("connection: %v", err)
	}
	if _, err := l.dial(l.scanner, "tcp", "10.9.0.1:80", patience); !silent(err) {
		t.Errorf("new connection: %v, want silence", err)
	}
}

func TestPeersAndVerifiedAreLimitedAtMost(t *testing.T) {
	bothWays(t, testPeersAndVerifiedAreLimitedAtMost)
}

func testPeersAndVerifiedAreLimitedAtMost(t *testing.T, traps func() Options) {
	for _, tc := range []struct {
		name string
		edit func(*Options)
	}{
		{"peer", func(o *Options) { o.Peers = []netip.Addr{scannerV4} }},
		{"peer, protocol only", func(o *Options) {
			o.Peers = []netip.Addr{netip.MustParseAddr("::ffff:10.9.0.2"), scannerV4}
			o.BlockTCP = config.BlockCommand
		}},
		{"verified", func(o *Options) { o.LimitedOnly = true }},
		{"peer, set full", func(o *Options) {
			o.Peers = []netip.Addr{scannerV4, netip.MustParseAddr("203.0.113.1")}
			o.DynamicSize = 1
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLab(t)
			l.serve(l.host, "tcp", "10.9.0.1:80")
			o := traps()
			tc.edit(&o)
			table := l.open(o)
			l.raw().send(l.tcp(netip.MustParseAddr("203.0.113.1"), 1, 1, syn))
			c, err := l.dial(l.scanner, "tcp", "10.9.0.1:80", time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.dial(l.scanner, "tcp", "10.9.0.1:1", patience); !silent(err) {
				t.Errorf("trap: %v, want silence", err)
			}
			full := o.DynamicSize != 0
			if _, err := l.dial(l.scanner, "tcp", "10.9.0.1:999", patience); silent(err) == full {
				t.Errorf("closed port: %v", err)
			}
			if err := echo(c); err != nil {
				t.Errorf("connection: %v", err)
			}
			if _, err := l.dial(l.scanner, "tcp", "10.9.0.1:80", time.Second); err != nil {
				t.Errorf("served port: %v", err)
			}
			for _, set := range []string{"hit4", "hitpart4"} {
				if slices.Contains(l.addresses(set), "10.9.0.2") {
					t.Errorf("a peer in %s", set)
				}
			}
			// Taken back at once.
			if err := table.Revoke(t.Context(), scannerV4); err != nil {
				t.Fatal(err)
			}
			if _, err := l.dial(l.scanner, "tcp", "10.9.0.1:999", time.Second); err == nil || silent(err) {
				t.Errorf("after Revoke: %v, want a refusal", err)
			}
		})
	}
}

// 40 attackers and room for 4: each is announced, none gets an answer, the
// rest is counted, and user space can still ban all.
func TestFullProvisionalSet(t *testing.T) { bothWays(t, testFullProvisionalSet) }

func testFullProvisionalSet(t *testing.T, traps func() Options) {
	l := newLab(t)
	o := traps()
	o.DynamicSize = 4
	table := l.open(o)
	a := l.hits(table)
	r := l.raw()
	var bans []respond.Ban
	for i := range 40 {
		src := netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})
		bans = append(bans, respond.Ban{Prefix: netip.PrefixFrom(src, 32), Strength: judge.Soft, Until: time.Now().Add(time.Minute)})
		r.send(l.tcp(src, 1, 1, syn))
	}
	eventually(t, "40 announcements", func() bool { return a.len() == 40 })
	r.poll()
	for _, b := range bans {
		if n := r.answers[b.Prefix.Addr()]; n != 0 {
			t.Errorf("%v got %d answers", b.Prefix, n)
		}
	}
	if s := l.stats(table); s.Overflow != 36 || s.TrapHits != 40 || s.Announced != 40 {
		t.Errorf("stats %+v, want overflow 36", s)
	}
	if err := table.BanAll(t.Context(), bans); err != nil {
		t.Fatal(err)
	}
	if got := len(l.addresses("soft4")); got != 40 {
		t.Errorf("%d bans, want 40", got)
	}
}

// A flood is dropped and counted in full, and announced at a bounded rate.
func TestFloodIsAnnouncedAtABoundedRate(t *testing.T) {
	bothWays(t, testFloodIsAnnouncedAtABoundedRate)
}

func testFloodIsAnnouncedAtABoundedRate(t *testing.T, traps func() Options) {
	l := newLab(t)
	table := l.open(traps())
	a := l.hits(table)
	r := l.raw()
	const flood = 20000
	frame := l.tcp(netip.MustParseAddr("203.0.0.0"), 1, 1, syn)
	begin := time.Now()
	for i := range flood {
		binary.BigEndian.PutUint16(frame[28:], uint16(i)) // the source's low half
		ip := frame[14:34]
		ip[10], ip[11] = 0, 0
		binary.BigEndian.PutUint16(ip[10:], ipChecksum(ip))
		tcp := frame[34:]
		tcp[16], tcp[17] = 0, 0 // the kernel's trap rules do not verify it
		r.send(frame)
	}
	bound := announceBurst + int(announceRate*(time.Since(begin)+time.Second).Seconds())
	var s Stats
	eventually(t, "the whole flood counted", func() bool { s = l.stats(table); return s.TrapHits == flood })
	if got := a.len(); got > bound {
		t.Errorf("%d announced, bound %d", got, bound)
	}
	t.Logf("%d packets in %v: %+v", flood, time.Since(begin), s)
}

func ipChecksum(h []byte) uint16 {
	var sum uint32
	for i := 0; i < len(h); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum>>16 + sum)
}

func TestProtocolOnly(t *testing.T) { bothWays(t, testProtocolOnly) }

func testProtocolOnly(t *testing.T, traps func() Options) {
	l := newLab(t)
	l.serve(l.host, "tcp", "10.9.0.1:80")
	l.echoUDP(l.host, "10.9.0.1:5353")
	o := traps()
	o.BlockTCP, o.BlockUDP = config.BlockCommand, config.BlockCommand
	table := l.open(o)
	check := func(when string, tcpSilent, udpSilent bool) {
		t.Helper()
		if _, err := l.dial(l.scanner, "tcp", "10.9.0.1:80", patience); silent(err) != tcpSilent {
			t.Errorf("%s: TCP: %v", when, err)
		}
		if err := l.askUDP("10.9.0.1:5353"); silent(err) != udpSilent {
			t.Errorf("%s: UDP: %v", when, err)
		}
	}
	check("before", false, false)
	if _, err := l.dial(l.scanner, "tcp", "10.9.0.1:1", patience); !silent(err) {
		t.Errorf("trap: %v, want silence", err)
	}
	check("provisional", true, false)
	if err := table.Revoke(t.Context(), scannerV4); err != nil {
		t.Fatal(err)
	}
	check("revoked", false, false)
	b := respond.Ban{Prefix: netip.PrefixFrom(scannerV4, 32), Strength: judge.Soft, Scope: judge.UDPOnly, Until: time.Now().Add(time.Minute)}
	if err := table.Ban(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	check("UDP banned", false, true)
	b.Scope = judge.TCPOnly
	if err := table.Ban(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	check("both banned", true, true)
	if err := table.Unban(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	check("lifted", false, false)
	b.Strength = judge.Full
	if err := table.Ban(t.Context(), b); err == nil {
		t.Error("a full ban of one protocol was taken")
	}
}

func (l *lab) stats(t *Table) Stats {
	l.t.Helper()
	s, err := t.Stats()
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

func TestNoTraps(t *testing.T) { bothWays(t, testNoTraps) }

func testNoTraps(t *testing.T, traps func() Options) {
	for name, edit := range map[string]func(*Options){
		"SCAN_TRIGGER": func(o *Options) { o.KernelTraps = false },
		"log only":     func(o *Options) { o.BlockTCP, o.BlockUDP = config.BlockNone, config.BlockNone },
		"no ports":     func(o *Options) { o.TrapsTCP, o.TrapsUDP = nil, nil },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			o := traps()
			edit(&o)
			table := l.open(o)
			if _, err := l.dial(l.scanner, "tcp", "10.9.0.1:1", time.Second); err == nil || silent(err) {
				t.Errorf("%v, want a refusal", err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := table.Run(ctx, func(Hit) { t.Error("a hit") }); err != nil {
				t.Error(err)
			}
		})
	}
}
