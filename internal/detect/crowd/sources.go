package crowd

import "math/bits"

// ways is the number of entries in a bucket of the tables here.
const ways = 4

// source is what is remembered of one address: 32 bytes, so that a bucket is two cache
// lines next to each other.
type source struct {
	key         uint64 // keyed hash of the address; 0: nobody
	first, last uint32 // seconds since 1970
	pair        uint32 // of the hash of what it turned to last
	group       uint32 // 0: none
	slot        uint16 // where the group is
	contacts    uint16
	answered    bool // it had a success, once
	verified    bool // it completed a handshake, once
}

type sources struct {
	buckets [][ways]source
	shift   uint
	keys    *keys
	rng     uint64
}

func (t *sources) init(n int, k *keys) {
	t.buckets, t.shift = buckets[[ways]source](n)
	t.keys, t.rng = k, k.a
}

// buckets makes room for n things in buckets of ways, a power of two of them, and says
// how far a hash is shifted to name one.
func buckets[B any](n int) (b []B, shift uint) {
	log := uint(bits.Len(uint(max(1, n/ways) - 1)))
	return make([]B, 1<<log), 64 - log
}

// find is the entry of addr, nil when there is none.
func (t *sources) find(addr *[16]byte) *source {
	h := t.keys.addr(addr)
	b := &t.buckets[h>>t.shift]
	for i := range b {
		if b[i].key == h|1 {
			return &b[i]
		}
	}
	return nil
}

// at is the entry of the contact's source, a new one where there was none. Where there
// is no room the weaker of two random entries goes, so that forged sources, one contact
// each, push out their own kind.
func (t *sources) at(a *about, st *Stats) (s *source, fresh bool) {
	b, key := &t.buckets[a.src>>t.shift], a.src|1
	free := -1
	for i := range b {
		switch b[i].key {
		case key:
			return &b[i], false
		case 0:
			free = i
		}
	}
	if free < 0 {
		t.rng ^= t.rng << 13
		t.rng ^= t.rng >> 7
		t.rng ^= t.rng << 17
		i := int(t.rng % ways)
		j := (i + 1 + int(t.rng>>8%(ways-1))) % ways
		if free = j; weaker(&b[i], &b[j]) {
			free = i
		}
		st.Evicted++
	}
	sec := uint32(a.ct.Time / 1e9)
	b[free] = source{key: key, first: sec, last: sec}
	return &b[free], true
}

func weaker(a, b *source) bool {
	switch {
	case (a.group == 0) != (b.group == 0):
		return a.group == 0
	case a.contacts != b.contacts:
		return a.contacts < b.contacts
	}
	return a.last < b.last
}
