package xdp_test

import (
	"slices"
	"strings"
	"testing"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// waitStandby waits until the firewall table stands by, or does not.
func (d *daemon) waitStandby(why string, stands bool) {
	d.s.t.Helper()
	lab.Wait(d.s.t, soon, why, func() bool { return slices.Contains(d.status().StandBy, "nftables") == stands })
	if hooked := strings.Contains(d.s.table(), "hook input"); hooked == stands {
		d.s.t.Errorf("%s: table on standby %v, and it has rules %v", why, stands, hooked)
	}
	d.healthy(why)
}

func (s *stage) table() string {
	s.t.Helper()
	return lab.Command(s.t, s.Host.NS, "nft", "list", "table", "inet", "portsentry")
}

// Where nothing gets past the XDP program, the firewall table has the bans and no
// rules, so that no connection of this host is tracked. It has rules as long as there
// is anything that the program does not see, and once nobody runs the program.
func TestTableOnStandby(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	banned := nth(clients, 1)
	d := s.start(nil)
	d.waitStandby("at the start", true)
	s.forge(s.tcp(banned, 40000, trap, pktgen.SYN))
	d.waitBan(banned)
	if s.gets(banned) {
		t.Error("on standby: the banned source is answered")
	}
	if !strings.Contains(s.table(), banned.String()) {
		t.Error("on standby: the table does not have the ban")
	}
	conn := s.open(nth(clients, 2), 80)

	const forward, rest = "sysctl -qw net.ipv4.ip_forward=1", "sysctl -qw net.ipv4.ip_forward=0"
	tracks := func() bool { return strings.Contains(s.table(), "ct state") }
	for _, c := range []struct {
		why, begin, end string
		tracked         bool // connections are
	}{
		{"packets are forwarded", forward, rest, true},
		{"IPv6 packets are forwarded", "sysctl -qw net.ipv6.conf.all.forwarding=1", "sysctl -qw net.ipv6.conf.all.forwarding=0", true},
		{"an interface without Ethernet", "ip tuntap add dev tun9 mode tun && ip link set tun9 up", "ip link del tun9", true},
		{"a bridge", "ip link add br9 type bridge", "ip link del br9", true},
		{"destination NAT", "nft 'add table ip n; add chain ip n p { type nat hook prerouting priority -100; }; add rule ip n p tcp dport 8080 redirect to :80'", "nft delete table ip n", true},
	} {
		lab.Command(t, s.Host.NS, "sh", "-c", c.begin)
		d.waitStandby(c.why, false)
		if tracks() != c.tracked {
			t.Errorf("%s: connections are tracked: %v", c.why, !c.tracked)
		}
		if s.gets(banned) {
			t.Errorf("%s: the banned source is answered", c.why)
		}
		lab.Command(t, s.Host.NS, "sh", "-c", c.end)
		d.waitStandby("no longer "+c.why, true)
	}
	d.reload(map[string]string{"BLOCK_METHOD": "nftables"})
	d.waitStandby("nftables alone", false)
	if tracks() {
		t.Error("nftables alone, and nothing forwarded: connections are tracked")
	}
	lab.Command(t, s.Host.NS, "sh", "-c", forward)
	lab.Wait(t, soon, "tracking for what is forwarded", tracks)
	lab.Command(t, s.Host.NS, "sh", "-c", rest)
	lab.Wait(t, soon, "no tracking once nothing is", func() bool { return !tracks() })
	d.reload(nil)
	d.waitStandby("auto again", true)
	if err := echo(conn); err != nil {
		t.Errorf("a connection was cut by all that: %v", err)
	}

	d.Kill()
	if s.gets(banned) {
		t.Error("killed on standby: the banned source is answered")
	}
	d = s.start(nil)
	d.waitStandby("started again", true)
	check(t, d.Stop())
	if s.gets(banned) || onLink(t, s.Host) != "" {
		t.Error("stopped: the banned source is answered, or the program is there still")
	}
	if names := s.pinned(); slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "egress_") }) {
		t.Errorf("stopped: pinned %q", names)
	}
}
