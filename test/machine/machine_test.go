package machine

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

const soon = 10 * time.Second

// two makes two machines on one wire.
func two(t *testing.T) (a, b *Machine) {
	t.Helper()
	lab.NeedRoot(t)
	n, err := pktgen.NewNet()
	check(t, err)
	t.Cleanup(func() { check(t, n.Close()) })
	l := &lab.Lab{Net: n}
	x, y := l.Space(t), l.Space(t)
	l.Join(t, x, y, []netip.Prefix{netip.MustParsePrefix("10.77.0.1/24")}, []netip.Prefix{netip.MustParsePrefix("10.77.0.2/24")})
	return New(t, x), New(t, y)
}

func TestFilesAreItsOwn(t *testing.T) {
	a, b := two(t)
	const name = "/etc/portsentry/portsentry.conf"
	a.Write(name, "of a\n")
	if got := a.Run("cat", name); got != "of a\n" {
		t.Errorf("the machine reads %q", got)
	}
	if b.Read(name) != "" || exists("/etc/machine-was-here") {
		t.Error("the machines share files")
	}
	a.Run("sh", "-c", "umask 077; echo changed >"+name+"; echo $$ >/var/run/some.pid; touch /etc/machine-was-here /var/lib/x /var/log/x /dev/shm/x")
	if got := a.Read(name); got != "changed\n" {
		t.Errorf("the test reads %q", got)
	}
	if a.Read("/run/some.pid") == "" {
		t.Error("/var/run is not /run")
	}
	for _, path := range []string{"/etc/machine-was-here", "/var/lib/x", "/var/log/x", "/dev/shm/x"} {
		if exists(path) {
			t.Errorf("%s is on the host", path)
		}
		if !exists(a.Path(path)) || exists(b.Path(path)) {
			t.Errorf("%s: not there, or on both machines", path)
		}
	}
	// The rest of the host can be read only.
	for _, dir := range []string{"/usr", "/", "/root"} {
		if said, code := a.Try("touch", filepath.Join(dir, "machine-was-here")); code == 0 || !strings.Contains(said, "Read-only") {
			t.Errorf("%s can be written: %d %s", dir, code, said)
		}
	}
	// Temporary files are shared: that is where the tests' programs are.
	shared := filepath.Join(t.TempDir(), "shared")
	a.Run("touch", shared)
	if !exists(shared) {
		t.Errorf("%s is not shared", shared)
	}
	if got := a.Run("id", "-un"); got != "root\n" {
		t.Errorf("user %q", got)
	}
	a.Run("sh", "-c", "echo x >/dev/null; head -c1 /dev/urandom; ls /dev/pts/ptmx; ls /dev/fd/0")
}

func TestNetworkAndNameAreItsOwn(t *testing.T) {
	a, b := two(t)
	for m, want := range map[*Machine]string{a: "10.77.0.1/24", b: "10.77.0.2/24"} {
		if got := m.Run("ip", "-o", "-4", "addr", "show", "dev", "eth0"); !strings.Contains(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
		if got := m.Run("ls", "/sys/class/net"); got != "eth0\nlo\n" {
			t.Errorf("/sys has %q", got)
		}
	}
	a.Run("nft", "add", "table", "inet", "portsentry")
	a.Run("iptables", "-w", "-A", "INPUT", "-s", "10.77.0.9", "-j", "DROP") // it has a lock in /run
	if rules := b.Run("nft", "list", "ruleset"); rules != "" {
		t.Errorf("b has the rules of a:\n%s", rules)
	}
	a.Run("hostname", "renamed")
	host, err := os.Hostname()
	check(t, err)
	if got := b.Run("hostname"); got != Name+"\n" || host == "renamed" {
		t.Errorf("b is %q, the host is %q", got, host)
	}
}

// detached starts a process that leaves its parents, as a daemon does, and
// gives its number on the machine.
func detached(t *testing.T, m *Machine) int {
	t.Helper()
	m.Run("sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $! >/run/sleep.pid")
	pid, err := strconv.Atoi(strings.TrimSpace(m.Read("/run/sleep.pid")))
	check(t, err)
	lab.Wait(t, soon, "a detached process", func() bool { return slices.Contains(m.Processes("sleep"), pid) })
	return pid
}

func TestProcessesAreItsOwn(t *testing.T) {
	a, b := two(t)
	pid := detached(t, a)
	if got := b.Processes("sleep"); got != nil {
		t.Errorf("b sees %v", got)
	}
	if got := strings.TrimSpace(a.Run("pidof", "sleep")); got != strconv.Itoa(pid) {
		t.Errorf("pidof says %q, want %d", got, pid)
	}
	// It is reaped, so that who waits for its end sees it end.
	a.Run("kill", strconv.Itoa(pid))
	lab.Wait(t, soon, "the end of it", func() bool { return a.Processes("sleep") == nil })
}

// What has detached ends with the machine.
func TestNothingIsLeft(t *testing.T) {
	var dir, ns string
	var held *os.File
	t.Run("machine", func(t *testing.T) {
		a, _ := two(t)
		detached(t, a)
		a.Start("sleep", "2000")
		dir = a.dir
		// Open, its number is given to no other: all who make namespaces share them.
		var err error
		held, err = os.Open(fmt.Sprintf("/proc/%d/ns/mnt", a.init.Process.Pid))
		check(t, err)
		ns, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", held.Fd()))
		check(t, err)
		if n := inside(t, ns); n < 3 {
			t.Errorf("%d processes on the machine", n)
		}
	})
	if t.Failed() {
		return
	}
	if dir == "" {
		t.Skip("needs root")
	}
	defer held.Close()
	if exists(dir) {
		t.Errorf("%s is still there", dir)
	}
	if n := inside(t, ns); n != 0 {
		t.Errorf("%d processes go on", n)
	}
}

// inside counts the processes of the host that are in a mount namespace.
func inside(t *testing.T, ns string) (n int) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/ns/mnt")
	check(t, err)
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && to == ns {
			n++
		}
	}
	return n
}

func TestProgram(t *testing.T) {
	a, _ := two(t)
	p := a.Start("sh", "-c", "trap 'echo ends; exit 7' TERM; echo ready; echo careful >&2; while :; do sleep 0.01; done")
	lab.Wait(t, soon, "the program", func() bool {
		lines, err := p.Out.Lines()
		check(t, err)
		return slices.Equal(lines, []string{"ready"})
	})
	if !p.Running() {
		t.Error("the program has ended")
	}
	if code := p.Stop(syscall.SIGTERM); code != 7 || p.Running() {
		t.Errorf("code %d", code)
	}
	out, err := p.Out.Lines()
	check(t, err)
	errs, err := p.Err.Lines()
	check(t, err)
	if !slices.Equal(out, []string{"ready", "ends"}) || !slices.Equal(errs, []string{"careful"}) {
		t.Errorf("it said %q and %q", out, errs)
	}
	q := a.Start("sleep", "1000")
	if to, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", q.PID())); err != nil || !strings.Contains(to, "bin/") {
		t.Errorf("process %d: %q, %v", q.PID(), to, err)
	}
	if code := q.Stop(syscall.SIGKILL); code != 128+9 {
		t.Errorf("code %d", code)
	}
	if said, code := a.Try("sh", "-c", "echo no; exit 3"); code != 3 || said != "no\n" {
		t.Errorf("code %d, %q", code, said)
	}
}

func TestSyslog(t *testing.T) {
	a, b := two(t)
	log := a.Syslog()
	b.Syslog()
	a.Run("logger", "--socket-errors=on", "-p", "daemon.notice", "-t", "portsentry", "attackalert: one two")
	if e := log.Wait(soon, "attackalert", "two"); e.Priority != 29 || e.Tag != "portsentry" || e.PID != 0 || e.Text != "attackalert: one two" {
		t.Errorf("%+v", e)
	}
	log.Close()
	if said, code := a.Try("logger", "--socket-errors=on", "lost"); code == 0 {
		t.Errorf("logger found a /dev/log: %s", said)
	}
	again := a.Syslog()
	a.Run("logger", "--socket-errors=on", "--id=123", "-t", "x", "back")
	if e := again.Wait(soon, "back"); e.PID != 123 || e.String() != "<13>x[123]: back" {
		t.Errorf("%+v", e)
	}
	if n := len(log.Entries()); n != 1 {
		t.Errorf("%d messages before, want 1", n)
	}
}

func TestParse(t *testing.T) {
	for datagram, want := range map[string]Entry{
		"<29>Nov  1 23:56:08 portsentry[9552]: attackalert: x\n":     {29, "portsentry", 9552, "attackalert: x"},
		"<30>Nov 20 23:56:08 a: two\nlines\x00":                      {30, "a", 0, "two\nlines"},
		"<30>1 2026-11-20T23:56:08Z machine a 7 - - in another form": {-1, "", 0, "<30>1 2026-11-20T23:56:08Z machine a 7 - - in another form"},
		"": {Priority: -1},
	} {
		if got := parse(datagram); got != want {
			t.Errorf("%q: %+v, want %+v", datagram, got, want)
		}
	}
}
