package ban_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/internal/view"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

// startConnect runs the daemon with trap ports that accept connections.
func (s *stage) startConnect(more map[string]string) *daemon {
	s.t.Helper()
	d := harness.MustStart(s.t, harness.Options{
		Binary: lab.Binary(s.t), NS: s.Host.NS, Config: s.banning(more), Args: []string{"--connect"},
	})
	return &daemon{d, s.t}
}

// Each ban is longer than the one before, by BAN_TIME_FACTOR: on proof up to
// BAN_TIME_MAX, without up to BAN_TIME. What was banned without proof does not count
// where there is proof.
func TestLonger(t *testing.T) {
	for _, c := range []struct {
		name   string
		proved bool
		keys   map[string]string
		want   []time.Duration
	}{
		{"unproved", false, map[string]string{"BAN_TIME_UNVERIFIED": "1s", "BAN_TIME_FACTOR": "3", "BAN_TIME": "5s"}, []time.Duration{1, 3, 5}},
		{"proved", true, map[string]string{"BAN_TIME_UNVERIFIED": "1s", "BAN_TIME": "1s", "BAN_TIME_FACTOR": "2", "BAN_TIME_MAX": "3s"}, []time.Duration{1, 2, 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			src := nth(clients, 1)
			probe := func() { s.forge(s.tcp(src, 40000, trap, pktgen.SYN)) }
			start := s.start
			if c.proved {
				start, probe = s.startConnect, func() { s.dial(src, trap, 50*time.Millisecond) }
			}
			d := start(c.keys)
			for i, want := range c.want {
				var b view.Ban
				lab.Wait(t, soon, "the next ban", func() (ok bool) {
					probe()
					b, ok = d.ban(src)
					return ok && b.Times > i
				})
				if got := b.Until.Sub(b.Since).Round(100 * time.Millisecond); got != want*time.Second || b.Times != i+1 || (b.Evidence == "E2") != c.proved {
					t.Errorf("ban %d: %v long, on %s, the %d. of them; want %vs", i+1, got, b.Evidence, b.Times, int(want))
				}
				lab.Wait(t, soon, "the end of it", func() bool {
					_, banned := d.ban(src)
					return !banned && len(s.banned(src)) == 0
				})
			}
		})
	}
}

// Somebody who has been given a /56 goes through its /64s, with a handshake from each:
// after three of them all of it is kept out, and its neighbour is not.
func TestWiderWithProof(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.startConnect(nil)
	from := func(net, host byte) netip.Addr {
		a := clients6.Addr().As16()
		a[7], a[15] = net, host
		return netip.AddrFrom16(a)
	}
	for net := range byte(3) {
		for host := byte(1); host <= 2; host++ {
			src := from(net, host)
			lab.Wait(t, soon, "ban of "+src.String(), func() bool {
				s.dial(src, trap, 200*time.Millisecond)
				_, banned := d.ban(src)
				return banned
			})
		}
	}
	wide := netip.PrefixFrom(from(0, 0), 56)
	b, ok := d.ban(from(0x77, 9))
	if !ok || b.Prefix != wide || b.Evidence != "E2" || !strings.Contains(b.Reason, "third /64 of its /56") {
		t.Fatalf("another address of %v: %+v, %v; the bans are %+v", wide, b, ok, d.bans())
	}
	if c, _, err := s.dial(from(0x77, 9), 443, 500*time.Millisecond); err == nil {
		c.Close()
		t.Error("who is in it gets in")
	}
	next := clients6.Addr().As16()
	next[6], next[15] = 1, 9
	s.open(netip.AddrFrom16(next), 443).Close()
}

// Who has proved to scan loses what he has open, and its entry in connection tracking;
// in whose name packets were forged goes on, and so does everybody else.
func TestConnectionsAreCut(t *testing.T) {
	t.Parallel()
	lab.NeedProgram(t, "conntrack", "conntrack")
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	lab.Command(t, s.Host.NS, "nft", "add table inet seen")
	lab.Command(t, s.Host.NS, "nft", "add chain inet seen in { type filter hook input priority 0 ; }")
	lab.Command(t, s.Host.NS, "nft", "add rule inet seen in ct state established accept")
	// The second contact decides: the first alone would be a ban that the second may run into.
	d := s.startConnect(map[string]string{"SCAN_TRIGGER": "2"})
	scanner, victim, other := nth(clients, 1), nth(clients, 2), nth(clients, 3)
	conn, victims, others := s.open(scanner, 443), s.open(victim, 443), s.open(other, 443)
	tracked := func(a netip.Addr) bool {
		return strings.Contains(lab.Command(t, s.Host.NS, "conntrack", "-L", "-s", a.String(), "-p", "tcp", "--dport", "443"), "dport=443")
	}
	for _, a := range []netip.Addr{scanner, victim, other} {
		if !tracked(a) {
			t.Fatalf("the connection of %v is not tracked", a)
		}
	}
	s.forge(s.tcp(victim, 40000, trap, pktgen.SYN))
	s.forge(s.tcp(victim, 40001, trap2, pktgen.SYN))
	for _, port := range []uint16{trap, trap2} {
		s.dial(scanner, port, 200*time.Millisecond)
	}
	lab.Wait(t, soon, "the full ban", func() bool {
		b, ok := d.ban(scanner)
		return ok && b.Strength == "full"
	})
	lab.Wait(t, soon, "the end of its entry", func() bool { return !tracked(scanner) })
	if err := conn.SetDeadline(time.Now().Add(500 * time.Millisecond)); err == nil {
		conn.Write([]byte("0123456789abcdef"))
		if n, err := conn.Read(make([]byte, 16)); err == nil {
			t.Errorf("the connection goes on: %d bytes came back", n)
		}
	}
	check(t, echo(victims, 16))
	check(t, echo(others, 16))
	if !tracked(victim) || !tracked(other) || d.counter("connections_cut_total") == 0 {
		t.Errorf("tracked: victim %v, other %v; cut %d", tracked(victim), tracked(other), d.counter("connections_cut_total"))
	}
}
