package flows

import (
	"encoding/binary"
	"net/netip"
)

// class says what a key is about. Most are conversations; the others are facts
// that later packets are judged by.
type class uint8

const (
	classTCP    class = 1 + iota
	classUDP          // both ends
	classSCTP         // both ends
	classEcho         // source and destination of a query, in this order
	classStamp        // likewise
	classMask         // likewise
	classProto        // both ends, without ports; the protocol number is in place of one
	classSender       // (a, pa) has sent datagrams to the address b
	classCaller       // (a, pa) has sent datagrams to everybody
	classServer       // (a, pa) has taken TCP connections
	classHeard        // a has answered somebody: its answers can be seen in this capture
)

// key is two ends, 16 + 16 + 2 + 2 bytes, a class and a family. IPv4 is kept as
// IPv4-mapped, and as its own family.
type key [40]byte

func makeKey(c class, a, b netip.Addr, pa, pb uint16) (k key) {
	a16, b16 := a.As16(), b.As16()
	copy(k[0:], a16[:])
	copy(k[16:], b16[:])
	binary.BigEndian.PutUint16(k[32:], pa)
	binary.BigEndian.PutUint16(k[34:], pb)
	k[36] = byte(c)
	if a.Is4() {
		k[37] = 4
	}
	return k
}

// pair is the key of a conversation, the same from both ends: the lower end comes
// first. from says which of them is (src, sp).
func pair(c class, src, dst netip.Addr, sp, dp uint16) (k key, from side) {
	if d := dst.Compare(src); d < 0 || d == 0 && dp < sp {
		return makeKey(c, dst, src, dp, sp), second
	}
	return makeKey(c, src, dst, sp, dp), first
}

// addr is the address of an end.
func (k *key) addr(s side) netip.Addr {
	b := [16]byte(k[0:16])
	if s == second {
		b = [16]byte(k[16:32])
	}
	a := netip.AddrFrom16(b)
	if k[37] == 4 {
		return a.Unmap()
	}
	return a
}

// port is the port of an end.
func (k *key) port(s side) uint16 {
	if s == second {
		return binary.BigEndian.Uint16(k[34:])
	}
	return binary.BigEndian.Uint16(k[32:])
}

// side is an end of a conversation.
type side uint8

const (
	first  side = 1
	second side = 2
)

func (s side) other() side { return s ^ 3 }
