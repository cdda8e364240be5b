package ban_test

import (
	"encoding/json"
	"maps"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

// startFull runs the daemon with the full detection and no trap where scans go.
func (s *stage) startFull(more map[string]string) *daemon {
	s.t.Helper()
	c := map[string]string{"SCAN_DETECT": "full", "TCP_PORTS": "1", "UDP_PORTS": "1"}
	maps.Copy(c, more)
	return s.start(c)
}

// All ports within three seconds, and no trap among them: the scanner is cut off
// before he has got to his 700th, which is 32 ms. One of three has to be: a machine
// that is busy with other tests may not let the daemon run for as long. Clients of
// services go on.
func TestFastScanWithoutTraps(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.startFull(nil)
	client := nth(clients, 50)
	conn := s.open(client, 443)
	ports := make([]uint16, 0, 65534)
	for p := 2; p <= 65535; p++ {
		ports = append(ports, uint16(p))
	}
	const scanners = 3
	n := 0
	for last := uint16(0); last < 2 || last >= 700; {
		if n++; n > scanners {
			t.Fatalf("each of %d scanners gets too far, the last one to port %d", scanners, last)
		}
		src, sn := nth(clients, n), s.sniff()
		_, err := s.send.Flood(t.Context(), s.tcp(src, 40000, 2, pktgen.SYN),
			pktgen.FloodOpts{Count: len(ports), Rate: float64(len(ports)) / 3, DstPorts: ports})
		check(t, err)
		last = 0
		for _, a := range answersTo(sn.stop(), src) {
			last = max(last, a.SrcPort)
		}
		if b := d.waitBan(src); b.Evidence != "E1" || b.Strength != "soft" || !strings.Contains(b.Reason, "vertical syn scan of") {
			t.Errorf("%+v", b)
		}
	}
	check(t, echo(conn, 100))
	if c, _, err := s.dial(client, 443, soon); err != nil {
		t.Errorf("a client: %v", err)
	} else {
		c.Close()
	}
	if len(d.bans()) != n {
		t.Errorf("bans %+v", d.bans())
	}
}

// Who tries four ports and then finds what he looks for is let be, and so is who asks
// one dead port again and again.
func TestClientsWithoutTraps(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.startFull(nil)
	curious, stubborn := nth(clients, 1), nth(clients, 2)
	for port := uint16(4000); port < 4004; port++ {
		s.forge(s.tcp(curious, 40000+port, port, pktgen.SYN))
	}
	for sport := range uint16(200) {
		s.forge(s.tcp(stubborn, 40000+sport, 5000, pktgen.SYN))
	}
	for range 20 {
		s.open(nth(clients, 3), 443).Close()
	}
	s.seen(d)
	if bans := d.bans(); len(bans) > 0 {
		t.Errorf("bans %+v", bans)
	}
	if lines := d.scans(); len(lines) > 0 {
		t.Errorf("lines %q", lines)
	}
	s.forge(s.tcp(curious, 40000, 4004, pktgen.SYN)) // the fifth
	d.waitBan(curious)
}

// One port in each run of the daemon: what is known of a source outlives it.
func TestSlowScanAcrossRestarts(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	dir := t.TempDir()
	config := s.banning(map[string]string{
		"SCAN_DETECT": "full", "TCP_PORTS": "1", "UDP_PORTS": "1", "SOURCES_FILE": filepath.Join(dir, "sources"),
	})
	src := nth(clients, 1)
	for run := range uint16(5) {
		d := &daemon{harness.MustStart(t, harness.Options{Binary: lab.Binary(t), NS: s.Host.NS, Config: config}), t}
		s.forge(s.tcp(src, 40000, 4000+run, pktgen.SYN))
		s.seen(d)
		if run < 4 {
			if bans := d.bans(); len(bans) > 0 {
				t.Fatalf("run %d: bans %+v", run+1, bans)
			}
			check(t, d.Stop())
			continue
		}
		if b := d.waitBan(src); !strings.Contains(b.Reason, "scan") {
			t.Errorf("%+v", b)
		}
		st, err := d.Status(t.Context())
		check(t, err)
		if days := st.Horizon / 86400; days < 7 || days > 8 {
			t.Errorf("the horizon is %v days", days)
		}
	}
}

// nmap goes through the ports of an address of ours, with no trap among them: it is found,
// and cut off before it has an answer from 700. At full speed a busy machine may not get
// to it within the 50 ms that 1,000 ports take.
func TestNmapWithoutTraps(t *testing.T) {
	for _, family := range []string{"IPv4", "IPv6"} {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.serve(s.Host.NS, served...)
			target, scanner := s.Host.Addr4(), s.Scanner.Addr4()
			if family == "IPv6" {
				target, scanner = s.Host.Addr6(), s.Scanner.Addr6()
			}
			d := s.startFull(map[string]string{"TCP_PORTS": "60001"})
			sn := s.sniff()
			report := nmap(s, target, "-r", "--max-rate", "5000")
			answered := make(map[uint16]bool)
			for _, a := range answersTo(sn.stop(), scanner) {
				if a.Proto == pktgen.ProtoTCP {
					answered[a.SrcPort] = true
				}
			}
			if len(answered) == 0 || len(answered) >= 700 {
				t.Errorf("answers from %d ports\n%s", len(answered), report)
			}
			b := d.waitBan(scanner)
			if b.Evidence != "E1" || b.Strength != "soft" || !strings.Contains(b.Reason, "vertical syn scan of") {
				t.Errorf("%+v", b)
			}
			if sets := s.banned(scanner); len(sets) == 0 {
				t.Error("no set has the scanner")
			}
			t.Logf("answers from %d ports", len(answered))
		})
	}
}

// Who scans a host without touching a trap does not get to the guests behind it either,
// neither by a published port, nor by way of the host. Clients of the published port,
// where nobody on the host itself is, do not scan; who asks for ports of a guest by way of
// the host is no matter of the host's.
func TestScanOfAHostWithGuests(t *testing.T) {
	t.Parallel()
	s, _ := house(t)
	d := s.startFull(nil)
	innocent, scanner, other := nth(clients, 1), nth(clients, 2), nth(clients, 3)
	ways := map[string]netip.AddrPort{
		"published": netip.AddrPortFrom(s.Host.Addr4(), published), "forwarded": netip.AddrPortFrom(guest, 80),
	}
	for range 8 {
		for name, to := range ways {
			for _, a := range []netip.Addr{innocent, scanner, other} {
				c, _, err := s.dialTo(a, to, soon)
				if err != nil {
					t.Fatalf("%s, before the scan: %v", name, err)
				}
				c.Close()
			}
		}
	}
	for port := uint16(1000); port < 1010; port++ {
		p := s.tcp(other, 40000, port, pktgen.SYN)
		p.Dst = guest
		s.forge(p)
	}
	s.seen(d)
	if bans, lines := d.bans(), d.scans(); len(bans)+len(lines) > 0 {
		t.Fatalf("bans %+v, lines %q", bans, lines)
	}
	for port := uint16(1000); port < 1005; port++ {
		s.forge(s.tcp(scanner, 40000, port, pktgen.SYN))
	}
	d.waitBan(scanner)
	for name, to := range ways {
		for _, a := range []netip.Addr{innocent, other} {
			if _, _, err := s.dialTo(a, to, soon); err != nil {
				t.Errorf("%s, %v: %v", name, a, err)
			}
		}
		if _, _, err := s.dialTo(scanner, to, 300*time.Millisecond); err == nil {
			t.Errorf("%s: a banned scanner still gets through", name)
		}
	}
}

// SCAN_DETECT is turned off while somebody scans, and on again: he is not forgotten.
func TestReloadForgetsNobody(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	dir := t.TempDir()
	config := s.banning(map[string]string{
		"SCAN_DETECT": "full", "TCP_PORTS": "1", "UDP_PORTS": "1", "SOURCES_FILE": filepath.Join(dir, "sources"),
	})
	d := &daemon{harness.MustStart(t, harness.Options{Binary: lab.Binary(t), NS: s.Host.NS, Config: config, Dir: dir}), t}
	src := nth(clients, 1)
	reloads := 0
	reload := func(how string) {
		t.Helper()
		config["SCAN_DETECT"] = how
		check(t, harness.WriteConfig(filepath.Join(dir, "portsentry.conf"), config))
		check(t, d.Signal(syscall.SIGHUP))
		reloads++
		lab.Wait(t, soon, "the configuration in force", func() bool {
			return len(d.lines(func(l string) bool { return strings.Contains(l, "is in force") })) == reloads
		})
	}
	for port := uint16(4000); port < 4004; port++ {
		s.forge(s.tcp(src, 40000, port, pktgen.SYN))
	}
	s.seen(d)
	reload("traps")
	s.forge(s.tcp(src, 40000, 4004, pktgen.SYN))
	s.seen(d)
	if bans := d.bans(); len(bans) > 0 {
		t.Fatalf("bans %+v", bans)
	}
	reload("full")
	s.forge(s.tcp(src, 40000, 4005, pktgen.SYN), s.tcp(src, 40000, 4006, pktgen.SYN)) // of two ports one may look like one before
	d.waitBan(src)
}

// A network shares out a sweep, a port or two a source: one campaign, a line for each of
// those who were there, none of them banned; and nothing about who lives there and
// fails at what is known to be gone.
func TestSharedSweep(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.startFull(map[string]string{"LOG_FORMAT": "json"})
	const members = 60
	visitor := nth(clients, 200)
	s.open(visitor, 443).Close()
	for i := range 2 * members {
		s.forge(s.tcp(nth(clients, 1+i%members), 40000, uint16(2000+7*i), pktgen.SYN))
		if i%20 == 0 {
			s.forge(s.tcp(visitor, 40000, 1999, pktgen.SYN))
		}
	}
	type line struct {
		Event, Source, Kind, Direction, Evidence, Campaign, Text string
		Score                                                    float64
	}
	found := make(map[string]line)
	campaigns := 0
	lab.Wait(t, soon, "lines of all", func() bool {
		campaigns = 0
		for _, l := range d.lines(func(string) bool { return true }) {
			var one line
			check(t, json.Unmarshal([]byte(l), &one))
			if one.Event == "scan" {
				found[one.Source] = one
			}
			if strings.Contains(one.Text, "share out a sweep") {
				campaigns++
			}
		}
		return len(found) >= members && campaigns > 0
	})
	for i := range members {
		one := found[nth(clients, 1+i).String()]
		if one.Direction != "distributed" || one.Kind != "syn" || one.Evidence != "E1" || one.Campaign != "0000000000000001" || one.Score <= 0 || one.Score > 13 {
			t.Errorf("%+v", one)
		}
	}
	if bans := d.bans(); len(found) != members || campaigns != 1 || len(bans) > 0 {
		t.Errorf("%d of %d members, %d campaigns, bans %+v", len(found), members, campaigns, bans)
	}
}
