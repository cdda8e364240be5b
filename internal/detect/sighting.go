// Package detect decides from Probes which packets are probes of a trap:
// Probe in, Sighting out, by plain call inside one worker. It knows the trap
// ports, asks the host (through Host) what is served, names the kind of scan
// and counts per source. It neither knows whom to spare nor what to answer.
package detect

import "net/netip"

// Sighting is one probe of a trap, itemised. It is self-contained: no pointer
// into packet memory, so it may cross the queue behind this stage.
type Sighting struct {
	Time    int64 // unix nanoseconds, from the frame
	IfIndex int32

	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	Proto            uint8 // decode.ProtoTCP or decode.ProtoUDP
	Kind             Kind
	Flags            uint16 // TCP flags
	TTL              uint8
	IPOptions        uint8 // decode.Tri
	Fragmented       bool
	BadChecksum      bool

	Count            uint32 // hits of this source on traps so far, this one included
	Triggered        bool   // Count has reached SCAN_TRIGGER
	NonUnicastSource bool
}
