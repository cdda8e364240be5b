package sqlite

import (
	"maps"
	"math/bits"
	"net/netip"
	"time"

	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/store"
)

// span is how long an interval lasts.
const span = 10 * time.Minute

// Room in the table of an interval. Forged sources leave some of it to those that are
// proved, and all leave some to the rows of those for whom there is none.
const (
	maxRows     = 4096
	keptProved  = 1024
	keptNobody  = 64
	maxForged   = maxRows - keptNobody - keptProved
	indexSize   = 2 * maxRows
	maxPorts    = 1024 // ports that are counted apart in an interval
	latestPorts = 64   // see table.latest
	portsBits   = 1024 // see row.ports
	nobodyProto = 0
)

// key is whose row it is.
type key struct {
	source netip.Addr // invalid: those for whom there is no row, together
	kind   detect.Kind
	proto  uint8
}

// row is what was seen of one source and kind in one interval.
type row struct {
	key
	waits     bool // it is on the list of those to be written
	written   bool // and was written before
	proved    bool // nobody can forge it
	evidence  judge.Evidence
	port      uint16 // the first
	dst       netip.Addr
	count     uint64 // what is not written yet
	triggered uint64
	first     int64 // unix nanoseconds
	last      int64
	ports     [portsBits / 64]uint64 // bit n: a port that leaves n over, so they are too few rather than too many
	name      string
	scan      detect.Found
	scanned   int64 // when scan was found
}

func (r *row) distinct() int {
	n := 0
	for _, w := range r.ports {
		n += bits.OnesCount64(w)
	}
	return n
}

// portCount is how often a port was probed.
type portCount struct {
	portKey
	n uint32
}

// portKey is a port that was probed; port 0 stands for those without a count of
// their own.
type portKey struct {
	proto uint8
	port  uint16
}

// table is the interval that is being counted. All of it is made with the first
// sighting, and used again for each interval. A flood looks for rows that are not there:
// that costs a look into index, which fits into the cache of a processor.
type table struct {
	slot     int64      // the interval: unix time by span
	index    []place    // by hash, and onwards from there
	nobody   [256]int32 // by kind the row, and one, of those for whom there is none
	rows     []row
	forged   int     // of them: on evidence that anybody can forge
	list     []int32 // rows that have something to write, once each
	ports    map[portKey]uint32
	latest   [latestPorts]portCount // of ports, what is not in there yet
	together uint64
	taken    int // rows that are being written
}

func slotOf(t int64) int64 { return t / int64(span) }

func (t *table) dirty() int { return len(t.list) + t.taken }

// begin makes room for the interval of a sighting. One that is not wholly written goes
// on beyond its time.
func (t *table) begin(time int64) {
	slot := slotOf(time)
	switch {
	case t.rows == nil:
		t.index, t.rows, t.list = make([]place, indexSize), make([]row, 0, maxRows), make([]int32, 0, maxRows)
		t.ports = make(map[portKey]uint32, maxPorts)
	case slot <= t.slot && slot > t.slot-6, t.dirty() > 0: // a late packet; a clock that was put back is another thing
		return
	}
	clear(t.index)
	clear(t.nobody[:])
	clear(t.rows)
	t.rows, t.list, t.forged, t.slot = t.rows[:0], t.list[:0], 0, slot
}

// count adds one sighting of a source with the hash h, and reports whether nothing waited to be written before.
func (t *table) count(h uint64, rec *store.Record) (first bool) {
	s := &rec.Verdict.Sighting
	t.begin(s.Time)
	first = len(t.list) == 0
	r, i := t.find(h, key{s.Src, s.Kind, s.Proto}, s.Verified)
	if r == nil {
		t.together++
		r, i = t.of(s.Kind)
	}
	if r.count == 0 && r.last == 0 {
		r.first, r.port, r.dst = s.Time, s.DstPort, s.Dst
	}
	r.first, r.last = min(r.first, s.Time), max(r.last, s.Time)
	r.count++
	if s.Triggered {
		r.triggered++
	}
	r.evidence = max(r.evidence, rec.Verdict.Evidence)
	r.ports[s.DstPort%portsBits/64] |= 1 << (s.DstPort % 64)
	if s.Scan.Kind != detect.KindNone {
		r.scan, r.scanned = s.Scan, s.Time
	}
	t.probed(portKey{s.Proto, s.DstPort})
	t.wait(r, i)
	return first
}

// name notes what the source of rec, whose hash is h, is called.
func (t *table) name(h uint64, rec *store.Record) (first bool) {
	s := &rec.Verdict.Sighting
	if t.rows == nil {
		return false
	}
	p, found := t.at(h, &key{s.Src, s.Kind, s.Proto})
	if !found || t.rows[p.row-1].name == rec.Name {
		return false
	}
	first = len(t.list) == 0
	t.rows[p.row-1].name = rec.Name
	t.wait(&t.rows[p.row-1], p.row-1)
	return first
}

func (t *table) wait(r *row, i int32) {
	if !r.waits {
		r.waits = true
		t.list = append(t.list, i)
	}
}

// take copies up to n rows that have something to write into rows, and all ports into
// ports, and counts them as written.
func (t *table) take(rows []row, ports map[portKey]uint32) []row {
	if t.forged >= maxForged {
		t.fold()
	}
	n := min(cap(rows), len(t.list))
	for _, i := range t.list[:n] {
		r := &t.rows[i]
		rows = append(rows, *r)
		r.waits, r.written, r.count, r.triggered = false, true, 0, 0
	}
	t.list = t.list[:copy(t.list, t.list[n:])]
	t.taken = n
	if n > 0 {
		for i := range t.latest {
			t.settle(&t.latest[i])
		}
		maps.Copy(ports, t.ports)
		clear(t.ports)
	}
	return rows
}

// fold counts who has sent one packet without proof among those for whom there is no
// row: where there is no room for more of them, most names are made up, and each would
// cost as much to write as somebody who is there.
func (t *table) fold() {
	kept := t.list[:0]
	for _, i := range t.list {
		r := &t.rows[i]
		if !r.source.IsValid() || r.written || r.proved || r.count > 1 || r.scan.Kind != detect.KindNone {
			kept = append(kept, i)
			continue
		}
		n, at := t.of(r.kind)
		if n.count == 0 && n.last == 0 {
			n.first, n.port, n.dst = r.first, r.port, r.dst
		}
		n.first, n.last = min(n.first, r.first), max(n.last, r.last)
		n.count += r.count
		n.triggered += r.triggered
		n.evidence = max(n.evidence, r.evidence)
		for w := range r.ports {
			n.ports[w] |= r.ports[w]
		}
		t.together += r.count
		r.waits, r.count, r.triggered = false, 0, 0
		if !n.waits {
			n.waits = true
			kept = append(kept, at) // no more than have been taken out
		}
	}
	t.list = kept
}

// back puts back what could not be written.
func (t *table) back(hash func(netip.Addr) uint64, rows []row, ports map[portKey]uint32) {
	t.taken = 0
	for k := range rows {
		i := t.nobody[rows[k].kind] - 1
		if rows[k].source.IsValid() {
			p, _ := t.at(hash(rows[k].source), &rows[k].key)
			i = p.row - 1
		}
		r := &t.rows[i]
		r.count += rows[k].count
		r.triggered += rows[k].triggered
		t.wait(r, i)
	}
	for p, n := range ports {
		t.port(p, n)
	}
	clear(ports)
}

// probed counts one probe of p. A scan or a flood goes to few ports at a time.
func (t *table) probed(p portKey) {
	at := &t.latest[(p.port^uint16(p.proto))%latestPorts]
	if at.portKey != p {
		t.settle(at)
		at.portKey = p
	}
	at.n++
}

// settle counts in ports what is in one of latest.
func (t *table) settle(at *portCount) {
	if at.n > 0 {
		t.port(at.portKey, at.n)
		at.n = 0
	}
}

// port counts n probes of p, among the others where there is no room.
func (t *table) port(p portKey, n uint32) {
	if _, known := t.ports[p]; !known && len(t.ports) >= maxPorts-1 {
		p = portKey{}
	}
	t.ports[p] += n
}
