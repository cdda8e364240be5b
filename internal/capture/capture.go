// Package capture holds the nouns of the first stage: a Frame as it came off a
// wire or out of a file, with its time and interface, and the counters of a
// source of frames. What goes in: packets. What comes out: Frames, each handed
// to a Handler by plain call. The children (afpacket, pcapfile) are the ways of
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
	VLAN      uint16 // tag control information the kernel took off; 0 when !HasVLAN
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
