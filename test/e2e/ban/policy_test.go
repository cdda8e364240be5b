package ban_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// With BLOCK_EVIDENCE="verified" forgery cuts nobody off.
func TestVerifiedEvidenceOnly(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.start(map[string]string{"BLOCK_EVIDENCE": "verified"})
	for i, src := range []netip.Addr{nth(clients, 1), nth(subnet6(1), 1), nth(subnet6(1), 2), nth(subnet6(1), 3)} {
		s.forge(s.hits(src)...)
		if got := s.answered(s.tcp(src, 41000, 81, pktgen.SYN), s.tcp(src, 41001, trap, pktgen.SYN)); len(got) > 0 {
			t.Errorf("source %d: closed ports answer: %+v", i, got)
		}
		if _, took, err := s.dial(src, 443, soon); err != nil || took > time.Second {
			t.Errorf("source %d: the served port after %v: %v", i, took, err)
		}
		if b := d.waitBan(src); b.Strength != "limited" || !b.Prefix.IsSingleIP() {
			t.Errorf("source %d: %+v", i, b)
		}
		if sets := s.banned(src); len(sets) > 0 {
			t.Errorf("source %d: in %v", i, sets)
		}
	}
}

// BLOCK_TCP=2 with a native method: the command is run and TCP alone is banned.
// BLOCK_UDP=0 beside it never bans.
func TestCommandAndOneProtocol(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	out := filepath.Join(t.TempDir(), "ran")
	d := s.start(map[string]string{
		"BLOCK_TCP": "2", "BLOCK_UDP": "0", "BLOCK_METHOD": "nftables",
		"KILL_RUN_CMD": "echo $TARGET$ $PORT$ $PROTO$ >> " + out,
		"KILL_ROUTE":   "echo route $TARGET$ >> " + out, "KILL_HOSTS_DENY": "ALL: $TARGET$",
	})
	src, quiet := nth(clients, 1), nth(clients, 2)
	s.forge(s.udp(quiet, 40000, trap), s.udp(quiet, 40000, trapUDP))
	s.seen(d)
	if lines := d.from(quiet); len(lines) != 2 || !strings.Contains(lines[0], "noblock: [true] blocked: [false]") {
		t.Errorf("UDP hits with BLOCK_UDP=0: %q", lines)
	}
	s.forge(s.tcp(src, 40000, trap2, pktgen.SYN))
	if b := d.waitBan(src); b.Scope != "tcp" || b.Strength != "soft" {
		t.Errorf("%+v", b)
	}
	lab.Wait(t, soon, "the command's output", func() bool { return read(out) != "" })
	if got, want := read(out), src.String()+" 11 tcp\n"; got != want {
		t.Errorf("commands said %q, want %q", got, want)
	}
	if _, _, err := s.dial(src, 443, 300*time.Millisecond); err == nil {
		t.Error("a new TCP connection succeeds")
	}
	if got := s.answered(s.udp(src, 42000, 4000)); len(got) == 0 {
		t.Error("UDP is cut off too")
	}
	if _, banned := d.ban(quiet); banned {
		t.Error("UDP hits banned")
	}
	if _, _, err := s.dial(quiet, 443, soon); err != nil {
		t.Errorf("UDP hits: %v", err)
	}
}

// read gives what a file holds; a missing one holds nothing.
func read(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}

// SCAN_TRIGGER=3: two hits are answered as closed ports are, the third bans.
func TestScanTrigger(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.start(map[string]string{"SCAN_TRIGGER": "3"})
	src := nth(nobody, 1)
	for i := range 2 {
		if got := s.answered(s.tcp(src, uint16(40000+i), trap, pktgen.SYN)); len(got) != 1 || !got[0].IsRST() {
			t.Errorf("hit %d: %+v", i+1, got)
		}
	}
	s.seen(d)
	if _, banned := d.ban(src); banned {
		t.Error("two hits banned")
	}
	if got := s.answered(s.tcp(src, 41000, 443, pktgen.SYN)); len(got) == 0 || !got[0].IsSYNACK() {
		t.Errorf("the served port after two hits: %+v", got)
	}
	s.forge(s.tcp(src, 40002, trap, pktgen.SYN))
	d.waitBan(src)
	if got := s.answered(s.tcp(src, 41001, 443, pktgen.SYN)); len(got) > 0 {
		t.Errorf("the served port after three hits: %+v", got)
	}
	s.seen(d)
	lines := d.from(src)
	if len(lines) != 3 || !strings.Contains(lines[0], "triggered: [false]") || !strings.Contains(lines[1], "triggered: [false]") ||
		!strings.Contains(lines[2], "triggered: [true] noblock: [false] blocked: [true]") {
		t.Errorf("%q", lines)
	}
}

// Old files name no native method: then no table is made, and the commands do
// what they did.
func TestOldFile(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	dir := t.TempDir()
	out := filepath.Join(dir, "routes")
	config := map[string]string{
		"TCP_PORTS":            "1,11,15,79,111,119,143,540,635,1080,1524,2000,5742,6667,12345,12346,20034,27665,31337,32771,32772,32773,32774,40421,49724,54320",
		"UDP_PORTS":            "1,7,9,69,161,162,513,635,640,641,700,37444,34555,31335,32770,32771,32772,32773,32774,31337,54321",
		"ADVANCED_PORTS_TCP":   "1024",
		"ADVANCED_PORTS_UDP":   "1024",
		"ADVANCED_EXCLUDE_TCP": "113,139",
		"ADVANCED_EXCLUDE_UDP": "520,138,137,67",
		"HISTORY_FILE":         filepath.Join(dir, "portsentry.history"),
		"BLOCKED_FILE":         filepath.Join(dir, "portsentry.blocked"),
		"RESOLVE_HOST":         "0",
		"BLOCK_UDP":            "0",
		"BLOCK_TCP":            "1",
		"BLOCK_METHOD":         "",
		"KILL_ROUTE":           "echo route add -host $TARGET$ reject >> " + out,
		"SCAN_TRIGGER":         "0",
	}
	d := s.start(config)
	src := nth(clients, 1)
	s.forge(s.tcp(src, 40000, trap2, pktgen.SYN))
	d.waitLine(src.String(), "port: [11]", "type: [TCP SYN/Normal scan]", "blocked: [true]")
	d.waitLine("attackalert: Host "+src.String()+" has been blocked via dropped route using command:", "reject")
	s.forge(s.tcp(src, 40001, 15, pktgen.SYN))
	d.waitLine(src.String(), "port: [15]", "blocked: [true]")
	d.waitLine(src.String(), "is already blocked Ignoring")
	if got, want := read(out), "route add -host "+src.String()+" reject\n"; got != want {
		t.Errorf("ran %q, want %q", got, want)
	}
	if _, _, err := s.dial(src, 443, soon); err != nil {
		t.Errorf("something else than the command keeps it out: %v", err)
	}
	if s.hasTable() {
		t.Error("there is a table of ours")
	}
	if lines := strings.Count(read(filepath.Join(dir, "portsentry.history")), "\n"); lines != 2 {
		t.Errorf("%d lines of history:\n%s", lines, read(filepath.Join(dir, "portsentry.history")))
	}
	lab.Wait(t, soon, "a line in the blocked file", func() bool {
		got := read(filepath.Join(dir, "portsentry.blocked"))
		return strings.Count(got, "\n") == 1 && strings.Contains(got, src.String())
	})
	if b, ok := d.ban(src); !ok || b.Until != nil || !strings.Contains(b.Note, "KILL_ROUTE") {
		t.Errorf("the command cannot be undone, and the list has %+v", b)
	}

	// The next run knows whom the commands of this one keep out.
	check(t, d.Stop())
	d = s.start(config)
	s.forge(s.tcp(src, 40002, 79, pktgen.SYN))
	d.waitLine(src.String(), "is already blocked Ignoring")
	d.waitLine(src.String(), "port: [79]", "blocked: [true]")
	if got, want := read(out), "route add -host "+src.String()+" reject\n"; got != want {
		t.Errorf("in the end ran %q, want %q", got, want)
	}
	lab.Command(t, s.Host.NS, "sed", "-i", "d", config["BLOCKED_FILE"])
	lab.Wait(t, soon, "no bans", func() bool { return len(d.bans()) == 0 })
}
