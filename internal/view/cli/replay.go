package cli

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"portsentry/internal/detect"
	"portsentry/internal/view"
)

// Replay is what captures came to.
type Replay struct {
	Scans   []*detect.Scan // one for each source and kind, in any order; sorted by WriteReplay
	Groups  []ReplayGroup
	Notices []ReplayNotice
	Packets uint64
	Length  time.Duration // that the captures cover
	// Inside tells whether an address is on this side; nil: nobody knows.
	Inside func(netip.Addr) bool
	JSON   bool // lines of docs/json.md instead of text
}

// replayWidth is where lines break that no terminal says a width for.
const replayWidth = 100

// WriteReplay writes r, by the times of the first contacts.
func WriteReplay(out io.Writer, r *Replay) error {
	slices.SortFunc(r.Scans, func(a, b *detect.Scan) int {
		return cmp.Or(cmp.Compare(a.First, b.First), a.Source.Compare(b.Source), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Proto, b.Proto))
	})
	r.sortGroups()
	return buffered(out, func(w *bufio.Writer) {
		if r.JSON {
			for _, s := range r.Scans {
				writeScanJSON(w, s)
			}
			r.writeGroupsJSON(w)
			return
		}
		columns := width(out)
		if columns == 0 {
			columns = replayWidth
		}
		r.writeText(w, columns)
	})
}

// writeText writes two entries a scan, what was done and why it counts, and the
// sum.
func (r *Replay) writeText(w *bufio.Writer, columns int) {
	sources := make(map[netip.Addr]struct{})
	for _, s := range r.Scans {
		sources[s.Source] = struct{}{}
		wrapped(w, s.Source.String(), len(s.Source.String())+1, scanWords(s), columns)
		wrapped(w, "", 4, r.scanFacts(s), columns)
		if s.Reason != "" {
			wrapped(w, "", 4, view.Printable(s.Reason), columns)
		}
	}
	r.writeGroups(w, columns)
	found := "no scan found"
	if n := len(sources); n > 0 {
		found = view.Grouped(uint64(n)) + " " + view.Plural(n, "scanner")
		if len(r.Scans) > n {
			found += ", " + view.Grouped(uint64(len(r.Scans))) + " scans"
		}
	}
	if r.Packets == 0 {
		wrapped(w, "", 0, found+", and no packet to find one in", columns)
		return
	}
	wrapped(w, "", 0, fmt.Sprintf("%s in %s %s over %s", found, view.Grouped(r.Packets), view.Plural(int(min(r.Packets, 2)), "packet"), length(r.Length)), columns)
}

// scanWords is a scan in words: "vertical SYN scan of 1,000 TCP ports of one
// address in 1.6 s, with nmap".
func scanWords(s *detect.Scan) string {
	name, of := kindWords(s.Kind)
	text := s.Direction.String() + " " + name
	targets := view.Grouped(uint64(max(s.Targets, 1))) + " addresses"
	if s.Targets < 2 {
		targets = "one address"
	}
	if of == "" {
		text += " of " + targets
	} else {
		n := max(s.Ports, 1)
		text += fmt.Sprintf(" of %s %s of %s", view.Grouped(uint64(n)), view.Plural(n, protoOf(s, of)), targets)
	}
	if d := time.Duration(s.Last - s.First); d > 0 {
		text += " in " + length(d)
	}
	if s.Tool != "" {
		text += ", with " + view.Printable(s.Tool)
	}
	return text
}

// protoOf names what was tried: ports, with their protocol where the name of the
// scan does not say it.
func protoOf(s *detect.Scan, of string) string {
	if of != "port" {
		return of
	}
	if name := view.Proto(s.Proto); name == "tcp" && s.Kind != detect.KindWorm {
		return "TCP port"
	}
	return of
}

// scanFacts says when it was, who, and how sure that is.
func (r *Replay) scanFacts(s *detect.Scan) string {
	text := "from " + time.Unix(0, s.First).UTC().Format("2006-01-02 15:04:05.000") + " UTC"
	if r.Inside != nil {
		if r.Inside(s.Source) {
			text += ", from inside"
		} else {
			text += ", from outside"
		}
	}
	text += fmt.Sprintf(", %s %s, ", view.Grouped(uint64(max(s.Probes, 0))), view.Plural(s.Probes, "probe"))
	if s.Failed < s.Probes {
		text += view.Grouped(uint64(max(s.Failed, 0))) + " of them failed, "
	}
	if s.Verified {
		text += "verified"
	} else {
		text += "unverified"
	}
	if s.Campaign != 0 {
		text += ", campaign " + campaign(s.Campaign)
	}
	return text
}

// kindWords is a kind as a person calls it, and what it tries of an address ("":
// the address itself).
func kindWords(k detect.Kind) (name, of string) {
	switch k {
	case detect.KindSYN:
		return "SYN scan", "port"
	case detect.KindFIN:
		return "FIN scan", "port"
	case detect.KindNULL:
		return "NULL scan", "port"
	case detect.KindXMAS:
		return "XMAS scan", "port"
	case detect.KindMaimon:
		return "Maimon scan", "port"
	case detect.KindACK:
		return "ACK scan", "port"
	case detect.KindOdd:
		return "scan with odd flags", "port"
	case detect.KindUDP:
		return "UDP scan", "port"
	case detect.KindConnect:
		return "connect scan", "port"
	case detect.KindINIT:
		return "SCTP INIT scan", "port"
	case detect.KindCookie:
		return "SCTP COOKIE-ECHO scan", "port"
	case detect.KindProto:
		return "IP protocol scan", "protocol"
	case detect.KindEcho:
		return "ICMP echo sweep", ""
	case detect.KindStamp:
		return "ICMP timestamp sweep", ""
	case detect.KindMask:
		return "ICMP address mask sweep", ""
	case detect.KindOS:
		return "OS detection", "port"
	case detect.KindVersion:
		return "version detection", "port"
	case detect.KindWorm:
		return "worm-like scan", "port"
	}
	return "scan", "port"
}

// length is a length of time in a capture: below a minute in seconds with a
// fraction.
func length(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return "less than 1 ms"
	case d < time.Second:
		return strconv.Itoa(int(d/time.Millisecond)) + " ms"
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	}
	return view.Span(d)
}

func campaign(n uint64) string { return fmt.Sprintf("%016x", n) }

// rfc3339 has all nine digits, so that lines sort as text.
const rfc3339 = "2006-01-02T15:04:05.000000000Z07:00"

// scanLine is an event of docs/json.md.
type scanLine struct {
	Event     string  `json:"event"`
	Time      string  `json:"time"`
	Source    string  `json:"source"`
	Kind      string  `json:"kind"`
	Direction string  `json:"direction"`
	Proto     string  `json:"proto"`
	Evidence  string  `json:"evidence"`
	First     string  `json:"first"`
	Last      string  `json:"last"`
	Ports     int     `json:"ports"`
	Targets   int     `json:"targets"`
	Probes    int     `json:"probes"`
	Failed    int     `json:"failed"`
	Score     float64 `json:"score"`
	Tool      string  `json:"tool,omitempty"`
	Campaign  string  `json:"campaign,omitempty"`
	Reason    string  `json:"reason"`
}

func writeScanJSON(w *bufio.Writer, s *detect.Scan) {
	at := nanoTime
	line := scanLine{
		Event: "scan", Time: at(s.Found), Source: s.Source.WithZone("").String(),
		Kind: s.Kind.String(), Direction: s.Direction.String(), Proto: view.Proto(s.Proto), Evidence: "E1",
		First: at(s.First), Last: at(s.Last), Ports: s.Ports, Targets: s.Targets, Probes: s.Probes, Failed: s.Failed,
		Score: math.Round(100*s.Score) / 100, Tool: view.Printable(s.Tool), Reason: view.Printable(s.Reason),
	}
	if s.Verified {
		line.Evidence = "E2"
	}
	if s.Campaign != 0 {
		line.Campaign = campaign(s.Campaign)
	}
	if math.IsInf(line.Score, 0) || math.IsNaN(line.Score) { // JSON has no word for it
		line.Score = 0
	}
	writeLine(w, line)
}

func writeLine(w *bufio.Writer, line any) {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(line) // the writer keeps its error
}

// Grouped is n with its thousands set apart: 61,204.
func Grouped(n uint64) string { return view.Grouped(n) }
