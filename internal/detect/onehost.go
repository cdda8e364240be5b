package detect

import (
	"encoding/binary"
	"net/netip"
)

// OneHost is the network that counts as one source: an address of IPv4, or the /64
// that a host of IPv6 has to itself (RFC 4291 section 2.5.1). Where a /64 is shared by
// everybody who comes through a translator, it is the address.
func OneHost(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() && !translated(a) {
		bits = 64
	}
	p, _ := a.WithZone("").Prefix(bits)
	return p
}

// translated reports whether a stands for an address of IPv4: all of those are in one
// /64 of 64:ff9b::/96 or of a network in 64:ff9b:1::/48 (RFC 6052 section 2.1, RFC
// 8215), and the clients of one Teredo server in one of 2001::/32 (RFC 4380 section 4).
func translated(a netip.Addr) bool {
	b := a.As16()
	first := binary.BigEndian.Uint32(b[:])
	return first == 0x0064ff9b || first == 0x20010000
}
