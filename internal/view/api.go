package view

import (
	"fmt"
	"net/netip"
	"strings"
)

// DefaultSocket is where the daemon listens and its commands ask.
const DefaultSocket = "/run/portsentry/portsentry.sock"

// Group is the group whose members may ask beside root, where it exists.
const Group = "portsentry"

// Paths of the control socket's HTTP interface, version 1. docs/openapi.yaml has
// the methods, queries and answers of each.
const (
	PathStatus  = "/v1/status"
	PathHealth  = "/v1/health"
	PathBans    = "/v1/bans" // and PathBans + "/" + address or prefix
	PathModes   = "/v1/modes"
	PathEvents  = "/v1/events"
	PathSources = "/v1/sources"
	PathWhy     = "/v1/why" // and "/" + address
	PathReport  = "/v1/report"
	PathReload  = "/v1/reload"
	PathPending = "/v1/pending" // and "/" + number
)

// Join is what a second start with a flag of 1.x asks of the daemon that runs:
// 1.x had a process for each mode, we have one for all.
type Join struct {
	Config string // path of the configuration; it must be the daemon's
	TCP    string // mode to watch TCP in as well: connect, stealth, advanced; "": as it is
	UDP    string
}

// Modes is the answer of PUT PathModes: how both protocols are watched now.
type Modes struct {
	PID int    `json:"pid"`
	TCP string `json:"tcp_mode"`
	UDP string `json:"udp_mode"`
	// Stopping: it does not take anybody in any more.
	Stopping bool `json:"stopping,omitempty"`
}

// BanList is the answer of GET PathBans.
type BanList struct {
	Bans []Ban `json:"bans"`
}

// Unbanned is the answer of DELETE PathBans/ADDR. Lifted is empty when nothing
// was banned.
type Unbanned struct {
	Address netip.Addr `json:"address"`
	Lifted  []Ban      `json:"lifted"`
}

// Refusal is the body of every answer whose status is not 200.
type Refusal struct {
	Message string `json:"error"`
	Hint    string `json:"hint,omitempty"`
}

// ParseTarget reads whom to unban: an address, or a prefix as a table of bans
// shows it (/32, /128 or an IPv6 /64), which stands for its first address. A
// zone is dropped and an IPv4-mapped address unmapped: no ban has either.
func ParseTarget(s string) (netip.Addr, error) {
	text, bits, isPrefix := strings.Cut(s, "/")
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%.60q is no address; give one like 203.0.113.9 or 2001:db8::9", s)
	}
	a = a.WithZone("").Unmap()
	if !isPrefix {
		return a, nil
	}
	p, err := netip.ParsePrefix(a.String() + "/" + bits)
	switch {
	case err != nil:
		return netip.Addr{}, fmt.Errorf("%.60q is no network; give an address", s)
	case p.IsSingleIP(), a.Is6() && p.Bits() == 64 && p == p.Masked():
		return a, nil
	}
	return netip.Addr{}, fmt.Errorf("%.60q is never banned as one: bans are of addresses and of IPv6 /64 networks; give an address", s)
}
