package ban_test

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"golang.org/x/net/dns/dnsmessage"

	"portsentry/internal/pktgen"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

// nameServer is the resolver of the host. What it answers changes.
type nameServer struct {
	mu    sync.Mutex
	addrs map[string][]netip.Addr
	dead  bool
	asked int
}

const uptime = "uptime.example.net"

// serveNames starts a nameServer, and gives a script that makes it the resolver of a
// daemon.
func (s *stage) serveNames() (n *nameServer, script string) {
	s.t.Helper()
	n = &nameServer{addrs: make(map[string][]netip.Addr)}
	var conn net.PacketConn
	check(s.t, s.Scanner.NS.Do(func() (err error) {
		conn, err = net.ListenPacket("udp", netip.AddrPortFrom(resolver.Addr(), 53).String())
		return err
	}))
	s.t.Cleanup(func() { conn.Close() })
	go func() {
		b := make([]byte, 4096)
		for {
			length, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if answer := n.answer(b[:length]); answer != nil {
				conn.WriteTo(answer, from)
			}
		}
	}()
	_, script = s.privateEtc(map[string]string{
		"resolv.conf":   "nameserver " + resolver.Addr().String() + "\noptions timeout:1 attempts:1\n",
		"nsswitch.conf": "hosts: files dns\n",
	})
	return n, script
}

// set has name stand for addrs from now on.
func (n *nameServer) set(name string, addrs ...netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs[name] = addrs
}

// die has it answer nothing any more.
func (n *nameServer) die() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dead = true
}

func (n *nameServer) questions() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}

// answer is what a question gets, nil for silence.
func (n *nameServer) answer(question []byte) []byte {
	var p dnsmessage.Parser
	header, err := p.Start(question)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	addrs, exists := n.addrs[strings.TrimSuffix(q.Name.String(), ".")]
	if n.dead {
		return nil
	}
	header.Response, header.RecursionAvailable = true, true
	if !exists {
		header.RCode = dnsmessage.RCodeNameError
	}
	b := dnsmessage.NewBuilder(nil, header)
	b.StartQuestions()
	b.Question(q)
	b.StartAnswers()
	rh := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}
	for _, a := range addrs {
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			b.AResource(rh, dnsmessage.AResource{A: a.As4()})
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			b.AAAAResource(rh, dnsmessage.AAAAResource{AAAA: a.As16()})
		}
	}
	answer, err := b.Finish()
	if err != nil {
		return nil
	}
	return answer
}

// allowing is a configuration with more entries in the ignore file, and 12 traps.
func (s *stage) allowing(more map[string]string, entries ...string) map[string]string {
	s.t.Helper()
	ignore := filepath.Join(s.t.TempDir(), "portsentry.ignore")
	check(s.t, os.WriteFile(ignore, []byte(ignored.String()+"\n"+strings.Join(entries, "\n")+"\n"), 0o600))
	c := map[string]string{"IGNORE_FILE": ignore, "TCP_PORTS": "1,11,101-110", "UDP_PORTS": "7"}
	maps.Copy(c, more)
	return c
}

// probe12 sends a SYN to each of 12 traps, and some twice.
func (s *stage) probe12(src netip.Addr) {
	s.t.Helper()
	for i, port := range append([]uint16{1, 11}, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110) {
		s.forge(s.tcp(src, 42000+uint16(i), port, pktgen.SYN))
	}
	s.forge(s.tcp(src, 43000, 1, pktgen.SYN), s.udp(src, 43001, 7))
}

// neverBanned has a probe 12 traps, twice, and checks that nobody makes anything of
// it, and that it is served. Of the first probes the kernel may drop some, until it
// is told.
func (s *stage) neverBanned(d *daemon, what string, a netip.Addr) {
	s.t.Helper()
	var lines []string
	ignored := func(least int) func() bool {
		return func() bool {
			lines = d.lines(func(l string) bool {
				return strings.HasPrefix(l, harness.ScanPrefix+a.String()+"]") && strings.Contains(l, "ignored: [true]")
			})
			return len(lines) >= least
		}
	}
	ignored(0)()
	before := len(lines)
	s.probe12(a)
	lab.Wait(s.t, soon, what+": it is known", ignored(before+1))
	s.seen(d)
	ignored(0)()
	known := len(lines)
	s.probe12(a)
	lab.Wait(s.t, soon, what+": a line for each probe", ignored(known+14))
	for _, l := range d.from(a) {
		if strings.Contains(l, "ignored: [false] triggered: [true]") {
			s.t.Fatalf("%s: %s", what, l)
		}
	}
	if b, banned := d.ban(a); banned {
		s.t.Errorf("%s: %+v", what, b)
	}
	if in := s.banned(a); len(in) > 0 {
		s.t.Errorf("%s: in %v", what, in)
	}
	check(s.t, echo(s.open(a, 443), 1<<10))
}

// An uptime checker that probes 12 trap ports from a name in the ignore file, whose
// address changes, is never banned, nor when the name server dies.
func TestAllowedName(t *testing.T) {
	for name, more := range map[string]map[string]string{
		"as shipped": nil,
		"AF_PACKET":  {"CAPTURE": "afpacket", "BLOCK_METHOD": "nftables"},
		"full":       {"SCAN_DETECT": "full", "SCAN_TRIGGER": "2"},
		"commands":   {"BLOCK_METHOD": "none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.serve(s.Host.NS, served...)
			dns, script := s.serveNames()
			old, now := nth(clients, 1), nth(clients, 2)
			now6, later := nth(subnet6(1), 1), nth(clients, 3)
			dns.set(uptime, old)
			ran := filepath.Join(t.TempDir(), "ran")
			c := s.allowing(more, uptime)
			if name == "commands" {
				c["KILL_ROUTE"] = "echo $TARGET$ >> " + ran
			}
			d := s.startIn(script, c)
			s.neverBanned(d, "from its address", old)

			dns.set(uptime, now, now6)
			s.neverBanned(d, "from a new one", now)
			s.neverBanned(d, "from one of IPv6", now6)

			scanner := nth(nobody, 1)
			s.probe12(scanner)
			d.waitBan(scanner)

			// The one that it had is its own for a while, and with nobody to ask all are.
			dns.die()
			asked := dns.questions()
			s.probe12(nth(nobody, 2))
			d.waitBan(nth(nobody, 2))
			lab.Wait(t, soon, "questions", func() bool { return dns.questions() > asked })
			s.neverBanned(d, "with a dead name server", now)
			s.neverBanned(d, "the address of before", old)
			d.problem(uptime, "does not answer", "the 3 it had are kept")
			s.probe12(later)
			d.waitBan(later) // else the name of who answers nothing would spare everybody

			if got := read(ran); strings.Contains(got, old.String()+"\n") || strings.Contains(got, now.String()+"\n") || strings.Contains(got, now6.String()+"\n") {
				t.Errorf("commands ran for\n%s", got)
			}
			if lines := d.lines(func(l string) bool { return strings.Contains(l, "no longer banned") }); len(lines) > 0 {
				t.Errorf("somebody was banned and let in again: %s", lines)
			}
		})
	}
}

// Whoever is banned already is let in when a name of the ignore file turns out to be
// his, or is written there. A name that nobody knows is a problem.
func TestAllowedLater(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	dns, script := s.serveNames()
	a := nth(clients, 1)
	c := s.allowing(nil, uptime)
	d := s.startIn(script, c)
	d.problem(c["IGNORE_FILE"] + ":2: " + uptime + " has no address: nobody is spared by it")
	s.probe12(a)
	d.waitBan(a)
	dns.set(uptime, a)
	d.waitLine(a.String(), "no longer banned", "in the ignore file ("+uptime+")")
	check(t, echo(s.open(a, 443), 1<<10))
	lab.Wait(t, soon, "no problem", func() bool {
		st, err := d.Status(t.Context())
		check(t, err)
		return len(st.Problems) == 0
	})

	other := nth(clients, 9)
	s.probe12(other)
	d.waitBan(other)
	dns.set("backup.example.net", other)
	check(t, os.WriteFile(c["IGNORE_FILE"], []byte(uptime+"\nbackup.example.net\n"), 0o600))
	d.waitLine(other.String(), "no longer banned", "in the ignore file (backup.example.net)")
}

// geoFile writes a database in which networks have a country or a system.
func geoFile(t *testing.T, path string, networks map[string]any) {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{RecordSize: 24, IncludeReservedNetworks: true})
	check(t, err)
	for network, of := range networks {
		record := mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(0)}
		switch of := of.(type) {
		case string:
			record = mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(of)}}
		case int:
			record["autonomous_system_number"] = mmdbtype.Uint32(of)
		}
		_, n, err := net.ParseCIDR(network)
		check(t, err)
		check(t, tree.Insert(n, record))
	}
	f, err := os.Create(path + ".new")
	check(t, err)
	defer f.Close()
	_, err = tree.WriteTo(f)
	check(t, err)
	check(t, os.Rename(path+".new", path))
}

// Nobody of a country or system in the ignore file is banned, by the kernel itself
// either where the list of its networks is short; one that is long costs the first
// packets of a source, for a moment.
func TestAllowedCountry(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	countries, systems := filepath.Join(t.TempDir(), "country.mmdb"), filepath.Join(t.TempDir(), "asn.mmdb")
	long := map[string]any{clients.String(): "IS"}
	for i := range 5000 {
		long[fmt.Sprintf("198.18.%d.%d/31", i>>6, i<<2&255)] = "US"
	}
	geoFile(t, countries, long)
	geoFile(t, systems, map[string]any{clients6.String(): 64496})
	c := s.allowing(map[string]string{"GEO_FILES": countries + "," + systems}, "country:IS", "country:US", "AS64496")
	d := s.start(c)
	is, us, as := nth(clients, 1), nth(nobody, 4), nth(subnet6(1), 1)
	lab.Wait(t, soon, "the list of whom to spare", func() bool {
		return strings.Contains(lab.Command(t, s.Host.NS, "nft", "list", "table", "inet", "portsentry"), clients.String())
	})
	for what, a := range map[string]netip.Addr{"country": is, "system": as} {
		sn := s.sniff()
		s.forge(s.tcp(a, 40000, trap, pktgen.SYN))
		s.forge(s.tcp(a, 44000, 443, pktgen.SYN))
		answered := false
		for _, x := range answersTo(sn.stop(), a) {
			answered = answered || x.IsSYNACK()
		}
		if !answered {
			t.Errorf("%s: kept out at once", what)
		}
		s.neverBanned(d, what, a)
	}
	s.probe12(us)
	s.seen(d)
	if lines := d.from(us); len(lines) == 0 || strings.Contains(strings.Join(lines, "\n"), "ignored: [false]") {
		t.Errorf("%s", lines)
	}
	if b, banned := d.ban(us); banned {
		t.Errorf("%+v", b)
	}
	lab.Wait(t, soon, "what the kernel did of its own is taken back", func() bool {
		return len(s.answered(s.tcp(us, 45000, 443, pktgen.SYN))) > 0
	})
	scanner := nth(nobody, 6)
	s.probe12(scanner)
	d.waitBan(scanner)

	// A new file holds at once, and lets in whom it names.
	geoFile(t, countries, map[string]any{scanner.String() + "/32": "IS"})
	d.waitLine(scanner.String(), "no longer banned", "in the ignore file (country:IS)")
	d.problem(c["IGNORE_FILE"] + ":3: country:US: no network of it is in GEO_FILES")
	s.probe12(is)
	d.waitBan(is)

	// One that is broken changes nothing but what status says.
	check(t, os.WriteFile(countries, []byte("broken"), 0o600))
	d.problem("GEO_FILES: "+countries, "what was read of it before stands")
	if _, banned := d.ban(scanner); banned {
		t.Error("he is banned again")
	}
}
