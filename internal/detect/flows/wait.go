package flows

import (
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// queue is the entries that wait, in the order in which their waits end: all wait
// equally long, so that it is the order in which they came.
type queue struct{ head, tail int32 }

// arm lets i wait from now on.
func (t *Tracker) arm(i int32) {
	t.disarm(i)
	t.waits[i/ways] |= 1 << (i % ways)
	e := &t.entries[i]
	e.due = t.now + t.wait
	e.prev, e.next = t.waiting.tail, none
	if e.prev == none {
		t.waiting.head = i
	} else {
		t.entries[e.prev].next = i
	}
	t.waiting.tail = i
}

// disarm ends i's wait, if it waits.
func (t *Tracker) disarm(i int32) {
	waits, bit := &t.waits[i/ways], uint8(1)<<(i%ways)
	if *waits&bit == 0 {
		return
	}
	*waits &^= bit
	e := &t.entries[i]
	if e.prev == none {
		t.waiting.head = e.next
	} else {
		t.entries[e.prev].next = e.next
	}
	if e.next == none {
		t.waiting.tail = e.prev
	} else {
		t.entries[e.next].prev = e.prev
	}
	e.due, e.prev, e.next = 0, none, none
}

// delay is how long answers take in this capture: mean and deviation, nanoseconds,
// as TCP estimates its retransmission time (RFC 6298 section 2). In place of the least
// that it takes it is the mean: where all answers so far took equally long, the next one
// may still take longer.
type delay struct{ mean, dev int64 }

func (d *delay) sample(v int64) {
	v = max(1, v)
	if d.mean == 0 {
		d.mean, d.dev = v, v/2
		return
	}
	d.dev += (max(v-d.mean, d.mean-v) - d.dev) / 4
	d.mean += (v - d.mean) / 8
}

// most is how long to wait for an answer; 0: none has been seen.
func (d *delay) most() int64 { return d.mean + max(d.mean, 4*d.dev) }

// begin makes i a contact that p began, and lets it wait.
func (t *Tracker) begin(i int32, p *decode.Probe, from side, st state, kind detect.Kind) {
	t.disarm(i)
	e := &t.entries[i]
	e.state, e.src, e.seen, e.kind, e.count = st, from, from, kind, 0
	e.over, e.refused, e.proof = false, false, false
	e.verified, e.spoke, e.ended = false, false, false
	e.number, e.start, e.answer, e.after = p.Seq, p.Time, 0, 0
	h := &e.head
	h.seq, h.ack, h.ipid, h.payload = p.Seq, p.Ack, p.IPID, int32(p.PayloadLen)
	h.flags, h.window, h.urgent, h.mss = p.Flags, p.Window, p.Urgent, p.MSS
	h.proto, h.ttl, h.opts, h.icmp, h.df = p.Proto, p.TTL, p.TCPOptionsLen, p.ICMPType, p.DF
	t.touch(i)
	t.arm(i)
}

// drop says that i is no contact, or one that was dealt with.
func (t *Tracker) drop(i int32) {
	t.disarm(i)
	t.entries[i].state = live
}

// settle decides i, whose wait is over.
func (t *Tracker) settle(i int32) {
	switch t.entries[i].state {
	case taken:
		t.finish(i, detect.Answered)
	case doubtful:
		t.decide(i, detect.Silent)
	default:
		t.finish(i, detect.Silent)
	}
}

// finish emits the contact i.
func (t *Tracker) finish(i int32, o detect.Outcome) {
	t.disarm(i)
	e := &t.entries[i]
	e.state, e.refused = live, o == detect.Refused
	if o != detect.Answered {
		e.state = failed
		t.since[i/ways][i%ways] -= ticks(forgotten)
	}
	k, h := &e.key, &e.head
	c := &t.contact
	c.Time, c.Src, c.Dst, c.Proto = e.start, k.addr(e.src), k.addr(e.src.other()), h.proto
	c.SrcPort, c.DstPort = 0, 0
	if k.class <= classSCTP {
		c.SrcPort, c.DstPort = k.port(e.src), k.port(e.src.other())
	}
	c.Kind, c.Outcome, c.Trap = e.kind, o, false
	c.Verified, c.Spoke, c.Ended = e.verified, e.spoke, e.ended
	c.HalfOpen = e.proof && e.ended && !e.verified
	d := &c.Head
	d.Dst, d.SrcPort, d.DstPort, d.Proto = c.Dst, c.SrcPort, c.DstPort, h.proto
	d.Flags, d.Window, d.Urgent, d.Seq, d.Ack = h.flags, h.window, h.urgent, h.seq, h.ack
	d.MSS, d.OptionsLen, d.IPID, d.TTL, d.DF = h.mss, h.opts, h.ipid, h.ttl, h.df
	d.ICMPType, d.PayloadLen = h.icmp, int(h.payload)
	t.stats.Contacts++
	t.emit(c)
}
