package judge

import (
	"fmt"
	"net/netip"
	"time"

	"portsentry/internal/config"
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
	BanMax             time.Duration // up to here
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

// Decide weighs one sighting. Every sighting of this version is a packet that
// needs no reply, so its source may be forged: E1, never more.
func (j *Judge) Decide(s *detect.Sighting) Verdict {
	v := Verdict{Sighting: *s, Evidence: E1, Block: j.policy.BlockTCP, Scope: AllProtocols}
	if s.Kind == detect.KindUDP {
		v.Block = j.policy.BlockUDP
	}
	if v.Spared = j.trust.spares(s.Src, s.Dst); v.Spared != NotSpared {
		if v.Spared == Martian {
			v.Evidence = E0
		}
		v.Reason = v.Spared.reason()
		return v
	}
	if !s.Triggered {
		v.Reason = "below SCAN_TRIGGER"
		return v
	}
	if v.Block == config.BlockNone {
		v.Reason = "log only"
		return v
	}
	v.Prefix = netip.PrefixFrom(s.Src, s.Src.BitLen())
	v.Strength, v.Reason = j.strength(&v)
	if v.Block == config.BlockCommand {
		v.Scope = TCPOnly
		if s.Kind == detect.KindUDP {
			v.Scope = UDPOnly
		}
	}
	v.Length = j.length(s.Src)
	if v.Strength == Soft && s.Src.Is6() {
		j.widen(&v)
	}
	return v
}

// strength says how hard unverified evidence lets us answer, and why.
func (j *Judge) strength(v *Verdict) (Strength, string) {
	s := &v.Sighting
	hit := fmt.Sprintf("%s to trap port %d", s.Kind, s.DstPort)
	v.Peer = j.peers.Has(s.Src)
	switch {
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

// length doubles the unverified ban for each earlier one, up to BanMax.
func (j *Judge) length(a netip.Addr) time.Duration {
	d := j.policy.BanUnverified
	for n := j.history.Bans(a); n > 0 && d < j.policy.BanMax; n-- {
		d *= 2
	}
	return max(j.policy.BanUnverified, min(d, j.policy.BanMax))
}

// widen makes the ban one of the /64 when another address of it is banned
// already: a host there has 2^64 addresses to scan from. A /64 in which
// somebody is to be spared or holds a connection is never banned as a whole.
func (j *Judge) widen(v *Verdict) {
	if j.history.Neighbours(v.Sighting.Src) == 0 {
		return
	}
	net, err := v.Sighting.Src.Prefix(64)
	if err != nil || j.trust.within(net) || j.peers.Any(net) {
		return
	}
	v.Prefix = net
	v.Reason += "; second address of its /64"
}
