package app

import "time"

const (
	// floodLen is how many sightings leave behind what is worth tidying up.
	floodLen = 1 << 17
	// floodRest is how long nothing comes before a flood is over.
	floodRest = 250 * time.Millisecond
)

// flood tells when many sightings have come and no more do. It is the decider's.
type flood struct {
	len  int
	rest *time.Timer
	over chan struct{} // says so
}

// came counts n more.
func (f *flood) came(n int) {
	if f.len += n; f.len >= floodLen {
		f.rest.Reset(floodRest)
	}
}

func (f *flood) end() {
	if f.len >= floodLen { // else the timer is that of the start
		f.len = 0
		touch(f.over)
	}
}
