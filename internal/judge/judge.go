package judge

import (
	"fmt"
	"net/netip"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// History is what the judge asks of the book of bans.
type History interface {
	// Bans is how often p has been banned before, within what is remembered: on
	// proof where that is asked for.
	Bans(p netip.Prefix, proved bool) int
	// Neighbours is how many other addresses of the /64 of a are banned now.
	Neighbours(a netip.Addr) int
	// Proved is how many networks of bits+8 bits inside that of bits bits that a is
	// in are banned on proof now, beside its own: bits is 56 or 48.
	Proved(a netip.Addr, bits int) int
	// Bannable reports whether p can be kept out by whatever keeps out the /64 of a.
	Bannable(a netip.Addr, p netip.Prefix) bool
}

// Peers is what the judge asks about connections.
type Peers interface {
	// Has reports whether a holds, or held within the last day, an established
	// TCP connection to a served port, as the TCP stack saw it.
	Has(a netip.Addr) bool
	// Any reports whether an address inside p does.
	Any(p netip.Prefix) bool
}

// Policy is what the configuration says about answers.
type Policy struct {
	BlockTCP, BlockUDP config.Block
	Evidence           config.BlockEvidence
	BanUnverified      time.Duration // BAN_TIME_UNVERIFIED; grows up to BanVerified
	BanVerified        time.Duration // BAN_TIME; grows up to BanMost
	BanMost            time.Duration // BAN_TIME_MAX
	BanFactor          int           // BAN_TIME_FACTOR: how much longer each ban is than the one before
	// ShowOwn (-L of 2.x): probes from this host's own addresses are shown as
	// those of anybody. They are never answered all the same.
	ShowOwn bool
}

// Judge decides. Trust may be replaced while it runs, by the goroutine that
// calls Decide.
type Judge struct {
	policy  Policy
	trust   *Trust
	peers   Peers
	history History
}

// New builds a Judge.
func New(p Policy, t *Trust, peers Peers, h History) *Judge {
	return &Judge{policy: p, trust: t, peers: peers, history: h}
}

// SetTrust replaces the list of whom to spare.
func (j *Judge) SetTrust(t *Trust) { j.trust = t }

// SetPolicy replaces what the configuration says. The goroutine that calls
// Decide calls it.
func (j *Judge) SetPolicy(p Policy) { j.policy = p }

// Decide weighs one sighting. A packet that needs no reply may be forged: E1. A
// contact that completed a handshake is proof of its source: E2.
func (j *Judge) Decide(s *detect.Sighting) Verdict {
	v := Verdict{Sighting: *s, Evidence: E1, Block: j.policy.BlockTCP, Scope: AllProtocols}
	if s.Verified {
		v.Evidence = E2
	}
	switch s.Proto {
	case decode.ProtoTCP:
	case decode.ProtoUDP:
		v.Block = j.policy.BlockUDP
	default:
		v.Block = config.BlockNone // BLOCK_TCP and BLOCK_UDP are about those
	}
	if v.Spared = j.trust.Spares(s.Src, s.Dst); v.Spared != NotSpared {
		if v.Spared == Own && j.policy.ShowOwn {
			v.Spared, v.Block, v.Reason = NotSpared, config.BlockNone, Own.Reason()
			return v
		}
		if v.Spared == Martian {
			v.Evidence = E0
		}
		v.Reason = j.trust.Reason(netip.PrefixFrom(s.Src, s.Src.BitLen()), v.Spared)
		return v
	}
	if !s.Triggered {
		v.Reason = "below SCAN_TRIGGER"
		return v
	}
	if v.Block == config.BlockNone {
		v.Reason = "log only"
		if s.Scan.Kind != detect.KindNone {
			v.Reason = evidence(s) + "; log only"
		}
		return v
	}
	v.Prefix = netip.PrefixFrom(s.Src, s.Src.BitLen())
	v.Strength, v.Reason = j.strength(&v)
	if v.Block == config.BlockCommand {
		v.Scope = TCPOnly
		if s.Proto == decode.ProtoUDP {
			v.Scope = UDPOnly
		}
	}
	if v.Strength >= Soft && s.Src.Is6() {
		j.widen(&v)
	}
	v.Length = j.policy.Growth(v.Evidence, j.history.Bans(v.Prefix, v.Evidence >= E2)+1).Length()
	return v
}

// evidence is in words what the source did.
func evidence(s *detect.Sighting) string {
	f := &s.Scan
	if f.Kind == detect.KindNone {
		return fmt.Sprintf("%s to trap port %d", s.Kind, s.DstPort)
	}
	where := "one address"
	if f.Targets > 1 {
		where = fmt.Sprintf("%d addresses", f.Targets)
	}
	if f.Ports > 1 {
		where = fmt.Sprintf("%d ports of %s", f.Ports, where)
	}
	return fmt.Sprintf("%s %s scan of %s", f.Direction, f.Kind, where)
}

// strength says how hard the evidence lets us answer, and why. One verified
// contact alone can be the doing of a web page that its owner looks at: it ends
// no connection that exists, and somebody who is connected keeps what is served.
func (j *Judge) strength(v *Verdict) (Strength, string) {
	s := &v.Sighting
	hit := evidence(s)
	v.Peer = s.Peer || j.peers.Has(s.Src)
	switch {
	case s.Several:
		return Full, hit + " and others, verified: it completed the handshakes"
	case s.Verified && v.Peer:
		return Limited, hit + ", verified, once; it has a connection to a served port, which goes on"
	case s.Verified:
		return Soft, hit + ", verified: it completed the handshake"
	case v.Peer:
		return Limited, hit + ", unverified; it has a connection to a served port, which goes on"
	case j.policy.Evidence == config.EvidenceVerified:
		return Limited, hit + ", unverified (BLOCK_EVIDENCE=verified)"
	case s.Kind == detect.KindACK, s.Kind == detect.KindMaimon:
		// The same bytes may be the tail of a connection that everybody but
		// the peer has forgotten: what is served must go on being served.
		return Limited, hit + ", unverified; it could be the tail of an old connection"
	}
	return Soft, hit + ", unverified"
}

// several is how many networks with proof against each make one of the next size.
const several = 3

// widen makes the ban one of the /64 when another address of it is banned already: a
// host there has 2^64 addresses to scan from. Whoever scans from one /64 after another
// has been given a larger network: three /64s of a /56 make that, three /56s of a /48
// that, with proof against each. A network in which somebody is to be spared or holds
// a connection is never banned as a whole, nor one that is the way of all through a
// translator.
func (j *Judge) widen(v *Verdict) {
	src := v.Sighting.Src
	free := func(bits int) (netip.Prefix, bool) {
		net, err := src.Prefix(bits)
		return net, err == nil && j.trust.Within(net) == NotSpared && !j.peers.Any(net)
	}
	if j.history.Neighbours(src) == 0 || detect.OneHost(src).IsSingleIP() {
		return
	}
	net, ok := free(64)
	if !ok {
		return
	}
	v.Prefix = net
	because := "; second address of its /64"
	for bits := 56; bits >= 48 && v.Evidence >= E2 && j.history.Proved(src, bits) >= several-1; bits -= 8 {
		if net, ok = free(bits); !ok || !j.history.Bannable(src, net) {
			break
		}
		v.Prefix = net
		because = fmt.Sprintf("; third /%d of its /%d, with proof against each", bits+8, bits)
	}
	v.Reason += because
}
