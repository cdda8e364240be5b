package memory

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"iter"
	"net/netip"
	"time"
)

// SumsOptions are what Sums are built from.
type SumsOptions struct {
	Keys   int           // keys with counts of their own; 0: 4,096, 1 KiB each
	Window time.Duration // 0: an hour. See Sums.
}

// Sums is what many sources do together: for each key, a network or the run of a tool,
// how many contacts there were, from how many sources, to how many ports. That shows
// the scan whose sources are each below their own threshold: a /24 of
// which 30 sources fail at 200 ports. Its memory is bounded.
//
// Contacts halve at each end of a window; sources and ports count those of this
// window and the one before. All keys have contacts, too many rather than too few
// (count-min). Sources and ports are only counted for the keys with the most contacts:
// who has no row of its own gets one where it has more than the weakest of the eight
// rows that it may have, and what was distinct before then is not known. The numbers
// of sources and ports have a standard error of 6.5 %. All hashes are keyed: nobody can
// choose addresses that spoil them.
//
// The typical use: Add each failed contact, and when it says so, ask Distinct; with
// several workers, each has Sums of its own (Sibling), and now and then all are
// merged into a new one, of which All tells.
//
// Calls come from one goroutine.
type Sums struct {
	key     key
	window  int64
	epoch   int64 // number of the window that the latest contact was in
	sets    [][rowsPerSet]*row
	counts  *counts
	rowsNow int
}

const rowsPerSet = 8

// row counts for one key. The two generations of a distinct counter are this window and
// the one before.
type row struct {
	id, hash       uint64
	epoch          int64
	contacts       uint32
	sources, ports [2]distinct
}

// Sum is what is known of a key.
type Sum struct {
	Key            uint64
	Contacts       float64
	Sources, Ports float64
}

// ErrUnrelated: the Sums to merge are no siblings.
var ErrUnrelated = errors.New("sums with different keys or sizes cannot be merged")

// NewSums are empty sums with a new random hash key.
func NewSums(o SumsOptions) *Sums {
	var b [16]byte
	rand.Read(b[:]) //nolint:errcheck // never fails (crypto/rand)
	return newSums(o, keyOf(b))
}

func newSums(o SumsOptions, k key) *Sums {
	if o.Keys <= 0 {
		o.Keys = 4096
	}
	if o.Window <= 0 {
		o.Window = time.Hour
	}
	sets := (o.Keys + rowsPerSet - 1) / rowsPerSet
	return &Sums{key: k, window: int64(o.Window), sets: make([][rowsPerSet]*row, sets)}
}

// Sibling are empty Sums that can be merged with s.
func (s *Sums) Sibling() *Sums {
	return &Sums{key: s.key, window: s.window, sets: make([][rowsPerSet]*row, len(s.sets))}
}

// Network is the key of the network that a belongs to: its /24, or its /64.
func Network(a netip.Addr) uint64 {
	if a = a.Unmap(); a.Is4() {
		b := a.As4()
		return uint64(binary.BigEndian.Uint32(b[:]) >> 8) // in IPv6, 0::/40: reserved
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8])
}

// Add counts a contact of src with port at the time t (unix nanoseconds) for key. It reports
// whether Distinct(key) has changed by that: rarely, once the numbers are large.
func (s *Sums) Add(key uint64, src netip.Addr, port uint16, t int64) bool {
	s.advance(t / s.window)
	h := s.key.hash(key, 0)
	r := s.find(h)
	if r != nil {
		s.age(r)
		r.contacts = plus(r.contacts, 1)
	} else {
		if r = s.admit(key, h, plus(s.before(h), 1)); r == nil {
			return false
		}
	}
	b := src.As16()
	a := r.see(&r.sources, s.key.hash(binary.LittleEndian.Uint64(b[:8]), binary.LittleEndian.Uint64(b[8:])))
	p := r.see(&r.ports, s.key.hash(uint64(port), 1))
	return a || p
}

// see adds to the newer generation and says whether both together have grown.
func (r *row) see(d *[2]distinct, h uint64) bool {
	i, grew := d[0].add(h)
	return grew && d[0][i] > d[1][i]
}

// Contacts is the number of contacts of key, or more.
func (s *Sums) Contacts(key uint64) float64 {
	h := s.key.hash(key, 0)
	if r := s.find(h); r != nil {
		s.age(r)
		return float64(r.contacts)
	}
	return float64(s.before(h))
}

// Distinct are the numbers of sources and ports of key, 0 if it has no row.
func (s *Sums) Distinct(key uint64) (sources, ports float64) {
	r := s.find(s.key.hash(key, 0))
	if r == nil {
		return 0, 0
	}
	s.age(r)
	return both(&r.sources), both(&r.ports)
}

func both(d *[2]distinct) float64 {
	all := d[0]
	all.merge(&d[1])
	return all.count()
}

// All are the keys that have a row, in no order.
func (s *Sums) All() iter.Seq[Sum] {
	return func(yield func(Sum) bool) {
		for i := range s.sets {
			for _, r := range s.sets[i] {
				if r == nil {
					continue
				}
				s.age(r)
				if !yield(Sum{r.id, float64(r.contacts), both(&r.sources), both(&r.ports)}) {
					return
				}
			}
		}
	}
}

// Merge adds what o counted; of o only the window may change. Distinct numbers are those of the union.
func (s *Sums) Merge(o *Sums) error {
	if s.key != o.key || s.window != o.window || len(s.sets) != len(o.sets) {
		return ErrUnrelated
	}
	s.advance(o.epoch)
	o.advance(s.epoch)
	if o.counts != nil {
		for i := range s.sets {
			for _, r := range s.sets[i] {
				if r != nil && o.find(r.hash) == nil {
					s.age(r)
					r.contacts = plus(r.contacts, o.counts.get(r.hash))
				}
			}
		}
		s.sketch().merge(o.counts)
	}
	for i := range o.sets {
		for _, from := range o.sets[i] {
			if from == nil {
				continue
			}
			o.age(from)
			r := s.find(from.hash)
			if r != nil {
				s.age(r)
				r.contacts = plus(r.contacts, from.contacts)
			} else {
				n := plus(s.before(from.hash), from.contacts)
				if r = s.admit(from.id, from.hash, n); r == nil {
					continue
				}
			}
			for g := range r.sources {
				r.sources[g].merge(&from.sources[g])
				r.ports[g].merge(&from.ports[g])
			}
		}
	}
	return nil
}

// Bytes is the memory that s takes now.
func (s *Sums) Bytes() int {
	const rowBytes, pointer = 4*registers + 32, 8
	n := len(s.sets)*rowsPerSet*pointer + s.rowsNow*rowBytes
	if s.counts != nil {
		n += depth * width * 4
	}
	return n
}

func (s *Sums) set(h uint64) *[rowsPerSet]*row {
	return &s.sets[(h>>32)*uint64(len(s.sets))>>32]
}

func (s *Sums) find(h uint64) *row {
	for _, r := range s.set(h) {
		if r != nil && r.hash == h {
			return r
		}
	}
	return nil
}

// admit gives a key with n contacts a row, if it has more than the weakest has, or else
// keeps its count and returns nil.
func (s *Sums) admit(id, h uint64, n uint32) *row {
	var weakest *row
	for i, r := range s.set(h) {
		if r == nil {
			weakest = &row{}
			s.set(h)[i] = weakest
			s.rowsNow++
			break
		}
		s.age(r)
		if weakest == nil || r.contacts < weakest.contacts {
			weakest = r
		}
	}
	if weakest.contacts >= n {
		s.sketch().raise(h, n)
		return nil
	}
	if weakest.contacts > 0 {
		s.sketch().raise(weakest.hash, weakest.contacts)
	}
	*weakest = row{id: id, hash: h, epoch: s.epoch, contacts: n}
	return weakest
}

// before is the number of contacts of a key without a row.
func (s *Sums) before(h uint64) uint32 {
	if s.counts == nil {
		return 0
	}
	return s.counts.get(h)
}

func (s *Sums) sketch() *counts {
	if s.counts == nil {
		s.counts = new(counts)
	}
	return s.counts
}

// advance begins a new window. Time that runs backwards belongs to the latest one.
func (s *Sums) advance(epoch int64) {
	if epoch <= s.epoch {
		return
	}
	if s.counts != nil {
		s.counts.halve(epoch - s.epoch)
	}
	s.epoch = epoch
}

// age lets go in r of what is older than the last window.
func (s *Sums) age(r *row) {
	n := s.epoch - r.epoch
	if n <= 0 {
		return
	}
	r.epoch = s.epoch
	r.contacts >>= min(n, 32)
	r.sources[1], r.ports[1] = distinct{}, distinct{}
	if n == 1 {
		r.sources[1], r.ports[1] = r.sources[0], r.ports[0]
	}
	r.sources[0], r.ports[0] = distinct{}, distinct{}
}
