package respond

import (
	"net/netip"
	"slices"
	"time"
)

// InForce is one row of the book.
type InForce struct {
	Ban     Ban
	Host    netip.Addr // the one of Ban.Prefix that steps were run for, and that files list; zero: its first
	Methods []string   // names of native methods that hold it
	Steps   []Step     // owner's steps that stand
	Lasting []Step     // those that only a person can undo

	Counted bool   // a method that holds it counts what it drops
	Dropped uint64 // packets
	Alive   bool   // as Counter has it
}

// count asks for what the ban of row has dropped.
func (row *InForce) count(counters map[string]Counter) {
	for _, name := range row.Methods {
		c := counters[name]
		if c == nil {
			continue
		}
		if dropped, alive, ok := c.Counts(row.Ban.Prefix); ok {
			row.Counted, row.Alive = true, row.Alive || alive
			row.Dropped += dropped
		}
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
	row := InForce{Ban: e.ban, Host: e.host, Steps: slices.Clone(e.done), Lasting: r.lasting(e.done)}
	holders := e.leaving
	if e.native(now) {
		holders = slices.Concat(e.methods, e.leaving)
		if e.staging != nil {
			holders = append(holders, e.staging.taking...)
		}
	}
	for _, m := range holders {
		if !slices.Contains(row.Methods, m.Name()) {
			row.Methods = append(row.Methods, m.Name())
		}
	}
	return row
}

// Count is how many bans are in force. A dry run is not.
func (r *Responder) Count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, n := time.Now(), 0
	for _, e := range r.book.entries {
		if e.blocks(now) {
			n++
		}
	}
	return n
}

// List gives what is in force, and what is dry run, in the order of prefixes.
func (r *Responder) List() []InForce {
	out, counters := r.rows()
	for i := range out { // which may take a while: nobody waits for it
		out[i].count(counters)
	}
	slices.SortFunc(out, func(a, b InForce) int { return a.Ban.Prefix.Compare(b.Ban.Prefix) })
	return out
}

func (r *Responder) rows() ([]InForce, map[string]Counter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	out := make([]InForce, 0, len(r.book.entries))
	for _, e := range r.book.entries {
		if e.native(now) || e.blocks(now) {
			out = append(out, r.row(e, now))
		}
	}
	return out, r.counters()
}

// Relist tells the ledger once more of everybody that it has been told of: it has
// another file.
func (r *Responder) Relist() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.book.entries {
		if e.listed {
			r.ledger.Began(e.ban, e.host)
		}
	}
}
