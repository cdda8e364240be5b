package modes_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portsentry/internal/pktgen"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

// TestReloadUnderScan: while 20,000 probes of a trap port arrive, the
// configuration is replaced time and again. Every probe is accounted for and the
// ban from before stands.
func TestReloadUnderScan(t *testing.T) {
	if os.Getenv("PORTSENTRY_LONG") == "" {
		t.Log("a fifth of the probes; PORTSENTRY_LONG=1 sends 20,000")
	}
	l := lab.New(t)
	probes := 4_000
	if os.Getenv("PORTSENTRY_LONG") != "" {
		probes = 20_000
	}
	d := start(t, l, map[string]string{
		"TCP_PORTS": "1,11", "BLOCK_TCP": "1", "BLOCK_METHOD": "nftables", "BAN_TIME_UNVERIFIED": "1h",
	})
	banned := syn(l, 11)
	banned.Src = netip.MustParseAddr("10.77.9.9")
	send := sender(t, l.Scanner)
	check(t, send.SendPacket(banned))
	d.waitScan(from(banned.Src), "blocked: [true]")

	// From here on nobody new is banned, so every probe is itemised.
	quiet := []string{`TCP_PORTS="1,11"`, `TCP_PORTS="1-20"`}
	d.reload(conf(quiet[0], `BLOCK_TCP="0"`, `BLOCK_METHOD="nftables"`), reloaded)
	done := make(chan error, 1)
	go func() {
		_, err := send.Flood(t.Context(), syn(l, 1), pktgen.FloodOpts{
			Count: probes, Rate: 4_000, SourcePrefix: netip.MustParsePrefix("10.77.128.0/20"), Sources: 4_000,
		})
		done <- err
	}()
	reloads := 0
	for sending := true; sending; reloads++ {
		d.reload(conf(quiet[reloads%2], `BLOCK_TCP="0"`, `BLOCK_METHOD="nftables"`), reloaded)
		select {
		case err := <-done:
			check(t, err)
			sending = false
		default:
		}
	}
	if reloads < 3 {
		t.Errorf("only %d reloads under way", reloads)
	}
	lab.Wait(t, patience, "every probe itemised", func() bool { return len(d.scans(port(1))) >= probes })
	if n := len(d.scans(port(1))); n != probes {
		t.Errorf("%d lines for %d probes", n, probes)
	}
	s, err := d.Status(t.Context())
	check(t, err)
	for _, c := range s.Counters {
		if c.Loss && c.Value > 0 {
			t.Errorf("%s: %d", c.Name, c.Value)
		}
	}
	out, err := d.Command(t.Context(), "bans")
	check(t, err)
	if !strings.Contains(string(out), banned.Src.String()) {
		t.Errorf("the ban of before is gone:\n%s", out)
	}
	if table := lab.Command(t, l.Host.NS, "nft", "list", "table", "inet", "portsentry"); !strings.Contains(table, banned.Src.String()) {
		t.Errorf("the ban of before is not in the kernel:\n%s", table)
	}
	t.Logf("%d reloads", reloads)
}

// TestReloadChangesEverything: what a new file says is in force for the next
// packet.
func TestReloadChangesEverything(t *testing.T) {
	l := lab.New(t)
	dir := t.TempDir() // one that the daemon knows from its start, see docs/privileges.md
	ignore, history := dir+"/ignore", dir+"/history"
	d := start(t, l, map[string]string{"TCP_PORTS": "1", "UDP_PORTS": "7", "HISTORY_FILE": dir + "/before"})
	send := sender(t, l.Scanner)
	check(t, send.SendPacket(syn(l, 1)))
	d.waitScan(port(1))

	check(t, os.WriteFile(ignore, []byte("10.77.7.0/24\n"), 0o600))
	d.reload(conf(`TCP_PORTS="23"`, `UDP_PORTS="69"`, `BLOCK_TCP="1"`, `BLOCK_METHOD="nftables"`,
		`IGNORE_FILE="`+ignore+`"`, `HISTORY_FILE="`+history+`"`, `SCAN_TRIGGER="2"`), reloaded)
	ignored := syn(l, 23)
	ignored.Src = netip.MustParseAddr("10.77.7.7")
	udp := syn(l, 69)
	udp.Proto = pktgen.ProtoUDP
	for _, p := range []pktgen.Packet{syn(l, 1), ignored, udp, syn(l, 23)} {
		check(t, send.SendPacket(p))
	}
	// The source has three hits by now: one of before, which counts on.
	d.waitScan(from(l.Scanner.Addr4()), port(23), "triggered: [true]", "blocked: [true]")
	d.waitScan(from(ignored.Src), "ignored: [true]")
	d.waitScan(from(l.Scanner.Addr4()), port(69), "noblock: [true]")
	if got := d.scans(port(1)); len(got) != 1 {
		t.Errorf("port 1 is no trap any more:\n%s", strings.Join(got, "\n"))
	}
	lab.Wait(t, patience, "the new history", func() bool {
		text, err := os.ReadFile(history)
		return err == nil && strings.Count(string(text), "\n") == 3
	})

	// And back: no new ban, and the one that stands can be lifted.
	d.reload(conf(`TCP_PORTS="1"`), reloaded)
	other := syn(l, 1)
	other.Src = netip.MustParseAddr("10.77.5.5")
	check(t, send.SendPacket(other))
	d.waitScan(from(other.Src), "noblock: [true]")
	if _, err := d.Command(t.Context(), "unban", l.Scanner.Addr4().String()); err != nil {
		t.Error(err)
	}
}

// TestReloadRefused: with a mistake in the file, or without the file, the old
// configuration goes on, and everything that is wrong is said.
func TestReloadRefused(t *testing.T) {
	l := lab.New(t)
	d := start(t, l, map[string]string{"TCP_PORTS": "1"})
	send := sender(t, l.Scanner)
	d.reload(conf(`TCP_PORTS="1,70000"`, `BLOCK_TPC="1"`, `SCAN_TRIGGER="x"`), refused)
	for _, want := range []string{"70000 is no port", "did you mean BLOCK_TCP?", "SCAN_TRIGGER"} {
		if d.count(want) == 0 {
			t.Errorf("%q was not said", want)
		}
	}
	check(t, os.Remove(d.conf))
	before := d.count(refused)
	d.hangup()
	lab.Wait(t, patience, "no file", func() bool { return d.count(refused) > before })
	check(t, send.SendPacket(syn(l, 1)))
	d.waitScan(port(1))
	s, err := d.Status(t.Context())
	check(t, err)
	if !strings.Contains(strings.Join(s.Problems, "\n"), "older than the file") {
		t.Errorf("status does not say so: %q", s.Problems)
	}
	d.reload(conf(`TCP_PORTS="1"`), reloaded)
	if s, err = d.Status(t.Context()); err != nil || len(s.Problems) > 0 {
		t.Errorf("still a problem: %q, %v", s.Problems, err)
	}
}

// TestReloadRefusedHalfWay: where every trap port has a socket of its own, a
// configuration whose ports all belong to services cannot be put in force. The
// traps of before are open again.
func TestReloadRefusedHalfWay(t *testing.T) {
	l := lab.New(t)
	serve(t, l.Host.NS, ":22", "served")
	dir := t.TempDir()
	bound := filepath.Join(dir, "portsentry")
	check(t, os.WriteFile(bound, []byte("#!/bin/sh\nexec setpriv --bounding-set -bpf,-sys_admin "+lab.Binary(t)+" \"$@\"\n"), 0o700))
	d := &daemon{harness.MustStart(t, harness.Options{
		Binary: bound, NS: l.Host.NS, Dir: dir,
		Config: map[string]string{"TCP_PORTS": "1", "PORT_BANNER": banner}, Args: []string{"--connect"},
	}), t, filepath.Join(dir, "portsentry.conf")}
	at := netip.AddrPortFrom(l.Host.Addr4(), 1)
	if got := says(t, l.Scanner.NS, at); got != banner {
		t.Fatalf("port 1 says %q", got)
	}
	d.reload(conf(`TCP_PORTS="22"`), refused)
	if got := says(t, l.Scanner.NS, at); got != banner {
		t.Errorf("after a refused reload port 1 says %q", got)
	}
	lab.Wait(t, patience, "both contacts", func() bool { return len(d.scans(port(1))) == 2 })
}
