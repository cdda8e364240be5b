package nft

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
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

// Many bans are put back, listed, put back over themselves and found again by
// the next run. A listing that is cut short does no harm.
func TestManyBans(t *testing.T) {
	const n = 10_000
	l := newLab(t)
	table := l.open(traps())
	for _, what := range []string{"into an empty table", "over themselves"} {
		begin := time.Now()
		if err := table.BanAll(t.Context(), many(n)); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d bans %s: %v", n, what, time.Since(begin))
	}
	l.in(l.host, func() error {
		got := 0
		if err := dump("soft4", n/2, func(element) { got++ }); !errors.Is(err, ErrTooMany) || got < n/2 || got == n {
			t.Errorf("%d listed, %v", got, err)
		}
		return nil
	})
	again := l.open(traps())
	if got := l.existing(again); len(got) != n {
		t.Errorf("%d listed, want %d", len(got), n)
	}
	begin := time.Now()
	if err := again.UnbanAll(t.Context(), many(n)[1:]); err != nil {
		t.Fatal(err)
	}
	t.Logf("lifted: %v", time.Since(begin))
	sameBans(t, l.existing(again), many(1))
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

// What it takes to lift many bans, alone and together.
func BenchmarkUnban(b *testing.B) {
	for _, together := range []int{1, 512} {
		b.Run(strconv.Itoa(together), func(b *testing.B) {
			table := newLab(b).open(traps())
			bans := many(b.N * together)
			if err := table.BanAll(context.Background(), bans); err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			for some := range slices.Chunk(bans, together) {
				if err := table.UnbanAll(context.Background(), some); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(len(bans)), "us/ban")
		})
	}
}

// What a start has to do: many bans into an empty table.
func BenchmarkRestore(b *testing.B) {
	for _, n := range []int{100_000, 550_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			bans := many(n)
			for b.Loop() {
				b.StopTimer()
				table := newLab(b).open(traps())
				b.StartTimer()
				if err := table.BanAll(context.Background(), bans); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(bans)), "us/ban")
		})
	}
}

func BenchmarkList(b *testing.B) {
	l := newLab(b)
	table := l.open(traps())
	if err := table.BanAll(context.Background(), many(65_536)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if got := len(l.existing(table)); got != 65_536 {
			b.Fatalf("%d listed", got)
		}
	}
}
