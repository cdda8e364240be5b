package detect

import (
	"fmt"
	"slices"

	"portsentry/internal/decode"
)

// Kind names a probe from its packet alone.
type Kind uint8

// Kinds of probe that one packet shows. The kernel keeps their numbers from one
// run to the next: new ones come at the end.
const (
	KindNone   Kind = iota
	KindSYN         // SYN alone of the six classic flags, ECN set-up included
	KindFIN         // FIN alone
	KindNULL        // no flag at all
	KindXMAS        // FIN, PSH and URG, with or without SYN
	KindMaimon      // FIN and ACK (Uriel Maimon, Phrack 49): only where no connection is
	KindACK         // ACK alone: nmap's ACK and window scans send the same packet
	KindOdd         // any other combination without ACK and RST
	KindUDP
	KindConnect // a trap socket of ours took it (connect mode), TCP and UDP alike; or a handshake was completed
	KindINIT    // SCTP INIT
	KindCookie  // SCTP COOKIE-ECHO out of nowhere
	KindProto   // an IP protocol that nobody has asked for
	KindEcho    // ICMP echo request
	KindStamp   // ICMP timestamp request
	KindMask    // ICMP address mask request
	KindOS      // a probe of nmap's OS detection
	KindVersion // a connection to a port that was found open, to hear what speaks there
	KindWorm    // one port of a worm's, at many addresses
)

// kindWords are the kinds as JSON and the counters name them.
var kindWords = [...]string{
	"none", "syn", "fin", "null", "xmas", "maimon", "ack", "odd", "udp", "connect", "sctp-init", "sctp-cookie", "ip-protocol",
	"icmp-sweep", "icmp-timestamp", "icmp-mask", "os-detection", "version", "worm",
}

// String is the kind as JSON and the counters name it.
func (k Kind) String() string {
	if int(k) < len(kindWords) {
		return kindWords[k]
	}
	return kindWords[KindNone]
}

// ParseKind is the reverse of String: KindNone for any other word.
func ParseKind(word string) Kind {
	return Kind(max(0, slices.Index(kindWords[:], word)))
}

const six = decode.FIN | decode.SYN | decode.RST | decode.PSH | decode.ACK | decode.URG

// Classify names a TCP packet by its flags. KindNone means that it is no probe
// whatever the port: a RST, a SYN-ACK (backscatter, RFC 9293 section 3.5.2), or
// data of a connection that is gone.
func Classify(flags uint16) Kind {
	switch f := flags & six; {
	case f&decode.RST != 0, f&(decode.SYN|decode.ACK) == decode.SYN|decode.ACK:
		return KindNone
	case f == 0:
		// PortSentry 2.x calls ECE or CWR alone unknown, 1.x NULL. It is no
		// combination that a stack sends.
		if flags&(decode.ECE|decode.CWR|decode.AE) != 0 {
			return KindOdd
		}
		return KindNULL
	case f&(decode.FIN|decode.PSH|decode.URG) == decode.FIN|decode.PSH|decode.URG && f&decode.ACK == 0:
		return KindXMAS
	case f == decode.FIN:
		return KindFIN
	case f == decode.SYN:
		return KindSYN
	case f == decode.FIN|decode.ACK:
		return KindMaimon
	case f == decode.ACK:
		return KindACK
	case f&decode.ACK != 0:
		return KindNone // PSH+ACK, FIN+PSH+ACK, URG+ACK: the tail of an old connection
	}
	return KindOdd
}

// TypeText is the type as PortSentry 2.x writes it between the brackets of its
// scan line.
func TypeText(k Kind, flags uint16) string {
	switch k {
	case KindSYN:
		return "TCP SYN/Normal scan"
	case KindFIN:
		return "TCP FIN scan"
	case KindNULL:
		return "TCP NULL scan"
	case KindXMAS:
		return "TCP XMAS scan"
	case KindMaimon:
		return "TCP Maimon scan"
	case KindACK:
		return "TCP ACK/Window scan"
	case KindUDP:
		return "UDP"
	case KindConnect:
		return "Connect"
	case KindINIT:
		return "SCTP INIT scan"
	case KindCookie:
		return "SCTP COOKIE-ECHO scan"
	case KindProto:
		return "IP protocol scan"
	case KindEcho:
		return "ICMP echo sweep"
	case KindStamp:
		return "ICMP timestamp sweep"
	case KindMask:
		return "ICMP address mask sweep"
	case KindOS:
		return "OS detection"
	case KindVersion:
		return "Version detection"
	case KindWorm:
		return "Worm-like scan"
	}
	bit := func(f uint16) int {
		if flags&f != 0 {
			return 1
		}
		return 0
	}
	return fmt.Sprintf("Unknown Type: TCP Packet Flags: SYN: %d FIN: %d ACK: %d PSH: %d URG: %d RST: %d",
		bit(decode.SYN), bit(decode.FIN), bit(decode.ACK), bit(decode.PSH), bit(decode.URG), bit(decode.RST))
}
