package packages

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"portsentry/internal/view"
	"portsentry/test/lab"
)

const (
	unit   = "portsentry.service"
	helper = "portsentry-helper.service"
)

// contained is what the daemon says where it cannot reach the control group of the
// whole machine: the one thing that a machine of this test lacks.
const contained = "outside this container"

// TestSystemd is the life of the deb on a machine whose first process is systemd:
// the units as they are, with all that they take away.
func TestSystemd(t *testing.T) {
	needLong(t)
	l := lab.New(t)
	dir := small(t, "systemd,procps,iproute2,nftables")
	m := &machine{systemd(t, dir, l.Host.NS), l, "portsentry"}
	defer m.tell()
	deb := m.put(filepath.Join(packages(t, version, "amd64"), "portsentry_"+version+"_amd64.deb"))
	before := m.files()
	m.run("mkdir", "/sys/fs/bpf/another") // somebody else's
	t.Logf("the installation says\n%s", m.install(deb))

	t.Run("started", m.started)
	t.Run("exposure", m.exposure)
	t.Run("reload and ban", m.reloadAndBan)
	t.Run("restart", m.restart)
	t.Run("watchdog", m.watchdog)
	t.Run("journal", m.journal)
	t.Run("helper", m.helper)
	t.Run("stop", m.stop)
	t.Run("remove", m.removeUnits)

	m.run("dpkg", "--purge", "portsentry")
	for _, name := range m.files() {
		if !slices.Contains(before, name) && !slices.Contains(others, name) && !strings.HasPrefix(name, "/var/log/journal/") {
			t.Errorf("%s is left", name)
		}
	}
	if said := m.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "portsentry*"); said != "" {
		t.Errorf("systemd knows\n%s", said)
	}
	if said, _ := m.try("getent", "passwd", "portsentry"); said != "" {
		t.Errorf("left: %s", said)
	}
}

// tell logs what systemd and the daemon said, where something went wrong.
func (m *machine) tell() {
	if m.t.Failed() {
		said, _ := m.try("journalctl", "--no-pager", "-n", "60")
		m.t.Logf("the journal says\n%s", said)
	}
}

// property is one of a unit.
func (m *machine) property(unit, name string) string {
	m.t.Helper()
	return strings.TrimSpace(m.run("systemctl", "show", "-P", name, unit))
}

// runs waits until the daemon runs and serves, and wants no other problem than the
// known one.
func (m *machine) runs(t *testing.T) view.Status {
	t.Helper()
	m.wait("the unit is active", func() bool { return m.property(unit, "SubState") == "running" })
	s := m.status() // ready means that it answers
	for _, p := range s.Problems {
		if !strings.Contains(p, contained) {
			t.Errorf("problem: %s", p)
		}
	}
	if len(s.Watching) != 1 || s.Watching[0].How != lab.How() {
		t.Errorf("watching %+v", s.Watching)
	}
	return s
}

// started: the unit is up as the user portsentry, with XDP and no more rights than
// the documents say, and there is nothing for the helper to do.
func (m *machine) started(t *testing.T) {
	m.runs(t)
	for name, want := range map[string]string{"Type": "notify", "ActiveState": "active", "UnitFileState": "enabled", "NRestarts": "0"} {
		if got := m.property(unit, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := m.property(helper, "Result"); got != "exec-condition" {
		t.Errorf("the helper: %q", got)
	}
	pid := m.property(unit, "MainPID")
	if said := m.run("ps", "-o", "user=", "-p", pid); strings.TrimSpace(said) != "portsent+" && strings.TrimSpace(said) != "portsentry" {
		t.Errorf("it is the user %s", said)
	}
	doc, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "privileges.md"))
	check(t, err)
	if got := m.run("grep", "-E", "Cap(Prm|Eff)|NoNewPrivs|Seccomp:", "/proc/"+pid+"/status"); !strings.Contains(string(doc), got) {
		t.Errorf("docs/privileges.md has another\n%s", got)
	}
	for name, want := range map[string]string{
		"/run/portsentry":                 "drwxr-xr-x portsentry portsentry",
		"/run/portsentry/portsentry.sock": "srw-rw---- portsentry portsentry",
		"/var/lib/portsentry":             "drwxr-xr-x portsentry portsentry",
		"/sys/fs/bpf/portsentry":          "drwx------ portsentry portsentry",
	} {
		if got := m.run("stat", "-c", "%A %U %G", name); got != want+"\n" {
			t.Errorf("%s is %s", name, got)
		}
	}
	if got := m.run("ls", "/proc/"+pid+"/root/sys/fs/bpf"); got != "portsentry\n" {
		t.Errorf("of the BPF file system it sees %q", got)
	}
	if said := m.run("ip", "-d", "link"); !strings.Contains(said, "prog/xdp") {
		t.Errorf("no XDP program on\n%s", said)
	}
}

// exposure: systemd's opinion of the units is what the documents say.
func (m *machine) exposure(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "privileges.md"))
	check(t, err)
	says := regexp.MustCompile("`systemd-analyze security (\\S+)` says ([\\d.]+), ([A-Z]+)").FindAllStringSubmatch(string(doc), -1)
	if len(says) != 2 {
		t.Fatalf("docs/privileges.md says %q", says)
	}
	for _, s := range says {
		said, _ := m.try("systemd-analyze", "security", "--no-pager", s[1])
		want := "Overall exposure level for " + s[1] + ": " + s[2] + " " + s[3] + " "
		if !strings.Contains(said, want) {
			t.Errorf("%q is not the end of\n%s", want, said)
		}
	}
}

// probe scans two trap ports.
func (m *machine) probe(t *testing.T) {
	t.Helper()
	lab.Nmap(t, m.lab.Scanner.NS, "-sS", "-r", "--max-retries", "0", "-p", "1,7", lab.HostAddrs[0].Addr().String())
}

// reloadAndBan: after a reload, which systemctl waits for, scanners are banned.
func (m *machine) reloadAndBan(t *testing.T) {
	pid := m.property(unit, "MainPID")
	m.sh(`sed -i 's/^BLOCK_TCP=.*/BLOCK_TCP="1"/' ` + conf)
	m.run("systemctl", "reload", "portsentry")
	m.wait("the new settings", func() bool { return m.status().BlockTCP == 1 })
	m.runs(t)
	m.probe(t)
	if b := m.banned(t); !slices.Equal(b.Methods, []string{"xdp", "nftables"}) {
		t.Errorf("%s", words(b))
	}
	if said := m.run("nft", "list", "table", "inet", "portsentry"); !strings.Contains(said, scanner.String()) {
		t.Errorf("it is not in\n%s", said)
	}
	if got := m.property(unit, "MainPID"); got != pid {
		t.Errorf("process %s, was %s", got, pid)
	}
}

// same wants the ban of before.
func (m *machine) same(t *testing.T, before view.Ban) {
	t.Helper()
	m.runs(t)
	m.kept(t, before)
}

// restart: by hand and after a crash, bans stay.
func (m *machine) restart(t *testing.T) {
	before := m.banned(t)
	m.run("systemctl", "restart", "portsentry")
	m.same(t, before)
	m.run("systemctl", "kill", "--signal", "KILL", "portsentry")
	m.wait("the next one", func() bool { return m.property(unit, "NRestarts") == "1" })
	m.same(t, before)
}

// watchdog: one that has stopped answering is replaced.
func (m *machine) watchdog(t *testing.T) {
	before := m.banned(t)
	const dir = "/run/systemd/system/portsentry.service.d"
	m.sh("mkdir -p " + dir + ` && printf '[Service]\nWatchdogSec=3\n' >` + dir + "/soon.conf && systemctl daemon-reload && systemctl restart portsentry")
	m.runs(t)
	pid := m.property(unit, "MainPID")
	m.run("kill", "-STOP", pid)
	m.wait("the next one", func() bool { return m.property(unit, "NRestarts") != "0" && m.property(unit, "MainPID") != pid })
	m.same(t, before)
	if said := m.run("journalctl", "--no-pager", "-u", unit); !strings.Contains(said, "Watchdog timeout") {
		t.Error("the journal has nothing of the watchdog")
	}
	m.run("rm", "-r", dir)
	m.run("systemctl", "daemon-reload")
	m.run("systemctl", "restart", "portsentry")
}

// journal: what was seen is there with its fields.
func (m *machine) journal(t *testing.T) {
	want := map[string]string{
		"PORTSENTRY_EVENT": "sighting", "PORTSENTRY_PROTOCOL": "tcp", "PORTSENTRY_PORT": "1", "PORTSENTRY_KIND": "syn",
		"PORTSENTRY_BAN": scanner.String() + "/32", "_SYSTEMD_UNIT": unit, "SYSLOG_IDENTIFIER": "portsentry", "_TRANSPORT": "journal",
	}
	said := m.run("journalctl", "-o", "json", "-u", "portsentry", "PORTSENTRY_SOURCE="+scanner.String())
	for line := range strings.Lines(said) {
		var e map[string]any
		check(t, json.Unmarshal([]byte(line), &e))
		missing := ""
		for name, value := range want {
			if e[name] != value {
				missing = name
			}
		}
		if missing == "" {
			return
		}
	}
	t.Errorf("no entry has %v:\n%s", want, said)
}

// helper: it is started when there is a command, runs it as root, and lives and
// ends with the daemon.
func (m *machine) helper(t *testing.T) {
	m.run("portsentry", "unban", scanner.String())
	m.sh(`cp ` + conf + ` /tmp/before; echo 'KILL_RUN_CMD="echo $TARGET$ $PORT$ $(id -u) >>/var/ran"' >>` + conf)
	m.sh(`echo 'KILL_HOSTS_DENY="ALL: $TARGET$ : DENY"' >>` + conf)
	m.run("systemctl", "restart", "portsentry")
	m.runs(t)
	if got := m.property(helper, "SubState"); got != "running" {
		t.Errorf("it is %q", got)
	}
	if got := m.run("stat", "-c", "%A %U", "/run/portsentry-helper/socket"); got != "srw------- portsentry\n" {
		t.Errorf("its socket is %s", got)
	}
	m.probe(t)
	m.wait("the command", func() bool { return m.read("/var/ran") == scanner.String()+" 1 0\n" })
	m.wait("the line in hosts.deny", func() bool { return strings.Contains(m.read("/etc/hosts.deny"), "ALL: "+scanner.String()) })
	m.runs(t)

	pid := m.property(helper, "MainPID")
	m.run("systemctl", "restart", "portsentry")
	m.runs(t)
	if got := m.property(helper, "MainPID"); got == pid || got == "0" {
		t.Errorf("after a restart its process is %s, was %s", got, pid)
	}
	m.run("portsentry", "unban", scanner.String())
	m.wait("no line in hosts.deny", func() bool { return !strings.Contains(m.read("/etc/hosts.deny"), scanner.String()) })
	m.sh("mv /tmp/before " + conf + "; rm /var/ran")
	m.run("systemctl", "restart", "portsentry")
	m.runs(t)
	if got := m.property(helper, "SubState"); got != "dead" {
		t.Errorf("with nothing to do it is %q", got)
	}
}

// stop: on request it ends in order, and leaves its ban in force.
func (m *machine) stop(t *testing.T) {
	m.probe(t)
	before := m.banned(t)
	m.run("systemctl", "stop", "portsentry")
	for name, want := range map[string]string{"Result": "success", "ExecMainStatus": "0", "SubState": "dead"} {
		if got := m.property(unit, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if said := m.run("ls", "-A", "/run"); strings.Contains(said, "portsentry") {
		t.Errorf("/run has\n%s", said)
	}
	if said := m.run("nft", "list", "table", "inet", "portsentry"); !strings.Contains(said, scanner.String()) {
		t.Errorf("the ban is not in\n%s", said)
	}
	m.run("systemctl", "start", "portsentry")
	m.same(t, before)
}

// removeUnits: it ends, and leaves nothing in the kernel.
func (m *machine) removeUnits(t *testing.T) {
	t.Logf("the removal says\n%s", m.run("apt-get", "-y", "remove", "portsentry"))
	if got := m.property(unit, "ActiveState"); got != "inactive" {
		t.Errorf("it is %s", got)
	}
	if said := m.run("nft", "list", "ruleset"); said != "" {
		t.Errorf("nftables has\n%s", said)
	}
	if said := m.run("ls", "-A", "/sys/fs/bpf"); strings.Contains(said, "portsentry") {
		t.Errorf("pinned is\n%s", said)
	}
	if said := m.run("ip", "-d", "link"); strings.Contains(said, "xdp") {
		t.Errorf("the program is still on\n%s", said)
	}
	lab.Command(t, m.lab.Scanner.NS, "ping", "-c", "1", "-W", "2", lab.HostAddrs[0].Addr().String())
}
