package ban_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/internal/view"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

// A daemon that dies leaves its bans and a trap rule, or an XDP program, that makes
// provisional ones; the next one takes the bans over; one that is stopped takes the trap
// rule away.
func TestKilledAndStartedAgain(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	dir := t.TempDir()
	config := map[string]string{
		"BAN_TIME_UNVERIFIED": "10m", "HISTORY_FILE": filepath.Join(dir, "history"), "BLOCKED_FILE": filepath.Join(dir, "blocked"),
	}
	d := s.start(config)
	old, meanwhile, late := nth(clients, 1), nth(clients, 2), nth(clients, 3)
	s.forge(s.tcp(old, 40000, trap, pktgen.SYN))
	ban := d.waitBan(old)
	s.seen(d)
	lab.Wait(t, soon, "the files", func() bool {
		return strings.Contains(read(config["BLOCKED_FILE"]), old.String()) && strings.Contains(read(config["HISTORY_FILE"]), old.String())
	})
	history := read(config["HISTORY_FILE"])
	d.Kill()

	expires := func(set string, i int) time.Duration {
		for _, e := range s.sets()[set] {
			if e.addr == nth(clients, i) {
				return e.expires
			}
		}
		return -1
	}
	if got := s.answered(s.tcp(meanwhile, 40000, trap, pktgen.SYN), s.tcp(meanwhile, 40001, 443, pktgen.SYN)); len(got) > 0 {
		t.Errorf("without a daemon a hit is answered: %+v", got)
	}
	if left := expires("soft4", 2); left >= 0 {
		t.Errorf("who confirmed the ban of a dead daemon, with %v left?", left)
	}
	if left := expires("hit4", 2); !byXDP() && (left < 0 || left > 10*time.Second) {
		t.Errorf("provisional ban: %v left", left)
	}
	if left := expires("soft4", 1); left < 9*time.Minute {
		t.Errorf("the ban from before has %v left", left)
	}
	start := time.Now()
	lab.Wait(t, 12*time.Second, "the provisional ban ends", func() bool {
		_, _, err := s.dial(meanwhile, 443, time.Second)
		return err == nil
	})
	t.Logf("the provisional ban of a dead daemon ended after %v", time.Since(start).Round(100*time.Millisecond))
	if left := expires("soft4", 1); left < 9*time.Minute {
		t.Errorf("then the ban from before has %v left", left)
	}

	d = s.start(config)
	again, ok := d.ban(old)
	if !ok || again.Until == nil || again.Until.Sub(*ban.Until).Abs() > 2*time.Second || again.Strength != "soft" {
		t.Errorf("after the restart %+v, before %+v", again, ban)
	}
	if n := len(d.bans()); n != 1 {
		t.Errorf("%d bans after the restart", n)
	}
	if _, _, err := s.dial(old, 443, 300*time.Millisecond); err == nil {
		t.Error("after the restart the banned source gets through")
	}
	s.seen(d)
	if now := read(config["HISTORY_FILE"]); !strings.HasPrefix(now, history) {
		t.Errorf("history was %q and is %q", history, now)
	}
	if !strings.Contains(read(config["BLOCKED_FILE"]), old.String()) {
		t.Errorf("blocked file %q", read(config["BLOCKED_FILE"]))
	}

	check(t, d.Stop())
	if left := expires("soft4", 1); left < 9*time.Minute {
		t.Errorf("after the stop the ban has %v left", left)
	}
	if trap := lab.Command(t, s.Host.NS, "nft", "list", "chain", "inet", "portsentry", "trap"); strings.Contains(trap, "traps") {
		t.Errorf("after the stop there are trap rules:\n%s", trap)
	}
	got := s.answered(s.tcp(late, 40000, trap, pktgen.SYN), s.tcp(late, 40001, 443, pktgen.SYN))
	if len(got) < 2 || !got[0].IsRST() || !got[1].IsSYNACK() {
		t.Errorf("after the stop a hit and a probe of a served port are answered %+v", got)
	}
}

// Taking a line out of the blocked file gives a host its access back.
func TestBlockedFileEdited(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	path := filepath.Join(t.TempDir(), "blocked")
	d := s.start(map[string]string{"BLOCKED_FILE": path})
	forgiven, other := nth(clients, 1), nth(clients, 2)
	s.forge(s.tcp(forgiven, 40000, trap, pktgen.SYN), s.tcp(other, 40000, trap, pktgen.SYN))
	lab.Wait(t, soon, "both in the file", func() bool {
		return strings.Contains(read(path), forgiven.String()+"/") && strings.Contains(read(path), other.String()+"/")
	})
	lab.Command(t, s.Host.NS, "sed", "-i", "/"+forgiven.String()+"/d", path)
	start := time.Now()
	lab.Wait(t, soon, "the ban is lifted", func() bool {
		_, banned := d.ban(forgiven)
		return !banned
	})
	took := time.Since(start)
	t.Logf("lifted %v after the edit", took.Round(10*time.Millisecond))
	if took > 3*time.Second {
		t.Errorf("lifted only %v after the edit", took)
	}
	d.waitLine(forgiven.String(), "no longer banned", path)
	if _, took, err := s.dial(forgiven, 443, soon); err != nil || took > time.Second {
		t.Errorf("forgiven: %v after %v", err, took)
	}
	if _, banned := d.ban(other); !banned {
		t.Error("the other was forgiven too")
	}
	if _, _, err := s.dial(other, 443, 300*time.Millisecond); err == nil {
		t.Error("the other gets through")
	}
}

// What the owner's commands did beside a native ban is undone by a later run, too.
func TestStepsOfAnEarlierRun(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	etc, script := s.privateEtc(map[string]string{"hosts.deny": ""})
	config := map[string]string{
		"BLOCKED_FILE": filepath.Join(t.TempDir(), "blocked"), "KILL_HOSTS_DENY": "ALL: $TARGET$",
	}
	deny := func() string { return read(filepath.Join(etc, "hosts.deny")) }
	d := s.startIn(script, config)
	src := nth(clients, 1)
	s.forge(s.tcp(src, 40000, trap, pktgen.SYN))
	d.waitBan(src)
	lab.Wait(t, soon, "the line", func() bool { return deny() == "ALL: "+src.String()+"\n" })
	check(t, d.Stop())

	d = s.startIn(script, config)
	if b := d.waitBan(src); !slices.Equal(b.Methods, append(methods(), "KILL_HOSTS_DENY")) || b.Until == nil {
		t.Errorf("restored: %+v", b)
	}
	if _, err := d.unban(src); err != nil {
		t.Error(err)
	}
	lab.Wait(t, soon, "hosts.deny without the line", func() bool { return deny() == "" })
}

// unban works at once, also for what the kernel began this moment; for nobody it
// says so.
func TestUnban(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.start(nil)
	src, src6 := nth(clients, 1), nth(subnet6(1), 1)
	s.forge(s.tcp(src, 40000, trap, pktgen.SYN), s.tcp(src6, 40000, trap, pktgen.SYN))
	for _, who := range []netip.Addr{src, src6} {
		d.waitBan(who)
		want := 2 // the firewall's own and ours
		if byXDP() {
			want = 1
		}
		if sets := s.banned(who); len(sets) != want {
			t.Errorf("%v is in %v", who, sets)
		}
		said, err := d.unban(who)
		check(t, err)
		if !strings.Contains(said, who.String()) {
			t.Errorf("it said %q", said)
		}
		if sets := s.banned(who); len(sets) > 0 {
			t.Errorf("%v is still in %v", who, sets)
		}
		if _, took, err := s.dial(who, 443, soon); err != nil || took > time.Second {
			t.Errorf("%v: %v after %v", who, err, took)
		}
		d.waitLine(who.String(), "no longer banned, by uid 0")
	}
	_, err := d.unban(nth(nobody, 99))
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(err.Error(), "is not banned") {
		t.Errorf("unban of nobody: %v", err)
	}
}

// The control socket's answers are JSON, for root and the group alone.
func TestWhoMayAsk(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	// Everybody may come as far as the socket.
	dir, err := os.MkdirTemp("", "portsentry-ask-")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	check(t, os.Chmod(dir, 0o755))
	binary := filepath.Join(dir, "portsentry")
	lab.Command(t, s.Host.NS, "install", "-m", "0755", lab.Binary(t), binary)
	d := &daemon{harness.MustStart(t, harness.Options{Binary: binary, NS: s.Host.NS, Dir: dir, Config: s.banning(nil)}), t}
	src := nth(nobody, 1)
	s.forge(s.tcp(src, 40000, trap, pktgen.SYN))
	d.waitBan(src)

	var st view.Status
	for name, into := range map[string]any{"status": &st, "bans": &view.BanList{}} {
		out, err := d.Command(t.Context(), name, "--json")
		check(t, err)
		dec := json.NewDecoder(strings.NewReader(string(out)))
		dec.DisallowUnknownFields()
		if err := dec.Decode(into); err != nil {
			t.Errorf("%s --json: %v\n%s", name, err, out)
		}
		text, err := d.Command(t.Context(), name)
		check(t, err)
		if name == "bans" && !strings.Contains(string(text), src.String()) {
			t.Errorf("bans said %s", text)
		}
	}
	if st.Bans != 1 || len(st.Problems) > 0 || !slices.Equal(st.Methods, methods()) || len(st.Watching) != 1 {
		t.Errorf("%+v", st)
	}

	socket := filepath.Join(dir, "control.sock")
	stranger := func(args ...string) (string, int) {
		cmd := exec.CommandContext(t.Context(), "setpriv", append([]string{
			"--reuid=65534", "--regid=65534", "--clear-groups", binary, "--socket", socket,
		}, args...)...)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	for _, mode := range []os.FileMode{0o660, 0o666} { // the second shows that the mode is not all there is
		check(t, os.Chmod(socket, mode))
		for _, args := range [][]string{{"status"}, {"bans"}, {"unban", src.String()}} {
			said, code := stranger(args...)
			if code != 2 || strings.Contains(said, "soft") {
				t.Errorf("%v, socket %v: exit status %d: %s", args, mode, code, said)
			}
		}
	}
	if _, banned := d.ban(src); !banned {
		t.Error("a stranger lifted the ban")
	}
}

// Without the capabilities that the kernel wants there is no native ban: it is
// said, and the rest goes on. Who insists on a native ban is told at the start.
func TestWithoutNetAdmin(t *testing.T) {
	t.Parallel()
	const without = `exec setpriv --bounding-set -net_admin,-sys_admin --inh-caps -net_admin,-sys_admin "$@"`
	s := newStage(t)
	out := filepath.Join(t.TempDir(), "ran")
	d := s.startIn(without, map[string]string{"BLOCK_METHOD": "auto", "KILL_RUN_CMD": "echo $TARGET$ >> " + out})
	t.Log(d.problem("no native ban", "CAP_NET_ADMIN"))
	src := nth(nobody, 1)
	s.forge(s.tcp(src, 40000, trap, pktgen.SYN))
	d.waitLine(src.String(), "blocked: [true]") // by the command, which has ended
	if got := read(out); got != src.String()+"\n" {
		t.Errorf("the command wrote %q", got)
	}

	path, dir := s.wrap(without), t.TempDir()
	_, err := harness.Start(t.Context(), harness.Options{
		Binary: path, NS: s.Host.NS, Dir: dir, Config: s.banning(map[string]string{"BLOCK_METHOD": "nftables"}),
	})
	if !errors.Is(err, harness.ErrExited) || !strings.Contains(err.Error(), "exit status 1") || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf(`BLOCK_METHOD="nftables": %v`, err)
	}
}

// CAP_SYS_ADMIN is enough for the XDP program and not for nftables: then it bans
// alone, and nothing says that nobody does.
func TestWithoutTheTable(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	d := s.startIn(`exec setpriv --bounding-set -net_admin --inh-caps -net_admin "$@"`, map[string]string{"BLOCK_METHOD": "auto"})
	t.Log(d.problem("the XDP program bans alone", "CAP_NET_ADMIN"))
	st, err := d.Status(t.Context())
	check(t, err)
	if said := strings.Join(st.Problems, "\n"); !slices.Equal(st.Methods, []string{"xdp"}) || strings.Contains(said, "no native ban") {
		t.Errorf("bans by %v, problems: %s", st.Methods, said)
	}
	src := nth(nobody, 1)
	s.forge(s.tcp(src, 40000, trap, pktgen.SYN))
	d.waitBan(src)
}
