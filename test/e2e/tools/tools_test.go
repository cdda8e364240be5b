package tools_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/detect/tools"
	"portsentry/test/lab"
)

// Packets of nmap that show nothing of it to a detect.Header: its pings and
// datagrams are like others but for details that are not kept.
func nameless(p *decode.Probe) bool {
	return p.Proto == decode.ProtoICMP || p.Proto == decode.ProtoICMPv6 || p.Proto == decode.ProtoUDP && p.IsIPv6()
}

func none(*decode.Probe) bool { return false }

// Every packet that a run of these programs begins something with is named.
func TestRealTools(t *testing.T) {
	type run struct {
		name, program, pkg string
		args               func(w *wire) []string
		tool               string
		runs               int // numbers of runs that there are; 0: it has none
		least              int // packets
		nameless           func(*decode.Probe) bool
	}
	nmap := func(name string, least int, args ...string) run {
		return run{name: "nmap " + name, program: "nmap", pkg: "nmap", tool: "nmap", runs: 1, least: least, nameless: nameless,
			args: func(w *wire) []string {
				target := w.host.Addr4()
				if slices.Contains(args, "-6") {
					target = w.host.Addr6()
				}
				return slices.Concat([]string{"nmap", "-n", "--max-retries", "0"}, args, []string{target.String()})
			}}
	}
	masscan := func(name string, least int, args ...string) run {
		return run{name: name, program: "masscan", pkg: "masscan", tool: "masscan", runs: 1, least: least, nameless: none,
			args: func(w *wire) []string {
				target, own, router := w.host.Addr4(), w.scanner.Addr4(), "--router-mac"
				if slices.Contains(args, "-6") {
					target, own, router = w.host.Addr6(), w.scanner.Addr6(), "--router-mac-ipv6"
				}
				rest := slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == "-6" })
				return slices.Concat([]string{"masscan", "--range", target.String(), "--adapter-ip", own.String(), router, w.host.MAC.String(),
					"-e", w.scanner.Name, "--rate", "5000", "--wait", "0"}, rest)
			}}
	}
	zmap := func(name string, args ...string) run {
		return run{name: "zmap " + name, program: "zmap", pkg: "zmap", tool: "zmap", least: 200, nameless: none,
			args: func(w *wire) []string {
				// With one seed in 256, 2.1.1 aborts on an assertion of its own in a network this small.
				nothing := filepath.Join(w.t.TempDir(), "nothing") // a list of nobody to spare, and a configuration
				check(w.t, os.WriteFile(nothing, nil, 0o600))
				return slices.Concat([]string{"zmap", "-e", "1", "-C", nothing, "-b", nothing, "-i", w.scanner.Name, "-S", w.scanner.Addr4().String(),
					"-G", w.host.MAC.String(), "-B", "5M", "-c", "0", "-o", os.DevNull}, args, []string{"10.77.1.0/24"})
			}}
	}
	hping := func(name string, least int, args ...string) run {
		return run{name: "hping3 " + name, program: "hping3", pkg: "hping3", tool: "hping", least: least, nameless: none,
			args: func(w *wire) []string {
				return slices.Concat([]string{"hping3"}, args, []string{w.host.Addr4().String()})
			}}
	}
	for _, r := range []run{
		nmap("-sS", 200, "-Pn", "-sS", "-p1-200"),
		nmap("-sS -f", 22, "-Pn", "-sS", "-f", "-p60-81"),
		nmap("-sS -D", 88, "-Pn", "-sS", "-D", "RND:3,ME", "-p60-81"),
		// The open port says nothing to this, so there is a second try with a number of its own.
		nmap("-sF", 23, "-Pn", "-sF", "--max-retries", "1", "-p60-81"),
		nmap("-sX", 22, "-Pn", "-sX", "-p60-81"),
		nmap("-sN", 22, "-Pn", "-sN", "-p60-81"),
		nmap("-sA", 22, "-Pn", "-sA", "-p60-81"),
		nmap("-sM", 22, "-Pn", "-sM", "-p60-81"),
		nmap("-O", 15, "-Pn", "-O", "--max-os-tries", "1", "--max-retries", "2", "-p79,80"),
		nmap("-sn", 2, "-sn", "-PE", "-PS443", "-PA80", "--send-ip", "--disable-arp-ping"),
		nmap("-6 -sS", 22, "-6", "-Pn", "-sS", "-p60-81"),
		nmap("-6 -sA", 22, "-6", "-Pn", "-sA", "-p60-81"),
		nmap("-6 -O", 15, "-6", "-Pn", "-O", "--max-os-tries", "1", "--max-retries", "2", "-p79,80"),
		masscan("masscan", 200, "-p1-200"),
		masscan("masscan -6", 200, "-6", "-p1-200"),
		zmap("SYN", "-p", "80"),
		hping("-S", 8, "-S", "-p", "++75", "-c", "8", "-i", "u10000"),
		hping("-S, one port", 8, "-S", "-p", "80", "-c", "8", "-i", "u10000"),
		hping("-F", 8, "-F", "-p", "++75", "-c", "8", "-i", "u10000"),
		hping("--scan", 22, "-S", "--scan", "60-81"),
	} {
		t.Run(r.name, func(t *testing.T) {
			lab.NeedProgram(t, r.program, r.pkg)
			t.Parallel()
			w := newWire(t)
			named(t, w.run(r.args(w)...), r.tool, r.runs, r.least, r.nameless)
		})
	}
	// From 4.1 ZMap draws the IP ID of these at random.
	for _, r := range []run{
		zmap("ICMP", "-M", "icmp_echoscan"),
		zmap("UDP", "-M", "udp", "-p", "53", "--probe-args=text:abc"),
	} {
		t.Run(r.name, func(t *testing.T) {
			lab.NeedProgram(t, r.program, r.pkg)
			t.Parallel()
			w := newWire(t)
			if v := w.version("zmap"); !slices.ContainsFunc([]string{"2.", "3.", "4.0"}, func(old string) bool { return strings.HasPrefix(v, old) }) {
				t.Skipf("zmap %s shows nothing there; before 4.1 it does", v)
			}
			named(t, w.run(r.args(w)...), r.tool, r.runs, r.least, none)
		})
	}
}

// named checks that all of sent are called tool, and how many runs they are.
func named(t *testing.T, sent []decode.Probe, tool string, runs, least int, nameless func(*decode.Probe) bool) {
	t.Helper()
	set, err := tools.Load()
	check(t, err)
	before, keys, n := memory{}, map[uint64]int{}, 0
	for i := range sent {
		p := &sent[i]
		if !asks(p) || nameless(p) {
			continue
		}
		n++
		got, run := before.label(set, p)
		if got != tool {
			t.Errorf("packet %d is called %q, want %q: %+v", i, got, tool, detect.HeaderOf(p))
		}
		if run != 0 {
			keys[run]++
		}
	}
	if n < least {
		t.Errorf("%d packets, want at least %d", n, least)
	}
	if len(keys) != runs {
		t.Errorf("runs %v, want %d", keys, runs)
	}
	t.Logf("%d packets, runs %v", n, keys)
}

func (w *wire) version(program string) string {
	w.t.Helper()
	return strings.TrimPrefix(strings.TrimSpace(lab.Command(w.t, w.scanner.NS, program, "--version")), program+" ")
}

// Two starts of nmap are two runs.
func TestRunsDiffer(t *testing.T) {
	lab.NeedProgram(t, "nmap", "nmap")
	t.Parallel()
	w := newWire(t)
	set, err := tools.Load()
	check(t, err)
	keys := map[uint64]bool{}
	for range 3 {
		for _, p := range w.run("nmap", "-n", "-Pn", "-sS", "-p79", w.host.Addr4().String()) {
			if asks(&p) {
				_, run := memory{}.label(set, &p)
				keys[run] = true
			}
		}
	}
	// Two of three are the same once in 20,000 times.
	if len(keys) != 3 {
		t.Errorf("runs %v, want three", keys)
	}
}

// connections is how many an ordinary program opens.
const connections = 1000

// What the kernel sends for ordinary connections has no name, from the SYN to the
// last ACK.
func TestOrdinaryConnections(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	set, err := tools.Load()
	check(t, err)
	connect := func() error {
		for i := range connections {
			host := []netip.Addr{w.host.Addr4(), w.host.Addr6()}[i%2]
			port := uint16(open)
			if i%10 == 9 {
				port = closed
			}
			c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(netip.AddrPortFrom(host, port)))
			if port == closed {
				if err == nil {
					return errors.Join(errors.New("somebody is at the closed port"), c.Close())
				}
				continue
			}
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
				c.Close() // the other side was quicker
				continue
			}
			if err := c.Close(); err != nil {
				return err
			}
		}
		return nil
	}
	check(t, w.scanner.NS.Do(connect))
	before, syns := memory{}, 0
	sent := w.sent()
	for i := range sent {
		if sent[i].Flags == decode.SYN {
			syns++
		}
		if tool, _ := before.label(set, &sent[i]); tool != "" {
			t.Errorf("packet %d is called %q: %+v", i, tool, detect.HeaderOf(&sent[i]))
		}
	}
	if syns < connections {
		t.Errorf("%d SYNs, want %d", syns, connections)
	}
	t.Logf("%d packets", len(sent))
}
