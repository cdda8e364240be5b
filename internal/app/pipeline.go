package app

import (
	"runtime"
	"sync/atomic"

	"portsentry/internal/capture"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// queueLen is the one queue between the packet path and everything that takes
// time: about 0.2 s of a flood at 100,000/s.
const queueLen = 1 << 14

// pipeline is the packet path of one worker: frame, probe, sighting, by plain
// call. It blocks on nothing and allocates nothing.
type pipeline struct {
	decoder  decode.Decoder
	detector *detect.Detector
	facts    *facts
	out      chan<- detect.Sighting

	probe    decode.Probe
	sighting detect.Sighting

	undecoded atomic.Uint64 // frames that were no packet we understand
	lost      atomic.Uint64 // sightings for which the queue had no room
}

// handle is the capture.Handler of the worker.
func (p *pipeline) handle(f *capture.Frame) {
	if f.HasVLAN && p.facts.seenElsewhere(f.IfIndex, f.VLAN&0xfff) {
		return // the VLAN's own interface shows the same packet
	}
	switch p.decoder.Decode(f, &p.probe) {
	case decode.Complete:
	case decode.Fragment:
		return
	default:
		p.undecoded.Add(1)
		return
	}
	if !p.detector.Observe(&p.probe, &p.sighting) {
		return
	}
	select {
	case p.out <- p.sighting:
		return
	default:
		runtime.Gosched() // the one who empties the queue may share our CPU
	}
	select {
	case p.out <- p.sighting:
	default:
		p.lost.Add(1)
	}
}
