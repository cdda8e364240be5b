package faults_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store/sqlite"
	"portsentry/test/lab"
)

// banOf is a ban of an hour that began after since.
func banOf(a netip.Addr, since time.Duration) respond.Ban {
	begin := time.Now().Add(since).Round(0)
	return respond.Ban{
		Prefix: netip.PrefixFrom(a, a.BitLen()), Strength: judge.Soft, Evidence: judge.E1, Since: begin, Until: begin.Add(time.Hour),
		Times: 1, Reason: "one hit on a trap, which anybody can forge", Port: trap, Proto: 6, Kind: "syn",
	}
}

// remember makes a database in which these bans stand.
func remember(t *testing.T, path string, bans ...respond.Ban) {
	t.Helper()
	j := sqlite.Open(sqlite.Options{
		Path: path, Keep: 24 * time.Hour, Size: 16 << 20,
		Say: func(_, what string) {
			if what != "" {
				t.Error(what)
			}
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	for _, b := range bans {
		j.Began(b, b.Prefix.Addr())
	}
	check(t, j.Flush(t.Context()))
	cancel()
	check(t, <-done)
	check(t, j.Close())
}

// TestClockStepped: the clock went back, or ahead, by much or little, while nobody was
// there: no ban lasts longer than it was to, and one that stands is neither hidden nor
// forgotten. (While the daemon runs its bans end by the monotonic clock.)
func TestClockStepped(t *testing.T) {
	const day = 24 * time.Hour
	for _, tc := range []struct {
		name    string
		since   time.Duration // of a ban of an hour, before now
		stands  bool
		longest time.Duration // it lasts from now on
	}{
		{"not", -time.Minute, true, 59 * time.Minute},
		{"back by a minute", 30 * time.Second, true, time.Hour},
		{"back by a day", day, true, time.Hour},
		{"back by a year", 365 * day, true, time.Hour},
		{"ahead by a day", -day, false, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t)
			db, blocked := filepath.Join(s.dir, "portsentry.db"), filepath.Join(s.dir, "blocked")
			b := banOf(source(1), tc.since)
			remember(t, db, b)
			// Another is on the blocked file, whom a command of the owner's keeps out.
			check(t, os.WriteFile(blocked, fmt.Appendf(nil, "%d - %s Host: %s/%[3]s Port: %d TCP Blocked\n",
				b.Since.Unix(), b.Since.Format("01/02/2006 15:04:05"), source(2), trap), 0o600))
			conf := map[string]string{
				"DATABASE_FILE": db, "BLOCKED_FILE": blocked, "KILL_RUN_CMD": "/bin/true $TARGET$", "KILL_RUN_CMD_UNDO": "/bin/true $TARGET$",
			}
			for run := range 3 { // as after a crash, and as after a reboot
				d := s.start(conf)
				bans := d.banned()
				for _, a := range []netip.Addr{source(1), source(2)} {
					now, is := bans[netip.PrefixFrom(a, 32)]
					switch {
					case is != tc.stands:
						t.Errorf("run %d: %v: banned is %v", run, a, is)
					case !is:
					case now.Until == nil, time.Until(*now.Until) > tc.longest+time.Second, time.Until(*now.Until) < tc.longest-time.Minute, now.Since.After(time.Now()):
						t.Errorf("run %d: %v: from %v until %v", run, a, now.Since, now.Until)
					}
				}
				s.probe(source(3 + run))
				d.waitBans(source(3 + run))
				d.command("events")
				d.command("report")
				d.command("why", source(1).String())
				lab.Wait(t, soon, "it is written", func() bool { return d.counter("database_rows_total") >= 2 })
				d.noProblem()
				d.Kill()
				if run == 1 {
					check(t, os.RemoveAll(s.pins()))
					lab.Command(t, s.Host.NS, "nft", "flush", "ruleset")
				}
			}
		})
	}
}
