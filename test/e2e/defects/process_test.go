package defects_test

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"portsentry/test/lab"
)

// Whoever starts it learns from the exit code that it watches, or why it does
// not. 1.2 detaches first and is always content.
func TestStartTells(t *testing.T) {
	s := newStage(t)
	for _, tt := range []struct {
		args []string
		conf map[string]string
		code int
		said string
	}{
		{[]string{"-stcp"}, map[string]string{"TCP_PORTS": ""}, 255, "TCP_PORTS"},
		{[]string{"-D"}, map[string]string{"TCP_PORTS": "x"}, 1, "TCP_PORTS"},
		// What only shows once it has detached.
		{[]string{"-stcp", "--socket", "/proc/none/s"}, nil, 255, "/proc/none"},
		{[]string{"-D", "--socket", "/proc/none/s"}, nil, 1, "/proc/none"},
	} {
		s.conf(tt.conf)
		code, said := s.try(append([]string{lab.Binary(t)}, tt.args...)...)
		if code != tt.code || !strings.Contains(said, tt.said) {
			t.Errorf("%q: exit code %d, want %d: %s", tt.args, code, tt.code, said)
		}
		if p := s.Processes("portsentry"); len(p) > 0 {
			t.Errorf("%q: something still runs", tt.args)
		}
	}
	s.conf(nil)
	s.detach(lab.Binary(t), "-stcp")
	s.probe("tcp", source(1), 11) // at once: it is watched by now
	s.log.Wait(patience, "TCP SYN/Normal scan from host: 10.77.8.1/10.77.8.1 to TCP port: 11")
}

// With -D, 2.x makes files with relative names where it was started and writes
// to them in /.
func TestRelativePathsDetached(t *testing.T) {
	s := newStage(t)
	s.conf(map[string]string{
		"HISTORY_FILE": "history", "BLOCKED_FILE": "blocked", "IGNORE_FILE": "ignore",
		"BLOCK_TCP": "1", "KILL_ROUTE": "echo $TARGET$ >>" + ran,
	})
	s.Write("/etc/portsentry/ignore", "10.77.8.9\n")
	s.detach("sh", "-c", `cd /etc/portsentry && exec "$0" -D -c portsentry.conf --pidfile ../run.pid --socket ctl`, lab.Binary(t))
	s.probe("tcp", source(9), 11)
	s.probe("tcp", source(1), 11)
	s.waitFile("/etc/portsentry/blocked", 1)
	if got := s.waitFile("/etc/portsentry/history", 2); !strings.Contains(got[0], "ignored: [true]") {
		t.Errorf("history: %q", got)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(s.Read("/etc/run.pid")))
	check(t, err)
	s.Run("kill", "-HUP", strconv.Itoa(pid))
	s.log.Wait(patience, "the configuration has been read again and is in force")
	s.probe("tcp", source(2), 11)
	s.waitFile("/etc/portsentry/history", 3)
	s.waitFile("/etc/portsentry/blocked", 2)
	s.Run("kill", "-TERM", strconv.Itoa(pid))
	lab.Wait(t, patience, "the end", func() bool { return len(s.Processes("portsentry")) == 0 })
	want := []string{"blocked", "history", "ignore", "portsentry.conf"}
	if got := s.files("/etc/portsentry"); !slices.Equal(got, want) {
		t.Errorf("files: %q, want %q", got, want)
	}
}

// The daemon keeps what it needs of root's privileges and no more; what it
// starts has three descriptors, detached and with traps that accept, too.
func TestPrivilegesAndDescriptors(t *testing.T) {
	s := newStage(t)
	s.conf(map[string]string{"BLOCK_TCP": "2", "KILL_RUN_CMD": "exec ls /proc/self/fd >" + ran})
	s.detach(lab.Binary(t), "-tcp", "-sudp")
	status := s.Run("cat", fmt.Sprintf("/proc/%d/status", s.pid()))
	// linux/capability.h: DAC_OVERRIDE, NET_BIND_SERVICE, NET_ADMIN, NET_RAW, SYS_PTRACE, BPF
	const needed = 1<<1 | 1<<10 | 1<<12 | 1<<13 | 1<<19 | 1<<39
	for _, set := range []string{"CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"} {
		m := regexp.MustCompile(set + `:\s+([0-9a-f]{16})`).FindStringSubmatch(status)
		if m == nil {
			t.Fatalf("no %s in\n%s", set, status)
		}
		caps, err := strconv.ParseUint(m[1], 16, 64)
		check(t, err)
		if more := caps &^ needed; more != 0 {
			t.Errorf("%s has %x beyond what is needed", set, more)
		}
	}
	if !strings.Contains(status, "NoNewPrivs:\t1\n") {
		t.Error("others can be gained")
	}
	s.probe("tcp", source(1), 11)
	if got := s.waitFile(ran, 4); !slices.Equal(got, []string{"0", "1", "2", "3"}) { // the last one is ls's own, of the folder
		t.Errorf("a command has the descriptors %q", got)
	}
}
