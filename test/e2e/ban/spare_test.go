package ban_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/internal/view"
	"portsentry/test/lab"
)

// The owner's commands cannot tell a connection from a scan either: they are
// never run about anybody who is protected or connected, with a native method
// beside them or without.
func TestForgedRunsNoCommand(t *testing.T) {
	for _, method := range []string{"none", "nftables"} {
		t.Run("BLOCK_METHOD="+method, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.serve(s.Host.NS, served...)
			out := filepath.Join(t.TempDir(), "ran")
			etc, script := s.privateEtc(map[string]string{
				"resolv.conf": "nameserver " + resolver.Addr().String() + "\n", "hosts.deny": "",
			})
			peers := []netip.Addr{nth(clients, 1), nth(subnet6(1), 1), nth(clients, 2), nth(subnet6(2), 1)}
			var conns []net.Conn
			for _, a := range peers[:2] {
				conns = append(conns, s.open(a, 443))
			}
			d := s.startIn(script, map[string]string{
				"BLOCK_METHOD": method, "KILL_ROUTE": "echo $TARGET$ >> " + out,
				"KILL_RUN_CMD": "echo $TARGET$ >> " + out, "KILL_HOSTS_DENY": "ALL: $TARGET$",
			})
			for _, a := range peers[2:] {
				conns = append(conns, s.open(a, 443))
			}
			// Whoever connected this moment may not be known yet where listing
			// connections takes long; after a second everybody is.
			<-time.After(time.Second)
			for _, a := range append(peers, gateway, gateway6, resolver.Addr(), nth(ignored, 7), s.Host.Addr4(), s.Host.Addr6()) {
				s.forge(s.hits(a)...)
			}
			scanner := nth(nobody, 1)
			s.seen(d)
			s.forge(s.tcp(scanner, 40000, trap, pktgen.SYN))
			d.waitLine("blocked via dropped route", scanner.String())
			d.waitLine("External command run for host: " + scanner.String())
			if got, want := read(out), strings.Repeat(scanner.String()+"\n", 2); got != want {
				t.Errorf("commands ran for\n%s", got)
			}
			if got, want := read(filepath.Join(etc, "hosts.deny")), "ALL: "+scanner.String()+"\n"; got != want {
				t.Errorf("hosts.deny has %q", got)
			}
			for _, c := range conns {
				check(t, echo(c, 1<<10))
			}
		})
	}
}

// Who has 2^64 addresses is stopped by the second of them; a neighbour who is
// connected keeps the whole /64 from that.
func TestSecondAddressOfItsSubnet(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.start(nil)
	hit := func(a netip.Addr) { s.forge(s.tcp(a, 40000, trap, pktgen.SYN)) }
	probe := func(a netip.Addr) bool { return len(s.answered(s.tcp(a, 40001, 443, pktgen.SYN))) > 0 }

	net := subnet6(1)
	hit(nth(net, 1))
	d.waitBan(nth(net, 1))
	if !probe(nth(net, 3)) {
		t.Error("one address cost its whole /64 the access")
	}
	hit(nth(net, 2))
	lab.Wait(t, soon, "ban of the /64", func() bool { b, _ := d.ban(nth(net, 3)); return b.Prefix == net })
	if probe(nth(net, 3)) {
		t.Error("a third address is answered")
	}
	if !probe(nth(subnet6(2), 3)) {
		t.Error("so is the neighbouring /64 banned")
	}
	if _, err := d.unban(nth(net, 3)); err != nil || !probe(nth(net, 3)) {
		t.Errorf("unban: %v", err)
	}

	net = subnet6(5)
	c := s.open(nth(net, 9), 443)
	for i := range 4 {
		hit(nth(net, 1+i))
		if b := d.waitBan(nth(net, 1+i)); !b.Prefix.IsSingleIP() {
			t.Errorf("a /64 with a peer in it is banned: %+v", b)
		}
	}
	check(t, echo(c, 1<<10))
	if !probe(nth(net, 9)) {
		t.Error("the peer's served port")
	}
}

// Each ban after the first is twice as long.
func TestRepeatOffender(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.start(map[string]string{"BAN_TIME_UNVERIFIED": "1s", "BAN_TIME": "1h"})
	src := nth(nobody, 1)
	for i, want := range []time.Duration{1, 2, 4} {
		var b view.Ban
		// The kernel's clock for bans may be a tick behind that of the list.
		lab.Wait(t, soon, fmt.Sprintf("ban %d", i+1), func() (ok bool) {
			s.forge(s.tcp(src, 40000, trap, pktgen.SYN))
			b, ok = d.ban(src)
			return ok
		})
		if got := b.Until.Sub(b.Since).Round(time.Second); got != want*time.Second || b.Times != i+1 {
			t.Errorf("ban %d: %v long, the %d. of them", i+1, got, b.Times)
		}
		if i < 2 {
			lab.Wait(t, soon, "the end of it", func() bool {
				_, banned := d.ban(src)
				return !banned && len(s.banned(src)) == 0
			})
		}
	}
}

// BLOCK=2 for both protocols bans each by itself.
func TestEachProtocolByItself(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.start(map[string]string{"BLOCK_TCP": "2", "BLOCK_UDP": "2"})
	src := nth(nobody, 1)
	from := uint16(41000)
	probe := func() (tcp, udp bool) {
		from++ // a flow of its own each time: what was begun before a ban goes on
		for _, a := range s.answered(s.tcp(src, from, 443, pktgen.SYN), s.udp(src, from, 4000)) {
			tcp, udp = tcp || a.Proto == pktgen.ProtoTCP, udp || a.Proto == pktgen.ProtoICMP
		}
		return tcp, udp
	}
	s.forge(s.udp(src, 40000, trap))
	if b := d.waitBan(src); b.Scope != "udp" {
		t.Errorf("%+v", b)
	}
	if tcp, udp := probe(); !tcp || udp {
		t.Errorf("after the UDP hit: TCP answered %v, UDP %v", tcp, udp)
	}
	s.forge(s.tcp(src, 40000, trap, pktgen.SYN))
	s.seen(d)
	if tcp, udp := probe(); tcp || udp {
		t.Errorf("after both hits: TCP answered %v, UDP %v", tcp, udp)
	}
	if _, err := d.unban(src); err != nil {
		t.Error(err)
	}
	if tcp, udp := probe(); !tcp || !udp {
		t.Errorf("unbanned: TCP answered %v, UDP %v", tcp, udp)
	}
}

// Whoever turns out to be somebody to spare is let in again, whatever keeps him
// out: a line is added to the ignore file, or he becomes the gateway.
func TestSparedLater(t *testing.T) {
	for method, more := range map[string]map[string]string{
		"nftables": nil,
		"route":    nil,
		"none":     {"KILL_ROUTE": "ip route add blackhole $TARGET$ proto 77", "KILL_ROUTE_UNDO": "ip route del blackhole $TARGET$ proto 77"},
	} {
		t.Run("BLOCK_METHOD="+method, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			c := s.banning(more)
			c["BLOCK_METHOD"] = method
			d := &daemon{s.Start(t, c), t}
			friend, router, scanner := nth(clients, 1), netip.MustParseAddr("10.77.0.253"), nth(nobody, 1)
			for _, a := range []netip.Addr{friend, router, scanner} {
				s.forge(s.tcp(a, 40000, trap, pktgen.SYN))
				d.waitBan(a)
			}
			check(t, os.WriteFile(c["IGNORE_FILE"], []byte(friend.String()+"\n"), 0o600))
			d.waitLine(friend.String(), "no longer banned", "ignore file")
			lab.Wait(t, soon, "way back to "+friend.String(), func() bool {
				return !strings.Contains(lab.Command(t, s.Host.NS, "ip", "route"), "blackhole "+friend.String())
			})
			if method == "nftables" { // with a blackhole for it the kernel takes nobody as gateway
				lab.Command(t, s.Host.NS, "ip", "route", "add", "default", "via", router.String(), "metric", "9")
				d.waitLine(router.String(), "no longer banned", "gateway")
			}
			if _, banned := d.ban(friend); banned {
				t.Error("he is banned still")
			}
			if _, banned := d.ban(scanner); !banned {
				t.Error("so is the scanner")
			}
		})
	}
}
