package ban_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// Commands that take their time hold nothing up: every probe is seen at once and
// written down.
func TestSlowCommandHoldsNothingUp(t *testing.T) {
	s := newStage(t)
	d := s.start(map[string]string{
		"BLOCK_METHOD": "none", "KILL_ROUTE": "true $TARGET$", "KILL_RUN_CMD": "sleep 5",
	})
	const count, sources, rate = 10_000, 1000, 5000
	sent, err := s.send.Flood(t.Context(), s.tcp(nobody.Addr(), 40000, trap, pktgen.SYN), pktgen.FloodOpts{
		Count: count, Rate: rate, SourcePrefix: nobody, Sources: sources,
	})
	check(t, err)
	end := time.Now()
	lab.Wait(t, soon, "every probe seen", func() bool { return d.counter("sightings_total") == count })
	t.Logf("%d probes from %d sources in %v, all seen %v later", sent.Frames, sources, sent.Took.Round(time.Millisecond), time.Since(end).Round(time.Millisecond))
	lab.Wait(t, soon, "the lines of those that wait for no command", func() bool { return len(d.scans()) >= count-sources })
	check(t, d.Stop())
	n := len(d.scans())
	t.Logf("%d scan lines at the end", n)
	if n != count {
		t.Errorf("%d scan lines for %d probes", n, count)
	}
}

// A command that fails is said to have failed, nobody is called blocked, and the
// next hit tries again.
func TestFailingCommand(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	missing := filepath.Join(t.TempDir(), "nonexistent")
	d := s.start(map[string]string{"BLOCK_METHOD": "none", "KILL_ROUTE": missing + " $TARGET$"})
	src := nth(nobody, 1)
	failures := func() int {
		lines, err := d.Err.Lines()
		check(t, err)
		n := 0
		for _, l := range lines {
			if strings.Contains(l, "KILL_ROUTE failed for "+src.String()) {
				n++
			}
		}
		return n
	}
	for i := 1; i <= 3; i++ {
		s.forge(s.tcp(src, uint16(40000+i), trap, pktgen.SYN))
		lab.Wait(t, soon, strconv.Itoa(i)+" failures", func() bool { return failures() == i })
	}
	s.seen(d)
	d.waitError("adminalert: KILL_ROUTE failed for "+src.String(), "127", missing+" "+src.String())
	d.waitError("attackalert: Error during target dispose " + src.String())
	lines := d.from(src)
	if len(lines) != 3 {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
	for _, l := range lines {
		if !strings.HasSuffix(l, "triggered: [true] noblock: [false] blocked: [false]") {
			t.Errorf("line %q", l)
		}
	}
	if bans := d.bans(); len(bans) > 0 {
		t.Errorf("%+v", bans)
	}
	if n := d.counter("commands_failed_total"); n != 3 {
		t.Errorf("%d failures counted", n)
	}
}

// The owner's steps are done in the order of old, with their tokens filled in,
// and undone when the ban ends or is lifted.
func TestOrderOfCommandsAndTheirUndoing(t *testing.T) {
	for first, order := range map[string]string{
		"1": "command 0\nroute 1\n", // the number: lines about the host in hosts.deny
		"0": "route 1\ncommand 1\n",
	} {
		for _, how := range []string{"ends", "is lifted"} {
			t.Run("KILL_RUN_CMD_FIRST="+first+" "+how, func(t *testing.T) {
				t.Parallel()
				s := newStage(t)
				const before = "# by hand\nALL: 192.0.2.99"
				etc, script := s.privateEtc(map[string]string{"hosts.deny": before + "\n"})
				deny := filepath.Join(etc, "hosts.deny")
				check(t, os.Chmod(deny, 0o640))
				check(t, os.Chown(deny, 0, 12345))
				out := filepath.Join(t.TempDir(), "ran")
				say := func(what string) string {
					return "echo " + what + " `grep -c $TARGET$ /etc/hosts.deny` >> " + out
				}
				length := "2s"
				if how == "is lifted" {
					length = "1h"
				}
				d := s.startIn(script, map[string]string{
					"BLOCK_METHOD": "none", "BAN_TIME_UNVERIFIED": length, "BAN_TIME": "1h", "KILL_RUN_CMD_FIRST": first,
					"KILL_ROUTE": say("route"), "KILL_ROUTE_UNDO": "echo undo route $TARGET$ >> " + out,
					"KILL_RUN_CMD": say("command"), "KILL_RUN_CMD_UNDO": "echo undo command $TARGET$ $PORT$ $MODE$ >> " + out,
					"KILL_HOSTS_DENY": "ALL: $TARGET$ : DENY",
				})
				src := nth(nobody, 1)
				s.forge(s.tcp(src, 40000, trap2, pktgen.SYN), s.tcp(src, 40001, trap2, pktgen.SYN))
				d.waitLine(src.String(), "blocked: [true]")
				if got := read(out); got != order {
					t.Errorf("ran %q, want %q", got, order)
				}
				s.forge(s.tcp(src, 40002, trap, pktgen.SYN))
				d.waitLine(src.String(), "already blocked")
				if got, want := read(deny), before+"\nALL: "+src.String()+" : DENY\n"; got != want {
					t.Errorf("hosts.deny is %q, want %q", got, want)
				}
				if b, ok := d.ban(src); !ok || (b.Until == nil) || len(b.Methods) != 3 {
					t.Errorf("%+v", b)
				}
				if how == "is lifted" {
					said, err := d.unban(src)
					check(t, err)
					if !strings.Contains(said, src.String()) {
						t.Errorf("unban said %q", said)
					}
				}
				lab.Wait(t, soon, "no bans", func() bool { return len(d.bans()) == 0 })
				undone := "undo command " + src.String() + " 11 stealth\nundo route " + src.String() + "\n"
				if first == "1" {
					undone = "undo route " + src.String() + "\nundo command " + src.String() + " 11 stealth\n"
				}
				lab.Wait(t, soon, "the undoing", func() bool { return len(read(out)) >= len(order)+len(undone) })
				if got := read(out); got != order+undone {
					t.Errorf("in the end %q, want %q", got, order+undone)
				}
				lab.Wait(t, soon, "hosts.deny as before", func() bool { return read(deny) == before+"\n" })
				d.waitLine("adminalert", src.String(), "no longer blocked via dropped route")
				d.waitLine("adminalert", src.String(), "no longer blocked via wrappers")
				st, err := os.Stat(deny)
				check(t, err)
				if sys := st.Sys().(*syscall.Stat_t); st.Mode().Perm() != 0o640 || sys.Uid != 0 || sys.Gid != 12345 {
					t.Errorf("hosts.deny now has mode %v, owner %d:%d", st.Mode(), sys.Uid, sys.Gid)
				}
			})
		}
	}
}

// Commands learn what there is to know.
func TestTokens(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	out := filepath.Join(t.TempDir(), "ran")
	d := s.start(map[string]string{
		"KILL_RUN_CMD": "echo $TARGET$ $PORT$ $MODE$ $PROTO$ $KIND$ $COUNT$ $EVIDENCE$ $FAMILY$ >> " + out,
	})
	want := map[netip.Addr]string{nth(nobody, 1): "11 stealth tcp fin 1 unverified 4", nth(subnet6(1), 1): "7 stealth udp udp 1 unverified 6"}
	for a := range want {
		p := s.tcp(a, 40000, trap2, pktgen.FIN)
		if a.Is6() {
			p = s.udp(a, 40000, trapUDP)
		}
		s.forge(p)
	}
	for a, rest := range want {
		d.waitLine("External command run for host: " + a.String())
		line := a.String() + " " + rest + "\n"
		lab.Wait(t, soon, "the output "+line, func() bool { return strings.Contains(read(out), line) })
	}
}

// The configuration of a helper that runs commands as root is root's alone to
// write. Without it the rest goes on.
func TestConfigurationOthersMayWrite(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	out := filepath.Join(t.TempDir(), "ran")
	d := s.startIn(`if [ "$2" = -c ]; then chmod 0666 "$3"; fi; exec "$@"`, map[string]string{
		"KILL_RUN_CMD": "echo $TARGET$ >> " + out,
	})
	d.waitError("may be written by others than its owner", "chmod go-w")
	withoutHelper(s, d, "KILL_RUN_CMD")
	if got := read(out); got != "" {
		t.Errorf("and yet it ran: %q", got)
	}
}

// A helper that dies takes the commands with it and nothing else.
func TestHelperKilled(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	out := filepath.Join(t.TempDir(), "ran")
	d := s.start(map[string]string{"KILL_RUN_CMD": "echo $TARGET$ >> " + out, "KILL_RUN_CMD_UNDO": "echo undo $TARGET$ >> " + out})
	first := nth(clients, 200)
	s.forge(s.tcp(first, 40000, trap, pktgen.SYN))
	lab.Wait(t, soon, "the command's output", func() bool { return read(out) == first.String()+"\n" })
	pids := strings.Fields(lab.Command(t, s.Host.NS, "pgrep", "-P", strconv.Itoa(d.PID())))
	if len(pids) != 1 {
		t.Fatalf("%d helpers: %v", len(pids), pids)
	}
	pid, err := strconv.Atoi(pids[0])
	check(t, err)
	check(t, syscall.Kill(pid, syscall.SIGKILL))
	withoutHelper(s, d, "KILL_RUN_CMD")

	// What cannot be undone any more keeps no ban alive.
	_, err = d.unban(first)
	check(t, err)
	d.waitError("KILL_RUN_CMD_UNDO failed for "+first.String(), "helper")
	if b, banned := d.ban(first); banned {
		t.Errorf("still banned: %+v", b)
	}
	if _, took, err := s.dial(first, 443, soon); err != nil || took > time.Second {
		t.Errorf("%v after %v", err, took)
	}
}

// withoutHelper checks what goes on without a helper and what does not.
func withoutHelper(s *stage, d *daemon, key string) {
	s.t.Helper()
	d.problem("no commands are run", "helper")
	src := nth(clients, 201)
	s.forge(s.tcp(src, 40000, trap, pktgen.SYN))
	if b := d.waitBan(src); b.Strength != "soft" || !slices.Equal(b.Methods, methods()) {
		s.t.Errorf("%+v", b)
	}
	d.waitError(key+" failed for "+src.String(), "helper")
	s.seen(d)
	if lines := d.from(src); len(lines) != 1 || !strings.Contains(lines[0], "blocked: [true]") {
		s.t.Errorf("%q", lines)
	}
	if _, _, err := s.dial(src, 443, 300*time.Millisecond); err == nil {
		s.t.Error("a banned source gets through")
	}
}
