package flows

import (
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// tcp follows a connection.
func (t *Tracker) tcp(p *decode.Probe) {
	k, from := pair(classTCP, p.Src, p.Dst, p.SrcPort, p.DstPort)
	at := t.place(&k)
	i, idle := t.find(&k, at)
	if i == none {
		t.tcpFirst(p, &k, at, from)
		return
	}
	e := &t.entries[i]
	e.seen |= from
	e.over = e.over || closes(p)
	switch e.state {
	case live, failed:
		t.tcpKnown(i, p, from, idle)
	case asked:
		t.tcpAsked(i, p, from)
	case taken:
		t.tcpTaken(i, p, from)
	case doubtful:
		t.tcpDoubtful(i, p, from)
	case stray:
		t.tcpStray(i, p, from)
	}
}

// closes reports whether p ends a connection. A FIN without ACK is nothing that a
// stack sends.
func closes(p *decode.Probe) bool {
	return p.Flags&decode.RST != 0 || p.Flags&(decode.FIN|decode.ACK) == decode.FIN|decode.ACK
}

// probe is what p begins where there is no connection; ok is false for packets of
// a connection, and answers.
func probe(p *decode.Probe) (kind detect.Kind, st state, ok bool) {
	kind = detect.Classify(p.Flags)
	switch {
	case kind == detect.KindNone:
		return kind, live, false
	case kind == detect.KindACK, kind == detect.KindMaimon:
		return kind, doubtful, p.PayloadLen == 0
	case p.Flags&decode.SYN != 0:
		return kind, asked, true
	}
	return kind, stray, true
}

// tcpFirst is the first packet of a 4-tuple that is known of.
func (t *Tracker) tcpFirst(p *decode.Probe, k *key, at place, from side) {
	i := t.insert(k, at)
	answer := p.Flags&decode.RST != 0 || p.Flags&(decode.SYN|decode.ACK) == decode.SYN|decode.ACK
	if answer {
		t.stats.Backscatter++
	}
	if i == none {
		return
	}
	kind, st, ok := probe(p)
	if ok && (st != doubtful || !tail(p.SrcPort, p.DstPort)) {
		t.begin(i, p, from, st, kind)
		return
	}
	e := &t.entries[i]
	e.src, e.seen, e.over = from, from, closes(p)
	if answer {
		e.src = from.other()
	}
}

// tail reports whether a lone ACK or FIN+ACK from sp to dp goes the way of a late
// packet of a server's to a client that is gone: the lower port is the server's,
// and clients have none of the system ports.
func tail(sp, dp uint16) bool { return dp >= 1024 && sp < dp }

// heard notes of p, which answers a contact, that answers of its source can be seen
// in this capture, and that it takes connections on this port if it does.
func (t *Tracker) heard(p *decode.Probe) {
	t.note(about(classHeard, p.Src, 0))
	if p.Flags&decode.SYN != 0 {
		t.note(about(classServer, p.Src, p.SrcPort))
	}
}

// tcpKnown is a packet of a 4-tuple that nothing waits for.
func (t *Tracker) tcpKnown(i int32, p *decode.Probe, from side, idle int64) {
	e := &t.entries[i]
	kind, st, ok := probe(p)
	switch {
	case e.state == failed:
		if p.Flags&decode.RST != 0 {
			return
		}
		if !ok || st == doubtful && (from != e.src || !e.refused) {
			e.state = live // it did come to something, late or unseen
			return
		}
		// Once more the same is a retransmission, whatever its number: who keeps
		// to one port gives each copy a new one.
		if from == e.src && kind == e.kind && idle < forgotten {
			return
		}
	case !ok, st == doubtful:
		return
	case st == asked:
		// A port is used again once its connection is closed. And who has not been
		// answered has no connection, whatever he sent before.
		if !e.over && idle < forgotten && e.seen&from.other() != 0 {
			return
		}
	case e.seen&from.other() != 0:
		return
	}
	if st == doubtful && tail(p.SrcPort, p.DstPort) {
		return
	}
	t.begin(i, p, from, st, kind)
}

// tcpAsked is a packet after a SYN.
func (t *Tracker) tcpAsked(i int32, p *decode.Probe, from side) {
	e := &t.entries[i]
	if from == e.src {
		switch _, _, ok := probe(p); {
		case p.Flags&decode.SYN != 0:
			e.number = p.Seq
		case ok && p.Flags&decode.ACK == 0: // another probe
		case p.PayloadLen > 0, !t.hears(p):
			// Only the source's side is captured: it was answered, or it would not go on.
			e.state = taken
			t.arm(i)
			t.tcpTaken(i, p, from)
		}
		return
	}
	t.heard(p)
	t.delay.sample(t.now - e.start)
	if p.Flags&decode.RST != 0 {
		t.finish(i, detect.Refused)
		return
	}
	e.state = taken
	t.arm(i)
	t.tcpTaken(i, p, from)
}

// hears reports whether answers of p's destination can be seen in this capture.
func (t *Tracker) hears(p *decode.Probe) bool {
	_, ok := t.known(about(classHeard, p.Dst, 0))
	return ok
}

// tcpTaken is a packet after a SYN that was answered.
func (t *Tracker) tcpTaken(i int32, p *decode.Probe, from side) {
	e := &t.entries[i]
	rst := p.Flags&decode.RST != 0
	if from != e.src {
		end := p.Seq + uint32(p.PayloadLen)
		switch {
		case rst:
			t.finish(i, detect.Answered)
		case p.Flags&(decode.SYN|decode.ACK) == decode.SYN|decode.ACK:
			// Data may come with the SYN (RFC 7413), and be acknowledged.
			if p.Ack-e.number-1 <= uint32(e.head.payload) {
				e.proof, e.answer, e.after = true, p.Seq+1, end+1
			}
		case p.Flags&decode.FIN != 0:
			end++
			fallthrough
		default:
			if int32(end-e.after) > 0 {
				e.after = end
			}
		}
		return
	}
	if p.Flags&decode.SYN != 0 {
		return
	}
	// The right number is in no packet of the source's own: he has seen the answer.
	// He may acknowledge what was sent after it at the same time.
	if e.proof && !rst && p.Flags&decode.ACK != 0 && p.Ack-e.answer <= e.after-e.answer {
		e.verified = true
	}
	switch {
	case rst, p.PayloadLen == 0 && p.Flags&decode.FIN != 0:
		e.ended = true
	case p.PayloadLen > 0:
		e.spoke = true
	default:
		return
	}
	t.finish(i, detect.Answered)
}

// tcpDoubtful is a packet after a lone ACK or FIN+ACK.
func (t *Tracker) tcpDoubtful(i int32, p *decode.Probe, from side) {
	e := &t.entries[i]
	kind, st, ok := probe(p)
	switch {
	case from != e.src && p.Flags&decode.RST != 0:
		t.heard(p)
		t.decide(i, detect.Refused)
	case from == e.src && ok && st != doubtful:
		t.begin(i, p, from, st, kind)
	case from != e.src, !ok, e.goesOn(p):
		t.drop(i)
	}
}

// goesOn reports whether p, from the same side as the lone ACK or FIN+ACK before
// it, has a place in the same connection: numbers within a window of it (without
// scaling: RFC 9293). A scan gives each copy another number, and where it does not
// its copies come from a mirror port at once.
func (e *entry) goesOn(p *decode.Probe) bool {
	const window = 1 << 16
	seq, ack := p.Seq-e.head.seq, p.Ack-e.head.ack
	if seq == 0 && ack == 0 && p.Window == e.head.window && p.Flags == e.head.flags {
		return p.Time-e.start >= mirrored
	}
	return seq+window < 2*window && ack+window < 2*window
}

// decide settles a lone ACK or FIN+ACK. To and from a port that takes connections
// it is the late packet of one. Unless a RST says that there is none, so is one with
// options that only a handshake can have agreed upon (RFC 7323), and one that may
// acknowledge what came right before the capture. With options of a SYN it is
// nothing of a stack's: nmap's OS detection sends such.
//
// A datagram that looks like an answer is one, unless its destination says by ICMP
// that nobody waits for it: then that one's packets are seen here, and so his
// question would have been, if not before the capture.
func (t *Tracker) decide(i int32, o detect.Outcome) {
	e := &t.entries[i]
	if e.head.proto == decode.ProtoUDP {
		if o == detect.Silent || e.start-t.begun < t.wait {
			t.drop(i)
			return
		}
		t.finish(i, o)
		return
	}
	if e.head.mss == 0 && (t.serves(&e.key, first) || t.serves(&e.key, second) ||
		o == detect.Silent && (e.head.opts > 0 || e.start-t.begun < delayedACK)) {
		t.drop(i)
		return
	}
	t.finish(i, o)
}

// serves reports whether an end has been seen to take connections.
func (t *Tracker) serves(k *key, s side) bool {
	a := k.addr(s)
	_, ok := t.known(about(classServer, a, k.port(s)))
	return ok
}

// tcpStray is a packet after a FIN, NULL, XMAS or the like.
func (t *Tracker) tcpStray(i int32, p *decode.Probe, from side) {
	e := &t.entries[i]
	if from == e.src {
		if kind, st, ok := probe(p); ok && st != doubtful && kind != e.kind {
			t.finish(i, detect.Silent)
			t.begin(i, p, from, st, kind)
		}
		return
	}
	if p.Flags&decode.RST == 0 {
		t.drop(i) // there is a connection after all
		return
	}
	t.heard(p)
	t.finish(i, detect.Refused)
}
