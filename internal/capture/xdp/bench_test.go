package xdp

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/bpf"
	"portsentry/internal/capture"
	"portsentry/internal/pktgen"
)

// What it costs to be told of a flood: time of the worker's thread, the runtime's
// part in its pauses included. The program and the kernel's side of the ring are
// the sender's time.
func BenchmarkFlood(b *testing.B) {
	r := newRig(b, bpf.SensorOptions{}, logOnly)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var seen atomic.Uint64
	var cpu time.Duration
	done := make(chan error, 1)
	w := r.source.Workers()[0]
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		before := threadTime(b)
		err := w.Run(ctx, func(e *capture.Event) { seen.Add(uint64(e.Times)) }, func(*capture.Frame) {})
		cpu = threadTime(b) - before
		done <- err
	}()
	r.asleep()
	b.ReportAllocs()
	b.ResetTimer()
	sent, err := r.sender.Flood(b.Context(), r.syn4(), pktgen.FloodOpts{Count: b.N})
	r.must(err)
	eventually(b, "all to be told", func() bool { return seen.Load() >= uint64(sent.Frames-sent.Dropped) })
	b.StopTimer()
	cancel()
	r.must(returns(b, done))
	s, tally := w.Stats(), r.tally()
	b.ReportMetric(float64(cpu.Nanoseconds())/float64(s.Events), "cpu-ns/event")
	b.ReportMetric(100*float64(tally.Counted)/float64(b.N), "%counted")
	b.ReportMetric(float64(s.Wakeups), "wakeups")
	b.ReportMetric(sent.Rate(), "packets/s")
}

func threadTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		b.Error(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
