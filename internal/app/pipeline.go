package app

import (
	"runtime"
	"sync/atomic"

	"portsentry/internal/capture"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// pipeline is the packet path of one worker: frame, probe, sighting, by plain
// call. It blocks on nothing and allocates nothing.
type pipeline struct {
	decoder  decode.Decoder
	detector *detect.Detector
	facts    *facts
	host     *asHost // answers about traps
	// strangers answers about everything else, out of a budget of its own. It has a
	// look-up before there are scans, from then on for good.
	strangers *asHost
	out       *queue

	probe    decode.Probe
	sighting detect.Sighting
	scans    atomic.Pointer[scans] // nil: SCAN_DETECT="traps"

	undecoded atomic.Uint64 // frames that were no packet we understand
	lost      atomic.Uint64 // sightings for which the queue had no room
	shown     atomic.Uint64 // sightings that stand for probes which the kernel only counted
	found     atomic.Uint64 // scans that were told of
	unnoted   atomic.Uint64 // successes for which there was no room
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
		p.hit()
	} else if s := p.scans.Load(); s != nil {
		p.stranger(s, false, false)
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
	told := e.Kind != capture.EventQuestion
	if e.Closed {
		if s := p.scans.Load(); s != nil {
			p.stranger(s, told, e.Peer)
		}
		return
	}
	p.host.told = told
	if !p.detector.Observe(&p.probe, &p.sighting) {
		return
	}
	p.sighting.Held, p.sighting.Peer = e.Held, e.Peer
	if e.Kind == capture.EventCounted {
		p.shown.Add(1)
	}
	p.hit()
}

// hit hands on the sighting of a trap, which is a contact as well.
func (p *pipeline) hit() {
	switch s := p.scans.Load(); {
	case s == nil:
	case p.sighting.Triggered:
		if s.naming.may(p.sighting.Time) {
			detect.Hit(&p.probe, &p.sighting, &s.contact)
			s.together()
		}
	default:
		detect.Hit(&p.probe, &p.sighting, &s.contact)
		if scan := s.look(); scan != nil {
			p.found.Add(1)
			p.sighting.Scan, p.sighting.Triggered = detect.FoundBy(scan), true
		}
	}
	p.send()
}

// stranger looks at a probe that is for no trap. told: the kernel has said that
// nobody is there. peer: its source had a connection to a served port.
func (p *pipeline) stranger(s *scans, told, peer bool) {
	p.strangers.told = told
	if !p.detector.Contact(&p.probe, &s.contact) {
		return
	}
	scan := s.look()
	if scan == nil {
		return
	}
	p.found.Add(1)
	b := &p.probe
	p.sighting = detect.Sighting{
		Time: b.Time, IfIndex: b.IfIndex, Src: b.Src, Dst: b.Dst, SrcPort: b.SrcPort, DstPort: b.DstPort, Proto: b.Proto,
		Kind: s.contact.Kind, Flags: b.Flags, TTL: b.TTL, IPOptions: b.IPOptions, Fragmented: b.Marks&decode.Fragmented != 0,
		Seq: b.Seq, Ack: b.Ack, Window: b.Window, IPID: uint16(b.IPID),
		Peer: peer, Scan: detect.FoundBy(scan), Count: uint32(scan.Probes), Triggered: true,
	}
	p.send()
}

// succeeded notes k for the worker, if it has room and finds scans. Any goroutine
// may call it.
func (p *pipeline) succeeded(k success) {
	s := p.scans.Load()
	if s == nil {
		return
	}
	select {
	case s.successes <- k:
	default:
		p.unnoted.Add(1)
	}
}

// send hands the sighting to the decider.
func (p *pipeline) send() {
	if p.out.put(&p.sighting) {
		return
	}
	runtime.Gosched() // the one who empties the queue may share our CPU
	if !p.out.put(&p.sighting) {
		p.lost.Add(1)
	}
}
