package faults_test

import (
	"io"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"portsentry/test/lab"
)

// owner is a program that owns our table: nobody else may change it, until it ends.
type owner struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

// own has a program take our table for its own; it removes one that is there.
func (s *stage) own() *owner {
	s.t.Helper()
	o := &owner{t: s.t, cmd: exec.Command("nft", "-i")}
	o.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	var err error
	o.stdin, err = o.cmd.StdinPipe()
	check(s.t, err)
	check(s.t, s.Host.NS.Do(o.cmd.Start))
	s.t.Cleanup(o.end)
	_, err = io.WriteString(o.stdin, "add table inet portsentry; delete table inet portsentry; add table inet portsentry { flags owner; }\n")
	check(s.t, err)
	lab.Wait(s.t, soon, "a table that another program owns", func() bool {
		return strings.Contains(lab.Command(s.t, s.Host.NS, "nft", "list", "ruleset"), "flags owner")
	})
	return o
}

// end ends it, and with it the table.
func (o *owner) end() {
	if o.cmd.ProcessState == nil {
		o.stdin.Close()
		o.cmd.Wait()
	}
}

// TestNftablesRefused: the kernel lets us change our firewall table no more, while we
// run or from the start. The XDP program goes on banning, or with AF_PACKET nobody does
// and that is said; when the table can be had, all bans are in it.
func TestNftablesRefused(t *testing.T) {
	t.Run("from the start", func(t *testing.T) {
		s := newStage(t)
		o := s.own()
		d := s.start(map[string]string{"CAPTURE": "auto"})
		t.Log(d.problem("the XDP program bans alone", "another program owns the table"))
		s.probe(source(1))
		d.waitBans(source(1))
		if d.healthy() {
			t.Error("health says that all is well")
		}
		o.end()
		d.noProblem()
		s.probe(source(2))
		s.inTable(source(1), source(2)) // what was made without it, too
		d.waitBans(source(1))
		if !slices.Equal(d.banned()[netip.PrefixFrom(source(1), 32)].Methods, []string{"xdp", "nftables"}) {
			t.Errorf("%+v", d.banned())
		}
	})
	t.Run("while it runs", func(t *testing.T) {
		s := newStage(t)
		d := s.start(map[string]string{"CAPTURE": "auto"})
		s.probe(source(1))
		d.waitBans(source(1))
		o := s.own()
		t.Log(d.problem("our firewall table", "another program owns the table"))
		if d.healthy() {
			t.Error("health says that all is well")
		}
		s.probe(sources(2, 20)...)
		d.waitBans(sources(2, 20)...)
		d.waitCounter("bans_failed_total", 1)
		o.end()
		d.noProblem()
		s.inTable(sources(1, 20)...) // what was made meanwhile, too
		d.waitBans(sources(1, 20)...)
		s.probe(source(20))
		s.inTable(source(20))
	})
	t.Run("with nothing beside it", func(t *testing.T) {
		s := newStage(t)
		d := s.start(map[string]string{"CAPTURE": "afpacket", "BLOCK_METHOD": "nftables"})
		s.probe(source(1))
		d.waitBans(source(1))
		o := s.own()
		t.Log(d.problem("our firewall table", "another program owns the table"))
		s.probe(source(2))
		lab.Wait(t, soon, "its line", func() bool { return len(d.from(source(2))) > 0 })
		d.waitCounter("bans_failed_total", 1)
		if d.healthy() || strings.Contains(d.from(source(2))[0], "blocked: [true]") {
			t.Error("it is said to be banned, and that all is well")
		}
		o.end()
		d.noProblem()
		s.inTable(source(1))
		lab.Wait(t, soon, "a ban of who goes on", func() bool { // a second after the last refusal
			s.probe(source(2))
			_, banned := d.banned()[netip.PrefixFrom(source(2), 32)]
			return banned
		})
	})
}

// inTable waits until the firewall has them all.
func (s *stage) inTable(who ...netip.Addr) {
	s.t.Helper()
	lab.Wait(s.t, soon, "all bans in the firewall", func() bool { return s.holds(who...) })
}

// holds reports whether the firewall has them all.
func (s *stage) holds(who ...netip.Addr) bool {
	s.t.Helper()
	out := lab.Command(s.t, s.Host.NS, "nft", "list", "ruleset")
	return !slices.ContainsFunc(who, func(a netip.Addr) bool { return !strings.Contains(out, " "+a.String()+" ") })
}
