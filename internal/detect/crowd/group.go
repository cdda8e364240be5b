package crowd

import (
	"fmt"
	"net/netip"
	"time"

	"portsentry/internal/detect"
)

// What says why sources belong together.
type What uint8

// What makes a group.
const (
	Decoys  What = iota // one of them scans, in the names of the others too
	Run                 // one run of one tool
	Network             // a network of sources that shares out a sweep
	Sweep               // sources all over the world, with one header signature, that share out a sweep
)

func (w What) String() string {
	return [...]string{"decoys", "run", "network", "sweep"}[w&3]
}

// Group is what belongs together. It is handed out when it is found and again when it
// has changed.
type Group struct {
	ID   uint64 // from 1 in each Crowd
	What What
	Tool detect.Tool
	// Members are the sources by the order in which they were found out; Count is how
	// many there were, more than are named where there was no room.
	Members     []netip.Addr
	Count       int
	Real        netip.Addr // the one among decoys that proved itself; zero: none yet
	Contacts    int        // since the group was found
	Ports       int        // distinct ones of them
	First, Last int64      // unix nanoseconds
	// Shared: the members share out what together is a scan, each of them too little to
	// be found alone. They scan, as far as unverified packets show.
	Shared bool
	Reason string // in words, for people
}

type member struct {
	addr   netip.Addr
	proof  uint8 // what it did that only somebody who is there can do
	client bool  // it had done so before: somebody's customer whose name is borrowed
}

type group struct {
	id          uint64 // 0: free
	slot        uint16
	what        What
	tool        detect.Tool
	members     []member
	count       int
	real        netip.Addr
	contacts    int
	ports       *[1024]uint64
	nports      int
	first, last int64
	reason      string
	dirty       bool
	shared      bool
	tried       uint64 // a bit for each thing at which a member failed, by its hash
}

type groups struct {
	all     []group
	members int
	lastID  uint64
}

// groupIdle is how long a group lives without a contact. Who comes later belongs to it no
// more, as a borrowed name should not stick to its owner; a new group may have its room
// without being counted as an eviction.
const groupIdle = 24 * time.Hour

func (g *groups) init(n, members int) {
	g.all, g.members = make([]group, min(n, 1<<16)), members
}

// of is the group of s, nil: none.
func (g *groups) of(s *source) *group {
	if s.group == 0 {
		return nil
	}
	if e := &g.all[s.slot]; uint32(e.id) == s.group {
		return e
	}
	return nil
}

// begin makes a group. Where there is no room, the one with the fewest contacts of those
// that were silent the longest goes: this is rare enough to look at all.
func (g *groups) begin(w What, tool detect.Tool, t int64, reason string, st *Stats) *group {
	slot := 0
	for i := range g.all {
		e, b := &g.all[i], &g.all[slot]
		if e.id == 0 {
			slot = i
			break
		}
		if old := t-e.last > int64(groupIdle); old != (t-b.last > int64(groupIdle)) && old ||
			old == (t-b.last > int64(groupIdle)) && e.contacts < b.contacts {
			slot = i
		}
	}
	e := &g.all[slot]
	if e.id != 0 && t-e.last <= int64(groupIdle) {
		st.Groups++
	}
	ports := e.ports
	if ports == nil {
		ports = new([1024]uint64)
	}
	clear(ports[:])
	g.lastID++
	*e = group{id: g.lastID, slot: uint16(slot), what: w, tool: tool, members: e.members[:0], ports: ports,
		first: t, last: t, reason: reason, dirty: true}
	return e
}

// join makes s, the entry of addr, a member.
func (g *groups) join(e *group, s *source, addr [16]byte, st *Stats) {
	if s.group == uint32(e.id) {
		return
	}
	s.group, s.slot = uint32(e.id), e.slot
	if first := int64(s.first) * 1e9; first < e.first-1e9 {
		e.first = first
	}
	g.add(e, addr, s.verified, st)
}

// add names a member, once.
func (g *groups) add(e *group, a [16]byte, client bool, st *Stats) {
	addr := unmap(a)
	for i := range e.members {
		if e.members[i].addr == addr {
			return // it was forgotten for a while
		}
	}
	e.count++
	e.dirty = true
	if len(e.members) >= g.members {
		st.Members++
		return
	}
	e.members = append(e.members, member{addr: addr, client: client})
}

// joinAll makes members of those that were only kept by address, but for those who
// belong elsewhere.
func (c *Crowd) joinAll(e *group, addrs [][16]byte) {
	for i := range addrs {
		s := c.sources.find(&addrs[i])
		switch {
		case s == nil:
			c.groups.add(e, addrs[i], false, &c.stats)
		case c.groups.of(s) == nil:
			c.groups.join(e, s, addrs[i], &c.stats)
		}
	}
}

// note counts a contact of a member.
func (e *group) note(a *about) {
	ct := a.ct
	e.first, e.last = min(e.first, ct.Time), max(e.last, ct.Time)
	e.contacts++
	if w, bit := &e.ports[ct.DstPort>>6], uint64(1)<<(ct.DstPort&63); *w&bit == 0 {
		*w |= bit
		e.nports++
	}
	if e.contacts&(e.contacts-1) == 0 {
		e.dirty = true // as it goes on, ever more rarely
	}
	if e.tool == 0 {
		e.tool = a.tool
	}
	if a.failed {
		e.tried |= 1 << (a.pair & 63)
	}
	if e.what == Run && !e.shared && float64(estimate(e.tried))*networkRule.fails >= decide {
		e.shared, e.dirty = true, true // as if it was one source
	}
	if e.what == Decoys && ct.Verified && !a.again {
		e.proved(a)
	}
}

// proved weighs a handshake by one of the decoys. None can be completed in another's
// name, but the name of a customer of ours may have been borrowed, and customers
// complete handshakes too: so a connection that is closed without a word (a connect
// scan) weighs more than one in which something is said, and who was connected before
// needs more of them. The one with the most is the real one; of equals, nobody.
func (e *group) proved(a *about) {
	addr := a.ct.Src
	var best, second uint8
	who := -1
	for i := range e.members {
		m := &e.members[i]
		if m.addr == addr {
			w := uint8(1)
			if a.ct.Ended && !a.ct.Spoke || a.ct.Kind == detect.KindVersion {
				w = 2
			}
			m.proof = min(m.proof+w, 100)
		}
		p := m.proof
		if m.client {
			p = max(p, 3) - 3
		}
		if p > best {
			best, second, who = p, best, i
		} else if p > second {
			second = p
		}
	}
	var r netip.Addr
	if best > second {
		r = e.members[who].addr
	}
	if r != e.real {
		e.real, e.dirty = r, true
	}
}

// changed yields the groups that are new or have changed.
func (g *groups) changed(yield func(Group) bool) {
	for i := range g.all {
		e := &g.all[i]
		if e.id == 0 || !e.dirty {
			continue
		}
		e.dirty = false
		out := Group{ID: e.id, What: e.what, Tool: e.tool, Count: e.count, Real: e.real, Contacts: e.contacts,
			Ports: e.nports, First: e.first, Last: e.last, Shared: e.shared && e.what != Decoys, Reason: e.reason, Members: make([]netip.Addr, len(e.members))}
		for j := range e.members {
			out.Members[j] = e.members[j].addr
		}
		if e.real.IsValid() {
			out.Reason += fmt.Sprintf("; %s completed connections that the others did not", e.real)
		}
		if !yield(out) {
			return
		}
	}
}
