package detect

import (
	"net/netip"

	"portsentry/internal/decode"
)

// Sighting is one probe of a trap, itemised, or the one by which its source was
// found to scan: or both, see Scan. It is self-contained: no pointer into packet
// memory, so it may cross the queue behind this stage.
type Sighting struct {
	Time    int64 // unix nanoseconds, from the frame
	IfIndex int32

	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	Proto            uint8 // decode.ProtoTCP or decode.ProtoUDP
	Kind             Kind
	Flags            uint16 // TCP flags, decode.FIN and the like
	Seq, Ack         uint32 // as they were, for who wants to see the packet
	Window, IPID     uint16
	TTL              uint8
	IPOptions        decode.Tri
	Fragmented       bool
	BadChecksum      bool // in a capture only: live, such a packet is no sighting

	// Held: the kernel dropped it and keeps its source out until somebody says
	// otherwise, or for a moment. Peer: it saw a connection of the source with a
	// served port.
	Held, Peer bool

	Verified bool // the contact itself completed a handshake: the source is not forged
	Several  bool // and so did one with another trap port before: no web page's doing

	Count     uint32 // hits of this source on traps so far, this one included; where it is none, its probes
	Triggered bool   // Count has reached SCAN_TRIGGER, or a scan was found

	Scan Found // what its source is found to do; zero: nothing new
}

// Found is of a Scan what goes along with a Sighting.
type Found struct {
	Kind           Kind // KindNone: there is no scan
	Direction      Direction
	Proto          uint8 // IP protocol number, 0: several
	Verified       bool
	First          int64 // unix nanoseconds
	Ports, Targets uint32
	Probes         uint32
	Score          float32
	Tool           string // "": none that is known
	Campaign       uint64 // 0: alone
}

// FoundBy is what goes along of s.
func FoundBy(s *Scan) Found {
	return Found{
		Kind: s.Kind, Direction: s.Direction, Proto: s.Proto, Verified: s.Verified, First: s.First,
		Ports: uint32(s.Ports), Targets: uint32(s.Targets), Probes: uint32(s.Probes), Score: float32(s.Score),
		Tool: s.Tool, Campaign: s.Campaign,
	}
}
