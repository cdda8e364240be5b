package respond

import (
	"time"

	"portsentry/internal/judge"
)

// Tally is how many bans are in force, by strength and evidence.
type Tally [judge.Full + 1][judge.E3 + 1]int

// Tally counts what Count counts.
func (r *Responder) Tally() (t Tally) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.each(func(e *entry) {
		if r.book.blocks(e, now) {
			t[e.strength][e.evidence]++
		}
	})
	return t
}
