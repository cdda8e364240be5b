package habits_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"portsentry/internal/view"
	"portsentry/test/lab"
)

// TestDetach1x: the whole life of `portsentry -stcp -sudp`.
func TestDetach1x(t *testing.T) {
	h := newHost(t, `TCP_PORTS="1,11"`, `UDP_PORTS="7"`, `SCAN_TRIGGER="0"`)
	pid := h.detach("-stcp", "-sudp")
	// The parent has ended with success, so it is ready.
	h.probe(source(1), 11)
	if s := h.status(); s.TCPMode != "stealth" || s.UDPMode != "stealth" {
		t.Errorf("modes %s and %s", s.TCPMode, s.UDPMode)
	}
	h.log.Wait(patience, alert(source(1), 11))

	if got := h.Processes("portsentry"); !slices.Equal(got, []int{pid}) {
		t.Errorf("processes %v, and the pid file has %d", got, pid)
	}
	for name, want := range map[string]string{"fd/0": "/dev/null", "fd/1": "/dev/null", "fd/2": "/dev/null", "cwd": "/"} {
		if got := h.link(pid, name); got != want {
			t.Errorf("%s is %s", name, got)
		}
	}
	if sid, tty := h.session(pid); sid != strconv.Itoa(pid) || tty != "0" {
		t.Errorf("session %s, terminal %s", sid, tty)
	}

	h.stop(pid)
	h.log.Wait(patience, "adminalert: "+stopping) // it may still be on its way to us
	var said []string
	for _, e := range h.log.Entries() {
		if e.Priority != 29 || e.Tag != "portsentry" || e.PID != pid {
			t.Errorf("not as daemon.notice of process %d: %s", pid, e)
		}
		said = append(said, e.Text)
	}
	want := []string{
		starting,
		"adminalert: Going into stealth listen mode on TCP port: 1",
		"adminalert: Going into stealth listen mode on TCP port: 11",
		"adminalert: Going into stealth listen mode on UDP port: 7",
		active,
		alert(source(1), 11),
		"attackalert: Ignoring TCP response per configuration file setting.",
		"securityalert: " + stopping,
		"adminalert: " + stopping,
	}
	if !slices.Equal(said, want) {
		t.Errorf("syslog has\n%s\nwant\n%s", strings.Join(said, "\n"), strings.Join(want, "\n"))
	}
}

// TestDetachRefused: what is wrong reaches the terminal, the exit code says so,
// and nothing is left behind.
func TestDetachRefused(t *testing.T) {
	h := newHost(t)
	for _, tt := range []struct {
		name, conf string
		args, want []string
	}{
		{"mistakes", "TCP_PORTS=\"1,70000\"\nBLOCK_TPC=\"1\"", []string{program, "-stcp"}, []string{"70000", "did you mean BLOCK_TCP?", "2 mistakes; nothing was changed"}},
		{"no port", `UDP_PORTS="7"`, []string{program, "-stcp"}, []string{"TCP_PORTS"}},
		{"no port to bind", `TCP_PORTS=""`, []string{program, "-tcp", "-udp"}, []string{"TCP_PORTS"}},
		{"nobody", `TCP_PORTS="1"`, []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "portsentry", "-stcp"}, []string{"root"}},
		{"two modes", `TCP_PORTS="1"`, []string{program, "-stcp", "-tcp"}, []string{"tcp", "stcp"}},
		{"pid file", `TCP_PORTS="1"`, []string{program, "-stcp", "--pidfile", "/run/no/such.pid"}, []string{"mkdir /run/no"}},
	} {
		h.configure(tt.conf)
		out, errs, code := h.ended(h.Start(tt.args...))
		said := strings.Join(errs, "\n")
		if code != 255 || len(out) > 0 || !has(said, tt.want) {
			t.Errorf("%s: exit code %d, said %q and\n%s", tt.name, code, out, said)
		}
		h.gone()
	}
	// 1.x said such things in syslog alone, where they are looked for after a boot.
	for _, want := range []string{
		"adminalert: /etc/portsentry/portsentry.conf:1: TCP_PORTS: \"1,70000\": 70000 is no port",
		"adminalert: /etc/portsentry/portsentry.conf:2: BLOCK_TPC: no such key",
		"adminalert: pid file /run/no/such.pid",
	} {
		h.log.Wait(patience, want)
	}
}

// TestDetach2x: the whole life of `portsentry -D`.
func TestDetach2x(t *testing.T) {
	h := newHost(t, `TCP_PORTS="1,11"`, `UDP_PORTS="7"`, `BLOCK_TCP="1"`, `KILL_RUN_CMD="/bin/false $TARGET$"`, `BLOCK_METHOD="none"`)
	out, errs, code := h.run("-D")
	if code != 0 || !slices.Equal(out, []string{"Portsentry 3.0.0 (unknown)"}) || len(errs) > 0 {
		t.Fatalf("exit code %d, said %q and %q", code, out, errs)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(h.Read(pidPath)))
	check(t, err)
	h.probe(source(1), 11)
	h.knock(source(2), 7)
	scan := fmt.Sprintf("Scan from: [%s] (%[1]s) protocol: [TCP] port: [11] type: [TCP SYN/Normal scan] IP opts: [not set] "+
		"ignored: [false] triggered: [true] noblock: [false] blocked: [false]", source(1))
	for want, priority := range map[string]int{
		"Portsentry 3.0.0 (unknown)":              29,
		"Portsentry is now active and listening.": 29,
		scan: 29,
		fmt.Sprintf("Scan from: [%s] (%[1]s) protocol: [UDP]", source(2)): 29,
		"attackalert: Error during target dispose " + source(1).String():  27,
	} {
		if e := h.log.Wait(patience, want); e.Priority != priority || e.Tag != "portsentry" || e.PID != pid {
			t.Errorf("want priority %d of process %d: %s", priority, pid, e)
		}
	}
	h.stop(pid)
	h.log.Wait(patience, "Portsentry is shutting down")

	h.configure(`TCP_PORTS="0"`)
	if out, errs, code := h.run("-D"); code != 1 || len(out) > 0 || !has(strings.Join(errs, "\n"), []string{"TCP_PORTS"}) {
		t.Errorf("exit code %d, said %q and %q", code, out, errs)
	}
	h.gone()
}

// TestLogTargets: in the foreground lines go where -l says, those of -v and -d
// too, and SIGTERM ends with success.
func TestLogTargets(t *testing.T) {
	h := newHost(t, `TCP_PORTS="1,11"`, `IGNORE_FILE="/etc/portsentry/portsentry.ignore"`)
	ignore := "/etc/portsentry/portsentry.ignore"
	h.Write(ignore, source(9).String()+"\n")
	ignored := "Host: " + source(9).String() + " found in ignore file " + ignore + ", aborting actions"
	own := "Source address " + h.lab.Host.Addr4().String() + " same as destination address"
	scan := "Scan from: [" + source(1).String() + "]"
	for _, tt := range []struct {
		args            string
		stdout, syslog  bool
		verbose, debugs bool
	}{
		{"", true, false, false, false},
		{"-l stdout -l syslog", true, true, false, false},
		{"-l syslog", false, true, false, false},
		{"-l syslog -v", false, true, true, false},
		{"-l stdout -l syslog -d", true, true, true, true},
		{"-stcp --foreground", true, true, false, false},
	} {
		h.log.Close()
		h.log = h.Syslog()
		p := h.foreground(strings.Fields(tt.args)...)
		h.probe(source(9), 11)
		h.probe(h.lab.Host.Addr4(), 11)
		h.probe(source(1), 11)
		lab.Wait(t, patience, tt.args+": the probe is counted", func() bool { return h.counter("sightings_total") >= 3 })
		if code := p.Stop(syscall.SIGTERM); code != 0 {
			t.Errorf("%s: exit code %d", tt.args, code)
		}
		h.gone()
		if tt.syslog { // what was sent before the end may still be on its way
			h.log.Wait(patience, "shutting down")
		}
		if strings.Contains(tt.args, "-stcp") {
			if h.logged(alert(source(1), 11)) != 1 || !slices.Contains(lines(t, p.Out), alert(source(1), 11)) {
				t.Errorf("%s: %q in syslog, %q on stdout", tt.args, h.log.Entries(), lines(t, p.Out))
			}
			continue
		}
		out := strings.Join(lines(t, p.Out), "\n")
		for text, want := range map[string]bool{scan: true, "Portsentry is shutting down": true, ignored: tt.verbose, own: tt.debugs} {
			if got := strings.Contains(out, text); got != (want && tt.stdout) {
				t.Errorf("%q: %q on stdout: %v", tt.args, text, got)
			}
			if got := h.logged(text) == 1; got != (want && tt.syslog) {
				t.Errorf("%q: %q in syslog: %v", tt.args, text, got)
			}
		}
		for _, e := range h.log.Entries() {
			want := 29
			switch {
			case strings.HasPrefix(e.Text, "Source address"):
				want = 31
			case strings.HasPrefix(e.Text, "Portsentry"), strings.HasPrefix(e.Text, "Scan from"):
			default:
				want = 30
			}
			if e.Priority != want {
				t.Errorf("%q: want priority %d: %s", tt.args, want, e)
			}
		}
		if first := "Portsentry 3.0.0 (unknown)"; !strings.HasPrefix(out, first) || !tt.stdout && out != first {
			t.Errorf("%q: stdout is\n%s", tt.args, out)
		}
	}
}

// TestHangup: a daemon in the foreground ends in order when its terminal is closed.
func TestHangup(t *testing.T) {
	h := newHost(t, `TCP_PORTS="1"`)
	master, terminal := pty(t)
	cmd := h.Command(t.Context(), program, "-l", "stdout", "-l", "syslog", "--pidfile", pidPath)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	check(t, h.Do(cmd.Start))
	terminal.Close()
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	h.log.Wait(patience, "Portsentry is now active and listening.")
	lab.Wait(t, patience, "the pid file", func() bool { return h.Read(pidPath) != "" })
	if _, err := os.Stat(h.Path(view.DefaultSocket)); err != nil {
		t.Error(err)
	}
	check(t, master.Close())
	lab.Wait(t, patience, "the end", func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	})
	h.log.Wait(patience, "Portsentry is shutting down")
	if h.logged("read again") > 0 {
		t.Error("it took the end of its terminal for a wish to reload")
	}
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		t.Errorf("ended by %s", ws.Signal())
	}
	h.gone()
}
