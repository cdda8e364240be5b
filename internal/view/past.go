package view

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"portsentry/internal/detect"
)

// Event is one row of `portsentry events`: how much was seen of one source and kind
// in a span of time, or something that began or ended.
type Event struct {
	Time     time.Time  `json:"time"`             // of the first packet, or when it was
	Last     *time.Time `json:"last,omitempty"`   // of the last packet, where there are several
	Type     string     `json:"type"`             // one of the Type constants
	Source   string     `json:"source,omitempty"` // address, or prefix of a ban; "": many sources together, or nobody's
	Kind     string     `json:"kind,omitempty"`   // of probe or scan
	Protocol string     `json:"protocol,omitempty"`
	Count    uint64     `json:"count,omitempty"` // packets
	Port     uint16     `json:"port,omitempty"`  // the first
	Ports    uint32     `json:"ports,omitempty"` // distinct
	Text     string     `json:"text"`            // in words
}

// Types of Event.
const (
	TypeProbes = "probes" // packets of one source and kind
	TypeScan   = "scan"   // what a source is found to do
	TypeBan    = "ban"    // began
	TypeEnd    = "end"    // of a ban
	TypeChange = "change" // that a person made
	TypeLost   = "lost"   // what a follower was too slow for; Count of them
)

// EventKinds are the words for PastFilter.Kind.
func EventKinds() []string {
	kinds := []string{TypeProbes, TypeScan, TypeBan, TypeEnd, TypeChange}
	for k := detect.KindNone + 1; k.String() != detect.KindNone.String(); k++ {
		kinds = append(kinds, k.String())
	}
	return kinds
}

// ParseEventKind reads what of PastFilter.Kind is asked for.
func ParseEventKind(s string) (string, error) {
	if slices.Contains(EventKinds(), s) {
		return s, nil
	}
	return "", wrong("%.30q is none of %s", s, strings.Join(EventKinds(), ", "))
}

// EventList is the answer of GET PathEvents. Asked to follow, the daemon sends one
// Event a line, as they happen, until the client goes.
type EventList struct {
	Events []Event `json:"events"`         // newest first
	More   bool    `json:"more,omitempty"` // there are older ones within what was asked for
}

// PastFilter says what of the past is asked for: the query of GET PathEvents and
// PathSources.
type PastFilter struct {
	Since, Until time.Time    // zero: not asked for
	Source       netip.Prefix // invalid: everybody
	Kind         string       // a kind of probe or a type of Event; "": every one
	Limit        int          // rows; 0: as many as the daemon likes
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
	Flags           string     `json:"flags,omitempty"` // of TCP, as the JSON log has them
	TTL             uint8      `json:"ttl"`
	Seq             uint32     `json:"seq"` // TCP alone, as the next two
	Ack             uint32     `json:"ack"`
	Window          uint16     `json:"window"`
	IPID            uint16     `json:"ip_id"` // IPv4 alone
	Text            string     `json:"text"`  // what came of it
}

// PastBan is a ban that has ended, or the one that stands.
type PastBan struct {
	Ban
	Ended   *time.Time `json:"ended"`            // null: it stands
	Ending  string     `json:"ending,omitempty"` // expired, lifted, spared, undone
	By      string     `json:"by,omitempty"`     // who asked for it; "": the daemon
	EndedBy string     `json:"ended_by,omitempty"`
}

// Verdicts of Why.
const (
	VerdictBanned  = "banned"
	VerdictSpared  = "spared" // never acted on
	VerdictSeen    = "seen"   // and not banned
	VerdictUnknown = "unknown"
)

// Flags are TCP flags by their names, joined by commas.
func Flags(flags uint16) string {
	var names []string
	for i, name := range [...]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "AE"} {
		if flags&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// Why is the answer of GET PathWhy/ADDR.
type Why struct {
	Address    netip.Addr `json:"address"`
	Name       string     `json:"name,omitempty"`
	Verdict    string     `json:"verdict"`           // one of the Verdict constants
	Spared     string     `json:"spared,omitempty"`  // why he is never acted on
	Ban        *PastBan   `json:"ban,omitempty"`     // that stands
	Summary    string     `json:"summary,omitempty"` // what he did, in words
	Packets    []Packet   `json:"packets"`           // that decided, else the latest; oldest first
	Rules      []Rule     `json:"rules"`             // settings that led to it, in the order of the reasoning
	Arithmetic []string   `json:"arithmetic"`        // how the length and the score came about, a sentence each
	Past       []PastBan  `json:"past"`              // earlier bans, newest first
	Seen       *Source    `json:"seen,omitempty"`
	IgnoreFile string     `json:"ignore_file,omitempty"` // where a line keeps him out of it for ever
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

	Sources   uint64 `json:"sources"`
	Probes    uint64 `json:"probes"`
	Triggered uint64 `json:"triggered"` // of them: they counted as a scan
	Together  uint64 `json:"together"`  // of them: of more sources than are kept apart
	Begun     uint64 `json:"bans_begun"`
	Ended     uint64 `json:"bans_ended"`
	Stand     uint64 `json:"bans_standing"` // now

	TopSources []Source `json:"top_sources"`
	TopPorts   []Tally  `json:"top_ports"` // "23/tcp"
	Kinds      []Tally  `json:"kinds"`
	Endings    []Tally  `json:"endings"`
	// Answered is what was learned: ports of ours with which somebody completed a
	// connection, his first one of that day, who was banned later. nil: it cannot be
	// known here.
	Answered []Tally   `json:"answered"`
	Bans     []PastBan `json:"bans"` // the latest that began then
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
