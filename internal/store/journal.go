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
	respond.Ban            // as it is now, or was last; Since is when it began
	Host        netip.Addr // who was seen; the ban may be of a network around it
	Ended       time.Time  // zero: it stands
	End         respond.End
	Changes     []respond.Ban // what it was at first and became, oldest first, Since being when; none: it never changed
	Packets     []Packet      // that decided it, oldest first
	Found       detect.Found  // the scan that it was for; zero: none
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

// Change is something that a person changed.
type Change struct {
	Time time.Time
	By   string // such as "uid 1000"
	Text string // what, in words
}

// Sums are the totals of a span of time.
type Sums struct {
	Probes    uint64
	Triggered uint64 // of them: they counted as a scan
	Sources   uint64 // distinct, as far as there was room for rows of their own
	Together  uint64 // probes of sources for which there was none
	Begun     uint64 // bans
	Ended     uint64
	Standing  uint64 // now
	Kinds     []KindSum
	Ports     []PortSum   // the most probed, the first of them first
	Top       []SourceSum // who probed most, likewise
	Endings   []EndingSum
}

// KindSum is how many probes were of a kind.
type KindSum struct {
	Kind  detect.Kind
	Count uint64
}

// PortSum is how many probes were for a port. Port 0 stands for those that were not
// counted apart.
type PortSum struct {
	Port  uint16
	Proto uint8
	Count uint64
}

// SourceSum is how many probes were of a source.
type SourceSum struct {
	Addr  netip.Addr
	Count uint64
}

// EndingSum is how many bans ended in a way.
type EndingSum struct {
	Ending respond.Ending
	Count  uint64
}

// Filter says what of the past is asked for. Zero fields ask for everything.
type Filter struct {
	Since, Until time.Time // Until is not part of it
	Source       netip.Prefix
	Kind         detect.Kind
	Ended        bool // of bans: those that ended then; else those that began then
	Limit        int  // rows; 0: as many as there are, within what the store bounds
}
