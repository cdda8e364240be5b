// Package judge weighs a Sighting: how sure are we (evidence), who is it
// (trust), and what may be done about it. Sighting in, Verdict out. It never
// acts.
package judge

import (
	"net/netip"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/detect"
)

// Evidence is the class of DETECTION: what has been seen bounds the answer.
type Evidence uint8

// Evidence classes. This version sees E0 to E2.
const (
	E0 Evidence = iota // noise: count
	E1                 // unverified: packets that need no reply, so anybody can forge them
	E2                 // verified: the contact itself completed a handshake
	E3                 // verified, and more
)

// Strength is how hard a verdict lets us answer.
type Strength uint8

// Strengths, weakest first.
const (
	Nothing Strength = iota // log only
	Limited                 // ports without a listener go silent for the source
	Soft                    // new connections and datagrams dropped, existing connections untouched
	Full                    // everything dropped, existing connections too
)

// Scope is what a ban covers.
type Scope uint8

// Scopes. BLOCK=2 bans the scanned protocol only.
const (
	AllProtocols Scope = iota
	TCPOnly
	UDPOnly
)

// Spared says who a source is that is never acted on.
type Spared uint8

// Reasons to spare. NotSpared is the zero value.
const (
	NotSpared Spared = iota
	Ignored          // the administrator's ignore file
	Own              // an address of this host, or source equals destination
	Martian          // loopback, unspecified, broadcast, multicast: no host sends from it
	Gateway
	Resolver
	Login      // the session the administrator sits in
	TimeServer // NTP or DHCP server in use
)

// Verdict is what may be done about a sighting, and why.
type Verdict struct {
	Sighting detect.Sighting
	Evidence Evidence
	Strength Strength
	Spared   Spared
	Peer     bool         // the source holds, or held within a day, a connection to a served port
	Prefix   netip.Prefix // whom to ban: the address, or its /64; zero when nothing is to be done
	Scope    Scope
	Length   time.Duration // of a ban
	Block    config.Block  // BLOCK_TCP or BLOCK_UDP, as the protocol has it
	Reason   string        // in words, for a person
}

// String is the class as it is shown.
func (e Evidence) String() string { return [...]string{"E0", "E1", "E2", "E3"}[e] }

// String is the strength in one word.
func (s Strength) String() string { return [...]string{"none", "limited", "soft", "full"}[s] }

// String is the scope in one word.
func (s Scope) String() string { return [...]string{"all", "tcp", "udp"}[s] }
