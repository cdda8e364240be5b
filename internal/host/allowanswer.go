package host

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// AllowedStats are counters of AllowedNames.
type AllowedStats struct {
	Asked   uint64 // questions for the addresses of a name
	Failed  uint64 // of them, those without an answer
	LeftOut uint64 // addresses that were left out: of no host, or too many
}

// Unresolved is a name that nobody answers for.
type Unresolved struct {
	Name    string
	Missing bool // there is no such name, or it has no address
	Kept    int  // addresses of before that are kept
}

// Unresolved lists the names without an answer, from the second failure on.
func (a *AllowedNames) Unresolved() []Unresolved {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []Unresolved
	for _, name := range slices.Sorted(maps.Keys(a.names)) {
		if n := a.names[name]; n.failures > 1 {
			out = append(out, Unresolved{name, n.missing, len(n.until)})
		}
	}
	return out
}

// allowedName is one name of the ignore file.
type allowedName struct {
	until    map[netip.Addr]time.Time // addresses, and when each goes unless it is named again
	due      time.Time
	failures int // in a row
	since    time.Time
	missing  bool
}

// resolved is what asking for one family came to.
type resolved struct {
	addrs   []netip.Addr
	missing bool // the answer is that there is nothing
	err     error
}

// take takes in an answer. Where one family failed, its addresses stay as they are;
// that there are none of it is an answer if there are some of the other.
func (n *allowedName) take(families *[2]resolved, now time.Time) (leftOut uint64) {
	keep := func(a netip.Addr) { n.until[a] = now.Add(allowGone) }
	known := func(v6 bool) {
		for a := range n.until {
			if a.Is6() == v6 {
				keep(a)
			}
		}
	}
	answered := false
	for _, f := range families {
		for _, addr := range f.addrs {
			addr = addr.Unmap().WithZone("")
			if !isHost(addr) {
				leftOut++
				continue
			}
			answered = true
			keep(addr)
		}
	}
	if answered {
		n.failures, n.missing, n.due = 0, false, now.Add(allowEvery)
	} else {
		if n.failures++; n.failures == 1 {
			n.since = now
		}
		n.missing = families[0].missing && families[1].missing
		n.due = now.Add(min(allowEvery, allowAgain<<min(n.failures-1, 10)))
	}
	for i, f := range families {
		failed := f.err != nil && !f.missing
		if failed && answered || !answered && now.Sub(n.since) < allowStale {
			known(i == 1)
		}
	}
	return leftOut + n.shrink(now)
}

// shrink lets go who is not named any more, and who is too many: those first that
// were named the longest time ago.
func (n *allowedName) shrink(now time.Time) (leftOut uint64) {
	maps.DeleteFunc(n.until, func(_ netip.Addr, until time.Time) bool { return !until.After(now) })
	if len(n.until) <= maxAllowedAddr {
		return 0
	}
	addrs := slices.SortedFunc(maps.Keys(n.until), func(a, b netip.Addr) int {
		if c := n.until[b].Compare(n.until[a]); c != 0 {
			return c
		}
		return a.Compare(b)
	})
	for _, a := range addrs[maxAllowedAddr:] {
		delete(n.until, a)
		leftOut++
	}
	return leftOut
}

// isHost reports whether a name may stand for a: an address that a host can have
// beyond its own link.
func isHost(a netip.Addr) bool {
	if a.Is4() {
		if b := a.As4(); b[0] == 0 || b[0] >= 240 { // RFC 1122 section 3.2.1.3, RFC 1112 section 4
			return false
		}
	}
	return a.IsGlobalUnicast()
}
