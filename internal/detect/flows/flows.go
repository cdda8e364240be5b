// Package flows tells beginnings from what goes on: all packets of a capture in,
// the contacts among them out, each with what became of it. It follows TCP, UDP,
// SCTP, ICMP queries and other IP protocols in a table of fixed size, and knows
// nothing of who is local, what is served, or what makes a scan.
package flows

import (
	"time"

	"portsentry/internal/capture"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// Defaults of Options.
const (
	DefaultFlows = 1 << 17
	// DefaultWait is the initial retransmission time of TCP three times over
	// (RFC 6298: 1 s): two answers may have been lost.
	DefaultWait = 3 * time.Second
)

// Options are what a Tracker is built from.
type Options struct {
	Flows int           // conversations that are remembered; 0: DefaultFlows, 17 MiB
	Wait  time.Duration // how long an answer may take; 0: DefaultWait
}

// Stats are the counters of a Tracker. All only grow.
type Stats struct {
	Packets     uint64
	Contacts    uint64 // handed to emit
	Backscatter uint64 // answers to what nobody was seen to ask: SYN-ACK, RST, ICMP
	Undecided   uint64 // contacts that the end of the capture did not let anybody answer
	Evicted     uint64 // conversations pushed out by newer ones
	Full        uint64 // conversations that found no room: all there were too young to go
}

const (
	// retransmit is the time in which an answer comes, if one comes (RFC 6298).
	// What has been active within it is not pushed out of the table.
	retransmit = int64(time.Second)
	// mirrored is below any retransmission time of a stack (200 ms in Linux) and
	// above the time in which a mirror port, or a second interface, repeats a packet.
	mirrored = int64(100 * time.Millisecond)
	// forgotten is how long a stack knows a closed connection at most, in Linux; a
	// SYN after that is a new one, whatever went before.
	forgotten = int64(60 * time.Second)
	// delayedACK is how long an ACK may keep others waiting (RFC 1122 section 4.2.3.2).
	delayedACK = int64(500 * time.Millisecond)
	// setBack: packets of several queues are out of order by milliseconds. More than
	// an hour is a clock that was set, or another capture.
	setBack = int64(time.Hour)
)

// Tracker follows the conversations of one stream of packets. It is not safe for
// concurrent use. Its time is that of the packets.
type Tracker struct {
	table
	wait    int64
	begun   int64 // the first packet, unix nanoseconds
	now     int64 // the latest
	delay   delay
	waiting queue
	emit    func(*detect.Contact)
	contact detect.Contact
	stats   Stats
}

// New builds a Tracker. emit gets each contact once, when its outcome is known:
// not in the order of Contact.Time. It must not keep its argument, nor call the
// Tracker.
func New(o Options, emit func(*detect.Contact)) *Tracker {
	if o.Flows == 0 {
		o.Flows = DefaultFlows
	}
	if o.Wait == 0 {
		o.Wait = DefaultWait
	}
	return &Tracker{table: newTable(o.Flows), wait: int64(o.Wait), waiting: queue{head: none, tail: none}, emit: emit}
}

// Packet takes the next packet of the capture, and reports whether it is backscatter:
// an answer to what nobody was seen to ask. f is the frame that p was decoded from,
// needed for ICMP errors and broadcasts; nil: there is none.
func (t *Tracker) Packet(p *decode.Probe, f *capture.Frame) bool {
	t.stats.Packets++
	t.tick(p.Time)
	if !p.Src.IsValid() || !p.Dst.IsValid() || p.Src.IsMulticast() {
		return false
	}
	before := t.stats.Backscatter
	switch p.Proto {
	case decode.ProtoTCP:
		if !p.Dst.IsMulticast() {
			t.tcp(p)
		}
	case decode.ProtoUDP:
		t.udp(p, f)
	case decode.ProtoSCTP:
		if !p.Dst.IsMulticast() {
			t.sctp(p)
		}
	case icmpOf(p.Src):
		t.icmp(p, f)
	default:
		t.other(p, f)
	}
	return t.stats.Backscatter != before
}

// tick moves the time on and settles what has waited long enough.
func (t *Tracker) tick(now int64) {
	if t.stats.Packets == 1 {
		t.begun, t.now = now, now
	} else if now < t.now-setBack {
		t.Flush()
		t.begun, t.now, t.delay = now, now, delay{}
	}
	t.now = max(t.now, now)
	for i := t.waiting.head; i != none && t.entries[i].due <= t.now; i = t.waiting.head {
		t.settle(i)
	}
}

// Flush ends the capture: nothing that waits will be answered any more. But the end
// makes nobody silent: contacts so young that their answers, going by the others in
// this capture, may lie behind it are not emitted.
func (t *Tracker) Flush() {
	for i := t.waiting.head; i != none; i = t.waiting.head {
		e := &t.entries[i]
		if e.state != taken && t.now-e.start < t.delay.most() {
			t.stats.Undecided++
			t.drop(i)
			continue
		}
		t.settle(i)
	}
}

// Stats is a snapshot of the counters, for the goroutine that owns the Tracker.
func (t *Tracker) Stats() Stats { return t.stats }
