package sqlite

import (
	"portsentry/internal/detect"
)

// place is where a row is found: part of its hash, so that another row is hardly ever
// looked at, and its number, and one. 0: nothing is here.
type place struct {
	tag uint32
	row int32
}

// at finds the row of k, whose source has the hash h; if there is none, the place for it.
func (t *table) at(h uint64, k *key) (p *place, found bool) {
	h += (uint64(k.kind)<<8 | uint64(k.proto)) * 0x9e3779b97f4a7c15 // 2^64 by the golden ratio: every bit matters
	tag := uint32(h >> 32)
	for n := h; ; n++ {
		p = &t.index[n%indexSize]
		switch {
		case p.row == 0:
			p.tag = tag
			return p, false
		case p.tag == tag && t.rows[p.row-1].key == *k:
			return p, true
		}
	}
}

// find gives the row of k, whose source has the hash h, or makes one if there is room:
// proved is for sources that nobody can forge.
func (t *table) find(h uint64, k key, proved bool) (*row, int32) {
	p, found := t.at(h, &k)
	if found {
		return &t.rows[p.row-1], p.row - 1
	}
	switch n := len(t.rows); {
	case n >= maxRows-keptNobody, !proved && t.forged >= maxForged:
		return nil, 0
	case !proved:
		t.forged++
	}
	t.rows = append(t.rows, row{key: k, proved: proved})
	p.row = int32(len(t.rows))
	return &t.rows[p.row-1], p.row - 1
}

// of is the row of those for whom there is none.
func (t *table) of(kind detect.Kind) (*row, int32) {
	at := &t.nobody[kind]
	if *at == 0 {
		t.rows = append(t.rows, row{key: key{kind: kind, proto: nobodyProto}})
		*at = int32(len(t.rows))
	}
	return &t.rows[*at-1], *at - 1
}
