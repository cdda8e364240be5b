package flows

import (
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// Types of SCTP chunk, RFC 9260 section 3.2.
const (
	chunkINIT      = 1
	chunkINITACK   = 2
	chunkAbort     = 6
	chunkCookie    = 10
	chunkCookieACK = 11
)

// sctp follows an association.
func (t *Tracker) sctp(p *decode.Probe) {
	k, from := pair(classSCTP, p.Src, p.Dst, p.SrcPort, p.DstPort)
	at := t.place(&k)
	i, _ := t.find(&k, at)
	if i == none {
		t.sctpFirst(p, &k, at, from)
		return
	}
	e := &t.entries[i]
	e.seen |= from
	switch {
	case e.state == asked && from != e.src:
		switch p.SCTPChunk {
		case chunkAbort:
			t.finish(i, detect.Refused)
		case chunkCookieACK:
			t.finish(i, detect.Answered)
		default:
			e.state = taken
			t.arm(i)
		}
	case e.state == taken && p.SCTPChunk == chunkAbort:
		e.ended = from == e.src
		t.finish(i, detect.Answered)
	case e.state == taken && from != e.src && p.SCTPChunk == chunkCookieACK:
		// The state cookie came back to its maker, who says so.
		e.verified = true
		t.finish(i, detect.Answered)
	case e.state == failed && p.SCTPChunk != chunkINIT && p.SCTPChunk != chunkAbort:
		e.state = live
	}
}

// sctpFirst is the first packet between two ports.
func (t *Tracker) sctpFirst(p *decode.Probe, k *key, at place, from side) {
	i := t.insert(k, at)
	if p.SCTPChunk == chunkINITACK || p.SCTPChunk == chunkAbort {
		t.stats.Backscatter++
	}
	if i == none {
		return
	}
	switch p.SCTPChunk {
	case chunkINIT:
		t.begin(i, p, from, asked, detect.KindINIT)
	case chunkCookie:
		t.begin(i, p, from, asked, detect.KindCookie)
	default:
		t.entries[i].src, t.entries[i].seen = from, from
	}
}
