package app

import (
	"sync/atomic"

	"portsentry/internal/capture"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// contacts is the way of what trap sockets took, in connect mode: contact,
// probe, sighting, by plain call from the one goroutine that has the contacts.
type contacts struct {
	detector *detect.Detector
	facts    *facts
	out      *queue

	sighting detect.Sighting
	lost     atomic.Uint64 // sightings for which the queue had no room
}

// handle is the capture.ContactHandler. Whoever is to be spared, or has not hit
// often enough, gets no banner, as of old.
func (c *contacts) handle(k *capture.Contact) (banner bool) {
	p := decode.Probe{
		Time: k.Time, IfIndex: k.IfIndex, Proto: k.Proto, Accepted: true,
		Src: k.Src.Addr().Unmap(), SrcPort: k.Src.Port(), Dst: k.Dst.Addr().Unmap(), DstPort: k.Dst.Port(),
	}
	if !c.detector.Observe(&p, &c.sighting) {
		return false
	}
	if !c.out.put(&c.sighting) {
		c.lost.Add(1)
	}
	return c.sighting.Triggered && !c.facts.spares(p.Src, p.Dst)
}
