package app

import (
	"os"
	"runtime/debug"
	"sync/atomic"

	"portsentry/internal/proc"
)

const (
	// heapLimit is the soft limit of the Go heap. What the daemon keeps is bounded
	// below it, but for bans, so it only makes the collector run earlier when a flood
	// of forged sources has filled what it may fill.
	heapLimit = 64 << 20
	// heapBans is how many bans there is room for in it: those on evidence that
	// anybody can forge. Each beyond them brings room of its own: 250 bytes that are
	// kept, and what somebody who lists them all needs for a moment.
	heapBans = 1 << 16
	heapBan  = 1 << 10
	// garbage is how much of it there may be, in per cent of what is in use: the tables
	// in there have no pointers, so to collect it costs little. The owner's GOGC goes
	// before.
	garbage = 50
	// heapStep is after how many bans the limit is set again, which stops the world.
	heapStep = 1 << 14
)

// hurry is for the start, which leaves no time to collect garbage before the limit
// of the heap: settle is for when it is over.
func hurry() (settle func()) {
	percent := debug.SetGCPercent(-1)
	if os.Getenv("GOGC") == "" {
		percent = garbage
	}
	return func() {
		debug.SetGCPercent(percent)
		debug.FreeOSMemory() // starting took more, and none of it is needed any more
		_ = proc.ForgetText()
	}
}

// heapRoom has the limit follow the number of bans. The owner's GOMEMLIMIT goes before.
type heapRoom struct{ steps, held atomic.Int64 }

// begin sets the limit of a book without bans.
func (h *heapRoom) begin() {
	if os.Getenv("GOMEMLIMIT") != "" {
		h.steps.Store(-1)
		return
	}
	debug.SetMemoryLimit(heapLimit)
}

// follow is called with the number of bans whenever it has changed. It may be called
// from any goroutine.
func (h *heapRoom) follow(bans int) {
	steps := int64(max(0, bans-heapBans)+heapStep-1) / heapStep
	if old := h.steps.Load(); old < 0 || old == steps || steps < old && h.held.Load() > 0 || !h.steps.CompareAndSwap(old, steps) {
		return
	}
	debug.SetMemoryLimit(heapLimit + steps*heapStep*heapBan)
}

// hold makes room for work on so many bans, until release is called with the number there
// are then: who lifts many has them all in lists, and without it the collector would run
// all the time.
func (h *heapRoom) hold(bans int) (release func(bans int)) {
	h.held.Add(1)
	h.follow(heapBans + 2*bans)
	return func(bans int) {
		h.held.Add(-1)
		h.follow(bans)
	}
}
