package detect

import "net/netip"

// Direction is how a scan spreads.
type Direction uint8

// Directions of a scan.
const (
	Vertical    Direction = iota // many ports of one address
	Horizontal                   // one or few ports of many addresses
	Block                        // many ports of many addresses
	Distributed                  // shared out among many sources
)

func (d Direction) String() string {
	switch d {
	case Horizontal:
		return "horizontal"
	case Block:
		return "block"
	case Distributed:
		return "distributed"
	}
	return "vertical"
}

// Scan is what one source was found to do, by one kind of probe. It is handed out
// when it is found and again as it goes on; Found is the same each time.
type Scan struct {
	Source    netip.Addr
	Kind      Kind
	Direction Direction
	Proto     uint8 // IP protocol number, 0: several
	// Verified: completed handshakes were evidence enough; what others sent in the
	// source's name had no part in it.
	Verified bool

	First, Last, Found int64 // unix nanoseconds: first and last contact, and the decision
	Ports              int   // distinct ports (or protocols) that were tried
	Targets            int   // distinct addresses that were tried
	Probes             int   // contacts
	Failed             int   // of them: nobody was there
	Score              float64

	Tool     string // "": none that is known
	Campaign uint64 // what belongs together has the same number; 0: alone
	Reason   string // in words, for people
}
