package sight_test

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portsentry/internal/pktgen"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

// ownFiles gives a command its own view of the files that say who resolves
// names and who is logged in, and no /etc/portsentry, so that the machine under
// the test does not show.
func ownFiles(t *testing.T, resolver string) func(*exec.Cmd) {
	t.Helper()
	dir := t.TempDir()
	resolv := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver "+resolver+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return func(c *exec.Cmd) {
		const script = `mount --bind "$1" /etc/resolv.conf
			[ ! -d /etc/portsentry ] || mount -t tmpfs none /etc/portsentry
			for f in /run/utmp /var/run/utmp; do [ ! -f $f ] || mount --bind "$2" $f; done
			shift 2
			exec "$@"`
		c.Args = append([]string{"sh", "-c", script, "sh", resolv, empty}, c.Args...)
		c.Path = "/bin/sh"
		c.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SSH_") })
		// Private, so that the mounts stay ours.
		c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	}
}

// TestStartWords has every word of an ordinary start and stop.
func TestStartWords(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	if err := l.Host.NS.Route(netip.MustParsePrefix("0.0.0.0/0"), l.Scanner.Addr4()); err != nil {
		t.Fatal(err)
	}
	l.Join(t, l.Scanner.NS, l.Host.NS, nil, nil) // without an address but for its link-local one
	// Served: on a trap port, on no trap port, and a UDP socket that may be a client's.
	listenOn(t, l.Host.NS, "tcp", "[::]:22")
	listenOn(t, l.Host.NS, "tcp4", "10.77.0.1:11")
	listenOn(t, l.Host.NS, "udp", "[::]:7")
	listenOn(t, l.Host.NS, "udp", "[::]:5353")
	listenOn(t, l.Host.NS, "tcp4", "127.0.0.1:25")
	ignore := filepath.Join(t.TempDir(), "ignore")
	if err := os.WriteFile(ignore, []byte("198.51.100.0/24\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, l.Host.NS, ownFiles(t, "192.0.2.53"),
		"--socket", filepath.Join(t.TempDir(), "control.sock"),
		"-c", configFile(t, map[string]string{"TCP_PORTS": "1,11,512-515", "UDP_PORTS": "7,9", "IGNORE_FILE": ignore}))
	says(t, r.out, harness.ReadyLine)
	r.signal(t, os.Interrupt)
	if got := r.code(t); got != 0 {
		t.Errorf("exit code %d after Ctrl-C", got)
	}
	if d := cmp.Diff([]string{version(t), harness.ReadyLine, "Portsentry is shutting down"}, lines(t, r.out)); d != "" {
		t.Errorf("standard output (-want +got):\n%s", d)
	}
	self := filepath.Base(os.Args[0])
	self = self[:min(len(self), 15)] // as the kernel keeps it
	want := []string{
		"watching eth0 (" + lab.How() + "), 6 TCP and 2 UDP ports, IPv4 and IPv6",
		"left alone: 11/tcp " + self + ", 22/tcp " + self + ", 7/udp " + self + " (listening); " +
			"10.77.0.2 gateway, 192.0.2.53 resolver, 1 line of " + ignore + " (protected); eth1 (it is the host end of a container's veth)",
		"answer: log only (BLOCK_TCP=0, BLOCK_UDP=0)",
	}
	if d := cmp.Diff(want, lines(t, r.err)); d != "" {
		t.Errorf("standard error (-want +got):\n%s", d)
	}
}

// TestBare: without a configuration it watches what the shipped file says, logs
// only, and leaves nothing behind.
func TestBare(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	dir := t.TempDir()
	r := start(t, l.Host.NS, func(c *exec.Cmd) {
		ownFiles(t, "127.0.0.1")(c)
		c.Dir = dir
	}, "--socket", filepath.Join(dir, "control.sock"))
	says(t, r.out, harness.ReadyLine)
	w := watch(t, l, r.out)
	w.sendPacket(t, w.packet(80, false, nil)) // no trap
	w.sendPacket(t, w.packet(23, false, nil))
	w.sendPacket(t, w.packet(2375, true, nil))
	w.sendPacket(t, w.packet(1900, true, func(p *pktgen.Packet) { p.Proto = pktgen.ProtoUDP }))
	says(t, r.out, "port: [2375]")
	says(t, r.out, "port: [1900]")
	r.signal(t, syscall.SIGTERM)
	if got := r.code(t); got != 0 {
		t.Errorf("exit code %d", got)
	}
	want := []string{
		version(t), harness.ReadyLine,
		scanLine(l.Scanner.Addr4(), "TCP", 23, synScan, "not set"),
		scanLine(l.Scanner.Addr6(), "TCP", 2375, synScan, "unknown"),
		scanLine(l.Scanner.Addr6(), "UDP", 1900, udpScan, "unknown"),
		"Portsentry is shutting down",
	}
	got := lines(t, r.out)
	slices.Sort(want)
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("standard output, sorted (-want +got):\n%s", d)
	}
	if last := lines(t, r.err); last[len(last)-1] != "answer: log only (BLOCK_TCP=0, BLOCK_UDP=0)" {
		t.Errorf("standard error: %q", last)
	}
	if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestNothingToWatch: ready is said only when something is watched.
func TestNothingToWatch(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	lonely := l.Space(t)
	r := start(t, lonely, ownFiles(t, "127.0.0.1"),
		"--socket", filepath.Join(t.TempDir(), "control.sock"), "-c", configFile(t, map[string]string{"TCP_PORTS": "11,61001"}))
	says(t, r.err, "watching nothing: ")
	if d := cmp.Diff([]string{version(t)}, lines(t, r.out)); d != "" {
		t.Errorf("standard output with nothing to watch (-want +got):\n%s", d)
	}
	// What changes nothing is not a reason to say it again.
	lab.Command(t, lonely, "ip", "link", "add", "br0", "type", "bridge")
	from, at := l.Join(t, l.Scanner.NS, lonely, prefixes("10.78.0.2/24"), prefixes("10.78.0.1/24"))
	says(t, r.out, harness.ReadyLine)
	w := watch(t, l, r.out)
	w.send = sender(t, from)
	w.sendPacket(t, w.packet(11, false, func(p *pktgen.Packet) { p.Dst = at.Addr4() }))
	says(t, r.out, "port: [11] type: [TCP SYN/Normal scan]")

	lab.Command(t, lonely, "ip", "link", "delete", "eth0")
	lab.Wait(t, patience, "nothing to watch again", func() bool {
		all := lines(t, r.err)
		return strings.HasPrefix(all[len(all)-1], "watching nothing: ")
	})
	r.signal(t, os.Interrupt)
	if got := r.code(t); got != 0 {
		t.Errorf("exit code %d after Ctrl-C", got)
	}
	const nothing = "watching nothing: no interface is up and holds an address; one that appears will be watched"
	want := []string{
		nothing,
		"watching eth0 (" + lab.How() + "), 2 TCP and 0 UDP ports, IPv4 and IPv6",
		"left alone: 127.0.0.1 resolver (protected)",
		"answer: log only (BLOCK_TCP=0, BLOCK_UDP=0)",
		nothing,
	}
	if d := cmp.Diff(want, lines(t, r.err)); d != "" {
		t.Errorf("standard error (-want +got):\n%s", d)
	}
	if d := cmp.Diff(1, strings.Count(strings.Join(lines(t, r.out), "\n"), harness.ReadyLine)); d != "" {
		t.Errorf("ready lines (-want +got):\n%s", d)
	}
}

// TestRefusals: what cannot work is said, and what to do.
func TestRefusals(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.conf")
	const mistakes = `TCP_PORTS="1,11,70000"
UDP_PORTS="20-10"
BLOCK_TPC="0"
BLOCK_UDP="3"
SCAN_TRIGGER="many"
LOG_FORMAT="3.x"
KILL_ROUTE="/sbin/route add -host reject"
IGNORE_FILE=/etc/portsentry/portsentry.ignore
`
	if err := os.WriteFile(bad, []byte(mistakes), 0o600); err != nil {
		t.Fatal(err)
	}
	good := configFile(t, map[string]string{"TCP_PORTS": "11"})
	missing := filepath.Join(dir, "missing.conf")
	eight := make([]string, 8)
	for i := range eight {
		eight[i] = bad + ":" + string(rune('1'+i)) + ": "
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		says []string // what the lines on standard error begin with
	}{
		{"check with eight mistakes", []string{"check", "-c", bad}, 2, append(slices.Clone(eight), "8 mistakes; nothing was changed")},
		{"start with eight mistakes", []string{"-c", bad}, 1, append(slices.Clone(eight), "8 mistakes; nothing was changed")},
		{"check without the file", []string{"check", "-c", missing}, 2, []string{"cannot read the configuration: "}},
		{"start without the file", []string{"-c", missing}, 1, []string{"cannot read the configuration: "}},
		{"a command that is none", []string{"statsu"}, 1, []string{`"statsu" is no command of portsentry; did you mean status?`}},
		{"a flag that is none", []string{"--sokcet", "x"}, 1, []string{"--sokcet is no option; did you mean --socket?"}},
		{"a socket that cannot be", []string{"-c", good, "--socket", filepath.Join(good, "control.sock")}, 1, []string{"control socket "}},
		{"status of nobody", []string{"status", "--socket", filepath.Join(dir, "nobody.sock")}, 2, []string{""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, l.Host.NS, nil, c.args...)
			if got := r.code(t); got != c.code {
				t.Errorf("exit code %d, want %d", got, c.code)
			}
			said := lines(t, r.err)
			if len(said) != len(c.says) {
				t.Fatalf("%d lines on standard error, want %d:\n%s", len(said), len(c.says), strings.Join(said, "\n"))
			}
			for i, want := range c.says {
				if !strings.HasPrefix(said[i], want) {
					t.Errorf("line %d is %q, want %q ...", i+1, said[i], want)
				}
			}
			if out := lines(t, r.out); slices.Contains(out, harness.ReadyLine) {
				t.Errorf("standard output: %q", out)
			}
		})
	}
}

// TestCheck reads a good file and shows what it means, as nobody, and touches
// nothing.
func TestCheck(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	dir := publicDir(t)
	conf := filepath.Join(dir, "portsentry.conf")
	history := filepath.Join(dir, "history")
	if err := os.WriteFile(conf, []byte("TCP_PORTS = \"11,1, 12\" # these\r\nHISTORY_FILE=\""+history+"\""), 0o644); err != nil {
		t.Fatal(err)
	}
	r := start(t, l.Host.NS, asNobody(t, dir), "check", "-c", conf)
	if got := r.code(t); got != 0 {
		t.Errorf("exit code %d: %q", got, lines(t, r.err))
	}
	out := lines(t, r.out)
	for _, want := range []string{`TCP_PORTS="1,11-12"`, `HISTORY_FILE="` + history + `"`, `SCAN_TRIGGER="0"`, `BLOCK_METHOD="none"`} {
		if !slices.ContainsFunc(out, func(line string) bool { return strings.HasPrefix(line, want) }) {
			t.Errorf("no line %s in\n%s", want, strings.Join(out, "\n"))
		}
	}
	if _, err := os.Stat(history); !os.IsNotExist(err) {
		t.Errorf("the history file: %v", err)
	}
}

// TestNobody: without privilege the refusal says what is missing.
func TestNobody(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	dir := publicDir(t)
	conf := filepath.Join(dir, "portsentry.conf")
	if err := os.WriteFile(conf, []byte("TCP_PORTS=\"11\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := start(t, l.Host.NS, asNobody(t, dir), "-c", conf, "--socket", filepath.Join(dir, "control.sock"))
	if got := r.code(t); got != 1 {
		t.Errorf("exit code %d, want 1", got)
	}
	said := strings.Join(lines(t, r.err), "\n")
	if !strings.Contains(said, "CAP_NET_RAW") && !strings.Contains(said, "root") {
		t.Errorf("the refusal names neither CAP_NET_RAW nor root:\n%s", said)
	}
	if out := lines(t, r.out); slices.Contains(out, harness.ReadyLine) {
		t.Errorf("standard output: %q", out)
	}
}

// publicDir is a folder that everybody may look into; those of the tests are not.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "portsentry-sight-")
	if err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// asNobody runs a command without any privilege, from a copy of the program in dir.
func asNobody(t *testing.T, dir string) func(*exec.Cmd) {
	t.Helper()
	program, err := os.ReadFile(lab.Binary(t))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "portsentry")
	if err := os.WriteFile(path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	return func(c *exec.Cmd) {
		const nobody = 65534
		c.Path, c.Args[0] = path, path
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
}
