package ban_test

import (
	"os"
	"strings"
	"testing"

	"portsentry/internal/bpf"
	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// A daemon that died left bans in the kernel by every way there is. clear takes them
// away, with all else that is ours and nothing that is the owner's; while a daemon
// runs it refuses.
func TestClear(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	lab.Command(t, s.Host.NS, "ipset", "create", "portsentry4", "hash:net", "timeout", "0")
	lab.Command(t, s.Host.NS, "ipset", "add", "portsentry4", "192.0.2.7", "timeout", "0") // the owner's, for ever
	lab.Command(t, s.Host.NS, "iptables", "-t", "mangle", "-I", "PREROUTING", "-m", "set", "--match-set", "portsentry4", "src", "-j", "DROP")
	lab.Command(t, s.Host.NS, "ip", "route", "add", "blackhole", "198.18.0.1", "proto", "static")

	ways := strings.Join(append(methods(), "route", "ipset"), ",")
	d := s.start(map[string]string{"BLOCK_METHOD": ways})
	src := nth(clients, 1)
	s.forge(s.tcp(src, 40000, trap, pktgen.SYN))
	d.waitBan(src)
	held := func(want bool, args ...string) {
		t.Helper()
		if out := lab.Command(t, s.Host.NS, args...); strings.Contains(out, src.String()) != want {
			t.Errorf("%s: %v is there: %v\n%s", args, src, !want, out)
		}
	}
	lab.Wait(t, soon, "the ban in the set", func() bool {
		return strings.Contains(lab.Command(t, s.Host.NS, "ipset", "list", "portsentry4"), src.String())
	})
	held(true, "ip", "route", "show", "proto", "112")

	clearAway := func() (string, error) {
		out, err := d.Command(t.Context(), "clear")
		if err != nil {
			return err.Error(), err
		}
		return string(out), nil
	}
	if out, err := clearAway(); err == nil || !strings.Contains(out, "stop it first") {
		t.Errorf("while it runs: %v\n%s", err, out)
	}
	d.Kill()
	out, err := clearAway()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, what := range []string{"firewall table", "blackhole routes", "portsentry4"} {
		if !strings.Contains(out, "taken away: ") || !strings.Contains(out, what) {
			t.Errorf("nothing about %s in\n%s", what, out)
		}
	}
	held(false, "ip", "route", "show", "proto", "112")
	held(false, "ipset", "list", "portsentry4")
	if tables := lab.Command(t, s.Host.NS, "nft", "list", "tables"); strings.Contains(tables, "portsentry") {
		t.Errorf("the table is still there:\n%s", tables)
	}
	check(t, s.Host.NS.Do(func() error {
		folder, err := bpf.Folder()
		if _, gone := os.Stat(folder); err == nil && gone == nil {
			t.Errorf("%s is still there", folder)
		}
		return err
	}))
	if own := lab.Command(t, s.Host.NS, "ipset", "list", "portsentry4"); !strings.Contains(own, "192.0.2.7") {
		t.Errorf("the owner's own element is gone:\n%s", own)
	}
	if own := lab.Command(t, s.Host.NS, "ip", "route", "show", "proto", "static"); !strings.Contains(own, "198.18.0.1") {
		t.Errorf("the owner's own route is gone:\n%s", own)
	}
	if out, err := clearAway(); err != nil || out != "" {
		t.Errorf("a second time: %v\n%s", err, out)
	}
}
