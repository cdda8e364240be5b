package consumers_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"portsentry/test/harness"
	"portsentry/test/lab"
	"portsentry/test/machine"
)

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Getenv("PORTSENTRY_LONG") == "" {
		return m.Run()
	}
	return lab.Main(m)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const (
	history  = "/var/lib/portsentry/portsentry.history"
	trap     = 11 // of both protocols
	patience = 30 * time.Second
)

var (
	host      = netip.MustParseAddr("10.77.0.1")
	behind    = netip.MustParsePrefix("10.77.8.0/24") // addresses of the scanner
	innocent  = netip.MustParseAddr("10.77.8.4")      // never probes
	ignored   = netip.MustParseAddr("10.77.8.5")      // in the ignore file
	hesitant  = netip.MustParseAddr("10.77.8.6")      // stays below the trigger
	attacker  = netip.MustParseAddr("10.77.8.7")
	attacker2 = netip.MustParseAddr("10.77.8.8")
)

// stage is a machine that is protected, and a scanner on the same wire.
type stage struct {
	*machine.Machine
	lab *lab.Lab
	t   *testing.T
}

// newStage needs the programs, and has copies of these files of /etc.
func newStage(t *testing.T, programs []string, copies ...string) *stage {
	t.Helper()
	if os.Getenv("PORTSENTRY_LONG") == "" {
		t.Skip("runs in make test-long")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Fatalf("%s is not installed: run scripts/deps long", p)
		}
	}
	l := lab.New(t)
	lab.Command(t, l.Scanner.NS, "ip", "route", "add", "local", behind.String(), "dev", "lo")
	check(t, l.Scanner.StaticNeighbours())
	s := &stage{Machine: machine.New(t, l.Host.NS, copies...), lab: l, t: t}
	s.Write("/etc/portsentry/portsentry.ignore", "127.0.0.1/32\n"+ignored.String()+"\n")
	s.Run("mkdir", "-p", filepath.Dir(history))
	return s
}

// conf writes portsentry.conf.
func (s *stage) conf(more map[string]string) {
	s.t.Helper()
	conf := map[string]string{
		"TCP_PORTS": "1,11,15", "UDP_PORTS": "7,11", "IGNORE_FILE": "/etc/portsentry/portsentry.ignore",
		"HISTORY_FILE": history, "BLOCKED_FILE": "/var/lib/portsentry/portsentry.blocked",
	}
	for k, v := range more {
		conf[k] = v
	}
	s.Write("/etc/portsentry/portsentry.conf", "")
	check(s.t, harness.WriteConfig(s.Path("/etc/portsentry/portsentry.conf"), conf))
}

// start1x starts portsentry as an init script of 1.x does. It detaches and logs
// to syslog.
func (s *stage) start1x(flags ...string) {
	s.t.Helper()
	launch := s.Start(append([]string{lab.Binary(s.t)}, flags...)...)
	lab.Wait(s.t, patience, "portsentry detaches", func() bool { return !launch.Running() })
	if code := launch.Stop(syscall.SIGKILL); code != 0 {
		s.t.Fatalf("exit code %d: %s", code, text(s.t, launch.Err))
	}
}

// start2x starts portsentry as 2.x does, and waits until it is ready.
func (s *stage) start2x(flags ...string) *machine.Program {
	s.t.Helper()
	p := s.Start(append([]string{lab.Binary(s.t)}, flags...)...)
	lab.Wait(s.t, patience, "portsentry is ready", func() bool {
		if !p.Running() {
			s.t.Fatalf("portsentry has ended\n%s", text(s.t, p.Err))
		}
		return strings.Contains(text(s.t, p.Out), harness.ReadyLine)
	})
	return p
}

func text(t *testing.T, o harness.Output) string {
	t.Helper()
	lines, err := o.Lines()
	check(t, err)
	return strings.Join(lines, "\n")
}

// portsentry runs a subcommand.
func (s *stage) portsentry(args ...string) string {
	s.t.Helper()
	return s.Run(append([]string{lab.Binary(s.t)}, args...)...)
}

// dial connects to a port from one of the scanner's addresses.
func (s *stage) dial(proto string, from netip.Addr, port uint16, limit time.Duration) (c net.Conn, err error) {
	err = s.lab.Scanner.NS.Do(func() (err error) {
		d := net.Dialer{Timeout: limit, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
		if proto == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
		c, err = d.Dial(proto, netip.AddrPortFrom(host, port).String())
		return err
	})
	return c, err
}

// probe sends one SYN, or one datagram, to a trap port. A trap port of a stealth
// mode is closed.
func (s *stage) probe(proto string, from netip.Addr, port uint16) {
	s.t.Helper()
	c, err := s.dial(proto, from, port, patience)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return
	}
	check(s.t, err)
	defer c.Close()
	if proto == "udp" {
		_, err := c.Write([]byte("?"))
		check(s.t, err)
	}
}

// answer is the first thing that a service says, "" when it says nothing.
func (s *stage) answer(from netip.Addr, port uint16) string {
	s.t.Helper()
	c, err := s.dial("tcp", from, port, patience)
	check(s.t, err)
	defer c.Close()
	check(s.t, c.SetDeadline(time.Now().Add(patience)))
	b := make([]byte, 512)
	n, err := c.Read(b)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		s.t.Fatal(err)
	}
	return string(b[:n])
}

// install copies a file of this source tree to the machine, as our documents
// say.
func (s *stage) install(name, to string) {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "..", name))
	check(s.t, err)
	s.Write(to, string(b))
}

// rsyslogd starts rsyslog with Debian's configuration and ours. It does not read
// the kernel's log, which is the host's.
func (s *stage) rsyslogd() {
	s.t.Helper()
	b, err := os.ReadFile("/etc/rsyslog.conf")
	check(s.t, err)
	s.Write("/etc/rsyslog.conf", regexp.MustCompile(`(?m)^module\(load="imklog"\).*$`).ReplaceAllString(string(b), ""))
	s.install("packaging/rsyslog/portsentry.conf", "/etc/rsyslog.d/30-portsentry.conf")
	s.Run("mkdir", "-p", "/var/spool/rsyslog")
	s.Start("rsyslogd", "-n", "-i", "NONE")
	lab.Wait(s.t, patience, "/dev/log", func() bool {
		_, err := os.Lstat(s.Path("/dev/log"))
		return err == nil
	})
}

// logged waits until a log file has as many lines that match, and gives all its
// lines.
func (s *stage) logged(name, pattern string, n int) []string {
	s.t.Helper()
	re := regexp.MustCompile("(?m)" + pattern)
	var all string
	lab.Wait(s.t, patience, name+" has "+pattern, func() bool {
		all = s.Read(name)
		return len(re.FindAllString(all, -1)) >= n
	})
	return slices.Collect(strings.Lines(all))
}
