package xdp_test

import (
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// alone bans in the XDP program and nowhere else.
var alone = map[string]string{"BLOCK_METHOD": "xdp"}

func with(config map[string]string, key, value string) map[string]string {
	out := map[string]string{key: value}
	for k, v := range config {
		if k != key {
			out[k] = v
		}
	}
	return out
}

// A daemon that is killed during a scan leaves the ban in the kernel, and with it
// a program that goes on to ban for ten seconds at a time. The next daemon knows
// of each ban what the first one knew. It leaves nothing behind where no ban is
// left.
func TestKilledDuringAScan(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.start(with(alone, "BAN_TIME_UNVERIFIED", "10m"))
	scanner, other := s.Scanner.Addr4(), nth(clients, 1)
	unconfirmed, meanwhile, late := nth(clients, 2), nth(clients, 3), nth(clients, 4)
	s.forge(s.tcp(other, 40000, trap2, pktgen.SYN))
	d.waitBan(other)
	scan := exec.CommandContext(t.Context(), "nmap", "-n", "-Pn", "-r", "-sS", "--max-retries", "1", "--min-rate", "100", "--max-rate", "150",
		"-S", scanner.String(), "-e", s.Scanner.Name, "-p1-500", s.Host.Addr4().String())
	var report strings.Builder
	scan.Stdout = &report
	check(t, s.Scanner.NS.Do(scan.Start))
	before := d.waitBan(scanner)
	check(t, d.Signal(syscall.SIGSTOP))
	s.forge(s.tcp(unconfirmed, 40000, trap, pktgen.SYN))
	hit := time.Now()
	d.Kill()

	sn := s.listening()
	s.forge(s.tcp(meanwhile, 40000, trap, pktgen.SYN), s.tcp(meanwhile, 40001, 443, pktgen.SYN),
		s.tcp(unconfirmed, 40001, 443, pktgen.SYN), s.tcp(other, 40001, 443, pktgen.SYN))
	if got := s.answers(sn); got[meanwhile]+got[unconfirmed]+got[other] > 0 {
		t.Errorf("while nobody runs these are answered: %v", got)
	}
	check(t, scan.Wait())
	if openPorts(report.String()) != "" || !strings.Contains(report.String(), "500 filtered") {
		t.Errorf("the scan that went on while nobody ran:\n%s", &report)
	}
	s.lets(unconfirmed, 12*time.Second)
	if took := time.Since(hit); took < 8*time.Second {
		t.Errorf("a ban that nobody confirmed ended after %v", took)
	}
	s.lets(meanwhile, 5*time.Second)
	if s.gets(scanner) || s.gets(other) {
		t.Error("a confirmed ban ended with the daemon")
	}

	d = s.start(with(alone, "BAN_TIME_UNVERIFIED", "10m"))
	if s.gets(scanner) || s.gets(other) {
		t.Error("a ban ended with the next start")
	}
	after, ok := d.ban(scanner)
	if !ok || len(d.bans()) != 2 {
		t.Fatalf("after the restart: %+v", d.bans())
	}
	if !after.Since.Equal(before.Since) || after.Until == nil || after.Until.Sub(*before.Until).Abs() > time.Second ||
		after.Evidence != before.Evidence || after.Strength != before.Strength || after.Scope != before.Scope || after.Times != before.Times ||
		!slices.Equal(after.Methods, before.Methods) || !strings.Contains(after.Reason, "port 1") {
		t.Errorf("after the restart\n%+v, before\n%+v", after, before)
	}
	if after.Dropped == nil || *after.Dropped < 400 {
		t.Errorf("it has dropped %s packets", dropped(after))
	}
	s.forge(s.tcp(late, 40000, trap, pktgen.SYN))
	d.waitBan(late)
	if s.gets(late) {
		t.Error("who hit a trap after the restart is let in")
	}
	for _, b := range d.bans() {
		d.unban(b.Prefix.Addr())
		if !s.gets(b.Prefix.Addr()) {
			t.Errorf("%v is kept out after unban", b.Prefix)
		}
	}
	d.healthy("after the restart")
	check(t, d.Stop())
	if id, names := onLink(t, s.Host), s.pinned(); id != "" || len(names) > 0 {
		t.Errorf("after a stop without bans program %q is on the interface, and %q pinned", id, names)
	}
}

// Where the XDP program alone keeps somebody out, it stays when the daemon stops,
// and the ban ends by itself. It begins no ban any more.
func TestStoppedWithBans(t *testing.T) {
	t.Parallel()
	const length = 4 * time.Second
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.start(with(alone, "BAN_TIME_UNVERIFIED", "4s"))
	banned, late := nth(clients, 1), nth(clients, 2)
	s.forge(s.tcp(banned, 40000, trap, pktgen.SYN))
	b := d.waitBan(banned)
	check(t, d.Stop())
	if s.gets(banned) {
		t.Error("the ban ended with the daemon")
	}
	if since := time.Since(b.Since); since > length {
		t.Fatalf("%v have gone by: this machine is too slow to tell", since)
	}
	s.forge(s.tcp(late, 40000, trap, pktgen.SYN))
	if !s.gets(late) {
		t.Error("a daemon that was stopped goes on banning")
	}
	s.lets(banned, 2*length)
	if took := time.Since(b.Since); took < length {
		t.Errorf("it ended after %v", took)
	}

	d = s.start(alone) // takes the program over, and away
	d.waitHow(s.Host.Name, "XDP")
	if len(d.bans()) > 0 {
		t.Errorf("bans %+v", d.bans())
	}
	check(t, d.Stop())
	if id, names := onLink(t, s.Host), s.pinned(); id != "" || len(names) > 0 {
		t.Errorf("after a stop without bans program %q is on the interface, and %q pinned", id, names)
	}
}

// Where nftables has the bans as well, the program goes when the daemon stops, and
// they stand.
func TestStoppedWithBansInNftables(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.start(nil)
	banned := nth(clients, 1)
	s.forge(s.tcp(banned, 40000, trap, pktgen.SYN))
	if b := d.waitBan(banned); !slices.Equal(b.Methods, []string{"xdp", "nftables"}) {
		t.Errorf("%+v", b)
	}
	if onLink(t, s.Host) == "" {
		t.Error("no program on the interface")
	}
	check(t, d.Stop())
	if id := onLink(t, s.Host); id != "" {
		t.Errorf("after the stop program %q is on the interface", id)
	}
	if s.gets(banned) {
		t.Error("the ban ended with the daemon")
	}
	d = s.start(nil)
	if b, ok := d.ban(banned); !ok || s.gets(banned) {
		t.Errorf("after the restart: %+v", b)
	}
	d.unban(banned)
	s.lets(banned, soon)
}

// A daemon that is killed leaves no gap: its successor's program takes the place of
// its own with one step, and a scan meanwhile gets no answer.
func TestNoGapBetweenTwoDaemons(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.start(alone)
	banned := nth(clients, 1)
	s.forge(s.tcp(banned, 40000, trap, pktgen.SYN))
	d.waitBan(banned)
	first := onLink(t, s.Host)
	sn := s.listening()
	stop, done := make(chan struct{}), make(chan int)
	own := s.sender(s.Scanner)
	go func() {
		n := 0
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				done <- n
				return
			case <-tick.C:
				if own.SendPacket(s.tcp(banned, uint16(20000+n%40000), 443, pktgen.SYN)) == nil {
					n++
				}
			}
		}
	}()
	d.Kill()
	s.start(alone)
	lab.Wait(t, soon, "the other program", func() bool { return onLink(t, s.Host) != first })
	close(stop)
	n := <-done
	if got := s.answers(sn)[banned]; got > 0 || n == 0 {
		t.Errorf("%d of %d probes answered", got, n)
	}
	t.Logf("%d probes from one daemon to the next", n)
}
