package app

import (
	"testing"
	"testing/synctest"
	"time"
)

// A flood is over once, when nothing has come for a while; what is no flood never is.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := flood{rest: time.NewTimer(time.Hour), over: make(chan struct{}, 1)}
		defer f.rest.Stop()
		over := func(after time.Duration) bool {
			select {
			case <-f.rest.C:
				f.end()
			case <-time.After(after):
			}
			select {
			case <-f.over:
				return true
			default:
				return false
			}
		}
		f.came(floodLen - 1)
		if over(2 * time.Hour) {
			t.Error("one less is a flood")
		}
		for range 5 {
			f.came(1)
			if over(floodRest - 1) {
				t.Fatal("over while it goes on")
			}
		}
		if !over(floodRest) {
			t.Error("never over")
		}
		f.came(1)
		if over(time.Hour) {
			t.Error("over twice")
		}
	})
}
