// Package decode turns the bytes of a Frame into a Probe: who sent what, to
// whom, with which flags. It fills a struct of the caller's, allocates nothing,
// trusts no length in the packet and answers Unknown rather than guess.
//
// A mark says that no host would take the packet, so where Linux is more
// tolerant than an RFC, Linux is followed: else a packet made to be passed over
// here would still get through there.
package decode

import (
	"sync/atomic"

	"portsentry/internal/capture"
)

// Decoder decodes frames of one worker. It holds the few datagrams whose
// transport header came in fragments; but for Stats it must not be shared by
// goroutines. The zero Decoder is ready; its size is fixed (about 290 KB).
type Decoder struct {
	frags fragTable

	fragments, evicted, expired, overlaps atomic.Uint64
}

// Stats are the counters of fragment handling. All only grow.
type Stats struct {
	Fragments uint64 // frames that held a part of a datagram
	Evicted   uint64 // datagrams pushed out by newer ones before their transport header was whole
	Expired   uint64 // datagrams whose transport header was not whole in time
	Overlaps  uint64 // fragments that contradicted an earlier one
}

// Stats is a snapshot of the counters; any goroutine may ask.
func (d *Decoder) Stats() Stats {
	return Stats{
		Fragments: d.fragments.Load(), Evicted: d.evicted.Load(),
		Expired: d.expired.Load(), Overlaps: d.overlaps.Load(),
	}
}

// Decode reads f into p. Every field of p is overwritten. It keeps neither.
func (d *Decoder) Decode(f *capture.Frame, p *Probe) Status {
	*p = Probe{Time: f.Time, IfIndex: f.IfIndex, PacketType: uint8(f.PacketType)}
	etherType, b, st := link(f, p)
	if st != Complete {
		return st
	}
	if etherType == etherIPv4 {
		return d.ipv4(f, p, b)
	}
	return d.ipv6(f, p, b)
}
