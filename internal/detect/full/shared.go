package full

import (
	"net/netip"
	"slices"

	"portsentry/internal/detect"
)

// Shared gives what is known of sources that have their part in a sweep which many share
// out, and do too little to be found alone. members are their addresses, each with the
// number of its sweep. A scan is of one source, by the kind of probe that failed first;
// its score is the source's own.
func (e *Engine) Shared(members map[netip.Addr]uint64) []detect.Scan {
	campaigns := make(map[netip.Addr]uint64, len(members))
	for a, id := range members {
		campaigns[sourceOf(a)] = id
	}
	of := make(map[netip.Addr]*finding)
	var all []*finding
	for b := range e.boards.all() {
		if !b.lasts() {
			continue
		}
		src := b.source()
		id := campaigns[src]
		if id == 0 || e.found.has(src) {
			continue
		}
		f := of[src]
		if f == nil {
			i := slices.IndexFunc(e.things(b), thing.gone)
			if i < 0 {
				continue
			}
			t := e.things(b)[i]
			f = &finding{from: b.address(), kind: t.kind(), proto: uint8(t.service() >> 16), first: b.first, last: b.last, campaign: id}
			of[src], all = f, append(all, f)
		}
		for _, t := range e.things(b) {
			if t.kind() == f.kind {
				f.add(t)
			}
		}
		f.first, f.last = min(f.first, b.first), max(f.last, b.last)
		f.score, f.tool = max(f.score, b.score), max(f.tool, b.tool)
	}
	out := make([]detect.Scan, 0, len(all))
	for _, f := range all {
		if f.failed < 2 {
			continue // a neighbour, it may be, who got one thing wrong
		}
		var s detect.Scan
		f.fill(&s, e.o.Labels)
		s.Direction, s.Found = detect.Distributed, f.last
		out = append(out, s)
	}
	return out
}
