package packaging_test

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/config"
)

const (
	sandboxed = "PACKAGING_TEST_SANDBOX" // set in the process that has namespaces of its own

	program     = "/usr/sbin/portsentry"
	pidFile     = "/run/portsentry.pid"
	callsFile   = "/run/calls"   // a line for each start of the fake: its arguments
	signalsFile = "/run/signals" // a line for each signal it gets
	failFile    = "/run/fail"    // where it is there, the fake does not start
)

// fake does what a portsentry with flags of 1.x does for an init script: it says
// no at once, or detaches when it is ready, with a pid file.
const fake = `#!/bin/sh
if [ -z "$DETACHED" ]; then
	echo "$*" >>/run/calls
	if [ -e /run/fail ]; then
		echo "the fake was told to fail" >&2
		exit 255
	fi
	DETACHED=1 "$0" </dev/null >/dev/null 2>&1 &
	until [ -s /run/portsentry.pid ] && grep -qx $! /run/portsentry.pid; do sleep 0.02; done
	exit 0
fi
trap 'echo HUP >>/run/signals' HUP
trap 'echo TERM >>/run/signals; rm -f /run/portsentry.pid; exit 0' TERM
echo $$ >/run/portsentry.pid
while :; do # a signal that comes just before a long wait would be seen at its end
	sleep 0.05
done
`

// TestInitScript runs in namespaces of its own (mounts, processes, network), with
// a /run, an /etc and a /usr that nobody else sees.
func TestInitScript(t *testing.T) {
	if os.Getenv(sandboxed) == "" {
		if os.Getuid() != 0 {
			if os.Getenv("CI") == "true" {
				t.Fatal("needs root: it makes namespaces")
			}
			t.Skip("needs root: it makes namespaces")
		}
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestInitScript$", "-test.v", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), sandboxed+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestInitScript") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	// Under nohup a shell would hear no HUP: what we catch, our children have as usual.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP)
	furnish(t)
	t.Run("stopped", testStopped)
	t.Run("modes", testModes)
	t.Run("foreground", testForeground)
	t.Run("life", testLife)
	t.Run("others", testOthers)
	t.Run("refused", testRefused)
}

// furnish mounts what the script looks at, and installs the fake.
func furnish(t *testing.T) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(unix.Mount("proc", "/proc", "proc", 0, ""))
	must(unix.Mount("tmpfs", "/run", "tmpfs", 0, ""))
	for _, dir := range []string{"usr", "etc"} {
		upper, work := "/run/."+dir+".upper", "/run/."+dir+".work"
		must(errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)))
		must(unix.Mount("overlay", "/"+dir, "overlay", 0, "lowerdir=/"+dir+",upperdir="+upper+",workdir="+work))
	}
	must(os.WriteFile(program, []byte(fake), 0o755))
	must(errors.Join(os.RemoveAll("/etc/portsentry"), os.MkdirAll("/etc/portsentry", 0o755), os.MkdirAll("/etc/default", 0o755)))
	must(os.WriteFile("/run/tcp", nil, 0o644))
	clean(t)
}

// clean takes the helper files and the notes of the fake away.
func clean(t *testing.T) {
	t.Helper()
	for _, f := range []string{"/etc/portsentry/portsentry.modes", "/etc/default/portsentry", callsFile, signalsFile, failFile, pidFile} {
		if err := os.RemoveAll(f); err != nil {
			t.Fatal(err)
		}
	}
}

// script runs the script and wants its exit code.
func script(t *testing.T, want int, args ...string) (output string) {
	t.Helper()
	path, err := filepath.Abs("init.d/portsentry")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", append([]string{path}, args...)...)
	cmd.Dir = "/run"
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	code := 0
	if exit != nil {
		code = exit.ExitCode()
	}
	if code != want {
		t.Errorf("%v: exit code %d, want %d\n%s", args, code, want, out)
	}
	return string(out)
}

func lines(path string) string {
	b, _ := os.ReadFile(path)
	return strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", " ")
}

// eventually polls until the notes of the fake are want.
func eventually(t *testing.T, path, want string) {
	t.Helper()
	end := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for lines(path) != want {
		select {
		case <-end:
			t.Fatalf("%s is %q, want %q", path, lines(path), want)
		case <-tick.C:
		}
	}
}

func testStopped(t *testing.T) {
	clean(t)
	script(t, 3, "status")
	script(t, 0, "stop")
	script(t, 7, "reload")
	script(t, 2)
	script(t, 2, "begin")
	if calls := lines(callsFile); calls != "" {
		t.Errorf("the daemon was run: %q", calls)
	}
}

// testModes: the script starts one daemon with the flags that the files of old
// ask for, and refuses what the program's own parsers refuse.
func testModes(t *testing.T) {
	const none, absent = "none", "absent"
	for _, tt := range []struct{ modes, defaults, flags string }{
		{"# x\ntcp # y\nudp\n#stcp\n", absent, "-tcp -udp"},
		{"stcp audp\r\n", "TCP_MODE=tcp", "-stcp -audp"},
		{"sudp", absent, "-sudp"},
		{"", absent, "-tcp -udp"},
		{" # tcp\n\n", absent, "-tcp -udp"},
		{"atcp\natcp\n", absent, "-atcp"},
		{"tcp\nstpc\n", absent, ""},
		{"tcp\nstcp\n", absent, ""},
		{"t*\n", absent, ""}, // no pattern, though there is a file tcp
		{absent, "TCP_MODE=\"atcp\"\nUDP_MODE='sudp' # z\n", "-atcp -sudp"},
		{absent, "export UDP_MODE=udp", "-udp"},
		{absent, "TCP_MODE=\"\"\nUDP_MODE=\"\"\n", none},
		{absent, "# nothing\n", none},
		{absent, "TCP_MODE=all\n", ""},
		{absent, "TCP_MODE=tcp\nUDP_MODE=upd\n", ""},
		{absent, absent, "-tcp -udp"},
	} {
		clean(t)
		var m config.Modes
		var nothing bool
		var err error
		for path, text := range map[string]string{"/etc/portsentry/portsentry.modes": tt.modes, "/etc/default/portsentry": tt.defaults} {
			if text == absent {
				continue
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		switch {
		case tt.modes != absent:
			m, err = config.ParseModes("f", []byte(tt.modes))
		case tt.defaults != absent:
			m, nothing, err = config.ParseDefaults("f", []byte(tt.defaults))
		default:
			m = config.Modes{TCP: config.Connect, UDP: config.Connect}
		}
		var parsed []string
		for _, word := range []string{m.TCP.Word(config.Dialect1x, false), m.UDP.Word(config.Dialect1x, true)} {
			if word != none {
				parsed = append(parsed, "-"+word)
			}
		}
		switch tt.flags {
		case "":
			script(t, 1, "start")
			if err == nil {
				t.Errorf("%+v: the parser takes it: %v", tt, m)
			}
		case none:
			if out := script(t, 0, "start"); out != "Not starting anti portscan daemon (no modes in /etc/default/portsentry)\n" {
				t.Errorf("%+v: %s", tt, out)
			}
			if !nothing {
				t.Errorf("%+v: the parser has %v, %v", tt, m, err)
			}
		default:
			script(t, 0, "start")
			if got := strings.Join(parsed, " "); got != tt.flags || err != nil {
				t.Errorf("%+v: the parser has %s, %v", tt, got, err)
			}
		}
		if got := lines(callsFile); got != strings.ReplaceAll(tt.flags, none, "") {
			t.Errorf("%+v: started with %q", tt, got)
		}
		script(t, 0, "stop")
	}
}

// testForeground: for a service manager the daemon does not detach, and whether
// there is anything to start is asked before.
func testForeground(t *testing.T) {
	for _, tt := range []struct {
		defaults       string
		wanted, starts int
		calls          string
	}{
		{"TCP_MODE=atcp\n", 0, 0, "--foreground --logoutput syslog -atcp"},
		{"TCP_MODE=tcp\nUDP_MODE=sudp\n", 0, 0, "--foreground --logoutput syslog -tcp -sudp"},
		{"TCP_MODE=\nUDP_MODE=\n", 1, -1, ""},
		{"TCP_MODE=cpt\n", 255, 1, ""},
	} {
		clean(t)
		if err := os.WriteFile("/etc/default/portsentry", []byte(tt.defaults), 0o644); err != nil {
			t.Fatal(err)
		}
		script(t, tt.wanted, "wanted")
		if tt.starts >= 0 {
			script(t, tt.starts, "foreground")
		}
		if got := lines(callsFile); got != tt.calls {
			t.Errorf("%q: started with %q", tt.defaults, got)
		}
		script(t, 0, "stop")
	}
}

func testLife(t *testing.T) {
	clean(t)
	script(t, 0, "start")
	script(t, 0, "status")
	first := lines(pidFile)
	if out := script(t, 0, "start"); !strings.Contains(out, "already running with pid "+first) {
		t.Error(out)
	}
	script(t, 0, "reload")
	eventually(t, signalsFile, "HUP")
	script(t, 0, "force-reload")
	eventually(t, signalsFile, "HUP HUP")
	script(t, 0, "restart")
	if second := lines(pidFile); second == first || second == "" || lines(callsFile) != "-tcp -udp -tcp -udp" {
		t.Errorf("pid %s then %s, started with %s", first, second, lines(callsFile))
	}
	script(t, 0, "stop")
	if got := lines(signalsFile); got != "HUP HUP TERM TERM" {
		t.Errorf("signals %q", got)
	}
	script(t, 3, "status")
	script(t, 0, "stop")
	script(t, 0, "force-reload") // as restart, where nothing runs
	script(t, 0, "status")
	script(t, 0, "stop")
}

// testOthers: a pid file that a crash left behind, whoever has its number now.
func testOthers(t *testing.T) {
	clean(t)
	other := exec.Command("/bin/sleep", "600")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := other.Process.Signal(unix.SIGKILL); err != nil {
			t.Errorf("somebody else's process is gone: %v", err)
		}
		if err := other.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("somebody else's process: %v", err)
		}
	}()
	for _, text := range []string{strconv.Itoa(other.Process.Pid) + "\n", "4194303\n", "", "x\n", "-1\n", "1; reboot\n"} {
		if err := os.WriteFile(pidFile, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		script(t, 1, "status")
		script(t, 7, "reload")
		script(t, 0, "stop")
		if _, err := os.Stat(pidFile); err == nil {
			t.Errorf("%q: the pid file is still there", text)
		}
		if err := os.WriteFile(pidFile, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		script(t, 0, "start")
		script(t, 0, "status")
		script(t, 0, "stop")
	}
}

func testRefused(t *testing.T) {
	clean(t)
	if err := os.WriteFile(failFile, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if out := script(t, 1, "start"); !strings.Contains(out, "was told to fail") {
		t.Errorf("what the daemon said is not there: %s", out)
	}
	script(t, 3, "status")
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	script(t, 5, "start")
	script(t, 5, "restart")
	script(t, 3, "status")
	script(t, 0, "stop")
}
