package nft

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

func many(n int) []respond.Ban {
	bans := make([]respond.Ban, n)
	addr := netip.MustParseAddr("11.0.0.0")
	for i := range bans {
		bans[i] = respond.Ban{Prefix: netip.PrefixFrom(addr, 32), Strength: judge.Soft, Until: time.Now().Add(time.Hour)}
		addr = addr.Next()
	}
	return bans
}

// A restart with many bans: all are put back, listed up to the bound, and put
// back again over themselves.
func TestManyBans(t *testing.T) {
	l := newLab(t)
	table := l.open(traps())
	for _, n := range []int{10_000, 65_536} {
		for _, what := range []string{"into an empty table", "over themselves"} {
			begin := time.Now()
			if err := table.BanAll(t.Context(), many(n)); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d bans %s: %v", n, what, time.Since(begin))
		}
		begin := time.Now()
		if got := l.existing(table); len(got) != n {
			t.Errorf("%d listed, want %d", len(got), n)
		}
		t.Logf("%d bans listed: %v", n, time.Since(begin))
	}
	if err := table.BanAll(t.Context(), many(maxListed+5000)); err != nil {
		t.Fatal(err)
	}
	l.in(l.host, func() error {
		got, err := table.Existing(t.Context())
		if !errors.Is(err, ErrTooMany) || len(got) < maxListed {
			t.Errorf("%d listed, %v", len(got), err)
		}
		return nil
	})
	if err := table.Ban(t.Context(), many(1)[0]); err != nil {
		t.Errorf("after a listing that was cut short: %v", err)
	}
	begin := time.Now()
	again := l.open(traps())
	t.Logf("reopened in %v", time.Since(begin))
	if b := l.has(again, "11.0.0.77"); b.Strength != judge.Soft {
		t.Errorf("%+v", b)
	}
}

// The same addresses twice in one batch: the last word counts.
func TestBanAllRepeats(t *testing.T) {
	l := newLab(t)
	table := l.open(traps())
	bans := append(many(10), many(10)...)
	for i := range bans[10:] {
		bans[10+i].Strength = judge.Full
	}
	if err := table.BanAll(t.Context(), bans); err != nil {
		t.Fatal(err)
	}
	sameBans(t, l.existing(table), bans[10:])
}

func BenchmarkBan(b *testing.B) {
	for _, bc := range []struct {
		name     string
		strength judge.Strength
	}{{"soft", judge.Soft}, {"limited", judge.Limited}} {
		b.Run(bc.name, func(b *testing.B) {
			table := newLab(b).open(traps())
			bans := many(10_000)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				ban := bans[i%len(bans)]
				ban.Strength = bc.strength
				if err := table.Ban(context.Background(), ban); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}

func BenchmarkHas(b *testing.B) {
	table := newLab(b).open(traps())
	for b.Loop() {
		if _, _, err := table.Has(context.Background(), scannerV6); err != nil {
			b.Fatal(err)
		}
	}
}
