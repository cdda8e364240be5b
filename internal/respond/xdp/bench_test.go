package xdp

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"testing"

	"portsentry/internal/bpf"
)

// BenchmarkBanAll puts bans into an empty table, and says what memory they take.
func BenchmarkBanAll(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			bans := many(n)
			b.ReportAllocs()
			var before, after int
			for b.Loop() {
				b.StopTimer()
				s, err := bpf.OpenSensor(bpf.SensorOptions{Bans: 1 << 20})
				if err != nil {
					b.Fatal(err)
				}
				m := New(s)
				before = tableBytes(b)
				b.StartTimer()
				if err := m.BanAll(context.Background(), bans); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				after = tableBytes(b)
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(after-before)/float64(n), "mapB/ban")
			b.ReportMetric(float64(after)/(1<<20), "mapMiB")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/ban")
		})
	}
}

// tableBytes is what the table of bans takes, as the kernel says: it is the only
// map of this process that has room for 1<<20.
func tableBytes(b *testing.B) (size int) {
	b.Helper()
	entries, err := os.ReadDir("/proc/self/fdinfo")
	if err != nil {
		b.Fatal(err)
	}
	for _, e := range entries {
		info, _ := os.ReadFile("/proc/self/fdinfo/" + e.Name())
		if _, rest, ok := bytes.Cut(info, []byte("memlock:")); ok && bytes.Contains(info, []byte("max_entries:\t1048576\n")) {
			if _, err := fmt.Sscan(string(rest), &size); err != nil {
				b.Fatal(err)
			}
		}
	}
	return size
}

// What is done with 65,536 bans, which is what the book has room for.
func BenchmarkFullBook(b *testing.B) {
	bans := many(1 << 16)
	m, s := open(b, bpf.SensorOptions{})
	if err := m.BanAll(context.Background(), bans); err != nil {
		b.Fatal(err)
	}
	for name, f := range map[string]func() error{
		"again":    func() error { return m.BanAll(context.Background(), bans) },
		"existing": func() error { _, err := m.Existing(context.Background()); return err },
		"sweep":    func() error { _, err := s.Sweep(); return err },
		"counts": func() error {
			for i := range bans {
				m.Counts(bans[i].Prefix)
			}
			return nil
		},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
