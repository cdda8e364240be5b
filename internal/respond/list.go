package respond

import (
	"net/netip"
	"runtime"
	"slices"
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
	l := r.Listing()
	out := make([]InForce, 0, len(l.stand)) // 350 bytes each
	for row := range l.Rows() {
		out = append(out, *row)
	}
	return out
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
