package old_test

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const ran = "/var/lib/portsentry/ran"

// steps are the owner's three, each leaving a line with what it was told.
func steps(more map[string]string) map[string]string {
	conf := map[string]string{
		"BLOCK_TCP": "1", "BLOCK_UDP": "1",
		"KILL_ROUTE":      "echo route $TARGET$ $PORT$ $MODE$ $TARGET$ >>" + ran,
		"KILL_HOSTS_DENY": "ALL: $TARGET$ : DENY",
		"KILL_RUN_CMD":    "echo command $TARGET$ $PORT$ $MODE$ >>" + ran,
	}
	for k, v := range more {
		conf[k] = v
	}
	return conf
}

// A host that is blocked has the lines, the commands, the lines in hosts.deny
// and in the files of 1.2, in its order.
func TestBlocking(t *testing.T) {
	for _, tt := range []struct {
		name, mode string
		more       map[string]string
	}{
		{"TCP", "stcp", nil},
		{"UDP", "sudp", nil},
		{"command first", "stcp", map[string]string{"KILL_RUN_CMD_FIRST": "1"}},
		{"command last", "sudp", map[string]string{"KILL_RUN_CMD_FIRST": "0"}},
		{"command alone", "stcp", map[string]string{"BLOCK_TCP": "2"}},
		{"the third hit", "stcp", map[string]string{"SCAN_TRIGGER": "3"}},
		{"advanced", "atcp", nil},
		{"advanced UDP", "audp", nil},
		{"connect", "tcp", nil},
		{"connect UDP", "udp", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			theirs, ours := worlds(t)
			proto := tt.mode[len(tt.mode)-3:]
			from := others.Addr().Next()
			both(theirs, ours, func(w *world) {
				w.Write("/etc/hosts.deny", "# by hand\nALL: 192.0.2.99\n")
				if tt.mode[0] == 'a' {
					w.last = 1000
				}
				w.start(steps(tt.more), tt.mode)
				w.take(func() {
					for range max(1, w.trigger) {
						w.knock(proto, from, 1)
					}
				})
			})
			sameList(t, "lines of the first hit", theirs.lines, ours.lines)
			both(theirs, ours, func(w *world) {
				w.take(func() {
					w.knock(proto, from, 9)
					w.knock(proto, from, 11)
				})
			})
			sameList(t, "lines of later hits", theirs.lines, ours.lines)
			for _, name := range []string{
				ran, "/etc/hosts.deny", "/var/lib/portsentry/portsentry.history",
				"/var/lib/portsentry/portsentry.blocked." + tt.mode,
			} {
				if name == "/etc/hosts.deny" && tt.more["BLOCK_TCP"] == "2" {
					continue
				}
				sameList(t, name, func() []string { return theirs.records(name) }, func() []string { return ours.records(name) })
			}
		})
	}
}

var timestamp = regexp.MustCompile(`^(\d+) - (\d\d/\d\d/\d{4} \d\d:\d\d:\d\d) `)

// records are the lines of a file of the machine without those about markers.
// A time has to be that of 1.x, twice the same and of this minute, and is left
// out.
func (w *world) records(name string) (lines []string) {
	w.t.Helper()
	for line := range strings.Lines(w.Read(name)) {
		line = strings.TrimSuffix(line, "\n")
		if a, err := netip.ParseAddr(address.FindString(line)); err == nil && markers.Contains(a) {
			continue
		}
		if m := timestamp.FindStringSubmatch(line); m != nil {
			at, err := time.ParseInLocation("01/02/2006 15:04:05", m[2], time.UTC)
			check(w.t, err)
			if strconv.FormatInt(at.Unix(), 10) != m[1] || time.Since(at).Abs() > 2*time.Minute {
				w.t.Errorf("%s: the time of %q", w.name, line)
			}
			line = "TIME " + line[len(m[0]):]
		}
		lines = append(lines, line)
	}
	return lines
}

// A command that is not there has not blocked anybody.
func TestFailedCommand(t *testing.T) {
	theirs, ours := worlds(t)
	both(theirs, ours, func(w *world) {
		w.start(map[string]string{"BLOCK_TCP": "1", "KILL_ROUTE": "/nonexistent $TARGET$"}, "stcp")
		w.take(func() { w.knock("tcp", scanner, 1) })
	})
	same(t, theirs, ours, "failed-commands")
	if n := len(ours.records("/var/lib/portsentry/portsentry.blocked.stcp")); n > 0 {
		t.Errorf("%d lines in the blocked file", n)
	}
}

// 1.2 blocks at once when the trigger is more than it can count.
func TestLargeTrigger(t *testing.T) {
	theirs, ours := worlds(t)
	both(theirs, ours, func(w *world) {
		w.start(map[string]string{"SCAN_TRIGGER": "51"}, "stcp")
		w.take(func() {
			w.knock("tcp", scanner, 1)
			w.knock("tcp", scanner, 11)
		})
	})
	same(t, theirs, ours, "trigger-bound")
}

// Both protocols: a host is blocked once, where 1.2 has two processes that do
// not know of each other.
func TestBothProtocols(t *testing.T) {
	theirs, ours := worlds(t)
	from := others.Addr().Next()
	both(theirs, ours, func(w *world) {
		w.Write("/etc/hosts.deny", "")
		w.start(steps(nil), "stcp", "sudp")
		w.take(func() { w.knock("tcp", from, 1) })
	})
	sameList(t, "TCP", theirs.lines, ours.lines)
	both(theirs, ours, func(w *world) {
		w.take(func() { w.knock("udp", from, 7) })
	})
	alert := "attackalert: UDP scan from host: 10.77.8.1/10.77.8.1 to UDP port: 7"
	for _, w := range []*world{theirs, ours} {
		if !slices.Contains(w.lines(), alert) {
			t.Errorf("%s: %q", w.name, w.lines())
		}
	}
	lines := func(w *world) int { return len(w.records("/etc/hosts.deny")) }
	if lines(theirs) != 2 || lines(ours) != 1 {
		t.Errorf("hosts.deny has %d lines of 1.2, %d of ours", lines(theirs), lines(ours))
	}
}
