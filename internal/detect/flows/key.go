package flows

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
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

// key is two ends, a class and a family.
type key struct {
	a, b  ip
	ports uint32 // of a in the upper half, of b in the lower one
	class class
	v4    uint8 // 1: IPv4
}

// ip is an address. IPv4 is kept as IPv4-mapped, and key.v4 tells it from IPv6 that
// looks the same.
type ip struct{ hi, lo uint64 }

func ipOf(a netip.Addr) ip {
	if a.Is4() {
		b := a.As4()
		return ip{0, 0xffff<<32 | uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return ip{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func isV4(a netip.Addr) uint8 {
	if a.Is4() {
		return 1
	}
	return 0
}

func makeKey(c class, a, b netip.Addr, pa, pb uint16) key {
	return key{a: ipOf(a), b: ipOf(b), ports: uint32(pa)<<16 | uint32(pb), class: c, v4: isV4(a)}
}

// about is the key of a fact about one end.
func about(c class, a netip.Addr, pa uint16) key {
	of := ipOf(a)
	return key{a: of, b: of, ports: uint32(pa) << 16, class: c, v4: isV4(a)}
}

// pair is the key of a conversation, the same from both ends: the lower end comes
// first. from says which of them is (src, sp). Which it is nobody can foretell, so
// that ends are exchanged without a branch.
func pair(c class, src, dst netip.Addr, sp, dp uint16) (k key, from side) {
	a, b := ipOf(src), ipOf(dst)
	_, less := bits.Sub64(uint64(dp), uint64(sp), 0)
	_, less = bits.Sub64(b.lo, a.lo, less)
	_, less = bits.Sub64(b.hi, a.hi, less) // 1: the destination is the lower end
	hi, lo := (a.hi^b.hi)&-less, (a.lo^b.lo)&-less
	return key{
		a: ip{a.hi ^ hi, a.lo ^ lo}, b: ip{b.hi ^ hi, b.lo ^ lo},
		ports: bits.RotateLeft32(uint32(sp)<<16|uint32(dp), int(less)*16), class: c, v4: isV4(src),
	}, first + side(less)
}

// is reports whether both are the same.
func (k *key) is(o *key) bool {
	return (k.a.hi^o.a.hi)|(k.a.lo^o.a.lo)|(k.b.hi^o.b.hi)|(k.b.lo^o.b.lo)|
		uint64((k.ports^o.ports)|uint32(k.class^o.class)|uint32(k.v4^o.v4)) == 0
}

// addr is the address of an end.
func (k *key) addr(s side) netip.Addr {
	a := k.a
	if s == second {
		a = k.b
	}
	if k.v4 == 1 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(a.lo))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], a.hi)
	binary.BigEndian.PutUint64(b[8:], a.lo)
	return netip.AddrFrom16(b)
}

// port is the port of an end.
func (k *key) port(s side) uint16 {
	if s == second {
		return uint16(k.ports)
	}
	return uint16(k.ports >> 16)
}

// secret is what the places of keys depend on. Strangers choose the keys.
type secret [8]uint64

func newSecret() (s secret) {
	var b [8 * len(s)]byte
	rand.Read(b[:]) // never fails
	for i := range s {
		s[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return s
}

// hash spreads keys over 64 bits. First comes the sum of products NH of UMAC (Black
// and others, CRYPTO 1999; RFC 4418 section 5.2), whose 128 bits are the same for two
// keys with a chance of 2^-64 for whoever does not know s. It is linear in each word;
// what follows is not, so that the ports and addresses of a sweep, which follow each
// other, do not keep step with the buckets.
func (s *secret) hash(k *key) uint64 {
	h0, l0 := bits.Mul64(k.a.hi+s[0], k.a.lo+s[1])
	h1, l1 := bits.Mul64(k.b.hi+s[2], k.b.lo+s[3])
	h2, l2 := bits.Mul64((uint64(k.ports)<<16|uint64(k.class)<<8|uint64(k.v4))+s[4], s[5])
	lo, c := bits.Add64(l0, l1, 0)
	hi, _ := bits.Add64(h0, h1, c)
	lo, c = bits.Add64(lo, l2, 0)
	hi, _ = bits.Add64(hi, h2, c)
	hi, lo = bits.Mul64(hi^s[6], lo^s[7])
	return hi ^ lo
}

// side is an end of a conversation.
type side uint8

const (
	first  side = 1
	second side = 2
)

func (s side) other() side { return s ^ 3 }
