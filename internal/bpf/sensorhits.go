package bpf

import (
	"encoding/binary"
	"math/bits"
)

// hitBuckets is HIT_BUCKETS of xdp_maps.h.
const hitBuckets = 1 << 13

// hit finds what the program counts about the source of a ban of its own, if
// there is one.
func (s *Sensor) hit(addr [16]byte) (dropped uint64, marks uint8) {
	var in xdpBucket
	at := uint32(siphash(s.config.Hash, binary.NativeEndian.Uint64(addr[:8]), binary.NativeEndian.Uint64(addr[8:]))) % hitBuckets
	if err := s.objects.Hits.Lookup(at, &in); err != nil {
		return 0, 0 // a count less
	}
	now := monotonic()
	for i := range in.Hit {
		if h := &in.Hit[i]; h.Src.B == addr && h.Until > now {
			return uint64(h.Dropped), h.Marks
		}
	}
	return 0, 0
}

// siphash is that of xdp_hash.h: SipHash-2-4 of some words.
func siphash(key [2]uint64, words ...uint64) uint64 {
	v := [4]uint64{key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d, key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573}
	round := func(n int) {
		for range n {
			v[0] += v[1]
			v[2] += v[3]
			v[1] = bits.RotateLeft64(v[1], 13) ^ v[0]
			v[3] = bits.RotateLeft64(v[3], 16) ^ v[2]
			v[0] = bits.RotateLeft64(v[0], 32)
			v[2] += v[1]
			v[0] += v[3]
			v[1] = bits.RotateLeft64(v[1], 17) ^ v[2]
			v[3] = bits.RotateLeft64(v[3], 21) ^ v[0]
			v[2] = bits.RotateLeft64(v[2], 32)
		}
	}
	take := func(m uint64) {
		v[3] ^= m
		round(2)
		v[0] ^= m
	}
	for _, m := range words {
		take(m)
	}
	take(uint64(len(words)*8) << 56)
	v[2] ^= 0xff
	round(4)
	return v[0] ^ v[1] ^ v[2] ^ v[3]
}
