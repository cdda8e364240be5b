package full

import "portsentry/internal/detect"

// kindOf names the contact with more than its first packet to go by: tool is what made
// that packet, as far as it shows. known: its source has been found to scan before.
func kindOf(c *detect.Contact, tool detect.Tool, known bool) detect.Kind {
	switch {
	case osProbe(&c.Head):
		return detect.KindOS
	case known && c.Verified && c.Spoke:
		return detect.KindVersion
	case c.Kind == detect.KindSYN && connects(c) && (c.Verified || tool == 0): // no tool that is known connects
		return detect.KindConnect
	}
	return c.Kind
}

// enough is how many things have to fail by a kind of probe to make a finding of its
// own of it: what one packet was like may be chance, or made to confuse.
func enough(k detect.Kind) int {
	if k == detect.KindOS {
		return 1 // unmistakable
	}
	return 3
}

// neverAnswered are the kinds to which an answer is no success: no stack sends them
// to ask for something, or their source has shown what it is after.
func neverAnswered(k detect.Kind) bool {
	switch k {
	case detect.KindFIN, detect.KindNULL, detect.KindXMAS, detect.KindOdd, detect.KindOS, detect.KindVersion:
		return true
	}
	return false
}
