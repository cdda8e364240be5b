package xdp_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// published is the port of the host that leads to the guest's port 80. It is on
// the trap list as well.
const published = 2222

var (
	guestNet = netip.MustParsePrefix("10.78.0.0/24")
	guest    = netip.MustParseAddr("10.78.0.2")
)

// house is a host with a guest behind it, whose way out is masqueraded.
func house(t *testing.T) (s *stage, inside *pktgen.NS) {
	s = newStage(t)
	inside = s.Space(t)
	s.Join(t, s.Host.NS, inside, []netip.Prefix{netip.MustParsePrefix("10.78.0.1/24")}, []netip.Prefix{netip.PrefixFrom(guest, 24)})
	check(t, s.Host.NS.Sysctl("net.ipv4.ip_forward", "1"))
	check(t, inside.Route(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.78.0.1")))
	rules := filepath.Join(t.TempDir(), "nat.nft")
	check(t, os.WriteFile(rules, []byte(`table ip nat {
	chain pre {
		type nat hook prerouting priority dstnat
	}
	chain post {
		type nat hook postrouting priority srcnat
		ip saddr `+guestNet.String()+` oifname `+s.Host.Name+` masquerade
	}
}
`), 0o600))
	lab.Command(t, s.Host.NS, "nft", "-f", rules)
	s.serve(s.Host.NS, served...)
	s.serve(inside, 80)
	return s, inside
}

// publish leads the published port to the guest, and unpublish ends that.
func (s *stage) publish() {
	s.t.Helper()
	lab.Command(s.t, s.Host.NS, "nft", "add", "rule", "ip", "nat", "pre", "iifname", s.Host.Name,
		"tcp", "dport", strconv.Itoa(published), "dnat", "to", guest.String()+":80")
}

func (s *stage) unpublish() {
	s.t.Helper()
	lab.Command(s.t, s.Host.NS, "nft", "flush", "chain", "ip", "nat", "pre")
}

// decides waits until it is nftables, or XDP, that decides who hits a trap: the
// firewall's own set of such is empty as long as XDP does.
func (d *daemon) decides(nftables bool, first int) (tried int) {
	s := d.s
	s.t.Helper()
	lab.Wait(s.t, soon, "another to decide", func() bool {
		src := nth(nobody, first+tried)
		tried++
		s.forge(s.tcp(src, 40000, trap, pktgen.SYN))
		d.waitBan(src)
		set := lab.Command(s.t, s.Host.NS, "nft", "list", "set", "inet", "portsentry", "hit4")
		return strings.Contains(set, src.String()+" ") == nftables
	})
	return tried
}

// Who uses a port published to a guest does not scan, though it is on the trap
// list and nobody on the host itself listens there. The rule that publishes it may
// come and go while the daemon runs: XDP leaves the decision to nftables meanwhile.
func TestPublishedPort(t *testing.T) {
	t.Parallel()
	s, _ := house(t)
	d := s.start(nil)
	d.waitHow(s.Host.Name, "XDP")
	tries := d.decides(false, 0)
	for range 2 {
		s.publish()
		tries += d.decides(true, tries)
		banned := len(d.bans())
		for i := range 50 {
			c, err := s.dial(nth(clients, 1+i), published, soon)
			check(t, err)
			if i%10 == 0 {
				check(t, echo(c))
			}
			c.Close()
		}
		s.seen(d)
		if bans := len(d.bans()); bans != banned {
			t.Errorf("%d bans, and before %d", bans, banned)
		}
		for i := range 50 {
			if lines := d.from(nth(clients, 1+i)); len(lines) > 0 {
				t.Errorf("a client is a scanner: %q", lines)
			}
		}
		d.healthy("with a published port")
		s.unpublish()
		tries += d.decides(false, tries)
	}
	// Without the rule it is a trap as any other.
	late := nth(clients, 100)
	if c, err := s.dial(late, published, refused); err == nil {
		c.Close()
		t.Error("the port is still published")
	}
	d.waitBan(late)
	s.seen(d)
	if n, scans := len(d.bans()), len(d.scans()); n != tries+1 || scans != n {
		t.Errorf("%d sources hit a trap: %d bans, %d scan lines", tries+1, n, scans)
	}
}

// Answers to what a masqueraded guest sent arrive at ports of the host that may be
// trap ports. XDP asks connection tracking, and nobody is scanning.
func TestRepliesToAMasqueradedGuest(t *testing.T) {
	t.Parallel()
	s, inside := house(t)
	d := s.start(nil)
	d.waitHow(s.Host.Name, "XDP")
	d.decides(false, 0)
	s.seen(d)
	before := len(d.scans())
	s.serve(s.Scanner.NS, 5000)
	const count = 30
	for i := range count {
		for _, port := range []uint16{trap, trap2} {
			c, err := s.dialFrom(inside, netip.AddrPortFrom(guest, port), netip.AddrPortFrom(nth(clients, 1+i), 5000), soon)
			check(t, err)
			check(t, echo(c))
			c.Close()
		}
	}
	s.seen(d)
	if lines, bans := d.scans(), d.bans(); len(lines) != before || len(bans) != before {
		t.Errorf("%d scan lines, %d bans: %q %v", len(lines), len(bans), lines, bans)
	}
	if n := d.counter("replies_total"); n < count {
		t.Errorf("%d answers came to trap ports: masquerading gave other ports, and the test shows nothing", n)
	}
}

// Where XDP alone is to ban and cannot tell who hits a trap, that is a problem, as
// long as it lasts. Bans of before stand.
func TestPublishedPortWithoutNftables(t *testing.T) {
	t.Parallel()
	s, _ := house(t)
	d := s.start(alone)
	banned := nth(clients, 1)
	s.forge(s.tcp(banned, 40000, trap, pktgen.SYN))
	d.waitBan(banned)
	d.healthy("before")
	s.publish()
	t.Log(d.problem("leaves it to nftables to decide who hits a trap", "BLOCK_METHOD"))
	if s.gets(banned) {
		t.Error("a ban of before ended")
	}
	client, scanner := nth(clients, 2), nth(clients, 3)
	c, err := s.dial(client, published, soon)
	check(t, err)
	check(t, echo(c))
	s.forge(s.tcp(scanner, 40000, trap, pktgen.SYN))
	d.waitBan(scanner) // by the daemon, a moment later
	lab.Wait(t, soon, "the scanner kept out", func() bool { return !s.gets(scanner) })
	s.seen(d)
	if lines, more := d.from(client), d.from(scanner); len(lines) > 0 || len(more) != 1 {
		t.Errorf("lines of the client %q, of the scanner %q", lines, more)
	}
	s.unpublish()
	lab.Wait(t, soon, "no problem", func() bool { return len(d.status().Problems) == 0 })
	late := nth(clients, 4)
	start := time.Now()
	s.forge(s.tcp(late, 40000, trap, pktgen.SYN))
	if s.gets(late) {
		t.Errorf("%v after its hit a scanner gets through", time.Since(start))
	}
}
