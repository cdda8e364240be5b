package packages

import (
	"path/filepath"
	"strings"
	"testing"

	"portsentry/test/lab"
)

// fake is the specification of a package as there were some of 1.x and 2.x, with
// the version for $VERSION. Its daemon does nothing, for ten minutes.
const fake = `Name: portsentry
Version: $VERSION
Release: 4
Summary: an old one
License: CPL
%global debug_package %{nil}
%global __os_install_post %{nil}
%description
An old one.
%install
mkdir -p %{buildroot}/etc/portsentry %{buildroot}/usr/sbin
cp /bin/sleep %{buildroot}/usr/sbin/portsentry
cd %{buildroot}/etc/portsentry
echo 'TCP_PORTS="1"' >portsentry.conf
echo '127.0.0.1/32' >portsentry.ignore
echo 'tcp' >portsentry.modes
%files
%config(noreplace) /etc/portsentry/portsentry.conf
%config(noreplace) /etc/portsentry/portsentry.ignore
%config(noreplace) /etc/portsentry/portsentry.modes
/usr/sbin/portsentry
`

// edited is what the administrator has made of its configuration.
const edited = `TCP_PORTS="1,7"
UDP_PORTS="7"
BLOCK_TCP="1"
BLOCK_METHOD="auto"
IGNORE_FILE="/etc/portsentry/portsentry.ignore"
HISTORY_FILE="/var/lib/portsentry/portsentry.history"
BLOCKED_FILE="/var/lib/portsentry/portsentry.blocked"
DATABASE_FILE="/var/lib/portsentry/portsentry.db"
`

// TestRPM is the life of the rpm on a machine with systemd and rpm: new, in the
// place of an old package, upgraded, and removed. (It is a Debian: rpm knows none
// of what is installed there, hence --nodeps.)
func TestRPM(t *testing.T) {
	needLong(t)
	l := lab.New(t)
	dir := small(t, "systemd,procps,iproute2,nftables,rpm")
	m := &machine{systemd(t, dir, l.Host.NS), l, "portsentry"}
	ours := m.put(filepath.Join(packages(t, version, "amd64"), "portsentry-"+version+"-1.x86_64.rpm"))
	next := m.put(filepath.Join(packages(t, later, "amd64"), "portsentry-"+later+"-1.x86_64.rpm"))

	t.Run("new", func(t *testing.T) {
		m.rpm(t, "-i", ours)
		if got := m.property(unit, "UnitFileState"); got != "enabled" { // Debian's presets
			t.Errorf("it is %s", got)
		}
		if got := m.property(unit, "ActiveState"); got != "inactive" {
			t.Errorf("it is %s", got)
		}
		m.run("systemctl", "start", "portsentry")
		m.runs(t)
		m.erase(t, false)
	})
	for _, old := range []string{"1.2", "2.0.7"} {
		t.Run("from "+old, func(t *testing.T) { m.fromOld(t, old, ours, next) })
	}
}

// rpm installs, upgrades or removes.
func (m *machine) rpm(t *testing.T, args ...string) string {
	t.Helper()
	said := m.run(append([]string{"rpm", "--nodeps"}, args...)...)
	t.Logf("rpm %s says\n%s", strings.Join(args, " "), said)
	if strings.Contains(said, "error") || strings.Contains(said, "scriptlet failed") {
		t.Error("a script has failed")
	}
	return said
}

func (m *machine) fromOld(t *testing.T, old, ours, next string) {
	m.write("/tmp/old.spec", strings.ReplaceAll(fake, "$VERSION", old))
	m.run("rpmbuild", "--quiet", "-bb", "--define", "_topdir /tmp/build", "/tmp/old.spec")
	m.rpm(t, "-i", "/tmp/build/RPMS/x86_64/portsentry-"+old+"-4.x86_64.rpm")
	m.write(conf, edited)
	m.write("/etc/portsentry/portsentry.ignore", "127.0.0.1/32\n198.51.100.0/24\n")
	m.sh("/usr/sbin/portsentry 600 >/dev/null 2>&1 </dev/null &")
	m.wait("the old one runs", func() bool { return len(m.daemons()) == 1 })

	said := m.rpm(t, "-U", ours)
	if got := m.daemons(); len(got) > 0 || !strings.Contains(said, "Stopping the portsentry that was here before") {
		t.Errorf("%q still run", got)
	}
	kept := func() {
		t.Helper()
		if got := m.read(conf); got != edited {
			t.Errorf("the configuration is\n%s", got)
		}
		if got := m.read("/etc/portsentry/portsentry.ignore"); !strings.HasSuffix(got, "198.51.100.0/24\n") {
			t.Errorf("what is ignored is\n%s", got)
		}
	}
	kept()
	if !m.has(conf + ".rpmnew") {
		t.Error("the new configuration is not beside it")
	}
	if got := m.property(unit, "ActiveState"); got != "inactive" {
		t.Errorf("it is %s", got)
	}
	m.run("systemctl", "enable", "--now", "portsentry")
	m.runs(t)
	m.probe(t)
	before := m.banned(t)

	pid := m.property(unit, "MainPID")
	m.rpm(t, "-U", next)
	m.wait("the next version runs", func() bool { return m.property(unit, "MainPID") != pid })
	m.same(t, before)
	if got := m.status().Version; got != later {
		t.Errorf("it is %s", got)
	}
	kept()
	m.erase(t, true)
}

// erase removes the package. A configuration that was edited is saved.
func (m *machine) erase(t *testing.T, edited bool) {
	t.Helper()
	m.rpm(t, "-e", "portsentry")
	if m.has(conf) || m.has(conf+".rpmsave") != edited || !m.has("/var/lib/portsentry/portsentry.db") {
		t.Errorf("there are %s", m.sh("ls -d /etc/portsentry/* /var/lib/portsentry/*"))
	}
	if got := m.daemons(); len(got) > 0 {
		t.Errorf("%q still run", got)
	}
	if said, _ := m.try("systemctl", "is-enabled", unit); strings.Contains(said, "enabled") {
		t.Errorf("it is %s", said)
	}
	for what, said := range map[string]string{
		"nftables": m.run("nft", "list", "ruleset"),
		"pinned":   m.run("ls", "/sys/fs/bpf"),
		"xdp":      m.run("ip", "-d", "link"),
	} {
		if said != "" && (what == "nftables" || strings.Contains(said, "portsentry") || strings.Contains(said, "xdp")) {
			t.Errorf("%s:\n%s", what, said)
		}
	}
	m.run("rm", "-rf", "/etc/portsentry", "/var/lib/portsentry")
}
