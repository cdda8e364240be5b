package ban_test

import (
	"cmp"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// Networks behind the scanner. It has every address of the first four, so that
// it can open connections from them; nobody has those of the last.
var (
	clients  = netip.MustParsePrefix("203.0.113.0/24")
	clients6 = netip.MustParsePrefix("2001:db8:a::/48")
	ignored  = netip.MustParsePrefix("192.0.2.0/24") // in the ignore file of every test
	resolver = netip.MustParsePrefix("198.51.100.53/32")
	nobody   = netip.MustParsePrefix("198.18.0.0/15")
)

// The gateway of the host is the scanner under other addresses.
var (
	gateway  = netip.MustParseAddr("10.77.0.254")
	gateway6 = netip.MustParseAddr("fd77::fe")
)

// served are the ports with a service.
var served = []uint16{22, 80, 443}

// method is BLOCK_METHOD where a test does not say: PORTSENTRY_BLOCK_METHOD, else
// what the shipped file has or, where the packet ring is tried, the way to ban
// that goes with it.
func method() string {
	usual := "auto"
	if harness.Capture() == "afpacket" {
		usual = "nftables"
	}
	return cmp.Or(os.Getenv("PORTSENTRY_BLOCK_METHOD"), usual)
}

// methods are the native methods that this comes to.
func methods() []string {
	if method() == "auto" {
		return []string{"xdp", "nftables"}
	}
	return strings.Split(method(), ",")
}

// byXDP reports whether it is the XDP program that drops a trap hit and begins a
// ban; else the firewall does.
func byXDP() bool { return slices.Contains(methods(), "xdp") }

// Trap ports: of both protocols, of TCP, of UDP.
const trap, trap2, trapUDP = 1, 11, 7

// stage is a Lab whose scanner is also the way to everybody else.
type stage struct {
	*lab.Lab
	t    *testing.T
	send *pktgen.Sender
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{Lab: lab.New(t), t: t}
	for _, args := range [][]string{
		{"ip", "addr", "add", gateway.String() + "/16", "dev", s.Scanner.Name},
		{"ip", "addr", "add", gateway6.String() + "/64", "dev", s.Scanner.Name, "nodad"},
		{"ip", "route", "add", "local", clients.String(), "dev", "lo"},
		{"ip", "-6", "route", "add", "local", clients6.String(), "dev", "lo"},
		{"ip", "route", "add", "local", ignored.String(), "dev", "lo"},
		{"ip", "route", "add", "local", resolver.String(), "dev", "lo"},
	} {
		lab.Command(t, s.Scanner.NS, args...)
	}
	lab.Command(t, s.Host.NS, "ip", "route", "add", "default", "via", gateway.String())
	lab.Command(t, s.Host.NS, "ip", "-6", "route", "add", "default", "via", gateway6.String())
	for _, key := range []string{"net.ipv4.ip_nonlocal_bind", "net.ipv6.ip_nonlocal_bind"} {
		check(t, s.Scanner.NS.Sysctl(key, "1"))
	}
	check(t, s.Scanner.StaticNeighbours())
	for _, gw := range []netip.Addr{gateway, gateway6} {
		lab.Command(t, s.Host.NS, "ip", "neigh", "replace", gw.String(), "lladdr", s.Scanner.MAC.String(), "dev", s.Host.Name)
	}
	send, err := s.Scanner.Sender()
	check(t, err)
	t.Cleanup(func() { send.Close() })
	s.send = send
	return s
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// banning is the configuration that most tests start from.
func (s *stage) banning(more map[string]string) map[string]string {
	ignore := filepath.Join(s.t.TempDir(), "portsentry.ignore")
	check(s.t, os.WriteFile(ignore, []byte(ignored.String()+"\n"), 0o600))
	c := map[string]string{
		"TCP_PORTS": "1,11,2222", "UDP_PORTS": "1,7", "IGNORE_FILE": ignore,
		"BLOCK_METHOD": method(), "BLOCK_TCP": "1", "BLOCK_UDP": "1",
	}
	maps.Copy(c, more)
	return c
}

// start runs the daemon as banning says, but for more.
func (s *stage) start(more map[string]string) *daemon {
	s.t.Helper()
	return &daemon{s.Start(s.t, s.banning(more)), s.t}
}

// startIn does so inside a script that runs "$@" where and how it likes.
func (s *stage) startIn(script string, more map[string]string) *daemon {
	s.t.Helper()
	d := harness.MustStart(s.t, harness.Options{Binary: s.wrap(script), NS: s.Host.NS, Config: s.banning(more)})
	return &daemon{d, s.t}
}

// wrap makes a program of a script in which "$@" is portsentry with its arguments.
func (s *stage) wrap(script string) (path string) {
	s.t.Helper()
	path = filepath.Join(s.t.TempDir(), "portsentry")
	script = "#!/bin/sh\nset -e\nset -- " + lab.Binary(s.t) + " \"$@\"\n" + script + "\n"
	// A child that another test forks meanwhile would hold the file open for
	// writing until it execs, and then ours could not be run.
	syscall.ForkLock.RLock()
	err := os.WriteFile(path, []byte(script), 0o700)
	syscall.ForkLock.RUnlock()
	check(s.t, err)
	return path
}

// privateEtc makes an /etc of the daemon's own out of files, for startIn.
func (s *stage) privateEtc(files map[string]string) (dir, script string) {
	s.t.Helper()
	dir = filepath.Join(s.t.TempDir(), "etc")
	check(s.t, os.Mkdir(dir, 0o755))
	for name, text := range files {
		check(s.t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return dir, `exec unshare -m sh -c 'mount --bind ` + dir + ` /etc && exec "$0" "$@"' "$@"`
}

// floodTime is how long floods last.
func floodTime() time.Duration {
	if os.Getenv("PORTSENTRY_LONG") != "" {
		return 10 * time.Second
	}
	return 2 * time.Second
}
