package full

import (
	"math"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// The test. A benign source finds somebody there 95 times of 100, a scanner once;
// both have to be wrong rarely: a scanner is passed over one time in 100, an innocent
// is taken for one once in a million. So the fifth thing that failed decides.
const (
	benignFinds   = .95
	scannerFinds  = .01
	passedOver    = .01
	falselyCalled = 1e-6
)

// Threshold is where a source is taken for a scanner, Step what a contact that
// failed adds, both natural logarithms of likelihood ratios (Jung et al. 2004,
// equations 5 to 8).
var (
	Threshold = float32(math.Log((1 - passedOver) / falselyCalled))       // 13.8
	Step      = float32(math.Log((1 - scannerFinds) / (1 - benignFinds))) // 2.99
	success   = float32(math.Log(scannerFinds / benignFinds))             // -4.55
	floor     = -Step                                                     // one failure is forgiven to who finds what he looks for
)

// Weights of failures, in Steps. A weight of 1 / n asks for n times as many.
const (
	plain = 1.0
	// trap: the administrator says that nobody has business there.
	trap = 3.0
	// half: such packets are also the tail of connections that are gone (a bare ACK,
	// FIN with ACK), datagrams that nobody is obliged to answer (RFC 768), or echo
	// requests of who watches over machines.
	half = .5
	// quarter: one service at many addresses, by datagrams that nobody answers.
	quarter = .25
	// eighth: one service that clients look for at many addresses of one network, for
	// a name has up to a dozen (RFC 1794) and a network several names, and fail at all
	// of them when they have no way out.
	eighth = .125
	// least: the same by IPv6, where one network has all names of who delivers the Web
	// for others, and more of them than any /24.
	least = eighth / 4
)

// servedEverywhere are the ports that clients turn to at many addresses of one network:
// HTTP, HTTPS, mail between servers (a domain has several, RFC 5321 section 5.1, and many
// domains the same), its submission and retrieval, XMPP and push services; and the one
// that servers ask of their clients' addresses (RFC 1413). By UDP HTTP/3 (RFC 9114).
func servedEverywhere(proto uint8, port uint16) bool {
	if proto == decode.ProtoUDP {
		return port == 443
	}
	switch port {
	case 25, 80, 113, 443, 587, 993, 995, 5222, 5223, 5228, 5229, 5230, 8080, 8443:
		return true
	}
	return false
}

// weight is what a contact adds.
type weight struct {
	score, verified float32
}

// weigh gives what a contact that is the first of its kind with its thing adds. tail: it
// may be the end of a connection.
func (e *Engine) weigh(b *board, c *detect.Contact, t thing, tail bool) weight {
	if c.Trap && c.Verified {
		return weight{score: trap * Step, verified: trap * Step}
	}
	if c.Outcome == detect.Answered && !neverAnswered(t.kind()) {
		switch c.Proto {
		case decode.ProtoTCP:
			if c.HalfOpen && !e.hasPort(b, t) {
				return weight{score: Step * eighth} // who looks at one port of many machines is a balancer
			}
			if !c.Spoke && (c.Ended || !c.Verified) {
				return weight{} // found open and left alone: what a scanner does, and a health check
			}
		case decode.ProtoICMP, decode.ProtoICMPv6:
			return weight{} // that a machine answers says nothing of who asks for all of them
		}
		return weight{score: success}
	}
	if !c.Trap && t.kind() != detect.KindOS && e.wentAway(b, t) {
		return weight{}
	}
	return weight{score: Step * e.share(b, c, t, tail)}
}

// share is the weight of a failure.
func (e *Engine) share(b *board, c *detect.Contact, t thing, tail bool) float32 {
	if c.Trap {
		return trap
	}
	everywhere := servedEverywhere(c.Proto, c.DstPort) && e.elsewhere(b, t)
	switch t.kind() {
	case detect.KindACK, detect.KindMaimon:
		if everywhere || tail { // a machine that wakes up, and ends what it had
			return eighth
		}
		return half
	case detect.KindEcho, detect.KindStamp, detect.KindMask:
		return half
	case detect.KindUDP:
		switch {
		case everywhere:
			return eighth
		case e.elsewhere(b, t):
			return quarter
		case c.Outcome == detect.Refused:
			return plain
		}
		return half
	case detect.KindSYN, detect.KindConnect:
		switch {
		case everywhere && c.Dst.Is6():
			return least
		case everywhere:
			return eighth
		}
	}
	return plain
}

// elsewhere reports whether the source has turned to the port of t at another address,
// where nobody was there.
func (e *Engine) elsewhere(b *board, t thing) bool {
	for _, o := range e.things(b) {
		if o.gone() && o.service() == t.service() && o.addr() != t.addr() {
			return true
		}
	}
	return false
}

// hasPort reports whether the source has turned to the port of t before, as far as its
// things go, wherever.
func (e *Engine) hasPort(b *board, t thing) bool {
	for _, o := range e.things(b) {
		if o != t && o.service() == t.service() {
			return true
		}
	}
	return false
}

// wentAway reports whether the source has found somebody there before: then a service
// has ended, and who goes on asking for it does not look for one.
func (e *Engine) wentAway(b *board, t thing) bool {
	for _, o := range e.things(b) {
		if !o.gone() && o.service() == t.service() && o.addr() == t.addr() {
			return true
		}
	}
	// Not all of them may be among its things. A datagram is lost now and then, or its
	// answer, and whoever polls many machines does not send it again.
	return b.n == things && t.service()>>16 != decode.ProtoTCP && e.decks.of(b).found(t)
}
