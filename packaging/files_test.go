package packaging_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tool runs a program that checks files for us, if it is installed.
func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrNotFound) {
		t.Logf("%s is not installed", name)
		return
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func TestInitScriptSyntax(t *testing.T) {
	const script = "init.d/portsentry"
	tool(t, "sh", "-n", script)
	tool(t, "dash", "-n", script)
	tool(t, "bash", "--posix", "-n", script)
	tool(t, "busybox", "sh", "-n", script)
	tool(t, "shellcheck", "-s", "sh", script)
	if info, err := os.Stat(script); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	text, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"pkill", "killall", "pidof", "start-stop-daemon", "kill -9", "kill -KILL"} {
		if strings.Contains(string(text), word) {
			t.Errorf("%s is in it", word)
		}
	}
}

// TestMaintainerScripts: they are shell, and can be run.
func TestMaintainerScripts(t *testing.T) {
	for _, name := range []string{
		"build", "deb/preinst", "deb/postinst", "deb/prerm", "deb/postrm",
		"rpm/pre", "rpm/post", "rpm/preun", "rpm/postun",
	} {
		tool(t, "dash", "-n", name)
		tool(t, "bash", "--posix", "-n", name)
		tool(t, "shellcheck", "-s", "sh", name)
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// TestUnits verifies both units, with a program that is there in the place of ours,
// and how little that of the daemon is exposed.
func TestUnits(t *testing.T) {
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join("systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	const daemon, helper = "portsentry.service", "portsentry-helper.service"
	for name, want := range map[string][]string{
		daemon: {"Type=notify", "ExecReload=/bin/kill -HUP $MAINPID", "Restart=on-failure", "StateDirectory=portsentry", "RuntimeDirectory=portsentry",
			"User=portsentry", "NoNewPrivileges=yes", "WatchdogSec=30"},
		helper: {"Type=notify", "PartOf=portsentry.service", "ExecCondition=/usr/sbin/portsentry helper --wanted", "ExecStart=/usr/sbin/portsentry helper --listen"},
	} {
		for _, line := range want {
			if !strings.Contains(read(name), "\n"+line+"\n") {
				t.Errorf("%s: %q is not in it", name, line)
			}
		}
	}
	// What would break commands of the owner's.
	for _, setting := range []string{"NoNewPrivileges=", "ProtectSystem=", "ProtectHome=", "PrivateTmp=", "CapabilityBoundingSet=", "User=", "MemoryDenyWriteExecute=", "SystemCallFilter=", "PrivateNetwork=", "RestrictAddressFamilies="} {
		if strings.Contains(read(helper), "\n"+setting) {
			t.Errorf("%s: %s is in it", helper, setting)
		}
	}
	// With the drop-in that the upgrade of a 1.x makes, too.
	for name, add := range map[string]string{"alone": "", "1.x": read("1.x.conf")} {
		dir := t.TempDir()
		for unit, text := range map[string]string{daemon: read(daemon) + add, helper: read(helper)} {
			text = strings.NewReplacer("=/usr/sbin/portsentry", "=/bin/true", "=/etc/init.d/portsentry ", "=/bin/true ").Replace(text)
			if strings.Contains(text, "=/usr/sbin/portsentry") || !strings.Contains(text, "/bin/true") {
				t.Fatalf("%s: not the programs that were expected\n%s", name, text)
			}
			if err := os.WriteFile(filepath.Join(dir, unit), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		tool(t, "systemd-analyze", "verify", "--man=no", filepath.Join(dir, daemon), filepath.Join(dir, helper))
	}
	tool(t, "systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=20", filepath.Join("systemd", daemon)) // 20 is 2.0
}

func TestLogFiles(t *testing.T) {
	rotate, err := filepath.Abs("logrotate/portsentry")
	if err != nil {
		t.Fatal(err)
	}
	// It refuses a file that others may write; that of a checkout may be one.
	text, err := os.ReadFile(rotate)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "portsentry")
	if err := os.WriteFile(copied, text, 0o644); err != nil {
		t.Fatal(err)
	}
	tool(t, "logrotate", "--debug", "--state", copied+".state", copied)
	history := parse(t, shipped(t)).HistoryFile
	if !strings.Contains(string(text), "\n"+history+"\n") {
		t.Errorf("%s is not rotated", history)
	}

	log, err := filepath.Abs("rsyslog/portsentry.conf")
	if err != nil {
		t.Fatal(err)
	}
	tool(t, "rsyslogd", "-N1", "-f", log)
	conf, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	const own = "/var/log/portsentry.syslog"
	if !strings.Contains(string(conf), `file="`+own+`"`) || !strings.Contains(string(text), "\n"+own+"\n") {
		t.Errorf("%s is not written, or not rotated", own)
	}
}

func shipped(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("portsentry.conf")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
