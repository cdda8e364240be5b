package detect

import "net/netip"

// Memory is what is kept of a source that is too slow, or too weak, for the tier
// that looks at every contact.
type Memory struct {
	First, Last int64 // unix nanoseconds
	// Scores, as the sequential test counts: of contacts that anybody can forge, and
	// of verified ones.
	Score, Verified float32
	// Ports are those, with their protocols, that failed, by a keyed hash, so that none
	// counts twice: a set that whoever counts can read.
	Ports uint64
	Days  uint32 // bit 0: the day of Last, bit 1: the day before, ...
}

// Past remembers sources for days. Calls come from one goroutine.
type Past interface {
	// Recall is what is remembered of a at the time now, faded by then.
	Recall(a netip.Addr, now int64) (Memory, bool)
	// Keep remembers m of a, or not: there is no room for those who were seen once.
	Keep(a netip.Addr, m Memory)
}
