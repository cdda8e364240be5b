package view

import (
	"net/netip"
	"time"
)

// Event is one row of `portsentry events`: how much was seen of one source and kind
// in a span of time, or something that began or ended.
type Event struct {
	Time     time.Time  `json:"time"`             // of the first packet, or when it was
	Last     *time.Time `json:"last,omitempty"`   // of the last packet, where there are several
	Type     string     `json:"type"`             // probes, scan, ban, end, change, lost
	Source   string     `json:"source,omitempty"` // address, or prefix of a ban; "": many sources together, or nobody's
	Kind     string     `json:"kind,omitempty"`   // of probe or scan
	Protocol string     `json:"protocol,omitempty"`
	Count    uint64     `json:"count,omitempty"` // packets
	Port     uint16     `json:"port,omitempty"`  // the first
	Ports    uint32     `json:"ports,omitempty"` // distinct
	Text     string     `json:"text"`            // in words
}

// EventList is the answer of GET PathEvents. Asked to follow, the daemon sends one
// Event a line, as they happen, until the client goes.
type EventList struct {
	Events []Event `json:"events"`         // newest first
	More   bool    `json:"more,omitempty"` // there are older ones within what was asked for
}

// EventFilter is the query of GET PathEvents.
type EventFilter struct {
	Since, Until time.Time    // zero: not asked for
	Source       netip.Prefix // invalid: everybody
	Kind         string       // "": every kind
	Limit        int
}

// Source is one row of `portsentry sources`.
type Source struct {
	Address  netip.Addr `json:"address"`
	Name     string     `json:"name,omitempty"`
	First    time.Time  `json:"first"`
	Last     time.Time  `json:"last"`
	Probes   uint64     `json:"probes"`
	Ports    uint32     `json:"ports"` // distinct, at least
	Kinds    []string   `json:"kinds"`
	Evidence string     `json:"evidence"`
	Bans     int        `json:"bans"` // how often
	Banned   bool       `json:"banned"`
	Tool     string     `json:"tool,omitempty"`
	Campaign string     `json:"campaign,omitempty"` // sixteen hexadecimal digits
}

// SourceList is the answer of GET PathSources, the latest first.
type SourceList struct {
	Sources []Source `json:"sources"`
	More    bool     `json:"more,omitempty"`
}

// Packet is one packet of Why.
type Packet struct {
	Time            time.Time  `json:"time"`
	Interface       string     `json:"interface,omitempty"`
	Source          netip.Addr `json:"source"`
	SourcePort      uint16     `json:"source_port"`
	Destination     netip.Addr `json:"destination"`
	DestinationPort uint16     `json:"destination_port"`
	Protocol        string     `json:"protocol"`
	Kind            string     `json:"kind"`
	Flags           string     `json:"flags,omitempty"`
	TTL             uint8      `json:"ttl"`
	Text            string     `json:"text"` // what came of it
}

// PastBan is a ban that has ended, or the one that stands.
type PastBan struct {
	Ban
	Ended   *time.Time `json:"ended"`            // null: it stands
	Ending  string     `json:"ending,omitempty"` // expired, lifted, spared, undone
	By      string     `json:"by,omitempty"`     // who asked for it; "": the daemon
	EndedBy string     `json:"ended_by,omitempty"`
}

// Why is the answer of GET PathWhy/ADDR.
type Why struct {
	Address    netip.Addr `json:"address"`
	Name       string     `json:"name,omitempty"`
	Verdict    string     `json:"verdict"`           // banned, spared, seen, unknown
	Spared     string     `json:"spared,omitempty"`  // why he is never acted on
	Ban        *PastBan   `json:"ban,omitempty"`     // that stands
	Summary    string     `json:"summary,omitempty"` // what he did, in words
	Packets    []Packet   `json:"packets"`           // that decided, else the latest; oldest first
	Rules      []Rule     `json:"rules"`             // settings that led to it, in the order of the reasoning
	Arithmetic []string   `json:"arithmetic"`        // how the length and the score came about, a sentence each
	Past       []PastBan  `json:"past"`              // earlier bans, newest first
	Seen       *Source    `json:"seen,omitempty"`
}

// Rule is a setting and where it was made.
type Rule struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	Where string `json:"where"` // file:line, or "default"
}

// Tally is one row of a ranking.
type Tally struct {
	What  string `json:"what"`
	Count uint64 `json:"count"`
	Note  string `json:"note,omitempty"`
}

// Report is the answer of GET PathReport.
type Report struct {
	Version string    `json:"version"`
	Host    string    `json:"host"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until"`

	Sources uint64 `json:"sources"`
	Probes  uint64 `json:"probes"`
	Scans   uint64 `json:"scans"`
	Begun   uint64 `json:"bans_begun"`
	Ended   uint64 `json:"bans_ended"`
	Stand   uint64 `json:"bans_standing"`
	Lost    uint64 `json:"lost"` // things counted and not itemised

	TopSources []Source  `json:"top_sources"`
	TopPorts   []Tally   `json:"top_ports"` // "23/tcp"
	Kinds      []Tally   `json:"kinds"`
	Endings    []Tally   `json:"endings"`
	Answered   []Tally   `json:"answered"` // ports of ours that answered who was later banned: what was learned
	Bans       []PastBan `json:"bans"`     // the latest that began then
}

// Health is the answer of GET PathHealth.
type Health struct {
	OK       bool     `json:"ok"`
	Problems []string `json:"problems"`
	// Enforced of Bans bans are in the kernel, looked at by Checked.
	Bans     int        `json:"bans"`
	Enforced int        `json:"enforced"`
	Checked  *time.Time `json:"checked"`
}
