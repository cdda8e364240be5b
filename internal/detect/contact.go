package detect

import (
	"net/netip"

	"portsentry/internal/decode"
)

// Outcome is what became of a contact: what the other side made of it.
type Outcome uint8

// Outcomes of a contact.
const (
	Silent   Outcome = iota // no answer within the time that one takes
	Refused                 // a RST, an ICMP error about it, or no socket there
	Answered                // somebody is there: a SYN-ACK, a datagram back, a listener
)

// Contact is one source turning to one thing for the first time: to a port of an
// address, to an address by ICMP, or to an IP protocol. Retransmissions, what goes
// on in a conversation and answers are none. It holds no pointer into packet memory.
type Contact struct {
	Time int64 // unix nanoseconds, of its first packet

	Src, Dst         netip.Addr // unmapped
	SrcPort, DstPort uint16     // 0 where the protocol has none
	Proto            uint8      // IP protocol number (IANA)
	Kind             Kind       // of its first packet
	Outcome          Outcome

	Trap bool // DstPort is a trap that the administrator named
	// Verified: the source completed the handshake of this very contact (4-tuple),
	// which nobody can do who does not get to see what is sent to it.
	Verified bool
	// Spoke: the source sent payload after the handshake; Ended: it closed or reset
	// without having sent any.
	Spoke, Ended bool
	// HalfOpen: the source reset it when it was answered, before the handshake was done.
	HalfOpen bool

	Head Header
}

// Header is what the header of a contact's first packet shows of the program that
// made it. Numbers are in host byte order.
type Header struct {
	Dst              netip.Addr
	SrcPort, DstPort uint16
	Proto            uint8
	Flags            uint16 // TCP
	Window, Urgent   uint16
	Seq, Ack         uint32
	MSS              uint16 // 0: no such option
	OptionsLen       uint8  // bytes of TCP options
	IPID             uint32
	TTL              uint8
	DF               bool
	ICMPType         uint8
	PayloadLen       int
}

// HeaderOf is the Header of p.
func HeaderOf(p *decode.Probe) Header {
	return Header{
		Dst: p.Dst, SrcPort: p.SrcPort, DstPort: p.DstPort, Proto: p.Proto, Flags: p.Flags,
		Window: p.Window, Urgent: p.Urgent, Seq: p.Seq, Ack: p.Ack, MSS: p.MSS, OptionsLen: p.TCPOptionsLen,
		IPID: p.IPID, TTL: p.TTL, DF: p.DF, ICMPType: p.ICMPType, PayloadLen: p.PayloadLen,
	}
}

// Tool is a program known by what it sends; 0: none that is known.
type Tool uint8

// Labeler knows programs by what they send. Labels and runs say what a scan is made
// with and what belongs together; they are never the reason for a ban.
type Labeler interface {
	// Label names the program that sent now, by itself or because of what the same
	// source sent before (nil: nothing). run is a number that is the same for all
	// packets of one run of it, whatever their source addresses; 0: there is none.
	Label(before, now *Header) (t Tool, run uint64)
	// Name is the name of a tool, "" for 0.
	Name(t Tool) string
}
