package decode

import (
	"encoding/binary"
	"time"
)

// Bounds of the fragment table.
const (
	fragSlots = 128 // datagrams held
	fragHead  = 64  // bytes of each that are kept: the longest TCP header is 60

	// How long Linux waits for the rest of a datagram. Ours must not differ: a
	// shorter wait could be sat out, a longer one mixes datagrams.
	fragWait4 = int64(30 * time.Second) // net.ipv4.ipfrag_time
	fragWait6 = int64(60 * time.Second) // net.ipv6.ip6frag_time, RFC 8200 section 4.5
)

// fragTable holds the datagrams begun last. They take their slots in turn, so
// that slot next is always the oldest.
type fragTable struct {
	tags  [fragSlots]uint32 // hash of the key; 0: free
	next  int
	slots [fragSlots]datagram
}

// fragKey tells datagrams apart. In IPv6 the next header is no part of it (RFC
// 8200 section 4.5): only the first fragment's counts. Fragments with a wrong
// IPv4 header checksum, which no host takes, are gathered apart, so that they
// cannot shadow real ones.
type fragKey struct {
	addrs [32]byte // source and destination, 8 or 32 bytes
	id    uint32
	vlan  [2]uint16
	proto uint8
	v6    bool
	bad   bool
}

// tag is a hash of the key, never 0. It only saves comparisons: whoever makes
// tags collide gains nothing.
func (k *fragKey) tag() uint32 {
	h := uint64(k.id)<<8 | uint64(k.proto)
	for n := 0; n < len(k.addrs); n += 8 {
		h = (h ^ binary.LittleEndian.Uint64(k.addrs[n:])) * 0x9e3779b97f4a7c15
		h ^= h >> 32
		if !k.v6 {
			break
		}
	}
	return uint32(h) | 1
}

// find returns the datagram that p is a fragment of, a new one if need be, and
// its slot.
func (d *Decoder) find(p *Probe, addrs []byte) (*datagram, int) {
	key := fragKey{id: p.IPID, vlan: p.VLAN, v6: p.IsIPv6(), bad: p.Marks&BadIPChecksum != 0}
	copy(key.addrs[:], addrs)
	if !key.v6 {
		key.proto = p.Proto
	}
	t, tag := &d.frags, key.tag()
	for i := range t.tags {
		if g := &t.slots[i]; t.tags[i] == tag && g.key == key {
			if g.units == 0 {
				g.began = p.Time
			}
			if !g.old(p.Time) {
				return g, i
			}
			d.forget(i, p.Time)
		}
	}
	i := t.next
	t.next = (i + 1) % fragSlots
	d.forget(i, p.Time)
	g := &t.slots[i]
	g.reset()
	g.key, g.began, g.overlapped, g.options = key, p.Time, false, false
	t.tags[i] = tag
	return g, i
}

// forget frees slot i and counts what was lost by it.
func (d *Decoder) forget(i int, now int64) {
	g := &d.frags.slots[i]
	if d.frags.tags[i] != 0 && !g.done && g.units > 0 {
		if g.old(now) {
			d.expired.Add(1)
		} else {
			d.evicted.Add(1)
		}
	}
	d.frags.tags[i] = 0
}

// old reports whether the host has given the datagram up. Capture files may
// jump back in time: that far is another day.
func (g *datagram) old(now int64) bool {
	wait := fragWait4
	if g.key.v6 {
		wait = fragWait6
	}
	age := now - g.began
	return age > wait || age < -wait
}
