package habits_test

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"portsentry/test/lab"
)

// TestInitScript: the script of System V and OpenRC habits, with the program
// itself.
func TestInitScript(t *testing.T) {
	h := newHost(t, `TCP_PORTS="11"`, `UDP_PORTS="7"`)
	path, err := filepath.Abs("../../../packaging/init.d/portsentry")
	check(t, err)
	script := func(want int, verb string) string {
		t.Helper()
		said, code := h.Try("/bin/sh", path, verb)
		if code != want {
			t.Errorf("%s: exit code %d, want %d\n%s", verb, code, want, said)
		}
		return said
	}
	h.Write("/etc/default/portsentry", "TCP_MODE=\"stcp\"\nUDP_MODE=\"sudp\"\n")
	script(3, "status")
	script(0, "start")
	first := strings.TrimSpace(h.Read(pidPath))
	if said := script(0, "status"); !strings.Contains(said, "pid "+first) {
		t.Errorf("status says %q, the pid file %s", said, first)
	}
	if s := h.status(); s.TCPMode != "stealth" || s.UDPMode != "stealth" {
		t.Errorf("modes %s and %s", s.TCPMode, s.UDPMode)
	}
	if said := script(0, "start"); !strings.Contains(said, "already running") {
		t.Errorf("a second start says %q", said)
	}
	h.configure(`TCP_PORTS="11,15"`, `UDP_PORTS="7"`)
	script(0, "reload")
	h.log.Wait(patience, reloaded)
	h.probe(source(1), 15)
	h.log.Wait(patience, alert(source(1), 15))
	script(0, "restart")
	if second := strings.TrimSpace(h.Read(pidPath)); second == first || fmt.Sprint(h.Processes("portsentry")) != "["+second+"]" {
		t.Errorf("pid %s, then %s, and there is %v", first, second, h.Processes("portsentry"))
	}
	if n := h.logged("adminalert: " + stopping); n != 1 {
		t.Errorf("%d ordered stops", n)
	}
	script(0, "stop")
	h.gone()
	script(3, "status")
	h.configure(`TCP_PORTS="x"`)
	if said := script(1, "start"); !strings.Contains(said, "TCP_PORTS") {
		t.Errorf("a start that fails says %q", said)
	}
	h.gone()
	h.configure(`TCP_PORTS="11"`, `UDP_PORTS="7"`)
	script(0, "start")
	pid := h.Processes("portsentry")[0]
	h.signal("KILL", pid)
	lab.Wait(t, patience, "its end", func() bool { return h.Processes("portsentry") == nil })
	script(1, "status")
	script(0, "start")
	script(0, "stop")
	h.gone()
}

// TestServiceManager: systemd is told in time what goes on, sd_notify(3).
func TestServiceManager(t *testing.T) {
	h := newHost(t, `TCP_PORTS="11"`)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: h.Path("/run/notify"), Net: "unixgram"})
	check(t, err)
	t.Cleanup(func() { conn.Close() })
	next := func() string {
		t.Helper()
		b := make([]byte, 4096)
		check(t, conn.SetReadDeadline(time.Now().Add(patience)))
		n, err := conn.Read(b)
		check(t, err)
		return string(b[:n])
	}
	p := h.Start("env", "NOTIFY_SOCKET=/run/notify", program)
	if got := next(); got != "READY=1" {
		t.Errorf("at the start it says %q", got)
	}
	if _, ok := h.try("status"); !ok {
		t.Error("ready, and it does not answer")
	}
	for _, conf := range []string{`TCP_PORTS="15"`, `TCP_PORTS="x"`} { // one that is refused, too
		h.configure(conf)
		check(t, syscall.Kill(p.PID(), syscall.SIGHUP))
		usec, ok := strings.CutPrefix(next(), "RELOADING=1\nMONOTONIC_USEC=")
		if _, err := strconv.ParseUint(usec, 10, 64); !ok || err != nil {
			t.Errorf("at a reload it says %q, %v", usec, err)
		}
		if got := next(); got != "READY=1" {
			t.Errorf("after a reload it says %q", got)
		}
	}
	check(t, syscall.Kill(p.PID(), syscall.SIGTERM))
	if got := next(); got != "STOPPING=1" {
		t.Errorf("at the end it says %q", got)
	}
	if _, _, code := h.ended(p); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
