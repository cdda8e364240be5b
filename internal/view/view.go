// Package view holds the nouns that people and machines see: the answers of
// the control socket, which the command line prints and scripts read. Their
// JSON form is a written contract (docs/json.md).
package view

import (
	"context"
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
	Methods  []string  `json:"methods"` // what enforces bans; empty: nothing
	BlockTCP int       `json:"block_tcp"`
	BlockUDP int       `json:"block_udp"`

	// Horizon is how many seconds at most may lie between the probes of a scan of five
	// ports that is found; 0: scans are found by traps alone.
	Horizon float64 `json:"horizon_s,omitempty"`

	Counters []Counter `json:"counters"` // in a fixed order
	Bans     int       `json:"bans"`
	Problems []string  `json:"problems,omitempty"` // sentences; empty: healthy
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

// Backend is what answers the control socket.
type Backend interface {
	Status(ctx context.Context) (Status, error)
	Bans(ctx context.Context) ([]Ban, error)
	// Unban lifts every ban of the address (and of the /64 it lies in) and
	// undoes what was done to it. It returns the bans it lifted; none is no
	// error here.
	Unban(ctx context.Context, who Caller, addr netip.Addr) ([]Ban, error)
	// Join watches one more protocol, without a pause in watching the other.
	Join(ctx context.Context, who Caller, j Join) (Modes, error)
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
