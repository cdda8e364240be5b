package full

import (
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// connects reports whether the contact was made with connect(2): its handshake was
// completed, or its SYN is that of a whole TCP. Such a one has options beside the MSS
// (SACK, RFC 2018; window scale and timestamps, RFC 7323), which who makes packets
// himself leaves out, for he wants no connection; and offers a window of whole
// segments (RFC 9293 section 3.8.6.2.2), which shows where the options have been lost.
func connects(c *detect.Contact) bool {
	if c.Proto != decode.ProtoTCP {
		return false
	}
	h := &c.Head
	return c.Verified || h.OptionsLen > 4 || h.OptionsLen == 0 && h.Window > 0 && h.Window%fullSegment(c) == 0
}

// fullSegment is the MSS of an Ethernet, of IPv4 or IPv6.
func fullSegment(c *detect.Contact) uint16 {
	if c.Dst.Is4() {
		return 1460
	}
	return 1440
}
