// Package pktgen builds packets, well-formed or deliberately not, and sends
// them inside network namespaces of its own making. Packets described as
// structs go in; frames on a veth pair and the answers that came back go out.
// Tests and the bench use it. It never sends on an interface of the machine's
// own namespace, loopback excepted.
package pktgen

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// IP protocol numbers (IANA) for which AppendTo writes a transport header. With
// any other Packet.Proto the payload follows the IP header directly.
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoICMPv6 = 58
	ProtoSCTP   = 132
)

// TCP flags as Packet.Flags and Answer.Flags hold them (RFC 9293 section 3.1;
// AE is the ninth bit, once NS of RFC 3540).
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

// Types of IPv6 extension header (IANA).
const (
	HopByHop    = 0
	Routing     = 43
	FragmentHdr = 44
	AuthHdr     = 51
	DestOptions = 60
)

// Link is the Ethernet header that frames get: hardware addresses only, the
// EtherType follows from the packet.
type Link struct{ Src, Dst net.HardwareAddr }

// ExtHeader is one IPv6 extension header of Len bytes, a multiple of 8 up to
// 2048. Options are padding; a Routing header has no segments left; a
// FragmentHdr is an atomic fragment (RFC 6946).
type ExtHeader struct {
	Type uint8
	Len  int
}

// Packet describes one datagram. Numbers are in host byte order. The zero value
// of a field is sent as zero, except TTL, where 0 means 64.
type Packet struct {
	Src, Dst netip.Addr // of one family
	Proto    uint8

	SrcPort, DstPort uint16 // ICMP: SrcPort is the identifier of the echo request
	Flags            uint16
	Seq, Ack         uint32 // ICMP: Seq is the sequence number; SCTP: the initiate tag and TSN of the INIT
	Window, Urgent   uint16
	TCPOptions       []byte // padded to a multiple of 4 with end-of-options

	TTL        uint8
	IPID       uint32 // IPv4 identification, or the one of an IPv6 fragment header
	DF         bool
	IPOptions  []byte // IPv4 only, at most 40 bytes, padded like TCPOptions
	ExtHeaders []ExtHeader

	Payload []byte
	VLANs   []uint16 // tag control information, outermost first
	QinQ    bool     // the outermost tag is a service tag (802.1ad); the others are 802.1Q

	// FragmentSize is how many bytes of transport header and payload one
	// fragment carries, a multiple of 8; 0 sends the datagram whole. Only
	// Frames looks at it.
	FragmentSize int

	BadIPChecksum bool // IPv4 header checksum wrong
	BadChecksum   bool // transport checksum wrong
}

// Limits of the formats (RFC 791, RFC 8200, RFC 9293).
const (
	maxOptions     = 40
	maxDatagramLen = 65535
	maxExtHeader   = 2048
)

func (p *Packet) check() error {
	if !p.Src.IsValid() || !p.Dst.IsValid() || p.Src.Is4() != p.Dst.Is4() {
		return fmt.Errorf("pktgen: source %v and destination %v are not two addresses of one family", p.Src, p.Dst)
	}
	if len(p.IPOptions) > maxOptions || len(p.TCPOptions) > maxOptions {
		return errors.New("pktgen: more than 40 bytes of options")
	}
	if p.Src.Is4() && len(p.ExtHeaders) > 0 || !p.Src.Is4() && len(p.IPOptions) > 0 {
		return errors.New("pktgen: IPv4 options in IPv6 or extension headers in IPv4")
	}
	for _, h := range p.ExtHeaders {
		if h.Len < 8 || h.Len%8 != 0 || h.Len > maxExtHeader || h.Type == FragmentHdr && h.Len != 8 {
			return fmt.Errorf("pktgen: no extension header of type %d has %d bytes", h.Type, h.Len)
		}
	}
	if p.QinQ && len(p.VLANs) == 0 {
		return errors.New("pktgen: a service tag without a tag")
	}
	if p.FragmentSize < 0 || p.FragmentSize%8 != 0 {
		return fmt.Errorf("pktgen: fragment size %d is no multiple of 8", p.FragmentSize)
	}
	return nil
}

// AppendTo appends the packet to b, unfragmented: as an Ethernet frame, or as a
// bare IP datagram (without VLAN tags) when l is nil.
func (p *Packet) AppendTo(b []byte, l *Link) ([]byte, error) {
	if err := p.check(); err != nil {
		return b, err
	}
	transport := p.appendTransport(nil)
	return p.appendDatagram(b, l, transport, nil)
}

// Frames is the packet as AppendTo has it, or as several frames when
// FragmentSize is set.
func (p *Packet) Frames(l *Link) ([][]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	transport := p.appendTransport(nil)
	size := p.FragmentSize
	if size == 0 || len(transport) <= size {
		f, err := p.appendDatagram(nil, l, transport, nil)
		return [][]byte{f}, err
	}
	if p.Src.Is4() {
		return p.fragments(l, transport, p.ExtHeaders, p.Proto, size)
	}
	per, rest := p.splitHeaders()
	first := p.Proto
	if len(rest) > 0 {
		first = rest[0].Type
	}
	return p.fragments(l, append(p.appendExt(nil, rest, p.Proto), transport...), per, first, size)
}

// fragments cuts part into fragments. per are the headers that every one
// repeats, first is the protocol of part's beginning.
func (p *Packet) fragments(l *Link, part []byte, per []ExtHeader, first uint8, size int) ([][]byte, error) {
	if len(part) > maxDatagramLen {
		return nil, errTooLong(len(part))
	}
	var frames [][]byte
	for off := 0; off < len(part); off += size {
		end := min(off+size, len(part))
		fr := fragment{off: off, more: end < len(part), per: per, first: first}
		f, err := p.appendDatagram(nil, l, part[off:end], &fr)
		if err != nil {
			return nil, err
		}
		frames = append(frames, f)
	}
	return frames, nil
}

// splitHeaders separates the headers each fragment must carry (up to a Routing
// header, else a Hop-by-Hop header) from those that are fragmented themselves
// (RFC 8200 section 4.5).
func (p *Packet) splitHeaders() (per, rest []ExtHeader) {
	n := 0
	for i, h := range p.ExtHeaders {
		if h.Type == Routing || h.Type == HopByHop && i == 0 {
			n = i + 1
		}
	}
	return p.ExtHeaders[:n], p.ExtHeaders[n:]
}

// fragment is the place of a piece in its datagram.
type fragment struct {
	off   int
	more  bool
	per   []ExtHeader
	first uint8
}

func pad4(b []byte) []byte {
	if len(b)%4 == 0 {
		return b
	}
	padded := make([]byte, (len(b)+3)&^3)
	copy(padded, b)
	return padded
}

func errTooLong(n int) error {
	return fmt.Errorf("pktgen: a datagram of %d bytes exceeds %d", n, maxDatagramLen)
}
