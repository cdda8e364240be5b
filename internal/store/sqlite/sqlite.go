// Package sqlite keeps what happened in a database of the machine's own: Records,
// and the beginnings and ends of bans in; rows of the past, and the bans that a start
// has to put back, out. What comes in is taken by plain call, without an allocation or
// a wait: it is counted in tables of a fixed size, and one goroutine writes it down.
// Where the disk does not take it, all goes on in memory, and that is said.
package sqlite

import (
	"database/sql"
	"hash/maphash"
	"net/netip"
	"os"
	"sync"
	"time"

	"portsentry/internal/respond"
	"portsentry/internal/store"
)

// Options of a Journal.
type Options struct {
	Path string        // "": kept in memory alone
	Keep time.Duration // what is older is forgotten
	Size int64         // bytes that the file takes at most

	// Say states what is wrong with the database under one of a few keys, or with ""
	// that it is over. It is called with nothing held.
	Say func(key, sentence string)
	// Standing gives the bans in force, for a database that is begun while they are.
	Standing func() []respond.InForce
}

// memorySize is what a database in memory takes at most, and memoryBans how many of the
// bans in force it is told of when it is begun: it has no disk to go to.
const (
	memorySize = 8 << 20
	memoryBans = 8192
)

// Stats counts what came and what became of it. All but Waiting and Bytes only grow.
type Stats struct {
	Seen     uint64 // sightings
	Together uint64 // of them, counted without a source for lack of room
	Lost     uint64 // beginnings and ends of bans, and changes, for which there was no room
	Written  uint64 // rows
	Failed   uint64 // times that the disk did not take them
	Waiting  int    // rows and bans that are not written yet
	Bytes    int64  // that the database takes
}

// Journal keeps what happened. Its methods may be called from any goroutine.
type Journal struct {
	say      func(key, sentence string)
	standing func() []respond.InForce

	seed maphash.Seed // nobody can aim at a place in seen or ring

	mu    sync.Mutex // of what is not written yet; held for moments
	seen  table
	ring  ring
	scans scans
	queue queue
	stats Stats

	wake   chan struct{}      // there is something to write
	asked  chan chan struct{} // somebody waits for it to be written
	moves  chan Options
	broken chan error // what a check of the file found

	base  sync.RWMutex // read by who asks, written by who opens and closes
	o     Options
	write *sql.DB // nil: not open
	read  *sql.DB // in memory the same as write
	kept  bool    // write is the file, not memory
	empty bool    // and nothing was in it
	node  node    // which file it is
}

// Open opens the database at o.Path. One that is not there is begun by Run, for there is
// nothing in it that anybody could wait for. A file that is damaged or of a later version
// is set aside. What is wrong is said: none of it is a reason not to start, for everything
// goes on in memory then.
func Open(o Options) *Journal {
	j := &Journal{
		seed: maphash.MakeSeed(),
		say:  o.Say, standing: o.Standing, o: o,
		wake: make(chan struct{}, 1), asked: make(chan chan struct{}), moves: make(chan Options, 1), broken: make(chan error, 1),
	}
	if st, err := os.Stat(o.Path); err == nil && st.Size() > 0 {
		j.openFile()
	}
	return j
}

// Set has the journal kept as o says from now on: in another file, perhaps. Say and
// Standing stay as they are.
func (j *Journal) Set(o Options) {
	for {
		select {
		case j.moves <- o:
			return
		case <-j.moves: // an earlier one that nobody has come to
		}
	}
}

// Close closes the database, when Run has ended.
func (j *Journal) Close() error {
	j.base.Lock()
	defer j.base.Unlock()
	return j.close()
}

// Stats is a snapshot of the counters.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.stats
	s.Together, s.Lost = j.seen.together, j.queue.lost
	s.Waiting = j.seen.dirty() + j.queue.len()
	return s
}

func (j *Journal) hash(a netip.Addr) uint64 {
	key := a.As16()
	return maphash.Bytes(j.seed, key[:])
}

// Seen counts one sighting. It neither waits nor allocates, and keeps nothing of r but
// its strings.
func (j *Journal) Seen(r *store.Record) {
	h := j.hash(r.Verdict.Sighting.Src)
	j.mu.Lock()
	j.stats.Seen++
	j.ring.put(h, &r.Verdict.Sighting)
	j.scans.put(&r.Verdict.Sighting)
	first := j.seen.count(h, r)
	j.mu.Unlock()
	if first {
		j.nudge()
	}
}

// Named says what the source of r is called, which was found out after it was Seen.
func (j *Journal) Named(r *store.Record) {
	if store.HostName(r.Name) == "" {
		return
	}
	j.mu.Lock()
	first := j.seen.name(j.hash(r.Verdict.Sighting.Src), r)
	j.mu.Unlock()
	if first {
		j.nudge()
	}
}

// Recent are the last packets of a that were looked at, oldest first, as far as they
// are remembered: 64 at most.
func (j *Journal) Recent(a netip.Addr) []store.Packet {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ring.recent(j.hash(a), a, mostRecent, 1<<63-1)
}

// Began notes that a ban has begun, or has changed. host is who was seen.
func (j *Journal) Began(b respond.Ban, host netip.Addr) {
	j.add(&event{what: began, ban: b, host: host})
}

// Ended notes that a ban has ended.
func (j *Journal) Ended(b respond.Ban, host netip.Addr, end respond.End) {
	j.add(&event{what: ended, time: time.Now().UnixNano(), ban: b, host: host, end: end})
}

// Changed notes that somebody has changed something; text says what.
func (j *Journal) Changed(by, text string) {
	j.add(&event{what: changed, time: time.Now().UnixNano(), by: by, text: text})
}

func (j *Journal) add(e *event) {
	j.mu.Lock()
	j.queue.push(e)
	j.mu.Unlock()
	j.nudge()
}

func (j *Journal) nudge() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}
