package decode

import "net/netip"

// IP protocol numbers that the house knows by name (IANA).
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoICMPv6 = 58
	ProtoSCTP   = 132
)

// TCP flags, RFC 9293 section 3.1, in the low nine bits (AE is RFC 7560's NS).
const (
	FIN uint16 = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
	AE
)

// Status is what Decode made of a frame.
type Status uint8

// Decode's answers. Only Complete fills the whole Probe.
const (
	Unknown   Status = iota // not IP, or nothing we understand: say so rather than guess
	Complete                // Probe is filled up to the transport header
	Fragment                // part of a datagram: kept until its transport header is whole, or not needed
	Truncated               // the capture or the packet ends inside a header
	Malformed               // a header contradicts itself (IHL below 5, length beyond the packet, ...)
)

// Tri is an answer that may be missing.
type Tri uint8

// Tri values.
const (
	NotKnown Tri = iota
	No
	Yes
)

// Marks are oddities of a packet that a later stage may want to know. None of
// them is a reason to pass a packet over in a capture.
type Marks uint8

// Marks of a Probe.
const (
	BadIPChecksum Marks = 1 << iota // IPv4 header checksum is wrong: no host would take it
	BadChecksum                     // transport checksum is wrong (only where it could be checked)
	Fragmented                      // header came in fragments and was put together
	TinyFragment                    // the first fragment did not hold the whole transport header
	BadLength                       // transport length contradicts itself (TCP data offset < 5, UDP length < 8), or the packet ends before its IP length says
	ShortPayload                    // packet or capture end before the IP length says, behind the fixed transport header
	HasExtHeaders                   // IPv6 extension headers were present
	Overlapping                     // fragments of this datagram contradicted each other: the header may not be what the host saw
)

// Probe is one packet that may be a probe: who, to what, with which flags.
// Addresses are unmapped (an IPv4-mapped IPv6 address stays IPv6). Numbers are
// in host byte order. The caller owns it and hands the same one in again.
type Probe struct {
	Time    int64 // unix nanoseconds, from the frame
	IfIndex int32

	Src, Dst netip.Addr
	Proto    uint8 // transport protocol (IANA), behind extension headers

	SrcPort, DstPort uint16 // TCP, UDP, SCTP; ICMP: 0
	Flags            uint16 // TCP flags
	Window           uint16
	Urgent           uint16
	Seq, Ack         uint32
	MSS              uint16 // TCP option 2, 0 when absent
	TCPOptionsLen    uint8  // bytes

	ICMPType, ICMPCode uint8
	SCTPChunk          uint8 // type of the first chunk: 1 INIT, 10 COOKIE-ECHO; 0 DATA or none

	IPID      uint32 // IPv4 identification, or of the IPv6 fragment header; 0 when there is none
	TTL       uint8  // or hop limit
	DF        bool
	IPOptions Tri // IPv4: Yes or No; IPv6: NotKnown, as PortSentry 2.x says it

	PayloadLen int // bytes behind the transport header, as the IP length says; in fragments, as far as they came
	VLANs      uint8
	VLAN       [2]uint16 // outermost first, VLAN ids

	// Times is how many packets this one stands for, which could not be itemised
	// for lack of room; 0 and 1: itself alone.
	Times uint32

	// Accepted: a trap socket of ours took it. Then it has no packet, only ends
	// and a time, and over TCP the handshake was completed.
	Accepted bool

	Marks Marks
	// PacketType is a capture.PacketType: to whom the link layer says that the
	// frame was addressed.
	PacketType uint8
}

// IsIPv6 reports the family of the packet.
func (p *Probe) IsIPv6() bool { return p.Src.Is6() }
