package xdp_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// newVerifying is a stage with a daemon that challenges. A veth end takes in what a
// program at the other end sends back if it has a program of its own.
func newVerifying(t *testing.T, more map[string]string) (*stage, *daemon) {
	t.Helper()
	s := newStage(t)
	pass := passing(t)
	check(t, s.Scanner.NS.Do(func() error { return setXDP(s.Scanner, pass.FD()) }))
	s.serve(s.Host.NS, served...)
	// A service on a port of the trap list is none of our business, and stays so.
	config := map[string]string{"VERIFY_SOURCE": "1", "TCP_PORTS": "1,11,80,2222"}
	for k, v := range more {
		config[k] = v
	}
	d := s.start(config)
	d.waitHow(s.Host.Name, "XDP")
	return s, d
}

// connect is nmap -sT from src, the trap ports first.
func (s *stage) connect(src netip.Addr, ports string) string {
	s.t.Helper()
	args := []string{"nmap", "-n", "-Pn", "-sT", "-r", "--max-retries", "0", "--max-rtt-timeout", "300ms", "--host-timeout", "60s", "-p" + ports}
	if src.Is6() {
		args = append(args, "-6")
	}
	// nmap -sT connects as any program does, from the address of the route.
	route := []string{"ip", "route", "replace", s.host(src).String(), "dev", s.Scanner.Name, "src", src.String()}
	if src.Is6() {
		route = append([]string{"ip", "-6"}, route[1:]...)
	}
	lab.Command(s.t, s.Scanner.NS, route...)
	return lab.Command(s.t, s.Scanner.NS, append(args, s.host(src).String())...)
}

// Who completes the handshakes of several traps is there, and banned altogether:
// his scanner sees the traps open and nothing else. Who answers a challenge with a
// reset, as a SYN scan does, is alive, and no more is known; in whose name somebody
// forges, not even that. Clients of services know nothing of it.
func TestVerifySource(t *testing.T) {
	t.Parallel()
	s, d := newVerifying(t, nil)
	client, client6 := nth(clients, 100), nth(clients6, 0x100)
	before := s.open(client, 443)
	for _, x := range []struct {
		family                      string
		full, half, forged, partial netip.Addr
	}{
		{"IPv4", nth(clients, 1), nth(clients, 2), nth(nobody, 1), nth(clients, 3)},
		// Each in a /64 of its own: bans spread inside one.
		{"IPv6", s.Scanner.Addr6(), nth(clients6, 2), netip.MustParseAddr("2001:db8:b::1"), netip.Addr{}},
	} {
		report := s.connect(x.full, "1,11,2222,22,80,443")
		if got := openPorts(report); got != "1 11 2222" {
			t.Errorf("%s: nmap -sT saw %q\n%s", x.family, got, report)
		}
		b := d.waitBan(x.full)
		lab.Wait(t, soon, "a full ban", func() bool { b, _ = d.ban(x.full); return b.Strength == "full" })
		if b.Evidence != "E2" || b.Scope != "all" || !strings.Contains(b.Reason, "verified") {
			t.Errorf("%s: nmap -sT: %+v", x.family, b)
		}
		if s.gets(x.full) {
			t.Errorf("%s: who is verified gets through", x.family)
		}
		if got := openPorts(s.connect(x.full, "1,11,2222,22,80,443")); got != "1 11 2222" {
			t.Errorf("%s: banned entirely, nmap -sT saw %q", x.family, got)
		}

		s.nmap(x.half, "-sS", "-r", "-p1")
		lab.Wait(t, soon, "a sign of life", func() bool { b, _ = d.ban(x.half); return b.Alive })
		if b.Evidence != "E1" || b.Strength != "soft" {
			t.Errorf("%s: nmap -sS: %+v", x.family, b)
		}

		s.forge(s.tcp(x.forged, 40000, trap, pktgen.SYN))
		d.waitBan(x.forged)
		s.seen(d)
		if b, _ := d.ban(x.forged); b.Evidence != "E1" || b.Alive {
			t.Errorf("%s: forged: %+v", x.family, b)
		}
	}
	// One handshake may be the doing of a web page that its owner looks at.
	once := nth(clients, 3)
	if c, err := s.dial(once, trap, soon); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	lab.Wait(t, soon, "one verified contact", func() bool { b, _ := d.ban(once); return b.Evidence == "E2" })
	if b, _ := d.ban(once); b.Strength != "soft" {
		t.Errorf("one handshake: %+v", b)
	}

	for _, a := range []netip.Addr{client, client6} {
		for range 5 {
			for _, port := range served {
				c, err := s.dial(a, port, soon)
				check(t, err)
				check(t, echo(c))
				c.Close()
			}
		}
		if b, banned := d.ban(a); banned || len(d.from(a)) > 0 {
			t.Errorf("a client: %+v, %q", b, d.from(a))
		}
	}
	check(t, echo(before))
	if c := d.counters("challenges_total", "verified_total", "living_total"); c["challenges_total"] == 0 || c["verified_total"] < 7 || c["living_total"] < 2 {
		t.Errorf("%v", c)
	}
	d.healthy("in the end")
}

// Where nobody is banned, who is verified is in the log.
func TestVerifySourceLogsOnly(t *testing.T) {
	t.Parallel()
	s, d := newVerifying(t, map[string]string{"BLOCK_TCP": "0", "BLOCK_UDP": "0"})
	src := s.Scanner.Addr4()
	report := s.connect(src, "1,11,22,80")
	if got := openPorts(report); got != "1 11 22 80" {
		t.Errorf("nmap -sT saw %q\n%s", got, report)
	}
	s.seen(d)
	var verified []string
	for _, l := range d.from(src) {
		if strings.Contains(l, "type: [Connect]") {
			verified = append(verified, l)
		}
	}
	if len(verified) < 2 || strings.Contains(strings.Join(verified, ""), "blocked: [true]") {
		t.Errorf("lines %q", d.from(src))
	}
	if bans := d.bans(); len(bans) > 0 {
		t.Errorf("bans %+v", bans)
	}
	// Who guesses numbers is not verified.
	guesser := nth(clients, 9)
	for i := range 50 {
		p := s.tcp(guesser, 40000, trap, pktgen.ACK)
		p.Ack = uint32(i) * 12345678
		s.forge(p)
	}
	s.seen(d)
	for _, l := range d.from(guesser) {
		if strings.Contains(l, "type: [Connect]") {
			t.Errorf("a guess is proof: %s", l)
		}
	}
	if n := d.counter("bad_acks_total"); n < 50 {
		t.Errorf("%d bad ACKs", n)
	}
}

// However many SYNs are forged, no more answers leave than the budget has, for all
// and for one network.
func TestVerifySourceBudget(t *testing.T) {
	const count, rate = 100_000, 100_000
	for _, c := range []struct {
		name       string
		prefix     netip.Prefix
		sources    int
		once, each float64 // at once, and a second
	}{
		{"many networks", nobody, 100_000, 10_000, 10_000},
		{"one network", netip.PrefixFrom(nobody.Addr(), 24), 256, 200, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, d := newVerifying(t, nil)
			client := s.open(nth(clients, 1), 443)
			sn := s.listening()
			sent, err := s.send.Flood(t.Context(), s.tcp(nobody.Addr(), 40000, trap, pktgen.SYN), pktgen.FloodOpts{
				Count: count, Rate: rate, SourcePrefix: c.prefix, Sources: c.sources, VarySrcPort: true,
			})
			check(t, err)
			check(t, echo(client))
			left := 0
			for to, n := range s.answers(sn) {
				if c.prefix.Contains(to) {
					left += n
				}
			}
			n := d.counters("challenges_total", "challenges_withheld_total")
			most := c.once + c.each*(sent.Took+50*time.Millisecond).Seconds()
			t.Logf("%d SYNs at %.0f/s: %d answers left, %v, at most %.0f may", sent.Frames, sent.Rate(), left, n, most)
			if float64(left) > most || float64(n["challenges_total"]) > most {
				t.Error("more than the budget")
			}
			if float64(left) < c.once/2 || n["challenges_withheld_total"] == 0 {
				t.Error("so little that the test shows nothing")
			}
		})
	}
}

// What nmap -sV sends to a port that seems open ends in a reset, not in silence.
func TestVerifySourceData(t *testing.T) {
	t.Parallel()
	s, d := newVerifying(t, map[string]string{"BLOCK_TCP": "0", "BLOCK_UDP": "0"})
	for _, src := range []netip.Addr{s.Scanner.Addr4(), s.Scanner.Addr6()} {
		c, err := s.dial(src, trap, soon)
		check(t, err)
		check(t, c.SetDeadline(time.Now().Add(soon)))
		_, err = c.Write([]byte("hello"))
		check(t, err)
		if _, err := c.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("%v: data on the connection: %v", src, err)
		}
	}
	if n := d.counter("resets_total"); n < 2 {
		t.Errorf("%d resets", n)
	}
}
