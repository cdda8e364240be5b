package ban_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"portsentry/internal/pktgen"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

// Bans that an earlier run left can be seen and lifted after the configuration
// was set back to log only, and nobody new is banned.
func TestLogOnlyAfterBans(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	first := s.start(nil)
	src, other := nth(clients, 1), nth(clients, 2)
	s.forge(s.tcp(src, 40000, trap, pktgen.SYN))
	first.waitBan(src)
	check(t, first.Stop())

	d := s.start(map[string]string{"BLOCK_TCP": "0", "BLOCK_UDP": "0"})
	d.waitBan(src)
	s.forge(s.tcp(other, 40000, trap, pktgen.SYN))
	d.waitLine(other.String(), "noblock: [true]")
	if sets := s.banned(other); len(sets) > 0 {
		t.Errorf("log only, and %v is in %v", other, sets)
	}
	_, err := d.unban(src)
	check(t, err)
	if sets := s.banned(src); slices.ContainsFunc(sets, func(set string) bool { return !strings.HasPrefix(set, "hit") }) {
		t.Errorf("%v is still in %v", src, sets)
	}
}

// A second daemon at the same socket says so and leaves the first one's traps,
// bans and files alone.
func TestSecondDaemon(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	dir := t.TempDir()
	config := s.banning(nil)
	d := &daemon{harness.MustStart(t, harness.Options{Binary: lab.Binary(t), NS: s.Host.NS, Dir: dir, Config: config}), t}
	table := func() string {
		return lab.Command(t, s.Host.NS, "nft", "-s", "list", "table", "inet", "portsentry")
	}
	// The first one follows its addresses, of which one is a moment late (RFC 4862
	// section 5.4): then the table is another, without the second one.
	lab.Wait(t, soon, "the same table before and after", func() bool {
		before := table()
		_, err := harness.Start(t.Context(), harness.Options{
			Binary: lab.Binary(t), NS: s.Host.NS, Dir: t.TempDir(), Config: config,
			Args: []string{"--socket", filepath.Join(dir, harness.SocketName)},
		})
		if err == nil || !strings.Contains(err.Error(), "another portsentry is running") {
			t.Fatalf("the second daemon: %v", err)
		}
		return table() == before
	})
	src := nth(clients, 1)
	s.forge(s.tcp(src, 40000, trap, pktgen.SYN))
	d.waitBan(src)
}

// Somebody flushes the ruleset: the table is made again with its bans, the log says
// so, and status has nothing to say any more.
func TestFlushedRuleset(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	d := s.start(nil)
	src := nth(clients, 1)
	s.forge(s.tcp(src, 40000, trap, pktgen.SYN))
	d.waitBan(src)
	lab.Command(t, s.Host.NS, "nft", "flush", "ruleset")
	d.waitLine("it was made again, with 1 ban")
	if table := lab.Command(t, s.Host.NS, "nft", "list", "table", "inet", "portsentry"); !strings.Contains(table, src.String()) {
		t.Errorf("no ban of %v in\n%s", src, table)
	}
	lab.Wait(t, soon, "no problems", func() bool {
		st, err := d.Status(t.Context())
		check(t, err)
		return len(st.Problems) == 0
	})
}
