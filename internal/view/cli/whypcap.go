package cli

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"slices"
	"strconv"
	"strings"

	wire "portsentry/internal/decode"
	"portsentry/internal/view"
)

// Of a capture file (pcap): times in nanoseconds, and packets that begin with their IP
// header (LINKTYPE_RAW).
const (
	pcapNanos   = 0xa1b23c4d
	pcapSnap    = 65535
	linkTypeRaw = 101
)

// writePcap writes packets as a capture. Their headers are rebuilt from what was kept
// of them, with right checksums; options and payloads are not kept. A connection that
// a trap socket took is a SYN: with that it began.
func writePcap(w io.Writer, packets []view.Packet) error {
	b := binary.LittleEndian.AppendUint32(nil, pcapNanos)
	b = binary.LittleEndian.AppendUint16(b, 2) // version 2.4
	b = binary.LittleEndian.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...) // UTC
	b = binary.LittleEndian.AppendUint32(b, pcapSnap)
	b = binary.LittleEndian.AppendUint32(b, linkTypeRaw)
	for i := range packets {
		p := rebuilt(&packets[i])
		at := packets[i].Time
		b = binary.LittleEndian.AppendUint32(b, uint32(at.Unix()))
		b = binary.LittleEndian.AppendUint32(b, uint32(at.Nanosecond()))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	_, err := w.Write(b)
	return err
}

// rebuilt is the packet from its IP header on.
func rebuilt(p *view.Packet) []byte {
	proto := protocol(p.Protocol)
	body, sum := transport(p, proto)
	src, dst := p.Source.AsSlice(), p.Destination.AsSlice()
	if sum >= 0 {
		pseudo := slices.Concat(src, dst)
		pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(body)))
		pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(proto))
		if proto == wire.ProtoICMP {
			pseudo = nil // RFC 792 has none
		}
		binary.BigEndian.PutUint16(body[sum:], checksum(append(pseudo, body...)))
	}
	ttl := p.TTL
	if ttl == 0 { // a trap socket is not told
		ttl = 64
	}
	if p.Source.Is6() {
		head := make([]byte, 8, 40) // RFC 8200 section 3
		head[0] = 6 << 4
		binary.BigEndian.PutUint16(head[4:], uint16(len(body)))
		head[6], head[7] = proto, ttl
		return slices.Concat(head, src, dst, body)
	}
	head := make([]byte, 12, 20) // RFC 791 section 3.1
	head[0] = 4<<4 | 5
	binary.BigEndian.PutUint16(head[2:], uint16(20+len(body)))
	binary.BigEndian.PutUint16(head[4:], p.IPID)
	head[8], head[9] = ttl, proto
	head = slices.Concat(head, src, dst)
	binary.BigEndian.PutUint16(head[10:], checksum(head))
	return append(head, body...)
}

// transport is the header behind IP's, and where in it the checksum of RFC 1071
// belongs; -1: nowhere.
func transport(p *view.Packet, proto uint8) (b []byte, sum int) {
	ports := binary.BigEndian.AppendUint16(nil, p.SourcePort)
	ports = binary.BigEndian.AppendUint16(ports, p.DestinationPort)
	switch proto {
	case wire.ProtoTCP: // RFC 9293 section 3.1
		flags := tcpFlags(p.Flags)
		if p.Kind == "connect" {
			flags = wire.SYN
		}
		b = binary.BigEndian.AppendUint32(ports, p.Seq)
		b = binary.BigEndian.AppendUint32(b, p.Ack)
		b = binary.BigEndian.AppendUint16(b, 5<<12|flags)
		b = binary.BigEndian.AppendUint16(b, p.Window)
		return append(b, 0, 0, 0, 0), 16
	case wire.ProtoUDP: // RFC 768
		return append(ports, 0, 8, 0, 0), 6
	case wire.ProtoSCTP: // RFC 9260 section 3: INIT, or COOKIE-ECHO with an empty cookie
		chunk := append([]byte{1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0, 1, 0, 1}, 0, 0, 0, 1)
		if p.Kind == "sctp-cookie" {
			chunk = []byte{10, 0, 0, 4}
		}
		b = append(append(ports, make([]byte, 8)...), chunk...)
		binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
		return b, -1
	case wire.ProtoICMPv6: // RFC 4443 section 4.1
		return []byte{128, 0, 0, 0, 0, 1, 0, 1}, 2
	case wire.ProtoICMP: // RFC 792, RFC 950 for the mask
		switch p.Kind {
		case "icmp-timestamp":
			return append([]byte{13, 0, 0, 0, 0, 1, 0, 1}, make([]byte, 12)...), 2
		case "icmp-mask":
			return append([]byte{17, 0, 0, 0, 0, 1, 0, 1}, make([]byte, 4)...), 2
		}
		return []byte{8, 0, 0, 0, 0, 1, 0, 1}, 2
	}
	return nil, -1
}

// protocol is the number of what view.Proto names.
func protocol(name string) uint8 {
	for _, known := range []uint8{wire.ProtoICMP, wire.ProtoTCP, wire.ProtoUDP, wire.ProtoICMPv6, wire.ProtoSCTP} {
		if view.Proto(known) == name {
			return known
		}
	}
	n, _ := strconv.ParseUint(strings.TrimPrefix(name, "ip-"), 10, 8)
	return uint8(n)
}

// tcpFlags reads flags as view.Flags writes them.
func tcpFlags(s string) (flags uint16) {
	for bit := wire.FIN; bit <= wire.AE; bit <<= 1 {
		if slices.Contains(strings.Split(s, ","), view.Flags(bit)) {
			flags |= bit
		}
	}
	return flags
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
