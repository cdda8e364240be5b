package nft

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

func some() []respond.Ban {
	bans := []respond.Ban{
		ban("203.0.113.1/32", judge.Full, time.Hour), ban("203.0.113.2/32", judge.Soft, 20*time.Minute),
		ban("203.0.113.3/32", judge.Limited, time.Minute), ban("2001:db8::1/128", judge.Soft, time.Minute),
		ban("2001:db8:0:1::/64", judge.Full, time.Minute), ban("203.0.113.4/32", judge.Soft, time.Minute),
		{Prefix: netip.MustParsePrefix("203.0.113.5/32"), Strength: judge.Full},
		ban("198.51.100.0/24", judge.Soft, 20*time.Minute), ban("2001:db8:7:700::/56", judge.Full, time.Hour),
		ban("198.51.100.128/25", judge.Soft, time.Hour), {Prefix: netip.MustParsePrefix("192.0.2.0/31"), Strength: judge.Full},
	}
	bans[5].Scope = judge.UDPOnly
	return bans
}

// sameBans compares prefix, strength, scope and, within 2 s, the end.
func sameBans(t *testing.T, got, want []respond.Ban) {
	t.Helper()
	byPrefix := func(a, b respond.Ban) int { return a.Prefix.Compare(b.Prefix) }
	got, want = slices.SortedFunc(slices.Values(got), byPrefix), slices.SortedFunc(slices.Values(want), byPrefix)
	if !slices.EqualFunc(got, want, func(a, b respond.Ban) bool {
		return a.Prefix == b.Prefix && a.Strength == b.Strength && a.Scope == b.Scope &&
			a.Until.IsZero() == b.Until.IsZero() && a.Until.Sub(b.Until).Abs() < 2*time.Second
	}) {
		t.Errorf("bans\n got %+v\nwant %+v", got, want)
	}
}

func TestCloseLeavesBansAndTakesTraps(t *testing.T) { bothWays(t, testCloseLeavesBansAndTakesTraps) }

func testCloseLeavesBansAndTakesTraps(t *testing.T, traps func() Options) {
	l := newLab(t)
	l.serve(l.host, "tcp", "10.9.0.1:80")
	table := l.open(traps())
	bans := some()
	if err := table.BanAll(t.Context(), bans); err != nil {
		t.Fatal(err)
	}
	if err := table.Ban(t.Context(), ban("10.9.0.2/32", judge.Limited, time.Minute)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := table.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := table.Existing(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	out := l.command(l.hostName, "nft", "list", "table", "inet", "portsentry")
	for _, gone := range []string{"jump hit_", "hit_tcp", "hit_udp", "log group"} {
		if strings.Contains(out, gone) {
			t.Errorf("%q is still there:\n%s", gone, out)
		}
	}
	if _, err := l.dial(l.scanner, "tcp", "10.9.0.1:999", patience); !silent(err) {
		t.Errorf("closed port, limited: %v, want silence", err)
	}
	if _, err := l.dial(l.scanner, "tcp", "10.9.0.1:80", time.Second); err != nil {
		t.Errorf("served port, limited: %v", err)
	}
	if _, err := l.dial(l.scanner, "tcp", "[fd09::1]:1", time.Second); err == nil || silent(err) {
		t.Errorf("former trap: %v, want a refusal", err)
	}

	again := l.open(traps())
	if err := again.Unban(t.Context(), ban("10.9.0.2/32", judge.Limited, 0)); err != nil {
		t.Fatal(err)
	}
	sameBans(t, l.existing(again), bans)
}

// Nobody confirms after a crash, so a hit earns the provisional ban and no more.
func TestCrashLeavesProvisionalBansOnly(t *testing.T) {
	bothWays(t, testCrashLeavesProvisionalBansOnly)
}

func testCrashLeavesProvisionalBansOnly(t *testing.T, traps func() Options) {
	l := newLab(t)
	o := traps()
	o.Provisional = 300 * time.Millisecond
	crashed := l.open(o)
	if err := crashed.BanAll(t.Context(), some()); err != nil {
		t.Fatal(err)
	}
	if err := crashed.shut(); err != nil { // what the kernel does for a killed process
		t.Fatal(err)
	}
	if _, err := l.dial(l.scanner, "tcp", "10.9.0.1:1", patience); !silent(err) {
		t.Errorf("trap: %v, want silence", err)
	}
	eventually(t, "the provisional ban to end", func() bool { return len(l.addresses("hit4")) == 0 })
	if got := l.addresses("soft4"); !slices.Equal(got, []string{"203.0.113.2"}) {
		t.Errorf("soft4 %v", got)
	}

	// The next run takes over where it was left, with other options.
	o.DynamicSize, o.LimitedOnly = 16, true
	table := l.open(o)
	sameBans(t, l.existing(table), some())
	a := l.hits(table)
	if _, err := l.dial(l.scanner, "tcp", "10.9.0.1:1", patience); !silent(err) {
		t.Errorf("trap: %v, want silence", err)
	}
	eventually(t, "the hit of the scanner", func() bool { return a.of(scannerV4) == 1 })
	if got := l.has(table, "10.9.0.2"); got.Strength != judge.Limited {
		t.Errorf("%+v, want limited", got)
	}
}

// A table of another version is replaced in one step and its bans carried over.
func TestOtherLayout(t *testing.T) {
	l := newLab(t)
	l.nftFile(`table inet portsentry {
		counter strange { }
		set traps_tcp { type inet_service; flags interval; elements = { 1, 11, 23 }; }
		set spare4 { type ipv4_addr; flags interval; auto-merge; elements = { 10.9.0.0/24 }; }
		set full4 { type ipv4_addr; flags timeout; size 1000; elements = { 203.0.113.1 timeout 1h, 203.0.113.5 }; }
		set soft4 { type ipv4_addr; flags dynamic,timeout; size 65536; timeout 10s; elements = { 203.0.113.2 timeout 20m }; }
		set lim4 { type inet_service; flags timeout; elements = { 80 timeout 1m }; }
		set future { type ipv4_addr; flags timeout; elements = { 203.0.113.9 timeout 1m }; }
		chain pre { type filter hook prerouting priority -150; ip saddr @full4 counter drop; ip saddr @future jump deep; }
		chain trap { type filter hook input priority -150; tcp dport @traps_tcp jump hit; tcp dport { 5, 6 } counter name "strange"; }
		chain hit { add @soft4 { ip saddr } drop; }
		chain deep { counter drop; }
	}`)
	table := l.open(traps())
	sameBans(t, l.existing(table), []respond.Ban{
		ban("203.0.113.1/32", judge.Full, time.Hour), ban("203.0.113.2/32", judge.Soft, 20*time.Minute),
		{Prefix: netip.MustParsePrefix("203.0.113.5/32"), Strength: judge.Full},
	})
	out := l.command(l.hostName, "nft", "list", "table", "inet", "portsentry")
	for _, gone := range []string{"future", "deep", "strange", "chain hit ", "10.9.0.0/24"} {
		if strings.Contains(out, gone) {
			t.Errorf("%q is still there", gone)
		}
	}
}

// Somebody flushes the ruleset under us: said so, and Close has nothing to do.
func TestFlushedRuleset(t *testing.T) {
	l := newLab(t)
	table := l.open(traps())
	l.command(l.hostName, "nft", "flush", "ruleset")
	if err := table.Ban(t.Context(), ban("203.0.113.1/32", judge.Soft, time.Minute)); !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v, want ENOENT", err)
	}
	if err := table.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestRemove(t *testing.T) {
	l := newLab(t)
	l.open(traps())
	for _, there := range []bool{true, false} {
		l.in(l.host, func() error {
			got, err := Remove()
			if got != there {
				t.Errorf("there was a table: %v, want %v", got, there)
			}
			return err
		})
	}
	if out := l.command(l.hostName, "nft", "list", "ruleset"); strings.TrimSpace(out) != "" {
		t.Errorf("left behind:\n%s", out)
	}
}

// A second listener takes another group; each hears its own rules only.
func TestGroupInUse(t *testing.T) {
	l := newLab(t)
	var other *hitLog
	l.in(l.host, func() (err error) { other, err = openHitLog(); return err })
	defer other.conn.Close()
	if other.group != firstGroup {
		t.Errorf("group %d, want %d", other.group, firstGroup)
	}
	table := l.open(traps())
	if table.log.group != firstGroup+1 {
		t.Errorf("group %d, want %d", table.log.group, firstGroup+1)
	}
	a := l.hits(table)
	l.raw().send(l.tcp(netip.MustParseAddr("203.0.113.1"), 1, 1, syn))
	eventually(t, "the hit", func() bool { return a.len() == 1 })
}

// Run ends with its context, can be run again, and ends with the table.
func TestRunEnds(t *testing.T) {
	l := newLab(t)
	table := l.open(traps())
	run := func(ctx context.Context, end func()) {
		t.Helper()
		heard := make(chan struct{}, 1)
		done := make(chan error)
		go func() { done <- table.Run(ctx, func(Hit) { heard <- struct{}{} }) }()
		l.raw().send(l.tcp(netip.MustParseAddr("203.0.113.1"), 1, 1, syn))
		<-heard
		end()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := table.Revoke(context.Background(), netip.MustParseAddr("203.0.113.1")); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	run(ctx, cancel)
	run(t.Context(), func() {
		if err := table.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}
