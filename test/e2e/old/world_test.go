package old_test

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"portsentry/test/harness"
	"portsentry/test/lab"
	"portsentry/test/machine"
)

// old is the package of Debian 12 that is the measure here.
const oldPackage = "portsentry"

// unpack fetches Debian's package and unpacks it, once for all tests, with its
// maintainer scripts in DEBIAN. It is never installed.
var unpack = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "portsentry-1.2-"); err != nil {
		return "", err
	}
	sh := exec.Command("sh", "-c", "apt-get -qq download "+oldPackage+" && dpkg-deb -R "+oldPackage+"_1.2-*.deb . && rm *.deb")
	sh.Dir = dir
	if out, err := sh.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("Debian's %s 1.2: %w\n%s", oldPackage, err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Getenv("PORTSENTRY_LONG") == "" {
		return m.Run()
	}
	if dir, _ := unpack(); dir != "" { // the tests say what went wrong
		defer os.RemoveAll(dir)
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
	// last is a trap port of both protocols in every test, and markers are the
	// sources that probe it when a scan is over: a daemon takes packets in order,
	// so what it has to say about earlier ones it says before.
	last = 61000
	// moment is how long ours may take to write what it writes in another order.
	moment = 3 * time.Second
	// patience with a machine that does other things too.
	patience = 20 * time.Second
)

var (
	scanned = netip.MustParseAddr("10.77.0.1")
	markers = netip.MustParsePrefix("10.77.9.0/24")
	others  = netip.MustParsePrefix("10.77.8.0/24") // scan, too, but with bare probes
	scanner = lab.ScannerAddrs[0].Addr()            // nmap runs here
)

// world is one PortSentry, its machine, and a scanner on the same wire.
type world struct {
	*lab.Lab
	*machine.Machine
	t       *testing.T
	log     *machine.Syslog
	name    string
	modes   []string // as 1.x names them
	program []string // what runs one mode, or all of them, before the flags
	alone   bool     // a process for each mode
	step    int      // the entry of the log that the last step begins with
	steps   int      // so far; each has its marker
	trigger int      // SCAN_TRIGGER
	last    uint16   // where markers knock
}

// worlds are 1.2 and ours, not started yet.
func worlds(t *testing.T) (theirs, ours *world) {
	t.Helper()
	if os.Getenv("PORTSENTRY_LONG") == "" {
		t.Skip("runs in make test-long")
	}
	lab.NeedRoot(t)
	dir, err := unpack()
	check(t, err)
	theirs = newWorld(t, "1.2", filepath.Join(dir, "usr/sbin/portsentry"))
	theirs.alone = true
	return theirs, newWorld(t, "ours", lab.Binary(t))
}

func newWorld(t *testing.T, name, program string) *world {
	t.Helper()
	l := lab.New(t)
	for _, p := range []netip.Prefix{markers, others} {
		lab.Command(t, l.Scanner.NS, "ip", "route", "add", "local", p.String(), "dev", "lo")
	}
	check(t, l.Scanner.StaticNeighbours())
	m := machine.New(t, l.Host.NS)
	m.Run("mkdir", "/var/lib/portsentry") // as the package does
	return &world{Lab: l, Machine: m, t: t, log: m.Syslog(), name: name, program: []string{program}, last: last}
}

// defaults is Debian's portsentry.conf but for its ports. It is written as 1.x
// likes it.
var defaults = map[string]string{
	"TCP_PORTS": fmt.Sprintf("1,11,15,%d", last), "UDP_PORTS": fmt.Sprintf("1,7,9,%d", last),
	"ADVANCED_PORTS_TCP": "1024", "ADVANCED_PORTS_UDP": "1024",
	"ADVANCED_EXCLUDE_TCP": "113,139", "ADVANCED_EXCLUDE_UDP": "520,138,137,67",
	"IGNORE_FILE":  "/etc/portsentry/portsentry.ignore",
	"HISTORY_FILE": "/var/lib/portsentry/portsentry.history",
	"BLOCKED_FILE": "/var/lib/portsentry/portsentry.blocked",
	"RESOLVE_HOST": "0", "BLOCK_TCP": "0", "BLOCK_UDP": "0", "SCAN_TRIGGER": "0",
}

// start configures and starts the daemon in some modes ("stcp", "sudp") and
// waits until it says that it is active.
func (w *world) start(conf map[string]string, modes ...string) {
	w.t.Helper()
	var text strings.Builder
	value := func(key string) string { return cmp.Or(conf[key], defaults[key]) }
	for _, key := range slices.Sorted(keys(defaults, conf)) {
		fmt.Fprintf(&text, "%s=\"%s\"\n", key, value(key))
	}
	if !w.alone { // ours
		text.WriteString(harness.CaptureLine())
	}
	w.Write("/etc/portsentry/portsentry.conf", text.String())
	if w.Read("/etc/portsentry/portsentry.ignore") == "" {
		w.Write("/etc/portsentry/portsentry.ignore", "127.0.0.1/32\n")
	}
	w.modes = modes
	fmt.Sscan(value("SCAN_TRIGGER"), &w.trigger)
	var calls [][]string
	for i, mode := range modes {
		if i == 0 || w.alone {
			calls = append(calls, slices.Clone(w.program))
		}
		calls[len(calls)-1] = append(calls[len(calls)-1], "-"+mode)
	}
	for i, call := range calls {
		launch := w.Machine.Start(call...)
		lab.Wait(w.t, patience, w.name+" detaches: "+strings.Join(call, " "), func() bool { return !launch.Running() })
		if code := launch.Stop(syscall.SIGKILL); code != 0 {
			out, _ := launch.Out.Lines()
			errs, _ := launch.Err.Lines()
			w.t.Fatalf("%s: %v: exit code %d\n%q\n%q", w.name, call, code, out, errs)
		}
		lab.Wait(w.t, patience, w.name+" is active: "+strings.Join(call, " "), func() bool {
			n := 0
			for _, e := range w.log.Entries() {
				if e.Text == active {
					n++
				}
			}
			return n > i
		})
	}
}

// scan is a step in which nmap scans the machine.
func (w *world) scan(args ...string) {
	w.t.Helper()
	w.take(func() { lab.Nmap(w.t, w.Scanner.NS, append(args, "-r", scanned.String())...) })
}

// begin begins a step.
func (w *world) begin() { w.step = len(w.log.Entries()) }

// take runs a step, and waits for the lines about everything that was sent.
func (w *world) take(step func()) {
	w.t.Helper()
	w.begin()
	step()
	w.steps++
	marker := markers.Addr()
	for range w.steps {
		marker = marker.Next()
	}
	missing := make(map[string]bool)
	for _, mode := range w.modes {
		proto := strings.TrimLeft(mode, "sa") // stcp, atcp, tcp
		for range max(1, w.trigger) {
			w.knock(proto, marker, w.last)
		}
		missing[fmt.Sprintf("from host: %s/%[1]s to %s port: %d", marker, strings.ToUpper(proto), w.last)] = true
	}
	read := w.step
	lab.Wait(w.t, patience, w.name+" says the last line", func() bool {
		for _, e := range w.log.Entries()[read:] {
			read++
			if _, about, ok := strings.Cut(e.Text, " from host: "); ok {
				delete(missing, "from host: "+about)
			}
		}
		return len(missing) == 0
	})
}

// lines are what the daemon said about the last step, those about markers left
// out. A line without an address is about that of the line before it, of the
// same process, or about the process.
func (w *world) lines() (lines []string) {
	source := make(map[int]netip.Addr)
	for i, e := range w.log.Entries() {
		if a, err := netip.ParseAddr(address.FindString(e.Text)); err == nil {
			source[e.PID] = a
		}
		if i >= w.step && (!markers.Contains(source[e.PID]) || strings.Contains(e.Text, "alert: PortSentry ")) {
			lines = append(lines, unversioned(e.Text))
		}
	}
	return lines
}

// knock sends one probe: a SYN, or a datagram of one byte.
func (w *world) knock(proto string, from netip.Addr, port uint16) {
	w.t.Helper()
	to := netip.AddrPortFrom(scanned, port)
	check(w.t, w.Scanner.NS.Do(func() error {
		if proto == "udp" {
			c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(to))
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte("?"))
			return err
		}
		c, err := net.DialTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.TCPAddrFromAddrPort(to))
		// Closed, as a stealth mode leaves it; or open for the microseconds in
		// which 1.2 binds it to see whether it is served.
		if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) {
			return nil
		}
		if err == nil {
			c.Close()
		}
		return err
	}))
}

var address = regexp.MustCompile(`\b\d+\.\d+\.\d+\.\d+\b`)

// set sorts lines and takes out repetitions.
func set(lines []string) []string { return slices.Compact(slices.Sorted(slices.Values(lines))) }

func keys(maps ...map[string]string) func(yield func(string) bool) {
	all := make(map[string]bool)
	for _, m := range maps {
		for k := range m {
			all[k] = true
		}
	}
	return func(yield func(string) bool) {
		for k := range all {
			if !yield(k) {
				return
			}
		}
	}
}
