// Package capture holds the nouns of the first stage: a Frame as it came off a
// wire or out of a file, with its time and interface, an Event where the kernel
// has read the packet already, and the counters of a source of them. What goes
// in: packets. What comes out: Frames and Events, each handed to a Handler by
// plain call. The children (xdp, afpacket, listen, pcapfile) are the ways of
// getting them.
package capture

import (
	"context"
	"net/netip"
)

// Link says how the bytes of a Frame begin.
type Link uint8

// Link layers that decode understands. LinkNetwork is what live capture gives:
// the kernel has taken the link header off and says the EtherType beside it.
const (
	LinkUnknown  Link = iota
	LinkNetwork       // begins behind the link header; EtherType says with what
	LinkEthernet      // DLT_EN10MB
	LinkSLL           // DLT_LINUX_SLL, cooked v1
	LinkSLL2          // DLT_LINUX_SLL2, cooked v2
	LinkRaw           // DLT_RAW, DLT_IPV4, DLT_IPV6: the IP version nibble tells
	LinkNull          // DLT_NULL: 4 bytes address family in the byte order of the writer
	LinkLoop          // DLT_LOOP: the same in network byte order
	LinkPPP           // DLT_PPP, DLT_PPP_SERIAL (with or without 0xff 0x03)
)

// PacketType is the kernel's view of whom the frame was addressed to
// (linux/if_packet.h PACKET_*); in a capture file it is PacketUnknown unless
// the cooked header says.
type PacketType uint8

// Packet types. The zero value means nobody said.
const (
	PacketUnknown PacketType = iota
	PacketHost
	PacketBroadcast
	PacketMulticast
	PacketOtherHost
	PacketOutgoing
)

// Frame is one captured packet. Data is valid only until the Handler returns.
type Frame struct {
	Time    int64  // unix nanoseconds, from the capture, never from a clock of ours
	Data    []byte // captured bytes, link header included as Link says
	WireLen int    // length on the wire, at least len(Data)
	IfIndex int32  // interface it came in on; 0 in captures that do not say

	EtherType uint16 // with LinkNetwork: what Data begins with, host byte order
	VLAN      uint16 // outermost tag control information: with LinkNetwork the kernel took it off Data; 0 when !HasVLAN
	HasVLAN   bool

	Link       Link
	PacketType PacketType
	// ChecksumPartial: the sender left the transport checksum to its card
	// (TP_STATUS_CSUMNOTREADY), so a wrong one says nothing.
	ChecksumPartial bool
}

// Handler takes one frame. It must not keep f or f.Data.
type Handler func(f *Frame)

// Stats are the counters of a source since it was opened.
type Stats struct {
	Frames  uint64 // handed to the handler
	Dropped uint64 // lost by the kernel because the ring was full
	Frozen  uint64 // times the kernel found the ring full (TPACKET_V3 queue freezes)
	Other   uint64 // passed the filter but came from an interface not watched
}

// Source delivers frames until ctx ends or it runs dry. Run is called once.
// Stats may be called from any goroutine while Run is running.
type Source interface {
	Run(ctx context.Context, handle Handler) error
	Stats() Stats
}

// Contact is a connection, or a datagram, that a trap socket of ours took. For
// TCP the handshake was completed: the source is who he says.
type Contact struct {
	Time     int64 // unix nanoseconds
	Proto    uint8 // IP protocol number (IANA): 6 or 17
	IfIndex  int32 // interface it came in on; 0: not known
	Src, Dst netip.AddrPort
}

// ContactHandler takes one contact and says whether it is to get the banner. It
// must not keep c.
type ContactHandler func(c *Contact) (banner bool)

// EventKind is what an Event tells.
type EventKind uint8

// Kinds of Event.
const (
	EventProbe    EventKind = 1 + iota // of a port or the like where nobody is, as the kernel saw it
	EventQuestion                      // likewise, but whether somebody is there could not be seen from below
	EventVerified                      // somebody completed a handshake with a challenge of the kernel's own
	EventLiving                        // a RST answered a challenge: the address is in use, no more
	EventCounted                       // probes of one source for which there was no room: Times of them, like this one
)

// Event is a packet that a program in the kernel has read and judged. It is valid
// only until the EventHandler returns.
type Event struct {
	Kind    EventKind
	Time    int64 // unix nanoseconds
	IfIndex int32

	Src, Dst         netip.Addr // IPv4 as IPv4
	SrcPort, DstPort uint16
	Proto            uint8  // IP protocol number; without Closed 6 or 17
	Flags            uint16 // of TCP, nine bits as in the header
	Window, Urgent   uint16
	Seq, Ack         uint32
	TCPOptions       []byte
	PayloadLen       int

	ICMPType, ICMPCode uint8
	SCTPChunk          uint8 // type of the first chunk

	IPID          uint32
	TTL           uint8
	DF, IPOptions bool // IPv4
	ExtHeaders    bool // IPv6
	VLANs         uint8
	VLAN          [2]uint16 // ids, outermost first

	// Malformed: a length or an IPv4 header checksum is wrong, no host would take it.
	// Short: the packet ends before its IP length says.
	Malformed, Short bool

	// Closed: it is for no trap, but begins something all the same.
	Closed bool

	Peer  bool   // its source had a connection to a served port
	Held  bool   // the kernel dropped it, and keeps its source out for a moment
	Times uint32 // 1, or how many there were
}

// EventHandler takes one event. It must not keep e.
type EventHandler func(e *Event)
