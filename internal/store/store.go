// Package store keeps what happened: a Record in, lines and (later) rows out.
// The parent holds the Record and the wording of the scan line, which is an
// interface of PortSentry 2.x that both its history file and its log show.
package store

import (
	"net/netip"
	"strconv"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// Record is one sighting with what was decided and done about it.
type Record struct {
	Verdict judge.Verdict
	Outcome respond.Outcome
	Name    string // host name of the source as found; what HostName refuses is shown as the address
}

// Flags are the four states of the 2.x scan line: true, false or unset.
type Flags struct{ Ignored, Triggered, NoBlock, Blocked decode.Tri }

// Flags derives the four states. A source that is spared for any other reason
// than the ignore file still says ignored: [true], so that a log watcher that
// asks for ignored: [false] triggered: [true] never bans a gateway.
func (r *Record) Flags() Flags {
	v := &r.Verdict
	switch {
	case v.Spared == judge.Ignored:
		return Flags{Ignored: decode.Yes}
	case v.Spared != judge.NotSpared:
		return Flags{decode.Yes, decode.Yes, decode.Yes, decode.No}
	case !v.Sighting.Triggered:
		return Flags{Ignored: decode.No, Triggered: decode.No}
	case v.Block == config.BlockNone || v.Strength == judge.Nothing:
		return Flags{decode.No, decode.Yes, decode.Yes, decode.No}
	case r.Outcome.Blocked:
		return Flags{decode.No, decode.Yes, decode.No, decode.Yes}
	}
	return Flags{decode.No, decode.Yes, decode.No, decode.No}
}

// AppendScanLine appends the 2.x scan line of r, without a newline.
func AppendScanLine(b []byte, r *Record) []byte {
	s := &r.Verdict.Sighting
	f := r.Flags()
	b = append(b, "Scan from: ["...)
	from := len(b)
	b = appendAddr(b, s.Src)
	addr := b[from:]
	b = append(b, "] ("...)
	if name := HostName(r.Name); name != "" {
		b = append(b, name...)
	} else {
		b = append(b, addr...)
	}
	b = append(b, ") protocol: ["...)
	b = append(b, ProtoName(s.Proto)...)
	b = append(b, "] port: ["...)
	b = strconv.AppendUint(b, uint64(s.DstPort), 10)
	b = append(b, "] type: ["...)
	b = append(b, detect.TypeText(s.Kind, s.Flags)...)
	b = append(b, "] IP opts: ["...)
	b = append(b, [...]string{"unknown", "not set", "set"}[s.IPOptions%3]...)
	b = appendState(b, "] ignored: [", f.Ignored)
	b = appendState(b, "] triggered: [", f.Triggered)
	b = appendState(b, "] noblock: [", f.NoBlock)
	b = appendState(b, "] blocked: [", f.Blocked)
	return append(b, ']')
}

func appendState(b []byte, label string, t decode.Tri) []byte {
	b = append(b, label...)
	return append(b, [...]string{"unset", "false", "true"}[t%3]...)
}

func appendAddr(b []byte, a netip.Addr) []byte { return a.WithZone("").AppendTo(b) }

// HostName is name if it may stand in a line for people and log watchers, else
// "". The zone that a name comes from may be the scanner's: a name is letters,
// digits, dots, hyphens and underscores (RFC 1123 section 2.1), and its last
// label begins with a letter, so that it reads as an address nowhere. OSSEC
// blocks what stands before the slash of name/address.
func HostName(name string) string {
	if len(name) > 255 {
		return ""
	}
	label := 0 // where the last label begins
	for i := range len(name) {
		switch c := name[i]; {
		case c == '.':
			if i+1 < len(name) {
				label = i + 1
			}
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return ""
		}
	}
	if label == len(name) || !isLetter(name[label]) {
		return ""
	}
	return name
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// ProtoName is the protocol as the files of old write it.
func ProtoName(proto uint8) string {
	switch proto {
	case decode.ProtoTCP:
		return "TCP"
	case decode.ProtoUDP:
		return "UDP"
	}
	return "IP " + strconv.Itoa(int(proto))
}
