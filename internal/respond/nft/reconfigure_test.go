package nft

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// reconfigure gives the table other options, in the host's namespace.
func (l *lab) reconfigure(t *Table, o Options) {
	l.t.Helper()
	l.in(l.host, func() error { return t.Reconfigure(context.Background(), o) })
}

// Under a flood of probes the table is reconfigured a hundred times. Nobody who
// is banned gets an answer, and everybody who hits a trap is dropped, counted
// and banned by it, but for whom to spare.
func TestReconfigureUnderFlood(t *testing.T) { bothWays(t, testReconfigureUnderFlood) }

func testReconfigureUnderFlood(t *testing.T, traps func() Options) {
	l := newLab(t)
	l.serve(l.host, "tcp", "10.9.0.1:80")
	l.serve(l.host, "tcp", "[fd09::1]:80")
	o := traps()
	o.Provisional = time.Minute
	spared := netip.MustParseAddr("198.51.100.7")
	o.Spare = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/28")}
	table := l.open(o)
	bans := []respond.Ban{ban("203.0.113.1/32", judge.Full, time.Hour), ban("203.0.113.2/32", judge.Soft, time.Hour),
		ban("2001:db8:0:1::/64", judge.Soft, time.Hour), ban("203.0.113.3/32", judge.Limited, time.Hour)}
	if err := table.BanAll(t.Context(), bans); err != nil {
		t.Fatal(err)
	}
	banned := []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2"), netip.MustParseAddr("2001:db8:0:1::7")}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 100 {
			next := o
			next.TrapServed = i%2 == 0
			next.OwnTraps = i%3 == 0
			next.Provisional = time.Minute + time.Duration(i)*time.Second
			if i%5 != 0 {
				next.TrapsTCP = config.PortSet{{First: 11, Last: 79}, {First: 81, Last: 65535}}
			}
			if i%7 == 0 {
				next.TrapsUDP = nil
			}
			if err := table.Reconfigure(context.Background(), next); err != nil {
				t.Errorf("Reconfigure %d: %v", i, err)
			}
			other := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, byte(i), 1}), 24)
			if err := table.SetSpare(append(o.Spare[:1:1], other)); err != nil {
				t.Errorf("SetSpare %d: %v", i, err)
			}
		}
	}()
	r := l.raw()
	rounds := 0
	scanner := netip.MustParseAddr("198.18.0.1")
	var scanners []netip.Addr
	for over := false; !over; rounds++ {
		for _, src := range banned {
			r.send(l.tcp(src, uint16(1024+rounds%60000), 80, syn))
		}
		r.send(l.tcp(netip.MustParseAddr("203.0.113.3"), uint16(1024+rounds%60000), 999, ack)) // no trap for it
		r.send(l.tcp(spared, uint16(1024+rounds%60000), 11, syn))
		r.send(l.tcp(scanner, 1000, 11, syn))
		r.send(l.tcp(scanner, 1001, 80, syn))
		scanners = append(scanners, scanner)
		scanner = scanner.Next()
		r.poll()
		select {
		case <-done:
			over = true
		default:
		}
	}
	innocent := netip.MustParseAddr("203.0.113.200")
	r.send(l.tcp(innocent, 1000, 80, syn))
	eventually(t, "an answer to who hit no trap", func() bool { r.poll(); return r.synAcks[innocent] > 0 })
	for _, src := range slices.Concat(banned, scanners, []netip.Addr{netip.MustParseAddr("203.0.113.3")}) {
		if n := r.answers[src]; n != 0 {
			t.Errorf("%v got %d answers", src, n)
		}
	}
	if s := l.stats(table); s.TrapHits != uint64(len(scanners)) || s.Overflow != 0 {
		t.Errorf("%d hits, stats %+v", len(scanners), s)
	}
	if got := len(l.addresses("hit4")); got != len(scanners) {
		t.Errorf("%d provisional bans, want %d", got, len(scanners))
	}
	sameBans(t, l.existing(table), bans)
	t.Logf("%d rounds", rounds)
}

// Traps come and go with Reconfigure, and one Run hears of all hits.
func TestReconfigureAndRun(t *testing.T) {
	l := newLab(t)
	none := traps()
	none.KernelTraps = false
	table := l.open(none)
	a := l.hits(table)
	r := l.raw()
	for i := range 3 {
		first := netip.AddrFrom4([4]byte{203, 0, 113, byte(10 * i)})
		r.send(l.tcp(first, 1, 1, syn))
		eventually(t, "a refusal without traps", func() bool { r.poll(); return r.answers[first] > 0 })
		o := traps()
		o.TrapsTCP = config.PortSet{{First: 2, Last: 9}}
		l.reconfigure(table, o)
		r.send(l.tcp(first.Next(), 1, 2, syn))
		eventually(t, "the hit", func() bool { return a.of(first.Next()) == 1 })
		o.TrapsTCP, o.TrapsUDP = nil, nil
		if i == 1 {
			o = none
		}
		l.reconfigure(table, o)
		r.send(l.tcp(first.Next().Next(), 1, 2, syn))
		eventually(t, "a refusal", func() bool { r.poll(); return r.answers[first.Next().Next()] > 0 })
	}
	if s := l.stats(table); s.Announced != 3 || s.Lost != 0 || s.TrapHits != 3 {
		t.Errorf("stats %+v", s)
	}
	if err := table.Close(t.Context()); err != nil { // with no hit chain there
		t.Fatal(err)
	}
}

// What cannot be done leaves everything as it was.
func TestReconfigureFails(t *testing.T) { bothWays(t, testReconfigureFails) }

func testReconfigureFails(t *testing.T, traps func() Options) {
	l := newLab(t)
	o := traps()
	o.KernelTraps = false
	table := l.open(o)
	bad := traps()
	bad.Spare = []netip.Prefix{{}}
	tooMany := traps() // more than the set holds: the kernel refuses
	for addr := netip.MustParseAddr("11.0.0.0"); len(tooMany.Peers) <= peerSize; addr = addr.Next() {
		tooMany.Peers = append(tooMany.Peers, addr)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	before := l.command(l.hostName, "nft", "list", "ruleset")
	l.in(l.host, func() error {
		if err := table.Reconfigure(ended, traps()); err == nil {
			t.Error("with a context that has ended")
		}
		for _, o := range []Options{bad, tooMany} {
			if err := table.Reconfigure(t.Context(), o); err == nil {
				t.Error("no error")
			}
		}
		return nil
	})
	if table.log != nil || len(table.peers) != 0 {
		t.Errorf("left behind: log %v, %d peers", table.log, len(table.peers))
	}
	if got := l.command(l.hostName, "nft", "list", "ruleset"); got != before {
		t.Errorf("ruleset changed to\n%s", got)
	}
	if err := table.Ban(t.Context(), ban("203.0.113.1/32", judge.Soft, time.Minute)); err != nil {
		t.Error(err)
	}
	l.reconfigure(table, traps())
	if _, err := l.dial(l.scanner, "tcp", "10.9.0.1:1", patience); !silent(err) {
		t.Errorf("trap: %v, want silence", err)
	}
}

// Of advanced mode: 65,535 ports less 300 that lie apart.
func advanced() config.PortSet {
	var exclude config.PortSet
	for i := range 300 {
		p := uint16(100 + 200*i)
		exclude = append(exclude, config.PortRange{First: p, Last: p})
	}
	return config.PortSet{{First: 1, Last: 65535}}.Less(exclude)
}

func BenchmarkReconfigure(b *testing.B) {
	l := newLab(b)
	few, all := traps(), traps()
	all.TrapsTCP, all.TrapsUDP = advanced(), advanced()
	table := l.open(few)
	if err := table.BanAll(b.Context(), many(10_000)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		few, all = all, few
		if err := table.Reconfigure(context.Background(), few); err != nil {
			b.Fatal(err)
		}
	}
}

// What the rules cost for a packet that they let pass to a closed port.
func BenchmarkEvaluate(b *testing.B) {
	for name, edit := range map[string]func(*Options){
		"few":      func(*Options) {},
		"advanced": func(o *Options) { o.TrapsTCP, o.TrapsUDP = advanced(), advanced() },
		"served":   func(o *Options) { o.TrapServed = true },
		"own":      func(o *Options) { o.OwnTraps = true },
	} {
		b.Run(name, func(b *testing.B) {
			l := newLab(b)
			o := traps()
			edit(&o)
			l.open(o)
			r := l.raw()
			frame := l.tcp(netip.MustParseAddr("203.0.113.9"), 1, 300, syn)
			for b.Loop() {
				r.send(frame)
			}
		})
	}
}
