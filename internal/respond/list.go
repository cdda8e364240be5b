package respond

import (
	"net/netip"
	"runtime"
	"slices"
	"sort"
	"time"
)

// InForce is one row of the book.
type InForce struct {
	Ban     Ban
	Host    netip.Addr // the one of Ban.Prefix that steps were run for, and that files list; zero: its first
	Methods []string   // names of native methods that hold it; not to be changed
	Steps   []Step     // owner's steps that stand
	Lasting []Step     // those that only a person can undo

	Counted bool   // a method that holds it counts what it drops
	Dropped uint64 // packets
	Alive   bool   // as Counter has it
}

// count asks for what the ban of row has dropped.
func (row *InForce) count(counters map[string]Counter) {
	for _, name := range row.Methods {
		if c := counters[name]; c != nil {
			if dropped, alive, ok := c.Counts(row.Ban.Prefix); ok {
				row.counted(dropped, alive)
			}
		}
	}
}

func (row *InForce) counted(dropped uint64, alive bool) {
	row.Counted, row.Alive = true, row.Alive || alive
	row.Dropped += dropped
}

// countMany is how many rows there are before their counters are asked for all at once.
const countMany = 256

// countAll asks for what the bans of rows, which are in order, have dropped.
func countAll(rows []InForce, counters map[string]Counter) {
	if len(rows) < countMany {
		for i := range rows {
			rows[i].count(counters)
		}
		return
	}
	for name, c := range counters {
		// With an error, what was not told of is not counted.
		_ = c.EachCount(func(p netip.Prefix, dropped uint64, alive bool) {
			i := sort.Search(len(rows), func(i int) bool { return rows[i].Ban.Prefix.Compare(p) >= 0 })
			if i < len(rows) && rows[i].Ban.Prefix == p && slices.Contains(rows[i].Methods, name) {
				rows[i].counted(dropped, alive)
			}
		})
	}
}

// counters are the methods that count, by name.
func (r *Responder) counters() map[string]Counter {
	out := make(map[string]Counter)
	for name, m := range r.known {
		if c, ok := m.Method.(Counter); ok {
			out[name] = c
		}
	}
	return out
}

// row is e as it stands now.
func (r *Responder) row(e *entry, now time.Time) InForce {
	row := InForce{Ban: e.ban(), Host: e.hostAddr(), Steps: slices.Clone(e.done), Lasting: r.lasting(e.done)}
	if e.native(now) {
		row.Methods = e.holders.names
	}
	others := e.leaving
	if e.staging != nil {
		others = slices.Concat(e.leaving, e.staging.taking)
	}
	for _, m := range others {
		if !slices.Contains(row.Methods, m.Name()) {
			row.Methods = append(row.Methods, m.Name())
		}
	}
	return row
}

// each gives all entries to f. Now and then others get a turn: what they add or take
// out meanwhile may be missing, and is in order otherwise. Calls hold r.mu.
func (r *Responder) each(f func(*entry)) {
	n := 0
	for e := range r.book.entries.all {
		f(e)
		if n++; n%turn == 0 {
			r.yield()
		}
	}
}

// yield gives others a turn.
func (r *Responder) yield() {
	r.mu.Unlock()
	runtime.Gosched()
	r.mu.Lock()
}

// Size is how many prefixes the book has. It waits for nobody, so a Ledger may ask.
func (r *Responder) Size() int { return int(r.book.size.Load()) }

// Count is how many bans are in force. A dry run is not.
func (r *Responder) Count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, n := time.Now(), 0
	r.each(func(e *entry) {
		if r.book.blocks(e, now) {
			n++
		}
	})
	return n
}

// List gives what is in force, and what is dry run, in the order of prefixes. What
// begins or ends meanwhile may be missing.
func (r *Responder) List() []InForce {
	out, counters := r.rows()
	countAll(out, counters) // which may take a while: nobody waits for it
	return out
}

func (r *Responder) rows() ([]InForce, map[string]Counter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	stand := make([]*entry, 0, r.book.entries.number)
	r.each(func(e *entry) {
		if e.native(now) || r.book.blocks(e, now) {
			stand = append(stand, e)
		}
	})
	r.mu.Unlock()
	slices.SortFunc(stand, func(a, b *entry) int { return a.prefix.Compare(b.prefix) })
	out := make([]InForce, 0, len(stand)) // 350 bytes each
	r.mu.Lock()
	for i, e := range stand {
		if r.book.entries.of(e.prefix) == e {
			out = append(out, r.row(e, now))
		}
		if i%turn == turn-1 {
			r.yield()
		}
	}
	return out, r.counters()
}

// Relist tells once more of everybody whom the ledger has been told of.
func (r *Responder) Relist(tell func(b Ban, host netip.Addr)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.each(func(e *entry) {
		if e.listed {
			tell(e.ban(), e.hostAddr())
		}
	})
}
