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
	e := &t.entries[i]
	if e.due == 0 {
		return
	}
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
// as TCP estimates its retransmission time (RFC 6298 section 2), without the least
// that it takes.
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
func (d *delay) most() int64 { return d.mean + 4*d.dev }

// begin makes i a contact that p began, and lets it wait.
func (t *Tracker) begin(i int32, p *decode.Probe, from side, st state, kind detect.Kind) {
	t.disarm(i)
	e := &t.entries[i]
	*e = entry{
		key: e.key, prev: none, next: none,
		state: st, src: from, seen: from, kind: kind, start: p.Time, number: p.Seq,
		head: head{
			seq: p.Seq, ack: p.Ack, ipid: p.IPID, payload: int32(p.PayloadLen),
			flags: p.Flags, window: p.Window, urgent: p.Urgent, mss: p.MSS,
			proto: p.Proto, ttl: p.TTL, opts: p.TCPOptionsLen, icmp: p.ICMPType, df: p.DF,
		},
	}
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
		t.buckets[i/ways].since[i%ways] -= ticks(forgotten)
	}
	k, h := &e.key, &e.head
	c := &t.contact
	*c = detect.Contact{
		Time: e.start, Src: k.addr(e.src), Dst: k.addr(e.src.other()), Proto: h.proto,
		Kind: e.kind, Outcome: o, Verified: e.verified, Spoke: e.spoke, Ended: e.ended,
	}
	if class(k[36]) <= classSCTP {
		c.SrcPort, c.DstPort = k.port(e.src), k.port(e.src.other())
	}
	c.Head = detect.Header{
		Dst: c.Dst, SrcPort: c.SrcPort, DstPort: c.DstPort, Proto: h.proto, Flags: h.flags,
		Window: h.window, Urgent: h.urgent, Seq: h.seq, Ack: h.ack, MSS: h.mss, OptionsLen: h.opts,
		IPID: h.ipid, TTL: h.ttl, DF: h.df, ICMPType: h.icmp, PayloadLen: int(h.payload),
	}
	t.stats.Contacts++
	t.emit(c)
}
