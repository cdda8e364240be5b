package replay_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portsentry/internal/pktgen"
)

// conf writes a configuration.
func conf(t *testing.T, lines ...string) string {
	t.Helper()
	return file(t, "portsentry.conf", []byte(strings.Join(lines, "\n")+"\n"))
}

// With a configuration its trap ports, SCAN_TRIGGER and ignore file decide.
func TestWhatIf(t *testing.T) {
	d := newTape(t)
	d.probe(few, scanner, server, 111)
	d.probe(2*time.Second, scanner, server, 23)
	d.udp(time.Second, netip.AddrPortFrom(scanner, 5000), netip.AddrPortFrom(server, 69), 0)
	path := d.save("a.pcap")
	ignore := file(t, "ignore", []byte("203.0.113.0/24\n"))
	run(t, "--json", path).is(t, 0) // two ports are no scan without traps
	run(t, "--json", "--detect", "traps", path).is(t, 0, scannerSYN, "203.0.113.9 udp")
	for _, c := range []struct {
		name  string
		lines []string
		found []string
	}{
		{"its ports", []string{`TCP_PORTS="23"`}, []string{scannerSYN}},
		{"other ports", []string{`TCP_PORTS="24"`, `UDP_PORTS="70"`}, nil},
		{"UDP", []string{`UDP_PORTS="69"`}, []string{"203.0.113.9 udp"}},
		{"the third hit", []string{`TCP_PORTS="1-200"`, `UDP_PORTS="69"`, `SCAN_TRIGGER="3"`}, []string{scannerSYN, "203.0.113.9 udp"}},
		{"not enough", []string{`TCP_PORTS="1-200"`, `UDP_PORTS="69"`, `SCAN_TRIGGER="4"`}, nil},
		{"too slow", []string{`TCP_PORTS="1-200"`, `SCAN_TRIGGER="2"`, `SCAN_TRIGGER_WINDOW="1s"`}, nil},
		{"ignored", []string{`TCP_PORTS="23"`, `IGNORE_FILE="` + ignore + `"`}, nil},
	} {
		for _, option := range []string{"--config", "-c"} {
			s := run(t, "--json", option, conf(t, c.lines...), path)
			s.is(t, 0, c.found...)
			if t.Failed() {
				t.Fatal(c.name)
			}
			if left := strings.Contains(s.err, "1 scan of ignored sources left out (IGNORE_FILE)\n"); left != (c.name == "ignored") {
				t.Errorf("%s: %s", c.name, s.err)
			}
		}
	}
	// The full detection with a configuration has its traps as well.
	run(t, "--json", "--detect", "full", "--config", conf(t, `TCP_PORTS="23"`), path).is(t, 0, scannerSYN)
}

// A trap port that answers is a service, and who talks to it is none of a scanner:
// the capture tells, as the kernel does live.
func TestServedTrap(t *testing.T) {
	c := conf(t, `TCP_PORTS="8080"`, `UDP_PORTS="161,8000"`)
	d := newTape(t)
	d.visit(client, server, 8080)
	d.question(client, server, 161)
	d.tcp(few, netip.AddrPortFrom(server, 8080), netip.AddrPortFrom(client, 50000), pktgen.ACK, 'x') // older than the capture
	d.tcp(few, netip.AddrPortFrom(client, 50000), netip.AddrPortFrom(server, 8080), pktgen.FIN|pktgen.ACK)
	d.question(netip.MustParseAddr("198.51.100.78"), client, 8000)
	run(t, "--json", "--config", c, d.save("served.pcap")).is(t, 0)
	// The same without the answers.
	d = newTape(t)
	d.probe(few, scanner, server, 8080)
	d.udp(few, netip.AddrPortFrom(scanner, 5000), netip.AddrPortFrom(server, 161), 0)
	run(t, "--json", "--config", c, d.save("unserved.pcap")).is(t, 0, scannerSYN, "203.0.113.9 udp")
}

// --local says where trap ports count, and nobody is a scanner for the guess.
func TestLocal(t *testing.T) {
	d := newTape(t)
	d.visit(client, server, 443)
	d.scan(scanner, server, 20, 40)
	d.scan(client, netip.MustParseAddr("192.0.2.1"), 20, 40)
	path := d.save("both.pcap")
	for _, c := range []struct {
		args  []string
		words string
		found []string
	}{
		{nil, "local networks: 198.51.100.0/24 (guessed: the network of 198.51.100.10, which spoke with most others; --local says otherwise)\n", []string{"198.51.100.77 syn", scannerSYN}},
		{[]string{"--local", "198.51.100.0/24"}, "local networks: 198.51.100.0/24\n", []string{scannerSYN}},
		{[]string{"--local", "192.0.2.1, 2001:db8::/32"}, "local networks: 192.0.2.1/32, 2001:db8::/32\n", []string{"198.51.100.77 syn"}},
	} {
		s := run(t, append([]string{"--json", "--detect", "traps", path}, c.args...)...)
		s.is(t, 0, c.found...)
		if !strings.Contains(s.err, c.words) {
			t.Errorf("%q: %s", c.args, s.err)
		}
		run(t, append([]string{"--json", path}, c.args...)...).is(t, 0, "198.51.100.77 syn", scannerSYN)
	}
	d = newTape(t)
	d.visit(netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("192.0.2.1"), 443)
	if s := run(t, d.save("private.pcap")); !strings.Contains(s.err, "local networks: 10.0.0.0/8 (guessed: private addresses in use; --local says otherwise)\n") {
		t.Error(s.err)
	}
	d = newTape(t)
	d.udp(few, netip.AddrPortFrom(scanner, 1), netip.AddrPortFrom(server, 2))
	if s := run(t, d.save("mute.pcap")); !strings.Contains(s.err, "local networks: none could be guessed, as nobody answered; --local names them\n") {
		t.Error(s.err)
	}
}

// A wrong configuration is told with all that is wrong, and nothing is played.
func TestWrongConfiguration(t *testing.T) {
	path := day(t).save("day.pcap")
	s := run(t, "--config", conf(t, `TCP_PORTS="70000"`, `NONSENSE="1"`), path)
	if s.code != 2 || s.out != "" || !strings.Contains(s.err, "70000 is no port") || !strings.HasSuffix(s.err, "2 mistakes; nothing was changed\n") {
		t.Errorf("%+v", s)
	}
	if s := run(t, "--config", filepath.Join(t.TempDir(), "none.conf"), path); s.code != 2 || s.out != "" || !strings.Contains(s.err, "none.conf: no such file") {
		t.Errorf("%+v", s)
	}
	// An ignore file that is not there is said, and the replay goes on.
	s = run(t, "--json", "--config", conf(t, `TCP_PORTS="1010"`, `IGNORE_FILE="/nowhere/ignore"`), path)
	s.is(t, 0, scannerSYN)
	if !strings.Contains(s.err, "nobody is ignored: there is no /nowhere/ignore") {
		t.Error(s.err)
	}
	if _, err := os.Stat("/nowhere"); err == nil {
		t.Error("/nowhere was made")
	}
}
