// Package detect decides from Probes which packets are probes of a trap:
// Probe in, Sighting out, by plain call inside one worker. It knows the trap
// ports, asks the host (through Host) what is served, names the kind of scan
// and counts per source. What begins something where nobody is, and is no trap,
// it hands out as a Contact. It neither knows whom to spare nor what to answer.
package detect

import (
	"net/netip"
	"sync/atomic"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/decode"
)

// Use is what stands behind the destination of a packet.
type Use uint8

// Answers to "is this packet for something of ours?".
const (
	Free       Use = iota // nothing: a probe
	Served                // a listener, or a socket of this very connection
	Reply                 // connection tracking knows it as an answer to something sent from here
	Translated            // destination NAT hands it to somebody else
	Unsure                // it could not be asked, or not often enough: no evidence
)

// Host answers what only the machine knows. Calls come from the worker that
// owns the Detector; an implementation belongs to one worker.
type Host interface {
	// Own reports whether a is a unicast address of this host.
	Own(a netip.Addr) bool
	// Ephemeral reports whether port lies in ip_local_port_range: answers to
	// this host's own packets arrive there.
	Ephemeral(port uint16) bool
	// Use says what stands behind the packet's destination, asked of the
	// kernel and never by binding. A connection or a conntrack entry matters
	// for anything but a bare SYN.
	Use(p *decode.Probe, bareSYN bool) Use
}

// Rules are what the configuration says. They may change while it runs; what is
// remembered of sources stays.
type Rules struct {
	TCP, UDP *config.Bitmap // trap ports
	Trigger  int            // SCAN_TRIGGER: fires from the Nth hit; 0 and 1 are the same
	Window   time.Duration  // SCAN_TRIGGER_WINDOW; 0: for ever
	// TrapServed (-S of 2.x): a SYN or a datagram to a listed port is a probe even
	// where something listens.
	TrapServed bool
}

// Options are what a Detector is built from.
type Options struct {
	Rules Rules
	Host  Host
	// Strangers answers what is asked of packets that are for no trap: however many
	// of them come, as many questions are left for those that are. nil: no Contact is
	// made of them.
	Strangers Host
	Sources   int // how many sources are remembered; 0: DefaultSources
	// Capture: the packets come from a file. A wrong checksum is then a mark;
	// live it means that no host would have taken the packet.
	Capture bool
}

// Stats counts what became of Probes that were no Sightings. All only grow.
type Stats struct {
	Probes      uint64 // Probes looked at
	Sightings   uint64
	NoTrap      uint64 // neither TCP nor UDP, or a port that is no trap
	NotOurs     uint64 // destination is not a unicast address of this host
	BadChecksum uint64
	Noise       uint64 // late packets, backscatter, answers inside ip_local_port_range
	Served      uint64 // something listens or is connected there
	Replies     uint64 // connection tracking knows them as answers or as translated
	Unsure      uint64 // could not be asked in time: lost as evidence
	Evicted     uint64 // sources forgotten to make room
	// Of what is in NoTrap.
	Contacts      uint64 // Contacts made of it
	ContactUnsure uint64 // could not be asked in time
}

// Detector is the detection of one worker. It is not safe for concurrent use,
// but for SetRules and Stats.
type Detector struct {
	o       Options
	rules   atomic.Pointer[Rules]
	sources *sources

	probes, sightings, noTrap, notOurs, badChecksum, noise, served, replies, unsure atomic.Uint64

	contacts, contactUnsure atomic.Uint64
}

// New builds a Detector.
func New(o Options) *Detector {
	if o.Sources == 0 {
		o.Sources = DefaultSources
	}
	d := &Detector{o: o, sources: newSources(o.Sources)}
	d.SetRules(o.Rules)
	return d
}

// SetRules replaces the rules, from the next Probe on. Any goroutine may call it.
func (d *Detector) SetRules(r Rules) { d.rules.Store(&r) }

// Observe looks at one Probe. If it is a probe of a trap, Observe fills s and
// reports true. It keeps neither p nor s.
func (d *Detector) Observe(p *decode.Probe, s *Sighting) bool {
	d.probes.Add(1)
	r := d.rules.Load()
	var kind Kind
	switch p.Proto {
	case decode.ProtoTCP:
		if !r.TCP.Has(p.DstPort) {
			d.noTrap.Add(1)
			return false
		}
		kind = Classify(p.Flags)
		if kind == KindNone && p.Marks&decode.Overlapping != 0 {
			// Fragments that contradict each other: the flags we chose may be
			// there to look harmless, and no honest stack sends such a thing.
			kind = KindOdd
		}
	case decode.ProtoUDP:
		if !r.UDP.Has(p.DstPort) {
			d.noTrap.Add(1)
			return false
		}
		kind = KindUDP
	default:
		d.noTrap.Add(1)
		return false
	}
	if p.Accepted {
		// Our own socket took it: the checksum held, and nobody else listens there.
		d.sighted(p, s, r, KindConnect, false)
		return true
	}
	bad := p.Marks&(decode.BadChecksum|decode.BadIPChecksum|decode.BadLength) != 0
	switch {
	case bad && !d.o.Capture:
		d.badChecksum.Add(1)
		return false
	case !d.o.Host.Own(p.Dst):
		d.notOurs.Add(1)
		return false
	case kind == KindNone, kind != KindSYN && d.o.Host.Ephemeral(p.DstPort):
		d.noise.Add(1)
		return false
	}
	switch d.o.Host.Use(p, kind == KindSYN) {
	case Served:
		if !r.TrapServed || kind != KindSYN && kind != KindUDP {
			d.served.Add(1)
			return false
		}
	case Reply, Translated:
		d.replies.Add(1)
		return false
	case Unsure:
		d.unsure.Add(1)
		return false
	}
	d.sighted(p, s, r, kind, bad)
	return true
}

// sighted counts the hit and fills s.
func (d *Detector) sighted(p *decode.Probe, s *Sighting, r *Rules, kind Kind, bad bool) {
	verified := kind == KindConnect && p.Proto == decode.ProtoTCP
	var port uint16
	if verified {
		port = p.DstPort
	}
	count, several := d.sources.hit(p.Src, p.Time, int64(r.Window), max(1, p.Times), port)
	*s = Sighting{
		Time: p.Time, IfIndex: p.IfIndex,
		Src: p.Src, Dst: p.Dst, SrcPort: p.SrcPort, DstPort: p.DstPort,
		Proto: p.Proto, Kind: kind, Flags: p.Flags, TTL: p.TTL, IPOptions: p.IPOptions,
		Seq: p.Seq, Ack: p.Ack, Window: p.Window, IPID: uint16(p.IPID),
		Fragmented:  p.Marks&decode.Fragmented != 0,
		BadChecksum: bad,
		Verified:    verified,
		Several:     verified && several,
		Count:       count,
		Triggered:   int64(count) >= int64(r.Trigger),
	}
	d.sightings.Add(1)
}

// Stats is a snapshot of the counters; any goroutine may ask.
func (d *Detector) Stats() Stats {
	return Stats{
		Probes: d.probes.Load(), Sightings: d.sightings.Load(), NoTrap: d.noTrap.Load(),
		NotOurs: d.notOurs.Load(), BadChecksum: d.badChecksum.Load(), Noise: d.noise.Load(),
		Served: d.served.Load(), Replies: d.replies.Load(), Unsure: d.unsure.Load(),
		Evicted:  d.sources.evicted.Load(),
		Contacts: d.contacts.Load(), ContactUnsure: d.contactUnsure.Load(),
	}
}

// Add adds the counters of another worker.
func (s *Stats) Add(o Stats) {
	s.Probes += o.Probes
	s.Sightings += o.Sightings
	s.NoTrap += o.NoTrap
	s.NotOurs += o.NotOurs
	s.BadChecksum += o.BadChecksum
	s.Noise += o.Noise
	s.Served += o.Served
	s.Replies += o.Replies
	s.Unsure += o.Unsure
	s.Evicted += o.Evicted
	s.Contacts += o.Contacts
	s.ContactUnsure += o.ContactUnsure
}
