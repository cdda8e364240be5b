package cli

import (
	"bufio"
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"portsentry/internal/view"
)

// ReplayGroup is a campaign: sources that belong together.
type ReplayGroup struct {
	ID          uint64 // Scan.Campaign of its members
	What        string // decoys, run, network or sweep
	Members     []netip.Addr
	Count       int        // of members, named or not
	Real        netip.Addr // the one among decoys that proved itself; zero: none
	First, Last int64      // unix nanoseconds
	Contacts    int
	Ports       int
	Reason      string
}

// ReplayNotice is something that many did and that is no scan.
type ReplayNotice struct {
	ID          uint64
	What        string // backscatter, flood, worm or zombie
	First, Last int64  // unix nanoseconds
	Packets     uint64
	Sources     int
	Victim      netip.Addr // zero: none stands out
	Proto       uint8      // 0: several
	Port        uint16     // 0: no single one
	Reason      string
}

// sortGroups puts what began first first.
func (r *Replay) sortGroups() {
	slices.SortFunc(r.Groups, func(a, b ReplayGroup) int { return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.ID, b.ID)) })
	slices.SortFunc(r.Notices, func(a, b ReplayNotice) int { return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.ID, b.ID)) })
}

// membersShown is how many members the text names.
const membersShown = 12

func (r *Replay) writeGroups(w *bufio.Writer, columns int) {
	for _, g := range r.Groups {
		text := "campaign " + campaign(g.ID) + ": " + view.Printable(g.Reason)
		if g.Real.IsValid() {
			text += "; the real one is " + g.Real.String()
		}
		wrapped(w, "", 0, text, columns)
		var names []string
		for _, m := range g.Members[:min(len(g.Members), membersShown)] {
			names = append(names, m.String())
		}
		if more := g.Count - len(names); more > 0 {
			names = append(names, view.Grouped(uint64(more))+" more")
		}
		wrapped(w, "", 4, strings.Join(names, ", "), columns)
	}
	for _, n := range r.Notices {
		wrapped(w, "", 0, n.What+": "+view.Printable(n.Reason)+", from "+time.Unix(0, n.First).UTC().Format("2006-01-02 15:04:05.000")+" UTC", columns)
	}
}

// groupLine and noticeLine are events of docs/json.md.
type groupLine struct {
	Event    string   `json:"event"`
	Time     string   `json:"time"`
	Campaign string   `json:"campaign"`
	What     string   `json:"what"`
	Members  []string `json:"members"`
	Count    int      `json:"count"`
	Real     string   `json:"real,omitempty"`
	First    string   `json:"first"`
	Last     string   `json:"last"`
	Contacts int      `json:"contacts"`
	Ports    int      `json:"ports"`
	Reason   string   `json:"reason"`
}

type noticeLine struct {
	Event   string `json:"event"`
	Time    string `json:"time"`
	What    string `json:"what"`
	First   string `json:"first"`
	Last    string `json:"last"`
	Packets uint64 `json:"packets"`
	Sources int    `json:"sources"`
	Victim  string `json:"victim,omitempty"`
	Proto   string `json:"proto,omitempty"`
	Port    uint16 `json:"port,omitempty"`
	Reason  string `json:"reason"`
}

func (r *Replay) writeGroupsJSON(w *bufio.Writer) {
	for _, g := range r.Groups {
		line := groupLine{
			Event: "campaign", Time: nanoTime(g.First), Campaign: campaign(g.ID), What: g.What, Members: []string{}, Count: g.Count,
			First: nanoTime(g.First), Last: nanoTime(g.Last), Contacts: g.Contacts, Ports: g.Ports, Reason: view.Printable(g.Reason),
		}
		for _, m := range g.Members {
			line.Members = append(line.Members, m.String())
		}
		if g.Real.IsValid() {
			line.Real = g.Real.String()
		}
		writeLine(w, line)
	}
	for _, n := range r.Notices {
		line := noticeLine{
			Event: "notice", Time: nanoTime(n.First), What: n.What, First: nanoTime(n.First), Last: nanoTime(n.Last),
			Packets: n.Packets, Sources: n.Sources, Port: n.Port, Reason: view.Printable(n.Reason),
		}
		if n.Victim.IsValid() {
			line.Victim = n.Victim.String()
		}
		if n.Proto != 0 {
			line.Proto = view.Proto(n.Proto)
		}
		writeLine(w, line)
	}
}

func nanoTime(nanos int64) string { return time.Unix(0, nanos).UTC().Format(rfc3339) }
