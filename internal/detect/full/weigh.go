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
)

// servedEverywhere are the TCP ports that clients turn to at many addresses of one
// network: HTTP, HTTPS, mail submission and retrieval, XMPP and push services.
func servedEverywhere(port uint16) bool {
	switch port {
	case 80, 443, 587, 993, 995, 5222, 5223, 5228, 5229, 5230, 8080, 8443:
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
			if !c.Spoke && (c.Ended || !c.Verified) {
				return weight{} // found open and left alone: what a scanner does, and a health check
			}
		case decode.ProtoICMP, decode.ProtoICMPv6:
			return weight{} // that a machine answers says nothing of who asks for all of them
		}
		return weight{score: success}
	}
	if !c.Trap && e.wentAway(b, t) {
		return weight{}
	}
	return weight{score: Step * e.share(b, c, t, tail)}
}

// share is the weight of a failure.
func (e *Engine) share(b *board, c *detect.Contact, t thing, tail bool) float32 {
	if c.Trap {
		return trap
	}
	everywhere := servedEverywhere(c.DstPort) && e.elsewhere(b, t)
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
		case e.elsewhere(b, t):
			return quarter
		case c.Outcome == detect.Refused:
			return plain
		}
		return half
	case detect.KindSYN, detect.KindConnect:
		if everywhere {
			return eighth
		}
	}
	return plain
}
