package xdp

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"

	"portsentry/internal/bpf"
	"portsentry/internal/capture"
)

// What was told before the stop is delivered.
func TestStop(t *testing.T) {
	const count = 5000
	r := newRig(t, bpf.SensorOptions{RingBytes: 64 << 10}, logOnly)
	w := r.source.Workers()[0]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	entered, leave := make(chan struct{}, 1), make(chan struct{})
	var told uint64
	done := make(chan error, 1)
	go func() {
		done <- w.Run(ctx, func(e *capture.Event) {
			if told += uint64(e.Times); told == 1 {
				entered <- struct{}{}
				<-leave
			}
		}, func(*capture.Frame) {})
	}()
	r.send(r.syn4())
	<-entered
	if err := w.Run(ctx, nil, nil); err == nil {
		t.Error("two Runs of a worker")
	}
	arrived := r.flood(r.syn4(), count, 50) + 1
	cancel()
	close(leave)
	if err := returns(t, done); err != nil {
		t.Error(err)
	}
	if tally := r.tally(); told != arrived || tally.Events == arrived {
		t.Errorf("%d arrived, %d told of: %+v", arrived, told, tally)
	}
}

func TestRunEnds(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{Workers: 2}, logOnly)
	workers := r.source.Workers()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := []chan error{make(chan error, 1), make(chan error, 1)}
	for i, w := range workers {
		go func() { done[i] <- w.Run([]context.Context{ctx, t.Context()}[i], func(*capture.Event) {}, nil) }()
	}
	r.asleep()
	cancel()
	if err := returns(t, done[0]); err != nil {
		t.Errorf("context: %v", err)
	}
	for range 2 {
		r.must(r.source.Close())
	}
	if err := returns(t, done[1]); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Close: %v", err)
	}
	if err := workers[0].Run(t.Context(), nil, nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Run after Close: %v", err)
	}
	// The next Source goes on where that one ended.
	r.send(r.syn4())
	var err error
	r.source, err = Open(r.sensor)
	r.must(err)
	c := collect(t, r.source, nil)
	if got, _ := c.take(1, 0); len(got) != 1 {
		t.Errorf("%d events", len(got))
	}
	c.stop()
	r.must(r.source.Close())
	if !slices.Equal(interfaces(r), []int32{int32(r.host.Index)}) {
		t.Error("the program is gone")
	}
}

func interfaces(r *rig) (out []int32) {
	for i := range r.sensor.Attached() {
		out = append(out, i)
	}
	slices.Sort(out)
	return out
}
