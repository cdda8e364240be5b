package habits_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"portsentry/test/lab"
)

// TestReloadHabits: what SIGHUP puts in force beside ports and answers.
func TestReloadHabits(t *testing.T) {
	const other = "/var/lib/portsentry/other"
	base := []string{`TCP_PORTS="11"`, `UDP_PORTS="7"`, `BLOCK_TCP="1"`, `BLOCK_METHOD="nftables"`, `BAN_TIME_UNVERIFIED="1h"`}
	with := func(more ...string) []string { return append(slices.Clone(base), more...) }
	h := newHost(t, with(`HISTORY_FILE="`+history+`"`, `BLOCKED_FILE="`+blocked+`"`, `IGNORE_FILE="`+ignore+`"`)...)
	h.Write(ignore, "10.77.7.1\n")
	h.Write(other+".ignore", "10.77.7.2\n")
	serveNames(h, map[netip.Addr][]string{source(2): {"scanner", "example", "net"}})
	pid := h.detach("-stcp", "-sudp")
	h.probe(source(1), 11)
	h.contains(history, source(1).String())
	h.contains(blocked+".stcp", source(1).String())

	h.configure(with(`HISTORY_FILE="`+other+`.history"`, `BLOCKED_FILE="`+other+`.blocked"`, `IGNORE_FILE="`+other+`.ignore"`,
		`RESOLVE_HOST="1"`, `LOG_FORMAT="2.x"`)...)
	h.hangup(pid, reloaded)
	h.contains(other+".blocked.stcp", "/"+source(1).String()+" Port: 11 TCP Blocked") // the ban of before, which stands
	h.probe(netip.MustParseAddr("10.77.7.2"), 11)
	h.log.Wait(patience, "Scan from: [10.77.7.2] ", "ignored: [true]")
	h.probe(source(2), 11)
	scan := fmt.Sprintf("Scan from: [%s] (scanner.example.net) protocol: [TCP] port: [11] ", source(2))
	h.log.Wait(patience, scan, "blocked: [true]")
	h.contains(other+".history", scan)
	h.contains(other+".blocked.stcp", "/"+source(2).String()+" ")
	if s := source(2).String(); strings.Contains(h.Read(history), s) || strings.Contains(h.Read(blocked+".stcp"), s) {
		t.Error("the files of before are still written to")
	}
	// The new blocked file is the one that is followed.
	h.Write(other+".blocked.stcp", "")
	h.log.Wait(patience, source(1).String()+" is no longer banned")
	h.log.Wait(patience, source(2).String()+" is no longer banned")
	// So is the new ignore file.
	h.Write(other+".ignore", "10.77.8.0/24\n")
	lab.Wait(t, patience, "the new ignore file is followed", func() bool {
		h.knock(netip.MustParseAddr("10.77.8.1"), 7)
		return h.logged("Scan from: [10.77.8.1] ", "ignored: [true]") > 0
	})

	h.configure(with(`LOG_FORMAT="json"`)...)
	h.hangup(pid, reloaded)
	h.knock(source(3), 7)
	h.log.Wait(patience, `"source":"`+source(3).String()+`"`)
	h.configure(base...)
	h.hangup(pid, reloaded)
	h.knock(source(4), 7)
	h.log.Wait(patience, fmt.Sprintf("attackalert: UDP scan from host: %s/%[1]s to UDP port: 7", source(4)))
	h.stop(pid)
}

// TestReloadBanner: connect mode takes another PORT_BANNER.
func TestReloadBanner(t *testing.T) {
	h := newHost(t, `TCP_PORTS="11"`, `PORT_BANNER="go away"`)
	pid := h.detach("-tcp")
	if got := h.read(11); got != "go away" {
		t.Errorf("the port says %q", got)
	}
	h.configure(`TCP_PORTS="11"`, `PORT_BANNER="come back"`)
	h.hangup(pid, reloaded)
	if got := h.read(11); got != "come back" {
		t.Errorf("the port says %q", got)
	}
	h.configure(`TCP_PORTS="11"`)
	h.hangup(pid, reloaded)
	if got := h.read(11); got != "" {
		t.Errorf("the port says %q", got)
	}
	h.stop(pid)
}

// TestReloadCommands: commands that were in the file at the start can be put in
// force, others when there is a helper; bans stay in any case.
func TestReloadCommands(t *testing.T) {
	command := func(word string) string { return `KILL_ROUTE="/bin/touch /var/log/` + word + `-$TARGET$"` }
	h := newHost(t, `TCP_PORTS="11"`, `BLOCK_TCP="0"`, `BLOCK_METHOD="none"`, command("first"))
	ran := func(word string, src netip.Addr) func() bool {
		return func() bool {
			_, err := os.Stat(h.Path("/var/log/" + word + "-" + src.String()))
			return err == nil
		}
	}
	pid := h.detach("-stcp")
	h.probe(source(1), 11)
	h.log.Wait(patience, alert(source(1), 11))
	h.configure(`TCP_PORTS="11"`, `BLOCK_TCP="1"`, `BLOCK_METHOD="none"`, command("first"))
	h.hangup(pid, reloaded)
	h.probe(source(2), 11)
	lab.Wait(t, patience, "the command", ran("first", source(2)))
	h.log.Wait(patience, "Host "+source(2).String()+" has been blocked via dropped route using command:")
	h.configure(`TCP_PORTS="11"`, `BLOCK_TCP="1"`, `BLOCK_METHOD="none"`, command("second"))
	h.hangup(pid, reloaded)
	h.probe(source(3), 11)
	lab.Wait(t, patience, "the new command", ran("second", source(3)))
	if ran("first", source(1))() || ran("first", source(3))() {
		t.Error("a command was run that was not in force")
	}
	lab.Wait(t, patience, "both bans", func() bool { return len(h.bans()) == 2 })
	h.stop(pid)

	// Without a helper there is nobody to run them.
	h.configure(`TCP_PORTS="11"`, `BLOCK_TCP="1"`, `BLOCK_METHOD="nftables"`)
	pid = h.detach("-stcp")
	h.probe(source(4), 11)
	lab.Wait(t, patience, "the ban", func() bool { return len(h.bans()) > 0 })
	h.configure(`TCP_PORTS="15"`, `BLOCK_TCP="1"`, `BLOCK_METHOD="nftables"`, command("third"))
	h.hangup(pid, refused)
	h.log.Wait(patience, "helper process", "restart portsentry")
	if s := h.status(); !strings.Contains(strings.Join(s.Problems, "\n"), "older than the file") {
		t.Errorf("status does not say so: %q", s.Problems)
	}
	h.probe(source(5), 11) // the ports of before
	lab.Wait(t, patience, "the next ban", func() bool {
		n := 0
		for _, b := range h.bans() {
			if a := b.Prefix.Addr(); a == source(4) || a == source(5) {
				n++
			}
		}
		return n == 2
	})
	h.stop(pid)
}

// TestReloadRefused: every mistake of a file that is not taken is in the log.
func TestReloadRefused(t *testing.T) {
	h := newHost(t, `TCP_PORTS="11"`, `BLOCK_TCP="1"`, `BLOCK_METHOD="nftables"`)
	pid := h.detach("-stcp")
	h.probe(source(1), 11)
	lab.Wait(t, patience, "the ban", func() bool { return len(h.bans()) == 1 })
	h.configure(`TCP_PORTS="11,70000"`, `BLOCK_TPC="1"`, `RESOLVE_HOST="maybe"`)
	h.hangup(pid, refused)
	for _, want := range []string{"70000", "did you mean BLOCK_TCP?", "RESOLVE_HOST"} {
		if e := h.log.Wait(patience, want); e.Priority != 29 || !strings.HasPrefix(e.Text, "adminalert: ") {
			t.Errorf("%s", e)
		}
	}
	h.Run("rm", confPath)
	h.hangup(pid, refused)
	if len(h.bans()) != 1 {
		t.Error("the ban is gone")
	}
	h.probe(source(2), 11)
	h.log.Wait(patience, alert(source(2), 11))
	h.stop(pid)
}

// TestManyReloads: fifty of them leave nothing behind.
func TestManyReloads(t *testing.T) {
	conf := []string{`TCP_PORTS="11"`, `UDP_PORTS="7"`, `BLOCK_TCP="1"`, `BLOCK_METHOD="nftables"`, `KILL_RUN_CMD="/bin/true $TARGET$"`,
		`IGNORE_FILE="` + ignore + `"`, `PORT_BANNER="x"`}
	h := newHost(t)
	h.Write(ignore, "10.77.7.1\n")
	type use struct {
		processes, files, threads int
		goroutines                string
	}
	life := func(reloads int) (u use) {
		files := func(n int) []string {
			return append(slices.Clone(conf), fmt.Sprintf(`BLOCKED_FILE="/var/lib/%d.blocked"`, n), fmt.Sprintf(`HISTORY_FILE="/var/lib/%d.history"`, n))
		}
		h.configure(files(0)...)
		p := h.foreground("--connect", "-l", "stdout")
		var pid int
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID()), "status"))
		check(t, err)
		_, err = fmt.Sscan(regexp.MustCompile(`(?m)^NSpid:.*?(\d+)$`).FindStringSubmatch(string(text))[1], &pid)
		check(t, err)
		begin := time.Now()
		for n := range reloads {
			h.configure(files((n + 1) % 3)...)
			check(t, syscall.Kill(p.PID(), syscall.SIGHUP))
			lab.Wait(t, patience, "the reload", func() bool { return len(with(lines(t, p.Out), reloaded)) == n+1 })
		}
		t.Logf("%d reloads in %v", reloads, time.Since(begin))
		h.status()
		u = use{len(h.Processes("portsentry")), h.count(pid, "fd"), h.count(pid, "task"), ""}
		p.Stop(syscall.SIGQUIT) // the runtime shows all goroutines, runtime/debug
		var all []string
		for _, l := range with(lines(t, p.Err), "created by ") {
			if all = append(all, strings.Fields(l)[2]); strings.Contains(l, "net/http") {
				all = all[:len(all)-1] // of the last client
			}
		}
		slices.Sort(all)
		u.goroutines = strings.Join(all, "\n")
		lab.Wait(t, patience, "the end of the helper", func() bool { return h.Processes("portsentry") == nil })
		return u
	}
	once, often := life(1), life(50)
	// A thread that a system call held up is kept for the next time.
	if spare := 4; often.threads > once.threads+spare {
		t.Errorf("%d threads, %d after one reload", often.threads, once.threads)
	}
	once.threads, often.threads = 0, 0
	if once.goroutines == "" || once != often {
		t.Errorf("after one reload: %+v\nafter fifty: %+v", once, often)
	}
}

// with are the lines that contain text.
func with(all []string, text string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(l string) bool { return !strings.Contains(l, text) })
}
