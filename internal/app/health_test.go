package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/respond"
	"portsentry/internal/view/log"
)

// A decider that is busy for longer than two seconds is not well; one that has ended
// because we stop is.
func TestHealthOfDecider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{decider: &decider{do: make(chan func()), ended: make(chan struct{})}, responder: respond.New(nil, nil, respond.Plan{}, nil)}
		if h := d.health(t.Context()); h.OK || !slices.Equal(h.Problems, []string{"decisions are held up: nothing has been decided for 2s"}) {
			t.Errorf("%+v", h)
		}
		go func() {
			time.Sleep(decideTime / 2)
			(<-d.decider.do)()
		}()
		if h := d.health(t.Context()); !h.OK || h.Problems == nil {
			t.Errorf("%+v", h)
		}
		d.problems.set("disk", "the disk is full")
		close(d.decider.ended)
		if h := d.health(t.Context()); h.OK || !slices.Equal(h.Problems, []string{"the disk is full"}) {
			t.Errorf("%+v", h)
		}
	})
}

// The service manager hears nothing while the decider hangs in the middle of a decision,
// and again as soon as it goes on.
func TestBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const every = 10 * time.Second
		lines := log.New(log.Options{Format: config.Log2x, Stdout: io.Discard, Stderr: io.Discard})
		d := &daemon{}
		d.decider = &decider{
			queue: newQueue(), do: make(chan func()), last: make(chan struct{}), ended: make(chan struct{}),
			record: recording(lines, &d.problems), responder: respond.New(nil, nil, respond.Plan{}, nil),
		}
		decided := make(chan error)
		go func() { decided <- d.decider.run(t.Context()) }()
		ctx, stop := context.WithCancel(t.Context())
		var beats atomic.Int64
		ended := make(chan error)
		go func() { ended <- d.beat(every, func() { beats.Add(1) })(ctx) }()
		heard := func(when string, want int64) {
			t.Helper()
			time.Sleep(every - time.Second) // what began before is over by then
			synctest.Wait()
			before := beats.Load()
			time.Sleep(10 * every)
			synctest.Wait()
			if n := beats.Load() - before; n != want {
				t.Errorf("%s: %d beats in ten times the interval, want %d", when, n, want)
			}
		}
		heard("well", 10)
		goOn := make(chan struct{})
		d.decider.set(func() { <-goOn })
		heard("hung", 0)
		heard("still hung", 0)
		close(goOn)
		heard("well again", 10)
		stop()
		close(d.decider.last)
		if err := errors.Join(<-ended, <-decided); err != nil {
			t.Error(err)
		}
	})
}

// Each problem is told once when it begins, when its sentence changes, and when it is
// over.
func TestProblemsAreTold(t *testing.T) {
	var told []string
	p := problems{say: func(key, sentence string, over, quiet bool) {
		told = append(told, fmt.Sprint(key, " ", sentence, " ", over, " ", quiet))
	}}
	p.set("disk", "")
	p.set("disk", "full")
	p.set("disk", "full")
	p.set("disk", "fuller")
	p.quiet("table", true, "gone")
	p.quiet("table", false, "gone")
	p.quiet("table", false, "gone")
	p.set("disk", "")
	want := []string{"disk full false false", "disk fuller false false", "table gone false true", "table gone true true", "disk fuller true false"}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}
