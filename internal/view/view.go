// Package view holds the nouns that people and machines see: the answers of
// the control socket, which the command line prints and scripts read. Their
// JSON form is a written contract (docs/json.md).
package view

import (
	"net/netip"
	"strconv"
	"time"

	"portsentry/internal/decode"
)

// Status is the answer of `portsentry status`.
type Status struct {
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	Config  string    `json:"config"` // path, or "built-in defaults"

	Watching []Watched `json:"watching"`
	TCPMode  string    `json:"tcp_mode"` // none, connect, stealth, advanced
	UDPMode  string    `json:"udp_mode"`
	TCPPorts int       `json:"tcp_ports"` // number of trap ports
	UDPPorts int       `json:"udp_ports"`
	Methods  []string  `json:"methods"`            // what enforces bans; empty: nothing
	StandBy  []string  `json:"stand_by,omitempty"` // those of Methods that hold the bans and need not act: nothing gets past another
	BlockTCP int       `json:"block_tcp"`
	BlockUDP int       `json:"block_udp"`

	// Horizon is how many seconds at most may lie between the probes of a scan of five
	// ports that is found; 0: scans are found by traps alone.
	Horizon float64 `json:"horizon_s,omitempty"`

	Counters []Counter `json:"counters"` // in a fixed order
	Bans     int       `json:"bans"`
	// Enforced of CheckedBans bans were in the kernel when it was asked last, which was
	// at Checked.
	CheckedBans int        `json:"checked_bans"`
	Enforced    int        `json:"enforced"`
	Checked     *time.Time `json:"checked"`            // null: not yet
	Problems    []string   `json:"problems,omitempty"` // sentences; empty: healthy

	// Lacks are parts of the sandbox that this kernel does not have, or that whoever
	// started the daemon forbids: no problem of its own, and nothing else misses them.
	Lacks []string `json:"lacks,omitempty"`
}

// Watched is one interface that is watched.
type Watched struct {
	Interface string `json:"interface"`
	How       string `json:"how"`           // "AF_PACKET"
	Why       string `json:"why,omitempty"` // why not something better
}

// Counter is one number with its name and meaning. Loss is true for counters
// of things lost or refused: any above zero is shown first.
type Counter struct {
	Name  string `json:"name"` // snake_case, ends in _total where it only grows
	Help  string `json:"help"`
	Value uint64 `json:"value"`
	Loss  bool   `json:"loss,omitempty"`
}

// Ban is one row of `portsentry bans`.
type Ban struct {
	Prefix   netip.Prefix `json:"prefix"`
	Scope    string       `json:"scope"`    // all, tcp, udp
	Strength string       `json:"strength"` // limited, soft, full
	Evidence string       `json:"evidence"` // E1, E2, E3
	Since    time.Time    `json:"since"`
	Until    *time.Time   `json:"until"` // null: until undone by hand
	Times    int          `json:"times"`
	Reason   string       `json:"reason"`
	Methods  []string     `json:"methods"`
	Note     string       `json:"note,omitempty"`    // what a person has to undo
	Dropped  *uint64      `json:"dropped,omitempty"` // packets; nil: nobody counts them
	Alive    bool         `json:"alive,omitempty"`   // the address answered a challenge with a RST
}

// Caller is who asks over the control socket, as the kernel says it.
type Caller struct {
	PID, UID, GID int
	Root          bool
}

// Proto is an IP protocol as JSON names it: by its number where it has no name here,
// "several" (0) where there is no single one.
func Proto(proto uint8) string {
	switch proto {
	case 0:
		return "several"
	case decode.ProtoICMP:
		return "icmp"
	case decode.ProtoTCP:
		return "tcp"
	case decode.ProtoUDP:
		return "udp"
	case decode.ProtoICMPv6:
		return "icmpv6"
	case decode.ProtoSCTP:
		return "sctp"
	}
	return "ip-" + strconv.Itoa(int(proto))
}
