package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// Tally has the counters of the program since it was loaded.
type Tally struct {
	Sighted        uint64 // probes of traps where nobody is
	Served         uint64 // packets to a trap port that somebody serves
	Replies        uint64 // answers to something of ours, or translated
	Noise          uint64 // late packets and backscatter
	Bad            uint64 // packets no host would take
	NotOurs        uint64 // to no address of this host
	DroppedFull    uint64 // packets that a full ban kept out
	DroppedSoft    uint64 // a soft one, the program's own included
	DroppedLimited uint64 // a limited one, likewise
	Hits           uint64 // probes that the program dropped: each began a ban
	HitsFull       uint64 // of them: dropped, but there was no room for a ban of the program's own
	Events         uint64 // handed to the rings
	Counted        uint64 // probes for which the ring had no room: counted by source
	Uncounted      uint64 // of them: counted by no source, for there were too many
	Untold         uint64 // what else user space should have been told: lost for lack of room
	Challenged     uint64 // SYN-ACKs sent
	Unchallenged   uint64 // not sent: mostly as the budget was spent
	Verified       uint64 // handshakes completed
	BadAcks        uint64 // ACKs that brought no number of ours back
	Living         uint64 // addresses that answered a challenge with a RST
	Resets         uint64 // RSTs sent
	Closed         uint64 // what began something where nobody is, and was for no trap (Rules.Scans)
	ClosedCounted  uint64 // of it: above its share of the ring: counted by source
	ClosedLost     uint64 // of that: counted by no source, for there were too many
	Pauses         uint64 // times that the challenge was given up for a while: see VerifyPaused
}

// Tally reads the counters.
func (s *Sensor) Tally() (Tally, error) {
	var c Tally
	for which, to := range map[xdpCounter]*uint64{
		xdpCounterC_SIGHTED: &c.Sighted, xdpCounterC_SERVED: &c.Served, xdpCounterC_REPLIES: &c.Replies,
		xdpCounterC_NOISE: &c.Noise, xdpCounterC_BAD: &c.Bad, xdpCounterC_NOT_OURS: &c.NotOurs, xdpCounterC_DROPPED_FULL: &c.DroppedFull,
		xdpCounterC_DROPPED_SOFT: &c.DroppedSoft, xdpCounterC_DROPPED_LIMITED: &c.DroppedLimited,
		xdpCounterC_HITS: &c.Hits, xdpCounterC_HITS_FULL: &c.HitsFull, xdpCounterC_EVENTS: &c.Events,
		xdpCounterC_COUNTED: &c.Counted, xdpCounterC_UNCOUNTED: &c.Uncounted, xdpCounterC_RAW_LOST: &c.Untold,
		xdpCounterC_CHALLENGED: &c.Challenged, xdpCounterC_UNCHALLENGED: &c.Unchallenged, xdpCounterC_VERIFIED: &c.Verified,
		xdpCounterC_BAD_ACKS: &c.BadAcks, xdpCounterC_LIVING: &c.Living, xdpCounterC_RESETS: &c.Resets,
		xdpCounterC_CLOSED: &c.Closed, xdpCounterC_CLOSED_COUNTED: &c.ClosedCounted, xdpCounterC_CLOSED_UNCOUNTED: &c.ClosedLost,
		xdpCounterC_PAUSES: &c.Pauses,
	} {
		var err error
		if *to, err = s.counter(which); err != nil {
			return c, err
		}
	}
	return c, nil
}

// Counted reads the sum of Counted and ClosedCounted of Tally.
func (s *Sensor) Counted() (uint64, error) {
	traps, err := s.counter(xdpCounterC_COUNTED)
	if err != nil {
		return 0, err
	}
	closed, err := s.counter(xdpCounterC_CLOSED_COUNTED)
	return traps + closed, err
}

func (s *Sensor) counter(which xdpCounter) (sum uint64, err error) {
	var each []uint64 // by CPU
	if err := s.objects.Counters.Lookup(uint32(which), &each); err != nil {
		return 0, fmt.Errorf("counters of the XDP program: %w", err)
	}
	for _, n := range each {
		sum += n
	}
	return sum, nil
}

// Event is what the program tells, as it lies in the ring: xdp_maps.h says what
// its fields mean.
type Event = xdpEvent

// What an event tells.
const (
	WhatProbe    = 1 + iota // of a trap where nobody is
	WhatQuestion            // to a trap; whether somebody is there could not be seen
	WhatRaw                 // the frame itself follows
	WhatVerified            // an ACK brought our number back: the source is not forged
	WhatLiving              // a RST answered our challenge
	WhatCounted             // Times of them found no room in the ring
)

// WhatNoTrap, with WhatProbe, WhatQuestion or WhatCounted: of what is no trap.
const WhatNoTrap = 128

// Bits of Event.Ip, and from which bit on the worker stands.
const (
	IPv6 = 1 << iota
	IPDontFragment
	IPOptions
	IPPeer
	IPWorkerShift = 4
)

// RawBytes is how many bytes of a frame follow an event of WhatRaw at most.
const RawBytes = 2048

// Missed empties the tables of probes that found no room in a ring: fn gets one
// event a source, with Times, and one more of what was for no trap. It takes some milliseconds, and must not be called
// twice at a time.
func (s *Sensor) Missed(fn func(e *Event)) error {
	s.mu.Lock()
	from := []*ebpf.Map{s.objects.MissedEven, s.objects.ClosedEven}
	if s.config.Epoch != 0 {
		from = []*ebpf.Map{s.objects.MissedOdd, s.objects.ClosedOdd}
	}
	s.config.Epoch ^= 1
	err := s.configure()
	s.mu.Unlock()
	if err != nil {
		return err
	}
	// A change of a map of maps returns when no program runs any more that began
	// before it: from then on nobody writes to the table.
	if err := s.objects.Rings.Put(uint32(0), s.rings[0]); err != nil {
		return fmt.Errorf("probes that were only counted: %w", err)
	}
	for _, table := range from {
		if err := drain(table, fn); err != nil {
			return fmt.Errorf("probes that were only counted: %w", err)
		}
	}
	return nil
}

// drain empties a table to which nobody writes.
func drain(table *ebpf.Map, fn func(e *Event)) error {
	var (
		cursor ebpf.MapBatchCursor
		keys   [256]xdpAddr
		values [256]Event
	)
	for {
		n, err := table.BatchLookupAndDelete(&cursor, keys[:], values[:], nil)
		for i := range n {
			fn(&values[i])
		}
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			return nil
		case err != nil:
			return err
		}
	}
}

func binarySize(v any) int { return binary.Size(v) }
