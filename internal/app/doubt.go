package app

import (
	"context"
	"time"

	"portsentry/internal/detect"
	"portsentry/internal/judge"
)

// Doubts: with DNS names in the ignore file, whoever is to be banned may be one of
// them whose address has changed a moment ago. So nobody is banned but by answers
// that were asked for after he was seen. What was seen waits for them; whom the
// kernel keeps out provisionally waits outside.
const (
	doubtLimit = 2 * time.Second // no ban waits longer
	maxDoubts  = 4096            // sightings that may wait; others are decided at once
)

// doubt is a sighting that waits.
type doubt struct {
	sighting detect.Sighting
	hit      bool // the kernel's report of a provisional ban
}

// doubts reports whether the verdict about s waits, and keeps s if it does.
func (d *decider) doubts(s *detect.Sighting, hit bool, v *judge.Verdict) bool {
	if v.Strength == judge.Nothing || d.ask == nil || d.certain || len(d.waiting) == maxDoubts {
		return false
	}
	if len(d.waiting) == 0 { // else in the order of the packets
		if !d.ask() {
			return false
		}
		d.overdue.Reset(doubtLimit)
	}
	d.waiting = append(d.waiting, doubt{*s, hit})
	d.doubted.Add(1)
	return true
}

// decideWaiting decides what has waited.
func (d *decider) decideWaiting(ctx context.Context) {
	waiting := d.waiting
	d.waiting, d.certain = nil, true
	for i := range waiting {
		if w := &waiting[i]; w.hit {
			d.hit(ctx, &w.sighting)
		} else {
			d.weigh(ctx, &w.sighting)
		}
		if (i+1)%batch == 0 {
			d.commit(ctx)
		}
	}
	d.certain = false
	d.commit(ctx)
}
