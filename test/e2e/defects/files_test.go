package defects_test

import (
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"portsentry/test/lab"
)

// TCP and UDP, started one after the other as 1.x is: one process, so a host is
// blocked once, with one line in hosts.deny, which a restart does not repeat.
func TestBothProtocolsBlockOnce(t *testing.T) {
	s := newStage(t)
	s.Write("/etc/hosts.deny", "# by hand\n")
	s.conf(map[string]string{
		"BLOCK_TCP": "1", "BLOCK_UDP": "1", "KILL_HOSTS_DENY": "ALL: $TARGET$ : DENY", "KILL_ROUTE": "echo $TARGET$ >>" + ran,
	})
	for _, commands := range []int{1, 1, 2} {
		if commands == 2 {
			// Forgotten, as 1.x forgets at each start.
			s.Run("rm", state+"portsentry.blocked.stcp")
		}
		s.detach(lab.Binary(t), "-stcp")
		pid := s.pid()
		s.detach(lab.Binary(t), "-sudp")
		if now := s.pid(); now != pid {
			t.Errorf("a second process, %d beside %d", now, pid)
		}
		before := len(s.alerts(" from host: "))
		s.probe("tcp", source(1), 11)
		s.waitFile(ran, commands)
		s.probe("udp", source(1), 7)
		s.probe("tcp", source(1), 15)
		lab.Wait(t, patience, "three alerts", func() bool { return len(s.alerts(" from host: ")) == before+3 })
		s.stop()
		if got := s.waitFile(ran, commands); len(got) != commands {
			t.Errorf("the route was dropped %d times, want %d", len(got), commands)
		}
	}
	if got := s.Read("/etc/hosts.deny"); got != "# by hand\nALL: 10.77.8.1 : DENY\n" {
		t.Errorf("hosts.deny:\n%s", got)
	}
	if got := s.waitFile(state+"portsentry.blocked.stcp", 1); len(got) != 1 || s.Read(state+"portsentry.blocked.sudp") != "" {
		t.Errorf("listed twice: %q", got)
	}
}

// With BLOCK_TCP="0" 1.2 writes "Blocked" into both files, and fail2ban believes
// it.
func TestLogOnlyIsNotBlocked(t *testing.T) {
	for _, mode := range []string{"-stcp", "-tcp"} {
		t.Run(mode, func(t *testing.T) {
			s := newStage(t)
			s.conf(nil)
			s.detach(lab.Binary(t), mode)
			for range 2 {
				s.probe("tcp", source(1), 11)
			}
			lab.Wait(t, patience, "two alerts", func() bool { return len(s.alerts(" from host: 10.77.8.1/10.77.8.1 to TCP port: 11")) == 2 })
			s.stop()
			if got := s.alerts("blocked"); len(got) > 0 {
				t.Errorf("said to be blocked: %q", got)
			}
			if got := s.Read(state + "portsentry.history"); got != "" {
				t.Errorf("history:\n%s", got)
			}
			if got := s.files(state); !slices.Equal(got, []string{"keep", "portsentry.history"}) {
				t.Errorf("files: %q", got)
			}
		})
	}
}

// No start empties the history, one that fails least of all, nor does SIGHUP.
func TestHistoryOutlivesStarts(t *testing.T) {
	s := newStage(t)
	const history = state + "portsentry.history"
	want := "2026-11-21T00:04:38.815+0000 Scan from: [192.0.2.9] and so on\n"
	s.Write(history, want)
	s.conf(nil)
	for _, args := range [][]string{{"--socket", "/proc/none/s"}, {"-stcp", "--socket", "/proc/none/s"}, {"-c", confFile, "--nonsense"}} {
		if code, _ := s.try(append([]string{lab.Binary(t)}, args...)...); code == 0 {
			t.Errorf("%q does start", args)
		}
	}
	s.conf(map[string]string{"TCP_PORTS": "x"})
	if code, _ := s.try(lab.Binary(t)); code == 0 {
		t.Error("a configuration with a mistake does start")
	}
	s.conf(nil)
	p := s.foreground()
	if code, said := s.try(lab.Binary(t)); code != 1 || !strings.Contains(said, "another portsentry is running") {
		t.Errorf("a second daemon: %d, %s", code, said)
	}
	check(t, syscall.Kill(p.PID(), syscall.SIGHUP))
	lab.Wait(t, patience, "the reload", func() bool {
		text, _ := os.ReadFile(string(p.Out))
		return strings.Contains(string(text), "is in force")
	})
	if got := s.Read(history); got != want {
		t.Errorf("history:\n%s", got)
	}
	s.probe("tcp", source(1), 11)
	if got := s.waitFile(history, 2); got[0]+"\n" != want {
		t.Errorf("history: %q", got)
	}
}

// With a long blocked list 2.x runs out of stack when it stops. The list here is
// a binary one of its own, longer than ours may be; the last record is damaged.
func TestLongBlockedList(t *testing.T) {
	s := newStage(t)
	var list []byte
	for i := range uint32(100_000) {
		list = binary.NativeEndian.AppendUint16(list, syscall.AF_INET)
		list = binary.BigEndian.AppendUint32(list, 0xC6120000+i) // 198.18.0.0/15
	}
	s.Write(state+"portsentry.blocked", string(append(list, 99)))
	s.conf(map[string]string{"BLOCK_TCP": "1", "KILL_ROUTE": "echo $TARGET$ >>" + ran})
	p := s.foreground()
	s.probe("tcp", source(1), 11)
	lab.Wait(t, patience, "a scan line", func() bool {
		return slices.ContainsFunc(s.lines(p.Out), func(l string) bool { return strings.HasPrefix(l, "Scan from: [10.77.8.1]") })
	})
	if code := p.Stop(syscall.SIGTERM); code != 0 {
		text, _ := os.ReadFile(string(p.Err))
		t.Errorf("exit code %d\n%s", code, text)
	}
	if n := strings.Count(s.Read(state+"portsentry.blocked"), "\n"); n != 65_536 {
		t.Errorf("%d lines in the blocked file", n)
	}
	if got := s.Read(state + "portsentry.blocked.2x"); got != string(append(list, 99)) {
		t.Error("the original is not as it was")
	}
}
