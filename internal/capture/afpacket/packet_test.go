package afpacket

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// TCP flags of test packets.
const (
	fin = 0x01
	syn = 0x02
	rst = 0x04
	psh = 0x08
	ack = 0x10
	urg = 0x20
)

var (
	src4 = netip.MustParseAddr("192.0.2.1")
	dst4 = netip.MustParseAddr("192.0.2.2")
	src6 = netip.MustParseAddr("2001:db8::1")
	dst6 = netip.MustParseAddr("2001:db8::2")
)

// tcp is a TCP header with flags to port, without a checksum.
func tcp(port uint16, flags byte) []byte {
	h := make([]byte, 20)
	binary.BigEndian.PutUint16(h, 40000)
	binary.BigEndian.PutUint16(h[2:], port)
	h[12], h[13] = 5<<4, flags
	return h
}

// udp is a UDP datagram of size payload bytes to port.
func udp(port uint16, size int) []byte {
	h := make([]byte, 8+size)
	binary.BigEndian.PutUint16(h, 40000)
	binary.BigEndian.PutUint16(h[2:], port)
	binary.BigEndian.PutUint16(h[4:], uint16(len(h)))
	return h
}

// ipv4 puts an IPv4 header with options in front of payload. fragment is the
// flags and offset field.
func ipv4(src netip.Addr, proto byte, fragment uint16, options, payload []byte) []byte {
	h := make([]byte, 20, 20+len(options)+len(payload))
	h[0] = 4<<4 | byte(5+len(options)/4)
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(options)+len(payload)))
	binary.BigEndian.PutUint16(h[6:], fragment)
	h[8], h[9] = 64, proto
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst4.AsSlice())
	h = append(h, options...)
	var sum uint32
	for i := 0; i < len(h); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum&0xffff+sum>>16))
	return append(h, payload...)
}

func syn4(port uint16) []byte {
	return ipv4(src4, unix.IPPROTO_TCP, 0, nil, tcp(port, syn))
}

// ipv6 puts an IPv6 header in front of payload.
func ipv6(src netip.Addr, next byte, payload []byte) []byte {
	h := make([]byte, 40, 40+len(payload))
	h[0] = 6 << 4
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	h[6], h[7] = next, 64
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst6.AsSlice())
	return append(h, payload...)
}

// extension puts an IPv6 extension header of 8 bytes in front of payload.
func extension(next byte, payload []byte) []byte {
	return append([]byte{next, 0, 1, 4, 0, 0, 0, 0}, payload...)
}

// tag puts what follows the tag protocol identifier in front of an IP packet.
func tag(tci, etherType uint16, payload []byte) []byte {
	h := binary.BigEndian.AppendUint16(nil, tci)
	return append(binary.BigEndian.AppendUint16(h, etherType), payload...)
}
