package habits_test

import (
	"io"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// TestHistory1x: in the form of 1.x there is a line for a host that has just been
// blocked and for nothing else, readable for root alone.
func TestHistory1x(t *testing.T) {
	h := newHost(t, `TCP_PORTS="11"`, `UDP_PORTS="7"`, `BLOCK_TCP="1"`, `BLOCK_METHOD="none"`, `KILL_ROUTE="/bin/test $TARGET$ != `+source(2).String()+`"`,
		`SCAN_TRIGGER="2"`, `HISTORY_FILE="`+history+`"`)
	pid := h.detach("-stcp", "-sudp")
	for range 2 {
		h.knock(source(1), 7)  // BLOCK_UDP="0"
		h.probe(source(2), 11) // its command fails
	}
	h.probe(source(3), 11) // below SCAN_TRIGGER
	for range 4 {
		h.probe(source(4), 11) // blocked with the second one
	}
	h.log.Wait(patience, source(4).String()+" has been blocked via dropped route")
	h.probe(source(4), 11)
	h.log.Wait(patience, source(4).String()+" is already blocked")
	h.log.Wait(patience, "Could not block host "+source(2).String())
	h.stop(pid)
	form := regexp.MustCompile(`^\d{10} - \d\d/\d\d/\d{4} \d\d:\d\d:\d\d Host: (\S+)/(\S+) Port: 11 TCP Blocked\n$`)
	text := h.Read(history)
	if f := form.FindStringSubmatch(text); f == nil || f[1] != source(4).String() || f[2] != f[1] {
		t.Errorf("the history is\n%s", text)
	}
	info, err := os.Stat(h.Path(history))
	check(t, err)
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		t.Errorf("mode %v", mode)
	}
}

// TestRotation: a history that is renamed goes on in a new file, and no line is
// lost on the way.
func TestRotation(t *testing.T) {
	h := newHost(t, `TCP_PORTS="11"`, `HISTORY_FILE="`+history+`"`)
	h.foreground()
	sent := 1
	h.probe(source(sent), 11)
	h.contains(history, "Scan from: ["+source(sent).String()+"]")
	h.Run("mv", history, history+".1")
	begin := time.Now()
	lab.Wait(t, patience, "the new file", func() bool {
		sent++
		h.probe(source(sent), 11)
		both := func() string { return h.Read(history+".1") + h.Read(history) }
		lab.Wait(t, patience, "the line", func() bool { return strings.Contains(both(), "Scan from: ["+source(sent).String()+"]") })
		return h.Read(history) != ""
	})
	t.Logf("followed after %v, with the %dth line", time.Since(begin), sent)
	if n := strings.Count(h.Read(history+".1")+h.Read(history), "\n"); n != sent {
		t.Errorf("%d lines for %d probes", n, sent)
	}
}

// TestFullDisk: with a full disk lines are lost, and counted; the daemon goes on
// watching, and writing as soon as there is room.
func TestFullDisk(t *testing.T) {
	const disk = "/var/lib/disk"
	h := newHost(t, `TCP_PORTS="11"`, `BLOCK_TCP="1"`, `BLOCK_METHOD="nftables"`, `HISTORY_FILE="`+disk+`/history"`, `BLOCKED_FILE="`+disk+`/blocked"`)
	h.Run("mkdir", disk)
	h.Run("mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "none", disk)
	h.Run("dd", "if=/dev/zero", "of="+disk+"/ballast", "bs=4k", "count=14", "status=none")
	p := h.foreground()
	const sources = 100 // 200 bytes each in the history
	for i := range sources {
		h.probe(source(i), 11)
	}
	lab.Wait(t, patience, "all bans", func() bool { return h.status().Bans == sources })
	lab.Wait(t, patience, "a number for what is lost", func() bool { return h.counter("history_lines_lost_total") > 0 })
	lab.Wait(t, patience, "a word about it", func() bool {
		return strings.Contains(strings.Join(h.status().Problems, "\n"), "history")
	})
	lab.Wait(t, patience, "all lines", func() bool { return len(scans(h, p.Out)) == sources })
	written := strings.Count(h.Run("cat", disk+"/history"), "Scan from: ")
	if lost := h.counter("history_lines_lost_total"); int(lost)+written < sources || written == 0 {
		t.Errorf("%d lines written and %d lost of %d", written, lost, sources)
	}
	h.Run("rm", disk+"/ballast")
	h.probe(source(sources), 11)
	lab.Wait(t, patience, "a line", func() bool {
		return strings.Contains(h.Run("cat", disk+"/history"), "\n20") &&
			strings.Contains(h.Run("cat", disk+"/history"), "Scan from: ["+source(sources).String()+"]")
	})
	lab.Wait(t, patience, "the blocked file is complete", func() bool {
		text, _ := h.Try("cat", disk+"/blocked")
		return strings.Count(text, " TCP Blocked\n") == sources+1
	})
	for l := range strings.Lines(h.Run("cat", disk+"/blocked")) {
		if !strings.HasSuffix(l, " TCP Blocked\n") {
			t.Errorf("half a line in the blocked file: %q", l)
		}
	}
}

// TestSyslogRestarts: lines wait for a syslog daemon that is being restarted.
func TestSyslogRestarts(t *testing.T) {
	h := newHost(t, `TCP_PORTS="11"`)
	pid := h.detach("-stcp")
	h.log.Wait(patience, active)
	h.log.Close()
	for i := range 20 {
		h.probe(source(i), 11)
	}
	lab.Wait(t, patience, "all are counted", func() bool { return h.counter("sightings_total") == 20 })
	h.log = h.Syslog()
	for i := range 20 {
		h.log.Wait(patience, alert(source(i), 11))
	}
	if n := h.counter("log_lines_lost_total"); n > 0 {
		t.Errorf("%d lines lost", n)
	}
	h.stop(pid)
}

// TestReaderStops: whoever reads standard output and stops holds up no ban, and
// not the end for long.
func TestReaderStops(t *testing.T) {
	h := newHost(t, `TCP_PORTS="11"`, `BLOCK_TCP="1"`, `BLOCK_METHOD="nftables"`)
	r, w, err := os.Pipe()
	check(t, err)
	t.Cleanup(func() { r.Close() })
	_, err = unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096)
	check(t, err)
	cmd := h.Command(t.Context(), program)
	cmd.Stdout, cmd.Stderr = w, w
	check(t, h.Do(cmd.Start))
	w.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })
	lab.Wait(t, patience, "the daemon is ready", h.watches)
	const sources = 500
	_, err = h.send.Flood(t.Context(), h.packet(source(0), pktgen.ProtoTCP, 11), pktgen.FloodOpts{
		Count: sources, Rate: 2000, SourcePrefix: netip.MustParsePrefix("10.77.64.0/20"), Sources: sources,
	})
	check(t, err)
	lab.Wait(t, patience, "all bans", func() bool { return len(h.bans()) == sources })
	begin := time.Now()
	check(t, cmd.Process.Signal(unix.SIGTERM))
	select {
	case err = <-ended:
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	t.Logf("ended after %v: %v", time.Since(begin), err)
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d for a stop that lost lines", code)
	}
	said, err := io.ReadAll(r)
	check(t, err)
	if text := string(said); !strings.Contains(text, "now active and listening") || strings.Count(text, "\n") > sources {
		t.Errorf("the pipe had %d bytes:\n%.300s", len(said), text)
	}
	h.gone()
}
