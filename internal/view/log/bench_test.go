package log

import (
	"io"
	"testing"

	"portsentry/internal/config"
	"portsentry/internal/detect"
)

// The targets are 400 ns for a text line and 800 ns for a JSON line on the
// machine of TARGETS.md: 100,000 sightings a second must be cheap to itemise.
func BenchmarkScan(b *testing.B) {
	for _, format := range []config.LogFormat{config.Log1x, config.Log2x, config.LogJSON} {
		b.Run(string(format), func(b *testing.B) {
			w := New(Options{Format: format, Stdout: io.Discard})
			w.InterfaceName = func(int32) string { return "eth0" }
			r := record(detect.KindSYN)
			b.ReportAllocs()
			for b.Loop() {
				w.Scan(r)
			}
		})
	}
}

func TestScanAllocatesNothing(t *testing.T) {
	for _, format := range []config.LogFormat{config.Log1x, config.Log2x, config.LogJSON} {
		for _, k := range []detect.Kind{detect.KindSYN, detect.KindNULL, detect.KindUDP} {
			w := New(Options{Format: format, Stdout: io.Discard})
			w.InterfaceName = func(int32) string { return "eth0" }
			r := record(k)
			if n := testing.AllocsPerRun(1000, func() { w.Scan(r) }); n != 0 {
				t.Errorf("%s %s: %v allocations a line", format, k, n)
			}
		}
	}
}
