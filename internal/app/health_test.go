package app

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"portsentry/internal/respond"
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
