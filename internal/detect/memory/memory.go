// Package memory remembers for days who failed: detect.Memory of a source in, when
// the tier that looks at every contact lets go of it, and out again when the source
// comes back, after a restart too. It never holds an address, only a keyed hash.
//
// # Fading
//
// h is the half-life. What a source is remembered with after a gap g since its last
// contact is its score times
//
//	f(g) = min(1, 2^(1-g/h))
//
// so nothing fades within one half-life, half of it does in the next one, and after
// 32 days, when the bitmap of days is empty, the source is forgotten. n failures worth s
// each, a gap of g between any two, add up to the geometric series
//
//	S(n) = s (1 + f + ... + f^(n-1)) = s (1-f^n)/(1-f)
//
// With t0 = .95, t1 = .01 and a false alarm in 1e6 a failure is worth s = ln(.99/.05) =
// 2.986 and the decision falls at T = ln(.99/1e-6) = 13.81: five failures make 14.93, so
// S(5) >= T asks for f >= .9612. Fading from the first moment on would have to be so slow
// (h over 17 days) that nothing is forgotten in time, only to catch one port a day. With
// the plateau the slowest five-port scan that is caught has gaps of h (1 + log2(1/f)) =
// 1.057 h: see Horizon.
//
// What the plateau costs: as long as it is one user behind an address, nothing. The test
// is sequential: the chance that an innocent's score ever crosses T is at most e^-T, however
// long it takes (Wald 1945). Addresses change hands, though, and failures of several
// innocents then add up. Where innocents at one address fail at new ports at random, l
// times a day, five failures are enough if none comes so late that more fades than
// may, which is d = 5-T/s = .376 of a failure: the k-th gap, with k failures before it, may
// be g(k) = h (1 + log2(k/(k-d))), that is 1.68, 1.30, 1.19 and 1.14 h. False alarms
// then have the rate
//
//	l (1-e^(-l g(1))) (1-e^(-l g(2))) (1-e^(-l g(3))) (1-e^(-l g(4)))
//
// per address and day, about 3 l (l h)^4. With a failure in 100 days and h = 7 days that
// is 6e-7: one in five years for a thousand such addresses. It grows with the fourth
// power of h, and that is why h is a week, about as long as the lease of an address lasts,
// and not a month; four gaps of a week are also what 32 days have room for.
//
// # Who stays
//
// An entry's worth is its higher score times 2^(-age/h), without a plateau: its order
// among the entries is the same at any time, by log2(score) + last/h. Where there is no room
// the weakest of the 16 entries that could make it goes. A source with k failures
// is thus safe for h log2(k/j) from any number of sources with j. Who comes always
// gets in, or else whoever fills the table once would have shut it for a week.
//
// A source that was seen in one minute only is on probation: those have a quarter of
// the table, and push each other out of that. Who is pushed out there is noted by the
// doorkeeper, a Bloom filter, and is on probation no more when it comes back. Its first
// failures are forgotten then: while many forge addresses, a scan with gaps that are
// longer than the probation (a quarter of the table by their rate) is found one port
// later.
package memory

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"time"

	"portsentry/internal/detect"
)

// Defaults of Options.
const (
	DefaultBytes    = 32 << 20 // 1,048,576 sources
	DefaultHalfLife = 7 * 24 * time.Hour
)

// Options are what a Long is built from.
type Options struct {
	// Bytes is the size that the table may grow to, 32 for a source; 0: DefaultBytes.
	// The doorkeeper takes up to half as much again, while addresses are forged.
	Bytes int
	// HalfLife of scores and of recency, as the package comment says; 0:
	// DefaultHalfLife. At least a minute.
	HalfLife time.Duration
}

// Stats are counters since the start, but for Entries.
type Stats struct {
	Entries   int    // sources remembered now
	Probation int    // of them: seen in one minute only
	Kept      uint64 // memories that were taken
	Refused   uint64 // sources turned away on probation, for want of room there
	PushedOut uint64 // sources forgotten to make room, those on probation among them
}

// Long is the tier of memory for sources that are too slow for any other. It is a
// detect.Past, and like that for one goroutine.
type Long struct {
	key   key
	half  time.Duration
	table table
	door  door
	stats Stats
}

var _ detect.Past = (*Long)(nil)

// New is an empty memory with a new random key.
func New(o Options) *Long {
	var b [16]byte
	rand.Read(b[:]) //nolint:errcheck // never fails (crypto/rand)
	return newKeyed(o, keyOf(b))
}

func newKeyed(o Options, k key) *Long {
	if o.Bytes <= 0 {
		o.Bytes = DefaultBytes
	}
	if o.HalfLife <= 0 {
		o.HalfLife = DefaultHalfLife
	}
	o.HalfLife = max(o.HalfLife, time.Minute)
	l := &Long{key: k, half: o.HalfLife}
	l.table.max = max(1, o.Bytes/bucketBytes)
	l.table.perMinute = 1 / o.HalfLife.Minutes()
	l.door.blocks = max(1, o.Bytes/4/blockBytes)
	return l
}

// Recall is what is remembered of a, faded by the time now (unix nanoseconds). First and
// Last are whole minutes.
func (l *Long) Recall(a netip.Addr, now int64) (detect.Memory, bool) {
	return l.recall(l.hash(a), now)
}

func (l *Long) recall(h uint64, now int64) (detect.Memory, bool) {
	b, i := l.table.find(h)
	if b == nil {
		return detect.Memory{}, false
	}
	m := b.note[i].memory()
	gap := time.Duration(now - m.Last)
	if gap >= forgotten {
		return detect.Memory{}, false
	}
	if f := fade(gap, l.half); f < 1 {
		m.Score *= float32(f)
		m.Verified *= float32(f)
	}
	return m, true
}

// Keep remembers m, in place of what is known of a: m must have grown out of what
// Recall said. A source without a score does not get in.
func (l *Long) Keep(a netip.Addr, m detect.Memory) { l.keep(l.hash(a), noteOf(m)) }

func (l *Long) keep(h uint64, n note) {
	t := &l.table
	if b, i := t.find(h); b != nil {
		t.set(b, i, h, n)
		l.stats.Kept++
		return
	}
	if n.score <= 0 && n.verified <= 0 {
		return
	}
	if n.once() && l.door.has(h) {
		n.first = max(n.last, 1) - 1 // not known when, but in an earlier minute
	}
	if n.once() && l.Crowded() {
		l.probation(h, n)
		return
	}
	if t.insert(h, n) {
		l.stats.PushedOut++
	}
	l.stats.Kept++
}

// probation lets n in on probation, where there is room for no more, in the place of
// one that was on probation in an earlier minute.
func (l *Long) probation(h uint64, n note) {
	b, i := l.table.oldestOnce(h)
	if b == nil { // nobody like it there (1 % of them): the next time it gets in
		l.door.add(h)
		l.stats.Refused++
		return
	}
	if b.note[i].last >= n.last {
		// So many that a minute's do not fit: who is turned away is not noted
		// either, for what the doorkeeper knows is from an earlier minute.
		l.stats.Refused++
		return
	}
	l.door.add(b.hash[i])
	l.table.set(b, i, h, n)
	l.stats.Kept++
	l.stats.PushedOut++
}

// Crowded reports whether all the room on probation is taken: who gets in pushes
// somebody out.
func (l *Long) Crowded() bool { return l.table.once >= l.table.max*slots/4 }

// Stats is read by the goroutine that calls Keep.
func (l *Long) Stats() Stats {
	s := l.stats
	s.Entries, s.Probation = l.table.entries, l.table.once
	return s
}

// Secret is a number for who hashes beside l what l is to keep: as long as the table
// lasts it is the same, and nobody else can know it.
func (l *Long) Secret() uint64 { return l.key.hash(0, 1) }

// Bytes is the memory that l takes now.
func (l *Long) Bytes() int { return l.table.bytes() + l.door.bytes() }

// hash of an address; 0 is what an empty slot has.
func (l *Long) hash(a netip.Addr) uint64 {
	b := a.As16()
	h := l.key.hash(binary.LittleEndian.Uint64(b[:8]), binary.LittleEndian.Uint64(b[8:]))
	return max(h, 1)
}
