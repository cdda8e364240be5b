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
	host     *asHost
	out      chan<- detect.Sighting

	probe    decode.Probe
	sighting detect.Sighting

	undecoded atomic.Uint64 // frames that were no packet we understand
	lost      atomic.Uint64 // sightings for which the queue had no room
	shown     atomic.Uint64 // sightings that stand for probes which the kernel only counted
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
	p.host.told = false
	if p.detector.Observe(&p.probe, &p.sighting) {
		p.send()
	}
}

// event is the capture.EventHandler of the worker: the kernel has read the packet,
// and looked who is there.
func (p *pipeline) event(e *capture.Event) {
	if e.Kind == capture.EventLiving {
		return // the program has noted it with the ban
	}
	// What the program has swallowed nobody else sees.
	if e.VLANs > 0 && !e.Held && e.Kind != capture.EventVerified && p.facts.seenElsewhere(e.IfIndex, e.VLAN[0]) {
		return
	}
	p.probe.FromEvent(e)
	p.host.told = e.Kind != capture.EventQuestion
	if !p.detector.Observe(&p.probe, &p.sighting) {
		return
	}
	p.sighting.Held, p.sighting.Peer = e.Held, e.Peer
	if e.Kind == capture.EventCounted {
		p.shown.Add(1)
	}
	p.send()
}

// send hands the sighting to the decider.
func (p *pipeline) send() {
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
