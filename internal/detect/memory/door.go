package memory

const (
	blockBytes = 64 // a cache line
	perBlock   = 64 // entries of a full generation per block: 8 bits each
	doorHashes = 5
)

type block [blockBytes / 8]uint64

// door is the doorkeeper: a blocked Bloom filter (Putze, Sanders and Singler 2007) in two
// generations. When the newer one has as many entries as 8 bits each allow, it becomes
// the older one and an empty one is begun. So the last 8.4 million entries at least are
// known (with 8 MiB a generation), which is 7.7 hours of 300 forged addresses a second, and
// at most twice as many.
//
// Who never was there is taken for known with a chance of (1-e^(-5/8))^5 = 2.2 % by a full
// generation, 2.4 % because blocks are not all equally full, and so of 2.4 to 4.7 % by
// both. That does little harm: a forged address gets off probation with a single
// failure then, and pushes out nobody who has more while anybody has as little.
type door struct {
	blocks       int
	newer, older []block
	n            int // entries of newer
}

// where is the block of h, and where in it its bits are: 9 bits of mix for each.
func (d *door) where(h uint64) (i int, mix uint64) {
	return int((h >> 32) * uint64(d.blocks) >> 32), h * 0x9e3779b97f4a7c15 >> 19
}

func (d *door) has(h uint64) bool {
	i, mix := d.where(h)
	return d.newer != nil && d.newer[i].has(mix) || d.older != nil && d.older[i].has(mix)
}

func (d *door) add(h uint64) {
	if d.newer == nil {
		d.newer = make([]block, d.blocks)
	}
	if d.n >= d.blocks*perBlock {
		d.newer, d.older = d.older, d.newer
		d.n = 0
		if d.newer == nil {
			d.newer = make([]block, d.blocks)
		}
		clear(d.newer)
	}
	i, mix := d.where(h)
	if !d.newer[i].has(mix) {
		d.newer[i].add(mix)
		d.n++
	}
}

func (d *door) bytes() int { return (len(d.newer) + len(d.older)) * blockBytes }

func (b *block) has(mix uint64) bool {
	for range doorHashes {
		if b[mix>>6&7]&(1<<(mix&63)) == 0 {
			return false
		}
		mix >>= 9
	}
	return true
}

func (b *block) add(mix uint64) {
	for range doorHashes {
		b[mix>>6&7] |= 1 << (mix & 63)
		mix >>= 9
	}
}
