package nft

import (
	"context"
	"net/netip"
	"os/exec"
	"slices"
	"testing"
	"time"

	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// lost waits for the signal.
func (l *lab) lost(t *Table) {
	l.t.Helper()
	select {
	case <-t.Lost():
	case <-time.After(10 * time.Second):
		l.t.Fatal("no word of the loss within 10 s")
	}
}

func (l *lab) rebuild(t *Table, bans []respond.Ban) {
	l.t.Helper()
	l.in(l.host, func() error { return t.Rebuild(context.Background(), bans) })
}

// What is removed while the table is made anew does not make that fail.
func TestReconfiguredWhileFlushed(t *testing.T) {
	l := newLab(t)
	table := l.open(traps())
	flushed := make(chan struct{})
	go func() {
		defer close(flushed)
		for range 40 {
			exec.Command("ip", "netns", "exec", l.hostName, "nft", "flush", "ruleset").Run()
		}
	}()
	for i := 0; ; i++ {
		if err := table.SetSpare([]netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 32)}); err != nil {
			t.Fatalf("list %d: %v", i, err)
		}
		select {
		case <-flushed:
			return
		default:
		}
	}
}

// The table is taken away, in whole or its rules: it is told, and one call
// brings all of it back.
func TestLostAndRebuilt(t *testing.T) { bothWays(t, testLostAndRebuilt) }

func testLostAndRebuilt(t *testing.T, traps func() Options) {
	for _, how := range [][]string{
		{"flush", "ruleset"}, {"delete", "table", "inet", "portsentry"}, {"flush", "table", "inet", "portsentry"},
	} {
		t.Run(how[0]+" "+how[1], func(t *testing.T) {
			l := newLab(t)
			o := traps()
			o.Peers = []netip.Addr{netip.MustParseAddr("203.0.113.77"), netip.MustParseAddr("203.0.113.78")}
			table := l.open(o)
			a := l.hits(table)
			spared, peer := netip.MustParseAddr("203.0.113.99"), netip.MustParseAddr("203.0.113.78")
			if err := table.SetSpare([]netip.Prefix{netip.PrefixFrom(spared, 32)}); err != nil {
				t.Fatal(err)
			}
			if err := table.RemovePeers(o.Peers[:1]); err != nil {
				t.Fatal(err)
			}
			bans := some()
			if err := table.BanAll(t.Context(), bans); err != nil {
				t.Fatal(err)
			}
			l.command(l.hostName, "nft", how...)
			l.lost(table)
			other := bans[1]
			other.Strength = judge.Full
			l.rebuild(table, append([]respond.Ban{other}, append(bans, bans[1])...)) // one twice does no harm, the last counts
			sameBans(t, l.existing(table), bans)
			if got := l.addresses("peers4"); !slices.Equal(got, []string{peer.String()}) {
				t.Errorf("peers %v", got)
			}
			r := l.raw()
			scanner := netip.MustParseAddr("203.0.113.50")
			r.send(l.tcp(spared, 1, 1, syn))
			r.send(l.tcp(peer, 1, 1, syn))
			r.send(l.tcp(scanner, 1, 1, syn))
			eventually(t, "the hit", func() bool { r.poll(); return a.of(scanner) == 1 && r.answers[spared] > 0 })
			if s := l.stats(table); s.TrapHits != 2 {
				t.Errorf("stats %+v", s)
			}
			if got := l.addresses("hitlim4"); !slices.Equal(got, []string{peer.String()}) {
				t.Errorf("limited: %v", got)
			}
			if table.isLost() {
				t.Error("still counts as lost")
			}
		})
	}
}

// What we change ourselves, and what others change in tables of theirs, is no
// loss.
func TestNotLost(t *testing.T) {
	l := newLab(t)
	table := l.open(traps())
	l.hits(table)
	for i := range 6 {
		o := traps()
		o.TrapServed = i%2 == 0
		l.reconfigure(table, o)
		if err := table.BanAll(t.Context(), some()); err != nil {
			t.Fatal(err)
		}
		l.nftFile("table ip other { chain c { tcp dport 1 accept; }; }")
		l.command(l.hostName, "nft", "insert rule inet portsentry pre ip saddr 192.0.2.1 accept")
		l.command(l.hostName, "nft", "delete table ip other")
	}
	if table.isLost() {
		t.Error("counts as lost")
	}
	select {
	case <-table.Lost():
		t.Error("a loss was told")
	default:
	}
}

// What others change is told, what we change is not.
func TestTouched(t *testing.T) {
	l := newLab(t)
	table := l.open(traps())
	l.hits(table)
	told := func() bool {
		select {
		case <-table.Touched():
			return true
		default:
			return false
		}
	}
	for range 3 {
		if err := table.BanAll(t.Context(), some()); err != nil {
			t.Fatal(err)
		}
		l.command(l.hostName, "nft", "flush", "set", "inet", "portsentry", "full4")
		eventually(t, "word of it", told)
	}
	for range 3 {
		if err := table.BanAll(t.Context(), some()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*lookEvery) // in which it would have been
	defer cancel()
	<-ctx.Done()
	if told() {
		t.Error("what we did ourselves was told")
	}
}

// Somebody who takes the table away again and again is answered less and less
// often.
func TestLostAgainAndAgain(t *testing.T) {
	l := newLab(t)
	table := l.open(traps())
	l.hits(table)
	var told [2]time.Time
	for i := range told {
		l.command(l.hostName, "nft", "flush", "ruleset")
		l.lost(table)
		told[i] = time.Now()
		l.rebuild(table, nil)
	}
	if d := told[1].Sub(told[0]); d < tellAgain-lookEvery {
		t.Errorf("told again after %v", d)
	}
}

func TestTellingPauses(t *testing.T) {
	var l telling
	now := time.Now()
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		got := l.told(now)
		if got != want*time.Second {
			t.Errorf("loss %d: pause of %v, want %d s", i, got, want)
		}
		now = now.Add(got)
	}
	if got := l.told(now.Add(5 * time.Minute)); got != tellAgain {
		t.Errorf("after a long peace: pause of %v", got)
	}
}

// A Reconfigure of a table that is gone puts its traps up and does not hide that
// the bans are gone.
func TestReconfigureOfALostTable(t *testing.T) {
	l := newLab(t)
	table := l.open(traps())
	bans := some()
	if err := table.BanAll(t.Context(), bans); err != nil {
		t.Fatal(err)
	}
	l.command(l.hostName, "nft", "flush", "ruleset")
	l.reconfigure(table, traps())
	a := l.hits(table)
	l.raw().send(l.tcp(netip.MustParseAddr("203.0.113.50"), 1, 1, syn))
	eventually(t, "the hit", func() bool { return a.len() == 1 })
	l.lost(table)
	l.rebuild(table, bans)
	sameBans(t, l.existing(table), bans)
	if table.isLost() {
		t.Error("still counts as lost")
	}
}

// Many bans come back in one transaction.
func TestRebuildMany(t *testing.T) {
	l := newLab(t)
	table := l.open(traps())
	l.command(l.hostName, "nft", "flush", "ruleset")
	bans := many(20_000)
	begin := time.Now()
	l.rebuild(table, bans)
	t.Logf("%d bans: %v", len(bans), time.Since(begin))
	if got := len(l.existing(table)); got != len(bans) {
		t.Errorf("%d bans, want %d", got, len(bans))
	}
}
