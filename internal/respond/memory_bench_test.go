package respond

import (
	"context"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/judge"
)

// sieve holds nothing, and says it holds all.
type sieve string

func (s sieve) Name() string                      { return string(s) }
func (sieve) Takes(*Ban) bool                     { return true }
func (sieve) Enforces() bool                      { return true }
func (sieve) Ends() bool                          { return true }
func (sieve) BanAll(context.Context, []Ban) error { return nil }
func (sieve) Unban(context.Context, Ban) error    { return nil }

// BenchmarkUnproved says what the book takes of memory that is full of bans which anybody
// can have made, at first and when a million of them have ended and are remembered.
func BenchmarkUnproved(b *testing.B) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		r := New([]Method{sieve("xdp"), sieve("nftables")}, nil, Plan{}, new(quietLedger))
		v := verdict(scanner, judge.Limited, config.BlockBan)
		before := heap()
		for i := range 1_000_000 {
			a := netip.AddrFrom4([4]byte{30, byte(i >> 16), byte(i >> 8), byte(i)})
			v.Sighting.Src, v.Prefix = a, netip.PrefixFrom(a, 32)
			r.book.tokens = banBurst
			if i == MaxUnproved {
				b.ReportMetric(float64(heap()-before)/MaxUnproved, "bytes/ban")
			}
			if i >= MaxUnproved {
				r.book.remove(r.book.due[0], time.Now(), true)
			}
			if r.Answer(v, false, nil); i%64 == 63 {
				r.Commit(b.Context())
			}
		}
		b.ReportMetric(float64(heap()-before)/(1<<20), "MiB")
		runtime.KeepAlive(r)
	}
}
