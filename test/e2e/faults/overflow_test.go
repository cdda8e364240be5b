package faults_test

import (
	"context"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// TestRingOverflow: the daemon stands still under a flood. Afterwards each packet is
// itemised, or counted, and who was banned has been kept out all the while.
func TestRingOverflow(t *testing.T) {
	const packets = 300_000
	for _, tc := range []struct {
		capture string
		sum     []string // counters that make up the whole
		lost    string   // of them, what did not fit in
	}{
		{"auto", []string{"sightings_total", "probes_counted_total"}, "probes_counted_total"},
		{"afpacket", []string{"frames_total", "ring_lost_total"}, "ring_lost_total"},
	} {
		t.Run(tc.capture, func(t *testing.T) {
			s := newStage(t)
			d := s.start(map[string]string{"CAPTURE": tc.capture, "BLOCK_TCP": "0"})
			d.waitWatching(s)
			sum := func() (n uint64) {
				for _, name := range tc.sum {
					n += d.counter(name)
				}
				return n
			}
			before := sum()
			check(t, d.Signal(syscall.SIGSTOP))
			t.Cleanup(func() { d.Signal(syscall.SIGCONT) })
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			sent, err := s.send.Flood(ctx, s.packet(source(0)), pktgen.FloodOpts{
				Count: packets, Rate: 150_000, SourcePrefix: netip.MustParsePrefix("198.18.0.0/15"), Sources: 50,
			})
			check(t, err)
			check(t, d.Signal(syscall.SIGCONT))
			begin := time.Now()
			lab.Wait(t, soon, "all are accounted for", func() bool { return sum()-before >= uint64(sent.Frames) })
			t.Logf("%d sent, %d of them not itemised, after %v", sent.Frames, d.counter(tc.lost), time.Since(begin).Round(time.Millisecond))
			if got := sum() - before; got != uint64(sent.Frames) {
				t.Errorf("%d counted of %d", got, sent.Frames)
			}
			if d.counter(tc.lost) == 0 {
				t.Error("nothing was lost; the test shows nothing")
			}
		})
	}
}

// waitWatching waits until packets are read, and one has been seen.
func (d *daemon) waitWatching(s *stage) {
	d.t.Helper()
	lab.Wait(d.t, soon, "packets are read", func() bool {
		s.probe(source(249))
		return len(d.from(source(249))) > 0
	})
	n := d.counter("sightings_total")
	s.probe(source(248))
	d.waitCounter("sightings_total", n+1)
}
