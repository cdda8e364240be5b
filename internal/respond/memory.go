package respond

import (
	"hash/maphash"
	"net/netip"
	"time"
)

// MaxPast bounds how many prefixes are remembered that were banned on proof, and how
// many that were so without: the latter anybody can have made.
const MaxPast = 1 << 16

// defaultKeep is how long is remembered until SetMemory says something else.
const defaultKeep = 90 * 24 * time.Hour

// memory is how often prefixes have been banned before.
type memory struct {
	keep             time.Duration
	proved, unproved pastTable // a prefix is in one of them
}

type past struct {
	times  int32 // in all
	proved int32 // on proof
	ended  int64 // the last of them, unix seconds
}

func newMemory() memory {
	seed := maphash.MakeSeed()
	return memory{keep: defaultKeep, proved: pastTable{seed: seed}, unproved: pastTable{seed: seed}}
}

// of is what is remembered of p.
func (m *memory) of(p netip.Prefix, now time.Time) past {
	old, ok := m.proved.get(p)
	if !ok {
		if old, ok = m.unproved.get(p); !ok {
			return past{}
		}
	}
	if now.Unix()-old.ended > int64(m.keep/time.Second) {
		m.forget(p)
		return past{}
	}
	return old
}

// add remembers one more, the nth on such evidence.
func (m *memory) add(p netip.Prefix, n int32, proved bool, ended, now time.Time) {
	old := m.of(p, now)
	if old.times++; proved {
		old.proved = max(old.proved, n)
	}
	old.times = max(old.times, n)
	old.ended = max(old.ended, ended.Unix())
	m.forget(p)
	into := &m.unproved
	if old.proved > 0 {
		into = &m.proved
	}
	into.put(p, old)
}

func (m *memory) forget(p netip.Prefix) {
	m.proved.remove(p)
	m.unproved.remove(p)
}

// SetMemory says how long an earlier ban counts: DATABASE_KEEP.
func (r *Responder) SetMemory(keep time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.book.past.keep = keep
}
