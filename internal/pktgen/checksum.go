package pktgen

import "encoding/binary"

// sum adds b as 16-bit words in network byte order to s (RFC 1071). An odd last
// byte counts as the high half of a word. It cannot overflow for any datagram.
func sum(b []byte, s uint32) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func checksum(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// replace is the checksum c after one word it covers went from old to new
// (RFC 1624, equation 3).
func replace(c, old, new uint16) uint16 {
	return checksum(uint32(^c) + uint32(^old) + uint32(new))
}
