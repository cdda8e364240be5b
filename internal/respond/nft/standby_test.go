package nft

import (
	"os"
	"strings"
	"testing"
	"time"

	"portsentry/internal/judge"
)

// tracked is how many connections the host tracks.
func (l *lab) tracked() string {
	l.t.Helper()
	var b []byte
	l.in(l.host, func() (err error) {
		b, err = os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		return err
	})
	return strings.TrimSpace(string(b))
}

// A table on standby has its bans, stops nobody and has nothing tracked; it stops them
// from the moment that it is wanted, and not with its close at the latest.
func TestStandby(t *testing.T) {
	l := newLab(t)
	l.serve(l.host, "tcp", "10.9.0.1:80")
	o := traps()
	o.Standby = true
	table := l.open(o)
	bans := append(some(), ban("10.9.0.2/32", judge.Soft, time.Minute))
	if err := table.BanAll(t.Context(), bans); err != nil {
		t.Fatal(err)
	}
	reach := func(when string, served bool) {
		t.Helper()
		c, err := l.dial(l.scanner, "tcp", "10.9.0.1:80", patience)
		if err == nil {
			c.Close()
		}
		if served && err != nil || !served && !silent(err) {
			t.Errorf("%s: the banned source gets %v", when, err)
		}
	}
	reach("on standby", true)
	if n := l.tracked(); n != "0" {
		t.Errorf("on standby %s connections are tracked", n)
	}
	sameBans(t, l.existing(table), bans)

	// What changes meanwhile changes nothing about that.
	more := ban("198.18.0.0/15", judge.Soft, time.Minute)
	if err := table.Ban(t.Context(), more); err != nil {
		t.Fatal(err)
	}
	if err := table.SetSpare(nil); err != nil {
		t.Fatal(err)
	}
	reach("on standby still", true)

	o.Standby = false
	l.in(l.host, func() error { return table.Reconfigure(t.Context(), o) })
	reach("wanted", false)
	if n := l.tracked(); n != "0" { // of what is dropped none is kept
		t.Errorf("%s connections are tracked of one who is banned", n)
	}
	o.Standby = true
	l.in(l.host, func() error { return table.Reconfigure(t.Context(), o) })
	reach("on standby again", true)
	if missing, err := table.Holds(t.Context(), append(bans, more)); err != nil || len(missing) > 0 {
		t.Errorf("missing %v, %v", missing, err)
	}

	if err := table.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	reach("closed", false)
	if out := l.command(l.hostName, "nft", "list", "table", "inet", "portsentry"); strings.Contains(out, "jump hit_") {
		t.Errorf("trap rules of nobody's:\n%s", out)
	}
	again := l.open(traps())
	sameBans(t, l.existing(again), append(bans, more))
}

// Somebody who flushes the ruleset takes a table on standby away as well.
func TestStandbyFlushed(t *testing.T) {
	l := newLab(t)
	o := traps()
	o.Standby = true
	table := l.open(o)
	l.hits(table)
	l.command(l.hostName, "nft", "flush", "ruleset")
	l.lost(table)
	bans := some()
	l.rebuild(table, bans)
	sameBans(t, l.existing(table), bans)
	if out := l.command(l.hostName, "nft", "list", "table", "inet", "portsentry"); strings.Contains(out, "hook") {
		t.Errorf("no longer on standby:\n%s", out)
	}
}
