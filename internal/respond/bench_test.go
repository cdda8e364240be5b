package respond

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/judge"
)

// crowd are n bans of an earlier run, as different from each other as bans are.
func crowd(n int, v6 bool) []InForce {
	names := []string{"xdp", "nftables"}
	rows := make([]InForce, n)
	now := time.Now()
	for i := range rows {
		a := netip.AddrFrom4([4]byte{byte(20 + i>>24), byte(i >> 16), byte(i >> 8), byte(i)})
		if v6 {
			a = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 16), byte(i >> 8), byte(i), 15: 9})
		}
		port := uint16(i * 7 % 3000)
		rows[i] = InForce{Methods: names, Ban: Ban{
			Prefix: netip.PrefixFrom(a, a.BitLen()), Strength: judge.Soft, Evidence: judge.E1,
			Since: now, Until: now.Add(time.Hour + time.Duration(i*7919%n)*time.Millisecond), Times: 1 + i%3,
			Reason: fmt.Sprintf("syn to trap port %d, unverified", port), Port: port, Proto: 6, Kind: "syn",
		}}
	}
	return rows
}

func keeping() []Method { return []Method{newWay("xdp", nil), newWay("nftables", nil)} }

// BenchmarkRestore says what a ban takes of time and, once it is in the book, of memory.
func BenchmarkRestore(b *testing.B) {
	for _, v6 := range []bool{false, true} {
		b.Run(map[bool]string{false: "IPv4", true: "IPv6"}[v6], func(b *testing.B) {
			const n = 550_000
			rows := crowd(n, v6)
			for b.Loop() {
				b.StopTimer()
				r := New(keeping(), nil, Plan{}, &ledger{})
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				b.StartTimer()
				r.Restore(rows)
				b.StopTimer()
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "bytes/ban")
				runtime.KeepAlive(r)
				b.StartTimer()
			}
		})
	}
}

func BenchmarkList(b *testing.B) {
	r := New(keeping(), nil, Plan{}, &ledger{})
	r.Restore(crowd(100_000, false))
	b.ReportAllocs()
	for b.Loop() {
		if len(r.List()) != 100_000 {
			b.Fatal("not all")
		}
	}
}

// BenchmarkDropped is what each packet of somebody who is banned costs, and of somebody
// who is not.
func BenchmarkDropped(b *testing.B) {
	r := New(keeping(), nil, Plan{}, &ledger{})
	r.Restore(crowd(100_000, false))
	later := time.Now().Add(time.Minute).UnixNano()
	for name, a := range map[string]string{"banned": "20.0.3.7", "other": "9.0.3.7"} {
		b.Run(name, func(b *testing.B) {
			src := netip.MustParseAddr(a)
			b.ReportAllocs()
			for b.Loop() {
				if r.Dropped(src, judge.Nothing, judge.E1, judge.TCPOnly, later) != (name == "banned") {
					b.Fatal("wrong")
				}
			}
		})
	}
}

func BenchmarkAnswer(b *testing.B) {
	r := New(keeping(), nil, Plan{}, &ledger{})
	v := verdict(scanner, judge.Soft, config.BlockBan)
	v.Evidence = judge.E2
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		a := netip.AddrFrom4([4]byte{30, byte(i >> 16), byte(i >> 8), byte(i)})
		i++
		v.Sighting.Src, v.Prefix = a, netip.PrefixFrom(a, 32)
		if r.Answer(v, false, nil); i%256 == 0 {
			r.Commit(b.Context())
		}
	}
}
