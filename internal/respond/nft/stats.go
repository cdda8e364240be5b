package nft

import (
	"context"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Stats are counts of packets since Open or the last Rebuild.
type Stats struct {
	DroppedFull    uint64 // of sources under a full ban
	DroppedSoft    uint64 // under a soft ban, provisional ones and those of one protocol included
	DroppedLimited uint64 // under a limited ban, provisional ones included

	TrapHits uint64 // answered by the trap rules: dropped, all of them
	Overflow uint64 // of these: dropped, but the provisional set had no room for the source

	Unremembered uint64 // packets sent whose flow found no room: late answers to them count as new

	Announced uint64 // hits that Run has passed on; the rest of TrapHits was over the rate, or is Lost
	Lost      uint64 // hits that the kernel announced and Run never got, as far as later numbers show
	Overruns  uint64 // how often the socket's buffer was full
}

// Stats reads the table's counters.
func (t *Table) Stats() (Stats, error) {
	unlock, err := t.begin(context.Background())
	if err != nil {
		return Stats{}, err
	}
	defer unlock()
	objs, err := t.conn.GetNamedObjects(t.lay.table)
	if err != nil {
		return Stats{}, fmt.Errorf("nftables: reading counters: %w", err)
	}
	var s Stats
	for _, o := range objs {
		o, ok := o.(*nftables.NamedObj)
		if !ok {
			continue
		}
		c, ok := o.Obj.(*expr.Counter)
		if !ok {
			continue
		}
		switch o.Name {
		case droppedFull:
			s.DroppedFull = c.Packets
		case droppedSoft:
			s.DroppedSoft = c.Packets
		case droppedLimited:
			s.DroppedLimited = c.Packets
		case trapHits:
			s.TrapHits = c.Packets
		case overflow:
			s.Overflow = c.Packets
		case unremembered:
			s.Unremembered = c.Packets
		}
	}
	if t.log != nil {
		s.Announced, s.Lost, s.Overruns = t.log.announced.Load(), t.log.lost.Load(), t.log.overruns.Load()
	}
	return s, nil
}
