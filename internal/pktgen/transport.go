package pktgen

import (
	"encoding/binary"
	"hash/crc32"
)

func (p *Packet) appendTransport(b []byte) []byte {
	start := len(b)
	var at int // offset of the checksum
	be := binary.BigEndian
	switch p.Proto {
	case ProtoTCP:
		opts := pad4(p.TCPOptions)
		b = be.AppendUint16(b, p.SrcPort)
		b = be.AppendUint16(b, p.DstPort)
		b = be.AppendUint32(b, p.Seq)
		b = be.AppendUint32(b, p.Ack)
		b = be.AppendUint16(b, uint16((20+len(opts))/4)<<12|p.Flags&0x1ff)
		b = be.AppendUint16(b, p.Window)
		b = append(b, 0, 0)
		b = be.AppendUint16(b, p.Urgent)
		b = append(b, opts...)
		at = 16
	case ProtoUDP:
		b = be.AppendUint16(b, p.SrcPort)
		b = be.AppendUint16(b, p.DstPort)
		b = be.AppendUint16(b, uint16(8+len(p.Payload)))
		b = append(b, 0, 0)
		at = 6
	case ProtoICMP, ProtoICMPv6:
		echo := uint8(8)
		if p.Proto == ProtoICMPv6 {
			echo = 128
		}
		b = append(b, echo, 0, 0, 0)
		b = be.AppendUint16(b, p.SrcPort)
		b = be.AppendUint16(b, uint16(p.Seq))
		at = 2
	case ProtoSCTP:
		return p.appendSCTP(b)
	default:
		return append(b, p.Payload...)
	}
	b = append(b, p.Payload...)
	c := checksum(sum(b[start:], p.pseudoHeader(len(b)-start)))
	if c == 0 && p.Proto == ProtoUDP {
		c = 0xffff // 0 would mean "no checksum" (RFC 768)
	}
	if p.BadChecksum {
		if c ^= 0x1234; c == 0 {
			c = 0x4321
		}
	}
	be.PutUint16(b[start+at:], c)
	return b
}

// appendSCTP appends an INIT (RFC 9260 section 3.3.2), followed by the payload
// as further chunks.
func (p *Packet) appendSCTP(b []byte) []byte {
	be := binary.BigEndian
	start := len(b)
	b = be.AppendUint16(b, p.SrcPort)
	b = be.AppendUint16(b, p.DstPort)
	b = append(b, make([]byte, 8)...) // verification tag 0 with INIT, checksum
	b = append(b, 1, 0, 0, 20)        // INIT, 20 bytes
	b = be.AppendUint32(b, p.Seq)     // initiate tag
	b = be.AppendUint32(b, 65536)     // receiver window
	b = be.AppendUint16(b, 1)         // outbound streams
	b = be.AppendUint16(b, 1)         // inbound streams
	b = be.AppendUint32(b, p.Seq)     // initial TSN
	b = append(b, p.Payload...)
	putCRC32c(b[start:])
	if p.BadChecksum {
		b[start+8] ^= 0x55
	}
	return b
}

// putCRC32c writes the checksum of the SCTP packet b into it. It goes out least
// significant byte first (RFC 9260 appendix A).
func putCRC32c(b []byte) {
	clear(b[8:12])
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// pseudoHeader is the sum over the addresses, length and protocol that TCP, UDP
// and ICMPv6 include in their checksum; ICMP for IPv4 does not.
func (p *Packet) pseudoHeader(length int) uint32 {
	if p.Proto == ProtoICMP {
		return 0
	}
	s := sum(p.Src.AsSlice(), 0)
	s = sum(p.Dst.AsSlice(), s)
	return s + uint32(length>>16) + uint32(length&0xffff) + uint32(p.Proto)
}
