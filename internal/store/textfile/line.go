package textfile

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"portsentry/internal/decode"
	"portsentry/internal/store"
)

// BlockedEntry is one blocked host.
type BlockedEntry struct {
	Since time.Time // seconds
	Name  string    // of the host; empty when it is not known
	Host  netip.Addr
	Port  uint16
	Proto uint8 // decode.ProtoTCP or decode.ProtoUDP
}

// appendEntry appends e as 1.x wrote it, with a newline:
//
//	1795218968 - 11/20/2026 23:56:08 Host: NAME/10.77.0.2 Port: 1 TCP Blocked
//
// The date is local time. A name that could be read as anything else than a
// name gives way to the address: 1.x let a PTR record write into this file.
func appendEntry(b []byte, e *BlockedEntry) []byte {
	host := e.Host.String()
	name := store.HostName(e.Name)
	if name == "" {
		name = host
	}
	proto := "TCP"
	if e.Proto == decode.ProtoUDP {
		proto = "UDP"
	}
	b = strconv.AppendInt(b, e.Since.Unix(), 10)
	b = e.Since.Local().AppendFormat(b, " - 01/02/2006 15:04:05 Host: ")
	return fmt.Appendf(b, "%s/%s Port: %d %s Blocked\n", name, host, e.Port, proto)
}

// parseEntry reads one line. It asks for no more than it needs, since people
// edit the file: the time in front, and from Host: on what 1.x wrote.
func parseEntry(line []byte) (e BlockedEntry, ok bool) {
	when, rest, found := strings.Cut(string(line), " - ")
	sec, err := strconv.ParseInt(when, 10, 64)
	if !found || err != nil || sec < 0 || sec > maxSeconds {
		return e, false
	}
	_, rest, found = strings.Cut(rest, "Host: ")
	host, rest, found2 := strings.Cut(rest, " Port: ")
	slash := strings.LastIndexByte(host, '/')
	if !found || !found2 || slash < 0 {
		return e, false
	}
	addr, err := netip.ParseAddr(host[slash+1:])
	if err != nil || addr.Zone() != "" {
		return e, false
	}
	f := strings.Fields(rest)
	if len(f) != 3 || f[2] != "Blocked" {
		return e, false
	}
	port, err := strconv.ParseUint(f[0], 10, 16)
	if err != nil {
		return e, false
	}
	e = BlockedEntry{Since: time.Unix(sec, 0), Host: addr.Unmap(), Port: uint16(port)}
	if name := host[:slash]; name != host[slash+1:] {
		e.Name = name
	}
	switch f[1] {
	case "TCP":
		e.Proto = decode.ProtoTCP
	case "UDP":
		e.Proto = decode.ProtoUDP
	default:
		return e, false
	}
	return e, true
}

// maxSeconds is the end of the year 9999: what prints in four digits.
const maxSeconds = 253402300799

// parseBlocked reads a whole file: its entries, one a host, the first line
// about it counting, and a sentence for each line that is none (at most
// maxWarnings of them). Blank lines and comments are the owner's business.
func parseBlocked(text []byte) (entries []BlockedEntry, warnings []string) {
	seen := make(map[netip.Addr]bool)
	number, odd, over := 0, 0, 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		e, ok := parseEntry(line)
		switch {
		case !ok:
			if odd++; odd <= maxWarnings {
				warnings = append(warnings, fmt.Sprintf("line %d: %q is no line about a blocked host; it is left as it is", number, clip(line)))
			}
		case seen[e.Host]:
		case len(entries) == maxEntries:
			over++
		default:
			seen[e.Host] = true
			entries = append(entries, e)
		}
	}
	if odd > maxWarnings {
		warnings = append(warnings, fmt.Sprintf("and %d more lines like these", odd-maxWarnings))
	}
	if over > 0 {
		warnings = append(warnings, fmt.Sprintf("%d hosts beyond the first %d are left out", over, maxEntries))
	}
	return entries, warnings
}

// clip shortens a line for a message.
func clip(line []byte) []byte {
	const most = 60
	if len(line) > most {
		return append(bytes.Clone(line[:most]), "..."...)
	}
	return line
}
