package ban_test

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// fast makes nmap quick with ports that say nothing.
var fast = []string{"--min-rate", "2000", "--max-rtt-timeout", "100ms", "-p1-1000"}

func nmap(s *stage, target netip.Addr, args ...string) string {
	from := s.Scanner.Addr4()
	if target.Is6() {
		from = s.Scanner.Addr6()
		args = append(args, "-6")
	}
	// The gateway, whom nobody bans, is at the same interface.
	args = append(args, "-S", from.String(), "-e", s.Scanner.Name)
	return lab.Nmap(s.t, s.Scanner.NS, append(append(args, fast...), target.String())...)
}

// openPorts are those that nmap lists as open.
func openPorts(report string) (ports []string) {
	for line := range strings.Lines(report) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[1] == "open" && strings.HasSuffix(f[0], "/tcp") {
			ports = append(ports, strings.TrimSuffix(f[0], "/tcp"))
		}
	}
	return ports
}

// A scan in order hits the trap first and learns nothing at all.
func TestScanInOrder(t *testing.T) {
	for _, family := range []string{"IPv4", "IPv6"} {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.serve(s.Host.NS, served...)
			target, scanner := s.Host.Addr4(), s.Scanner.Addr4()
			if family == "IPv6" {
				target, scanner = s.Host.Addr6(), s.Scanner.Addr6()
			}
			d := s.start(nil)
			report := nmap(s, target, "-r")
			if open := openPorts(report); len(open) > 0 || !strings.Contains(report, "1000 filtered") {
				t.Errorf("open: %v\n%s", open, report)
			}
			b := d.waitBan(scanner)
			if b.Strength != "soft" || b.Evidence != "E1" || b.Scope != "all" {
				t.Errorf("ban %+v", b)
			}
			if sets := s.banned(scanner); len(sets) == 0 {
				t.Error("no set has the scanner")
			}
		})
	}
}

// A scan in random order learns what it asked before its first trap hit, and
// not one answer is for a probe that came behind it.
func TestScanInRandomOrder(t *testing.T) {
	for _, family := range []string{"IPv4", "IPv6"} {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.serve(s.Host.NS, served...)
			target, scanner := s.Host.Addr4(), s.Scanner.Addr4()
			if family == "IPv6" {
				target, scanner = s.Host.Addr6(), s.Scanner.Addr6()
			}
			s.start(nil)
			arriving, err := pktgen.Sniff(t.Context(), s.Host.NS, s.Host.Name, 1<<20)
			check(t, err)
			sn := s.sniff()
			report := nmap(s, target, "--packet-trace")
			answers := answersTo(sn.stop(), scanner)
			probes, err := arriving.Stop()
			check(t, err)
			if byXDP() { // nothing on the host sees what the program drops
				probes = sent(t, report)
			}

			type flow struct{ port, from uint16 }
			first := make(map[flow]int) // the place of a flow's first probe
			hit := -1
			for i, p := range probes {
				if p.Src != scanner || p.Flags != pktgen.SYN {
					continue
				}
				f := flow{p.DstPort, p.SrcPort}
				if _, again := first[f]; !again {
					first[f] = i
				}
				if (p.DstPort == trap || p.DstPort == trap2) && hit < 0 {
					hit = i
				}
			}
			if hit < 0 {
				t.Fatalf("nmap never probed a trap\n%s", report)
			}
			late, before, after := 0, 0, 0
			for _, i := range first {
				if i < hit {
					before++
				} else {
					after++
				}
			}
			for _, a := range answers {
				if i, ok := first[flow{a.SrcPort, a.DstPort}]; !ok || i >= hit {
					late++
				}
			}
			t.Logf("%d probes before the first hit, %d behind it; %d answers, %d of them for probes behind the hit", before, after, len(answers), late)
			if late > 0 || after == 0 {
				t.Errorf("%d answers to the %d probes behind the hit", late, after)
			}
		})
	}
}

// sent are the probes that nmap --packet-trace lists, in order: one queue of the
// wire keeps it.
func sent(t *testing.T, report string) (probes []pktgen.Answer) {
	t.Helper()
	for line := range strings.Lines(report) {
		f := strings.Fields(line) // SENT (0.0312s) TCP 10.77.0.2:50000 > 10.77.0.1:22 S ttl=...
		if len(f) < 7 || f[0] != "SENT" || f[2] != "TCP" || f[6] != "S" {
			continue
		}
		src, dst := endpoint(t, f[3]), endpoint(t, f[5])
		probes = append(probes, pktgen.Answer{Src: src.Addr(), Dst: dst.Addr(), SrcPort: src.Port(), DstPort: dst.Port(), Flags: pktgen.SYN})
	}
	return probes
}

// endpoint reads an address and a port, of IPv6 with or without brackets.
func endpoint(t *testing.T, s string) netip.AddrPort {
	t.Helper()
	at := strings.LastIndexByte(s, ':')
	if at < 0 {
		t.Fatalf("no address and port: %q", s)
	}
	a, err := netip.ParseAddr(strings.Trim(s[:at], "[]"))
	check(t, err)
	port, err := strconv.ParseUint(s[at+1:], 10, 16)
	check(t, err)
	return netip.AddrPortFrom(a, uint16(port))
}

// probes are the ways to hit a trap with one packet.
var probes = []struct {
	name  string
	flags uint16
}{{"SYN", pktgen.SYN}, {"FIN", pktgen.FIN}, {"NULL", 0}, {"XMAS", pktgen.FIN | pktgen.PSH | pktgen.URG}}

// One trap hit of any kind, TCP or UDP, cuts its source off with the next
// packet, and the ban ends by itself.
func TestOneHitBansAndTheBanEnds(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	const length = 3 * time.Second
	d := s.start(map[string]string{"BAN_TIME": "3s", "BAN_TIME_UNVERIFIED": "3s"})
	var sources []netip.Addr
	hit := func(i int, kind string, p func(src netip.Addr) pktgen.Packet) {
		for _, src := range []netip.Addr{nth(clients, i), nth(subnet6(i), 1)} {
			sources = append(sources, src)
			got := s.answered(p(src), s.tcp(src, 50001, 443, pktgen.SYN), s.tcp(src, 50002, 81, pktgen.SYN), s.udp(src, 50003, 4000))
			if len(got) > 0 {
				t.Errorf("%s from %v: %d answers behind the hit: %+v", kind, src, len(got), got)
			}
		}
	}
	start := time.Now()
	for i, kind := range probes {
		hit(10+i, kind.name, func(src netip.Addr) pktgen.Packet { return s.tcp(src, 50000, trap, kind.flags) })
	}
	hit(20, "UDP", func(src netip.Addr) pktgen.Packet { return s.udp(src, 50000, trap) })
	if t.Failed() {
		return
	}
	lab.Wait(t, soon, "all of them on the list", func() bool { return len(d.bans()) == len(sources) || time.Since(start) > length })
	for _, src := range sources {
		if b, ok := d.ban(src); ok && (b.Strength != "soft" || b.Scope != "all" || b.Until == nil || b.Until.Sub(b.Since).Round(time.Second) != length) {
			t.Errorf("ban of %v: %+v", src, b)
		}
	}
	lab.Wait(t, length+soon, "no bans", func() bool { return len(d.bans()) == 0 })
	listed := time.Since(start)
	for _, src := range sources {
		lab.Wait(t, time.Until(start.Add(2*length+2*time.Second)), fmt.Sprintf("%v is let in again", src), func() bool {
			_, _, err := s.dial(src, 443, 500*time.Millisecond)
			return err == nil
		})
	}
	t.Logf("bans of %v: gone from the list after %v, everybody let in after %v", length, listed.Round(10*time.Millisecond), time.Since(start).Round(10*time.Millisecond))
}

// subnet6 is the i-th /64 behind the scanner: bans spread inside one.
func subnet6(i int) netip.Prefix {
	b := clients6.Addr().As16()
	b[7] = byte(i)
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

// Packets that may be the tail of a forgotten connection earn silence where
// nothing listens, and no more.
func TestACKAndMaimonAreLimited(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.start(nil)
	for i, kind := range []struct {
		name  string
		flags uint16
	}{{"ACK", pktgen.ACK}, {"Maimon", pktgen.FIN | pktgen.ACK}} {
		for _, src := range []netip.Addr{nth(clients, 30+i), nth(subnet6(30+i), 1)} {
			s.forge(s.tcp(src, 50000, trap, kind.flags))
			if b := d.waitBan(src); b.Strength != "limited" {
				t.Errorf("%s from %v: %+v", kind.name, src, b)
			}
			if got := s.answered(s.tcp(src, 50001, 81, pktgen.SYN), s.udp(src, 50001, 4000), s.tcp(src, 50002, trap, pktgen.SYN)); len(got) > 0 {
				t.Errorf("%s from %v: closed ports answer %+v", kind.name, src, got)
			}
		}
		for _, src := range []netip.Addr{nth(clients, 40+i), nth(subnet6(40+i), 1)} {
			s.forge(s.tcp(src, 50000, trap, kind.flags))
			d.waitBan(src)
			if _, took, err := s.dial(src, 443, soon); err != nil || took > time.Second {
				t.Errorf("%s from %v: the served port after %v: %v", kind.name, src, took, err)
			}
			if sets := s.banned(src); len(sets) > 0 {
				t.Errorf("%s from %v: in %v", kind.name, src, sets)
			}
		}
	}
}

// A scanner that opened a connection first sees the served ports, and no other.
func TestScannerWithAConnection(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.start(nil)
	for _, x := range []struct{ scanner, target netip.Addr }{
		{s.Scanner.Addr4(), s.Host.Addr4()}, {s.Scanner.Addr6(), s.Host.Addr6()},
	} {
		c := s.open(x.scanner, 443)
		report := nmap(s, x.target)
		if got := strings.Join(openPorts(report), " "); got != "22 80 443" {
			t.Errorf("open: %q\n%s", got, report)
		}
		if b := d.waitBan(x.scanner); b.Strength != "limited" {
			t.Errorf("ban %+v", b)
		}
		// What it asked before its hit was answered: closed. A second scan
		// shows what it learns from then on.
		report = nmap(s, x.target, "-r")
		if got := strings.Join(openPorts(report), " "); got != "22 80 443" || !strings.Contains(report, "997 filtered") {
			t.Errorf("second scan: open %q\n%s", got, report)
		}
		check(t, echo(c, 1<<16))
	}
}
