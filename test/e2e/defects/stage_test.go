package defects_test

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"portsentry/test/harness"
	"portsentry/test/lab"
	"portsentry/test/machine"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

const (
	confFile = "/etc/portsentry/portsentry.conf"
	state    = "/var/lib/portsentry/"
	ran      = state + "ran" // the owner's command leaves a line here
	// patience with a machine that does other things too.
	patience = 30 * time.Second
)

var (
	host   = netip.MustParseAddr("10.77.0.1")
	behind = netip.MustParsePrefix("10.77.8.0/24") // addresses of the scanner
)

// source is one of the scanner's addresses.
func source(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 8, n}) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stage is a machine that is protected, with a syslog, and a scanner on the same
// wire.
type stage struct {
	*machine.Machine
	lab *lab.Lab
	log *machine.Syslog
	t   *testing.T
}

func newStage(t *testing.T) *stage {
	t.Helper()
	l := lab.New(t)
	lab.Command(t, l.Scanner.NS, "ip", "route", "add", "local", behind.String(), "dev", "lo")
	check(t, l.Scanner.StaticNeighbours())
	s := &stage{Machine: machine.New(t, l.Host.NS), lab: l, t: t}
	s.Write(state+"keep", "")
	s.log = s.Syslog()
	return s
}

// conf writes portsentry.conf.
func (s *stage) conf(more map[string]string) {
	s.t.Helper()
	conf := map[string]string{
		"TCP_PORTS": "1,11,15,79", "UDP_PORTS": "7,9,69",
		"HISTORY_FILE": state + "portsentry.history", "BLOCKED_FILE": state + "portsentry.blocked",
	}
	maps.Copy(conf, more)
	s.Write(confFile, "")
	check(s.t, harness.WriteConfig(s.Path(confFile), conf))
}

// try runs a program to its end, or until it has detached, and gives its exit
// code and what it said.
func (s *stage) try(args ...string) (code int, said string) {
	s.t.Helper()
	p := s.Start(args...)
	lab.Wait(s.t, patience, strings.Join(args, " ")+" ends or detaches", func() bool { return !p.Running() })
	out, err := os.ReadFile(string(p.Out))
	check(s.t, err)
	errs, err := os.ReadFile(string(p.Err))
	check(s.t, err)
	return p.Stop(syscall.SIGKILL), string(out) + string(errs)
}

// detach starts portsentry in the background; what runs it may come before.
func (s *stage) detach(args ...string) {
	s.t.Helper()
	if code, said := s.try(args...); code != 0 {
		s.t.Fatalf("%s: exit code %d\n%s", strings.Join(args, " "), code, said)
	}
}

// foreground starts portsentry as 2.x does and waits until it is ready.
func (s *stage) foreground(args ...string) *machine.Program {
	s.t.Helper()
	p := s.Start(append([]string{lab.Binary(s.t)}, args...)...)
	lab.Wait(s.t, patience, "ready", func() bool {
		if !p.Running() {
			text, _ := os.ReadFile(string(p.Err))
			s.t.Fatalf("portsentry has ended\n%s", text)
		}
		return slices.Contains(s.lines(p.Out), harness.ReadyLine)
	})
	return p
}

func (s *stage) lines(o harness.Output) []string {
	s.t.Helper()
	lines, err := o.Lines()
	check(s.t, err)
	return lines
}

// pid is the number of the detached daemon, on its machine.
func (s *stage) pid() int {
	s.t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(s.Read("/run/portsentry.pid")))
	check(s.t, err)
	return n
}

// stop ends the detached daemon.
func (s *stage) stop() {
	s.t.Helper()
	s.Run("kill", "-TERM", strconv.Itoa(s.pid()))
	lab.Wait(s.t, patience, "the end", func() bool { return len(s.Processes("portsentry")) == 0 })
}

// alerts are the messages to syslog about probes.
func (s *stage) alerts(parts ...string) (found []string) {
	for _, e := range s.log.Entries() {
		if strings.HasPrefix(e.Text, "attackalert: ") && !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(e.Text, p) }) {
			found = append(found, e.Text)
		}
	}
	return found
}

// waitFile waits until a file of the machine has n lines, and gives them.
func (s *stage) waitFile(name string, n int) (lines []string) {
	s.t.Helper()
	lab.Wait(s.t, patience, fmt.Sprintf("%d lines in %s", n, name), func() bool {
		lines = strings.Split(strings.TrimSuffix(s.Read(name), "\n"), "\n")
		return len(lines) >= n && lines[0] != ""
	})
	return lines
}

// dial connects from one of the scanner's addresses.
func (s *stage) dial(proto string, from netip.Addr, port uint16) (c net.Conn, err error) {
	err = s.lab.Scanner.NS.Do(func() (err error) {
		d := net.Dialer{Timeout: patience, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
		if proto == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
		c, err = d.Dial(proto, netip.AddrPortFrom(host, port).String())
		return err
	})
	return c, err
}

// probe sends one SYN or one datagram, and reports whether the port was open.
func (s *stage) probe(proto string, from netip.Addr, port uint16) (open bool) {
	s.t.Helper()
	c, err := s.dial(proto, from, port)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return false
	}
	check(s.t, err)
	defer c.Close()
	if proto == "udp" {
		_, err := c.Write([]byte("?"))
		check(s.t, err)
	}
	return true
}

// serve has a service on the machine's port.
func (s *stage) serve(proto string, port uint16) {
	s.t.Helper()
	var c interface{ Close() error }
	check(s.t, s.lab.Host.NS.Do(func() (err error) {
		if proto == "udp" {
			c, err = net.ListenPacket(proto, fmt.Sprintf(":%d", port))
		} else {
			c, err = net.Listen(proto, fmt.Sprintf(":%d", port))
		}
		return err
	}))
	s.t.Cleanup(func() { c.Close() })
}

// files are the names in a folder of the machine.
func (s *stage) files(dir string) (names []string) {
	s.t.Helper()
	entries, err := os.ReadDir(s.Path(dir))
	check(s.t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names
}
