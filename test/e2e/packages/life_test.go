package packages

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"portsentry/internal/view"
	"portsentry/test/lab"
)

const (
	conf     = "/etc/portsentry/portsentry.conf"
	defaults = "/etc/default/portsentry"
)

var scanner = lab.ScannerAddrs[0].Addr()

// machine is one with our package, on the wire.
type machine struct {
	*root
	lab     *lab.Lab
	program string
}

// TestLife is that of a machine: Debian's 1.2 with a configuration of the
// administrator's, the upgrade, a scan, a ban and its end, another ban, the
// next upgrade, the removal and the purge.
func TestLife(t *testing.T) {
	needLong(t)
	l := lab.New(t)
	dir := small(t, "net-tools,procps,perl,iproute2,nftables")
	// No init runs there. Without this file invoke-rc.d takes that for a container
	// in which nothing is to start.
	check(t, os.WriteFile(filepath.Join(dir, "usr/sbin/policy-rc.d"), []byte("#!/bin/sh\nexit 0\n"), 0o755))
	debs := t.TempDir()
	output(t, debs, "apt-get", "-qq", "download", "portsentry")
	old, err := filepath.Glob(filepath.Join(debs, "portsentry_1.2-*.deb"))
	if err != nil || len(old) != 1 {
		t.Fatalf("%v, %v", old, err)
	}
	m := &machine{start(t, dir, l.Host.NS), l, "portsentry"}
	ours := m.put(filepath.Join(packages(t, version, "amd64"), "portsentry_"+version+"_amd64.deb"))
	next := m.put(filepath.Join(packages(t, later, "amd64"), "portsentry_"+later+"_amd64.deb"))
	before := m.files()

	m.run("dpkg", "-i", m.put(old[0]))
	m.wait("1.2 runs", func() bool {
		return slices.Equal(m.daemons(), []string{"/usr/sbin/portsentry -tcp", "/usr/sbin/portsentry -udp"})
	})
	m.sh(`sed -i 's/^TCP_PORTS=.*/TCP_PORTS="11,15,31337"/; s/^BLOCK_TCP=.*/BLOCK_TCP="1"/' ` + conf)
	m.sh(`sed -i 's/^UDP_MODE=.*/UDP_MODE="sudp"/' ` + defaults)
	m.sh(`echo 198.51.100.0/24 >>/etc/portsentry/portsentry.ignore.static`)
	m.sh("/etc/init.d/portsentry restart")
	theirs := map[string]string{conf: "", defaults: "", "/etc/portsentry/portsentry.ignore.static": ""}
	for name := range theirs {
		theirs[name] = m.read(name)
	}

	// Something that 1.x's init script knows nothing of, as a tarball of 2.x installs it.
	m.sh("cp /bin/sleep /usr/local/sbin/portsentry; /usr/local/sbin/portsentry 1000 >/dev/null 2>&1 </dev/null &")
	m.wait("a third one runs", func() bool { return len(m.daemons()) == 3 })

	said := m.install(ours)
	t.Logf("the upgrade says\n%s", said)
	for name, text := range theirs {
		if m.read(name) != text {
			t.Errorf("%s is not what it was:\n%s", name, m.read(name))
		}
	}
	if got := m.daemons(); len(got) != 1 || !strings.HasSuffix(got[0], "portsentry -tcp -sudp") {
		t.Fatalf("running: %q", got)
	}
	if !strings.Contains(said, "/usr/local/sbin/portsentry comes before") {
		t.Error("nothing is said about /usr/local/sbin/portsentry")
	}
	m.run("rm", "/usr/local/sbin/portsentry")
	s := m.status()
	if s.Version != version || s.TCPMode != "connect" || s.UDPMode != "stealth" || s.TCPPorts != 3 || s.BlockTCP != 1 {
		t.Errorf("%+v", s)
	}
	for _, name := range []string{"/etc/ppp/ip-up.d/portsentry", "/etc/ppp/ip-down.d/portsentry", "/usr/lib/portsentry/portsentry-build-ignore-file"} {
		if m.has(name) {
			t.Errorf("%s of 1.2 is still there", name)
		}
	}
	for _, name := range []string{conf + ".dpkg-dist", "/etc/systemd/system/portsentry.service.d/1.x.conf", "/etc/systemd/system/multi-user.target.wants/portsentry.service"} {
		if !m.has(name) {
			t.Errorf("no %s", name)
		}
	}
	if said := m.run("portsentry", "--version"); !strings.Contains(said, version) {
		t.Error(said)
	}
	m.run("getent", "group", "portsentry")
	if said := m.run("stat", "-c", "%A %G", "/run/portsentry/portsentry.sock"); said != "srw-rw---- portsentry\n" {
		t.Errorf("the control socket is %s", said)
	}

	t.Run("as of old", m.asOfOld)
	t.Run("ban and unban", m.banAndUnban)
	t.Run("upgrade", func(t *testing.T) { m.upgrade(t, next) })
	t.Run("remove", m.remove)

	m.run("dpkg", "--purge", "portsentry")
	for _, name := range m.files() {
		if !slices.Contains(before, name) && !slices.Contains(others, name) {
			t.Errorf("%s is left", name)
		}
	}
	for _, kind := range []string{"group", "passwd"} {
		if said, _ := m.try("getent", kind, "portsentry"); said != "" {
			t.Errorf("%s: portsentry is left: %s", kind, said)
		}
	}
	for _, dir := range []string{"/etc/portsentry", "/var/lib/portsentry", "/usr/lib/portsentry", "/usr/share/doc/portsentry", "/usr/share/portsentry", "/etc/systemd/system/portsentry.service.d"} {
		if m.has(dir) {
			t.Errorf("%s is left", dir)
		}
	}
	if said, _ := m.try("dpkg", "-s", "portsentry"); !strings.Contains(said, "not installed") {
		t.Errorf("dpkg: %s", said)
	}
}

// others are files that programs of the machine have made meanwhile.
var others = []string{
	"/etc/gshadow-", // groupadd's copy of before
	"/etc/shadow-",  // useradd's
	"/etc/passwd-",
	"/etc/hosts.deny", // KILL_HOSTS_DENY's; the lines are gone
}

// install installs or upgrades, as an administrator does who keeps what is there.
func (m *machine) install(deb string) string {
	m.t.Helper()
	return m.run("apt-get", "-y", "-o", "Dpkg::Options::=--force-confold", "install", deb)
}

func (m *machine) status() view.Status {
	m.t.Helper()
	var s view.Status
	check(m.t, json.Unmarshal([]byte(m.run(m.program, "status", "--json")), &s))
	return s
}

func (m *machine) bans() []view.Ban {
	m.t.Helper()
	var b struct {
		Bans []view.Ban `json:"bans"`
	}
	check(m.t, json.Unmarshal([]byte(m.run(m.program, "bans", "--json")), &b))
	return b.Bans
}

// scan connects to the trap ports, and gives the ports that are open.
func (m *machine) scan(t *testing.T) []string {
	t.Helper()
	said := lab.Nmap(t, m.lab.Scanner.NS, "-sT", "-r", "--max-retries", "0", "-p", "11,15", lab.HostAddrs[0].Addr().String())
	return regexp.MustCompile(`(?m)^\d+/tcp +open `).FindAllString(said, -1)
}

// banned waits for the ban of the scanner.
func (m *machine) banned(t *testing.T) (ban view.Ban) {
	t.Helper()
	m.wait("a ban", func() bool {
		for _, ban = range m.bans() {
			if ban.Prefix == netip.PrefixFrom(scanner, 32) {
				return true
			}
		}
		return false
	})
	return ban
}

// asOfOld: with the file of 1.2 the answers are those of 1.2, and its files.
func (m *machine) asOfOld(t *testing.T) {
	m.scan(t)
	m.wait("hosts.deny and the route", func() bool {
		return strings.Contains(m.read("/etc/hosts.deny"), "ALL: "+scanner.String()+" : DENY\n") &&
			strings.Contains(m.run("ip", "route"), "unreachable "+scanner.String())
	})
	m.wait("the blocked file", func() bool {
		return strings.Contains(m.read("/var/lib/portsentry/portsentry.blocked.tcp"), scanner.String()+" Port: 11 TCP Blocked")
	})
	m.run("portsentry", "unban", scanner.String())
	m.wait("no line in hosts.deny", func() bool { return !strings.Contains(m.read("/etc/hosts.deny"), scanner.String()) })
	m.run("ip", "route", "del", "unreachable", scanner.String()) // without KILL_ROUTE_UNDO by hand
}

// banAndUnban: the administrator takes the native ban, and hosts.deny beside it.
func (m *machine) banAndUnban(t *testing.T) {
	m.sh(`sed -i 's/^KILL_ROUTE=.*/BLOCK_METHOD="auto"/' ` + conf)
	m.run("portsentry", "check")
	m.sh("/etc/init.d/portsentry reload")
	m.wait("the table", func() bool { return strings.Contains(m.run("nft", "list", "tables"), "inet portsentry") })
	m.scan(t)
	ban := m.banned(t)
	if ban.Evidence == "E1" || !slices.Contains(ban.Methods, "nftables") {
		t.Errorf("%+v", ban)
	}
	m.wait("silence", func() bool { return len(m.scan(t)) == 0 })
	m.run("portsentry", "unban", scanner.String())
	if bans := m.bans(); len(bans) > 0 {
		t.Errorf("after the unban: %+v", bans)
	}
	m.wait("open ports again", func() bool { return len(m.scan(t)) > 0 })
}

// upgrade: the ban stands, with the same end.
func (m *machine) upgrade(t *testing.T, deb string) {
	before := m.banned(t)
	text := m.read(conf)
	t.Logf("the upgrade says\n%s", m.install(deb))
	m.wait("the new version runs", func() bool {
		said, err := m.try("portsentry", "status", "--json")
		return err == nil && strings.Contains(said, `"`+later+`"`)
	})
	if m.read(conf) != text || m.has(conf+".dpkg-new") {
		t.Error("the configuration is another one")
	}
	m.kept(t, before)
	if open := m.scan(t); len(open) > 0 {
		t.Errorf("it sees %q", open)
	}
}

// kept wants the ban of before: with the same end, for the kernel counts what is left.
func (m *machine) kept(t *testing.T, before view.Ban) {
	t.Helper()
	after := m.banned(t)
	if before.Until == nil || after.Until == nil || after.Until.Sub(*before.Until).Abs() > 2*time.Second ||
		!slices.Equal(after.Methods, before.Methods) || after.Evidence != before.Evidence {
		t.Errorf("before %s\nafter  %s", words(before), words(after))
	}
}

func words(b view.Ban) string { return fmt.Sprintf("%v until %v: %+v", b.Prefix, b.Until, b) }

// remove: nothing stays in the kernel, and the configuration does.
func (m *machine) remove(t *testing.T) {
	if !strings.Contains(m.read("/etc/hosts.deny"), scanner.String()) {
		t.Errorf("hosts.deny has no line that could go:\n%s", m.read("/etc/hosts.deny"))
	}
	text := m.read(conf)
	t.Logf("the removal says\n%s", m.run("apt-get", "-y", "remove", "portsentry"))
	if got := m.daemons(); len(got) > 0 {
		t.Errorf("%q still run", got)
	}
	if said := m.run("nft", "list", "ruleset"); said != "" {
		t.Errorf("nftables has\n%s", said)
	}
	if said := m.sh("ls -A /sys/fs/bpf /run"); strings.Contains(said, "portsentry") {
		t.Errorf("there is still\n%s", said)
	}
	if said := m.run("ip", "-d", "link"); strings.Contains(said, "xdp") {
		t.Errorf("the program is still on\n%s", said)
	}
	if said := m.run("ip", "route", "show", "table", "all", "proto", "112"); said != "" {
		t.Errorf("routes\n%s", said)
	}
	if strings.Contains(m.read("/etc/hosts.deny"), scanner.String()) {
		t.Errorf("hosts.deny has\n%s", m.read("/etc/hosts.deny"))
	}
	if m.read(conf) != text || !m.has(defaults) {
		t.Error("the configuration has gone before the purge")
	}
	lab.Command(t, m.lab.Scanner.NS, "ping", "-c", "1", "-W", "2", lab.HostAddrs[0].Addr().String())
}
