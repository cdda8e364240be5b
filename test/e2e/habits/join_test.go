package habits_test

import (
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"portsentry/test/lab"
)

// TestSecondStart: start scripts of 1.x start one process for TCP and one for
// UDP. The second one joins the first, as far as it fits.
func TestSecondStart(t *testing.T) {
	h := newHost(t, `TCP_PORTS="11"`, `UDP_PORTS="7"`, `BLOCK_TCP="1"`, `BLOCK_UDP="1"`, `BLOCK_METHOD="nftables"`, `BLOCKED_FILE="`+blocked+`"`)
	h.Write("/etc/portsentry/other.conf", "TCP_PORTS=\"1\"\nUDP_PORTS=\"1\"\n")
	pid := h.detach("-tcp")
	if s := h.status(); s.TCPMode != "connect" || s.UDPMode != "none" {
		t.Errorf("modes %s and %s", s.TCPMode, s.UDPMode)
	}
	// One that does not fit is refused and changes nothing.
	running := "running (pid " + strconv.Itoa(pid) + ")"
	for _, tt := range []struct {
		args string
		want []string
	}{
		{"-tcp", []string{running, "watches that"}},
		{"-stcp -udp", []string{running, "watches TCP in connect mode", "stop it first"}},
		{"-udp -c /etc/portsentry/other.conf", []string{running, "with " + confPath}},
		{"-D", []string{"already running with pid " + strconv.Itoa(pid)}},
		{"", []string{running}},
	} {
		_, errs, code := h.run(strings.Fields(tt.args)...)
		want := 255
		if !strings.Contains(tt.args, "cp") && !strings.Contains(tt.args, "udp") {
			want = 1
		}
		if said := strings.Join(errs, "\n"); code != want || !has(said, tt.want) {
			t.Errorf("%q: exit code %d, said %s", tt.args, code, said)
		}
	}
	if s := h.status(); s.TCPMode != "connect" || s.UDPMode != "none" {
		t.Errorf("modes %s and %s", s.TCPMode, s.UDPMode)
	}

	// The configuration is the same one by whatever name.
	p := h.Start("sh", "-c", "cd /etc && exec "+program+" -udp -c portsentry/portsentry.conf")
	if out, errs, code := h.ended(p); code != 0 {
		t.Fatalf("exit code %d, said %q and %q", code, out, errs)
	}
	if got := h.Processes("portsentry"); !slices.Equal(got, []int{pid}) {
		t.Errorf("processes %v, want %d alone", got, pid)
	}
	if s := h.status(); s.TCPMode != "connect" || s.UDPMode != "connect" || s.UDPPorts != 1 {
		t.Errorf("modes %s and %s, %d UDP ports", s.TCPMode, s.UDPMode, s.UDPPorts)
	}
	h.knock(source(1), 7)
	h.log.Wait(patience, "attackalert: Connect from host: "+source(1).String(), "to UDP port: 7")
	h.contains(blocked+".udp", "/"+source(1).String()+" Port: 7 UDP Blocked")
	h.read(11)
	h.contains(blocked+".tcp", "/"+h.lab.Scanner.Addr4().String()+" Port: 11 TCP Blocked")
	if strings.Contains(h.Read(blocked+".udp"), "TCP") || h.Read(blocked) != "" {
		t.Errorf("the blocked files are mixed up")
	}
	h.stop(pid)
}

// TestStartsAtOnce: of two starts at the same time one becomes the daemon; the
// other one joins it, or is refused and leaves it alone.
func TestStartsAtOnce(t *testing.T) {
	h := newHost(t, `TCP_PORTS="11"`, `UDP_PORTS="7"`)
	for range 2 { // who is refused has waited for the other one to end
		one, two := h.Start(program, "-stcp"), h.Start(program, "-sudp")
		_, errs1, code1 := h.ended(one)
		_, errs2, code2 := h.ended(two)
		pids := h.Processes("portsentry")
		if len(pids) != 1 || min(code1, code2) != 0 || code1+code2 != 0 && code1+code2 != 255 {
			t.Fatalf("processes %v, exit codes %d and %d, said %q and %q", pids, code1, code2, errs1, errs2)
		}
		s := h.status() // somebody answers
		tcp, udp := s.TCPMode == "stealth", s.UDPMode == "stealth"
		if tcp != (code1 == 0) || udp != (code2 == 0) {
			t.Errorf("modes %s and %s, exit codes %d and %d, said %q and %q", s.TCPMode, s.UDPMode, code1, code2, errs1, errs2)
		}
		h.stop(pids[0])
	}
}

// TestAfterCrash: what a killed daemon leaves behind holds up nobody.
func TestAfterCrash(t *testing.T) {
	h := newHost(t, `TCP_PORTS="11"`)
	pid := h.detach("-stcp")
	h.signal("KILL", pid)
	lab.Wait(t, patience, "its end", func() bool { return h.Processes("portsentry") == nil })
	if h.Read(pidPath) == "" {
		t.Fatal("nothing was left behind")
	}
	if _, ok := h.try("status"); ok {
		t.Error("somebody answers")
	}
	next := h.detach("-stcp")
	if next == pid {
		t.Errorf("the number is that of before, %d", pid)
	}
	h.probe(source(1), 11)
	h.log.Wait(patience, alert(source(1), 11))
	h.stop(next)
}

// TestModeFiles: a bare start does what the files of packagers say, and a flag
// goes before them.
func TestModeFiles(t *testing.T) {
	h := newHost(t, `TCP_PORTS="11"`, `UDP_PORTS="7"`)
	const modes, defaults = "/etc/portsentry/portsentry.modes", "/etc/default/portsentry"
	for _, tt := range []struct {
		name, modes, defaults, args, tcp, udp string
	}{
		{"neither", "-", "-", "", "stealth", "stealth"},
		{"Debian", "-", "TCP_MODE=\"stcp\"\nUDP_MODE=\"udp\"\n", "", "stealth", "connect"},
		{"Debian, one of them", "-", "TCP_MODE=atcp\nUDP_MODE=\n", "", "advanced", "none"},
		{"Red Hat before Debian", "# of old\ntcp\n#udp\nsudp\n", "TCP_MODE=\"stcp\"\n", "", "connect", "stealth"},
		{"a flag before both", "tcp\nudp\n", "TCP_MODE=\"tcp\"\n", "-stcp --foreground", "stealth", "none"},
		{"a mode before both", "tcp\nudp\n", "-", "--stealth", "stealth", "stealth"},
		{"not for another configuration", "-", "TCP_MODE=tcp\n", "-c /etc/other.conf", "stealth", "stealth"},
	} {
		for path, text := range map[string]string{modes: tt.modes, defaults: tt.defaults} {
			h.Run("rm", "-f", path)
			if text != "-" {
				h.Write(path, text)
			}
		}
		h.Write("/etc/other.conf", "TCP_PORTS=\"11\"\nUDP_PORTS=\"7\"\n")
		p := h.foreground(strings.Fields(tt.args)...)
		if s := h.status(); s.TCPMode != tt.tcp || s.UDPMode != tt.udp {
			t.Errorf("%s: TCP %s, UDP %s", tt.name, s.TCPMode, s.UDPMode)
		}
		if code := p.Stop(syscall.SIGTERM); code != 0 {
			t.Errorf("%s: exit code %d", tt.name, code)
		}
	}
	h.Write(modes, "tpc\n")
	if _, errs, code := h.run(); code != 1 || !has(strings.Join(errs, "\n"), []string{modes, "tpc"}) {
		t.Errorf("exit code %d, said %q", code, errs)
	}
}
