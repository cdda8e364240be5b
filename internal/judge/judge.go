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
	// Bans is how often a has been banned before, within what is remembered.
	Bans(a netip.Addr) int
	// Neighbours is how many other addresses of the /64 of a are banned now.
	Neighbours(a netip.Addr) int
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
	BanUnverified      time.Duration // BAN_TIME_UNVERIFIED, doubled for each earlier ban
	BanVerified        time.Duration // BAN_TIME; also what doubling leads to
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
		v.Reason = v.Spared.Reason()
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
	v.Length = j.length(s.Src)
	if v.Evidence >= E2 {
		v.Length = j.policy.BanVerified
	}
	if v.Strength >= Soft && s.Src.Is6() {
		j.widen(&v)
	}
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

// length doubles the unverified ban for each earlier one, up to the
// verified ban.
func (j *Judge) length(a netip.Addr) time.Duration {
	d := j.policy.BanUnverified
	for n := j.history.Bans(a); n > 0 && d < j.policy.BanVerified; n-- {
		d *= 2
	}
	return max(j.policy.BanUnverified, min(d, j.policy.BanVerified))
}

// widen makes the ban one of the /64 when another address of it is banned
// already: a host there has 2^64 addresses to scan from. A /64 in which
// somebody is to be spared or holds a connection is never banned as a whole.
func (j *Judge) widen(v *Verdict) {
	if j.history.Neighbours(v.Sighting.Src) == 0 {
		return
	}
	net, err := v.Sighting.Src.Prefix(64)
	if err != nil || j.trust.Within(net) != NotSpared || j.peers.Any(net) {
		return
	}
	v.Prefix = net
	v.Reason += "; second address of its /64"
}
