package store

import (
	"net/netip"
	"time"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// Packet is what is kept of a packet that was looked at: enough to show it, and
// to put its headers into a capture.
type Packet struct {
	Time             int64 // unix nanoseconds, from the frame
	IfIndex          int32
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	Proto            uint8
	Kind             detect.Kind
	Flags            uint16 // TCP flags, decode.FIN and the like
	TTL              uint8
	IPOptions        decode.Tri
	Fragmented       bool
	Verified         bool // the contact completed a handshake
	Seq, Ack         uint32
	Window, IPID     uint16
}

// Life is one ban, from its beginning to its end.
type Life struct {
	respond.Ban
	Host    netip.Addr // who was seen; the ban may be of a network around it
	By      string     // who asked for it, such as "uid 1000"; "": the daemon
	Methods []string
	Ended   time.Time // zero: it stands
	End     respond.End
	Packets []Packet // that decided it, oldest first
	Found   detect.Found
}

// Interval is how much was seen of one source and kind in one span of time.
type Interval struct {
	Source      netip.Addr // invalid: those for whom there was no row, together
	Kind        detect.Kind
	Proto       uint8
	First, Last time.Time
	Count       uint64
	Ports       uint32 // distinct ports, counted as far as they were kept apart
	Port        uint16 // one of them, the first
	Dst         netip.Addr
	Triggered   uint64 // how many of them counted as a scan
}

// Source is what is known about one.
type Source struct {
	Addr        netip.Addr
	Name        string
	First, Last time.Time
	Probes      uint64
	Kinds       []detect.Kind
	Ports       uint32 // distinct, as in Interval: the most of one span
	Evidence    judge.Evidence
	Bans        int
	Tool        string
	Campaign    uint64
	Scan        detect.Found // the last that was found
}

// Filter says what of the past is asked for. Zero fields ask for everything.
type Filter struct {
	Since, Until time.Time
	Source       netip.Prefix
	Kind         detect.Kind
	Limit        int // rows; 0: as many as there are, within what the store bounds
}
