package sqlite

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"portsentry/internal/respond"
)

func BenchmarkSeen(b *testing.B) {
	j := Open(Options{Say: func(string, string) {}})
	r := record("203.0.113.9", 23, 0)
	var n uint32
	b.ReportAllocs()
	for b.Loop() {
		n++
		r.Verdict.Sighting.Src = netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
		j.Seen(r)
	}
}

// BenchmarkStanding is how long a start waits for the bans that it has to put back.
func BenchmarkStanding(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		rows := make([]respond.InForce, n)
		for i := range rows {
			rows[i].Ban = ban(fmt.Sprintf("20.%d.%d.%d/32", i>>16&255, i>>8&255, i&255), 0, time.Hour)
		}
		path := b.TempDir() + "/db"
		j := Open(Options{Path: path, Size: 256 << 20, Say: func(string, string) {}, Standing: func() []respond.InForce { return rows }})
		w := &writer{j: j, timer: time.NewTimer(time.Hour)}
		w.start(b.Context())
		if err := j.Close(); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				j := Open(Options{Path: path, Size: 256 << 20, Say: func(string, string) {}})
				if rows, err := j.Standing(b.Context(), func(int) {}); len(rows) != n || err != nil {
					b.Fatal(len(rows), err)
				}
				j.Close()
			}
		})
	}
}
