package state_test

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store/sqlite"
	"portsentry/test/lab"
)

// fill makes a database in which n bans stand.
func fill(t *testing.T, path string, n int) {
	t.Helper()
	rows := make([]respond.InForce, n)
	now := time.Now()
	for i := range rows {
		a := netip.AddrFrom4([4]byte{20 + byte(i>>24), byte(i >> 16), byte(i >> 8), byte(i)})
		rows[i].Ban = respond.Ban{
			Prefix: netip.PrefixFrom(a, 32), Strength: judge.Soft, Evidence: judge.E1, Since: now, Until: now.Add(time.Hour), Times: 1,
			Reason: "one hit on a trap, which anybody can forge", Port: 23, Proto: 6, Kind: "syn",
		}
	}
	j := sqlite.Open(sqlite.Options{
		Path: path, Keep: 24 * time.Hour, Size: 256 << 20, Say: func(_, what string) {
			if what != "" {
				t.Error(what)
			}
		},
		Standing: func() []respond.InForce { return rows },
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	check(t, j.Flush(t.Context())) // it has begun by then
	cancel()
	check(t, <-done)
	check(t, j.Close())
}

// After a reboot all bans are in the kernel again before the daemon says that it is
// ready. The time is printed; how long it may take is for the bench on a machine that is
// not busy.
func TestManyBansComeBack(t *testing.T) {
	counts := []int{2000}
	if os.Getenv("PORTSENTRY_LONG") == "1" {
		counts = []int{100_000, 550_000}
	}
	for _, n := range counts {
		s := newStage(t)
		fill(t, s.db, n)
		d := s.start(map[string]string{"BAN_TIME_UNVERIFIED": "2h"})
		st, err := d.Status(t.Context())
		check(t, err)
		u, err := d.Usage()
		check(t, err)
		t.Logf("%d bans: ready after %v, %d MiB", n, d.ReadyAfter.Round(time.Millisecond), u.RSS>>20)
		if st.Bans != n || len(st.Problems) > 0 {
			t.Errorf("%d bans of %d are in force; problems: %q", st.Bans, n, st.Problems)
		}
		if out := lab.Command(t, s.Host.NS, "nft", "list", "ruleset"); strings.Count(out, "expires") < n {
			t.Errorf("the firewall holds %d of %d", strings.Count(out, "expires"), n)
		}
		began := time.Now()
		lab.Wait(t, 5*time.Minute, "nobody banned", func() bool {
			_, err := d.Command(t.Context(), "unban", "all") // on a busy machine it takes more than one
			if err != nil {
				t.Log(err)
			}
			st, err := d.Status(t.Context())
			return err == nil && st.Bans == 0
		})
		t.Logf("all lifted after %v", time.Since(began).Round(time.Millisecond))
		if out := lab.Command(t, s.Host.NS, "nft", "list", "ruleset"); strings.Contains(out, "expires") {
			t.Error("the firewall holds bans that were lifted")
		}
		check(t, d.Stop())
		os.RemoveAll(s.pins())
	}
}
