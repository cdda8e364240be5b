package full

import (
	"net/netip"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// wormAddresses is how many machines somebody who looks for one service has to try to
// be taken for a worm: more than a person has reason to.
const wormAddresses = 20

// wormPort reports whether worms have spread through a service.
func wormPort(proto uint8, port uint16) bool {
	if proto == decode.ProtoUDP {
		return port == 1434 // Slammer
	}
	switch port {
	case 135, 139, 445, // Blaster, Conficker, WannaCry
		23, 81, 2323, 5358, 7547, 37215, 52869, 60001, // Mirai and its children
		2745, 3127, 5554, 6129, 9898, // the doors that others had left: Bagle, MyDoom, Sasser
		1433, 3306, 6379, // servers of data
		3389, 5555, 5900: // screens and debuggers
		return true
	}
	return false
}

// likeWorm reports whether s is one port, known for it, of many addresses, and nothing
// else. With a tool that is known it is a person.
func likeWorm(s *detect.Scan, only uint16) bool {
	return s.Tool == "" && s.Ports == 1 && s.Targets >= wormAddresses && wormPort(s.Proto, only) &&
		(s.Kind == detect.KindSYN || s.Kind == detect.KindConnect || s.Kind == detect.KindUDP)
}

// soughtEverywhere are the ports that clients turn to at strangers' all over the Internet:
// of the system ports (RFC 6335) those of names, the Web, mail and news. The others are
// asked for of machines that somebody knows.
func soughtEverywhere(port uint16) bool {
	switch port {
	case 25, 53, 80, 110, 113, 119, 143, 443, 465, 563, 587, 853, 993, 995:
		return true
	}
	return port >= 1024
}

// sweeps reports whether c may be part of a sweep whose addresses lie anywhere: it is for
// a service that worms have spread through, or that nobody has at strangers', or its
// sender makes his packets himself, for he wants no connection.
func sweeps(c *detect.Contact, kind detect.Kind) bool {
	return wormPort(c.Proto, c.DstPort) || kind == detect.KindSYN || c.Proto == decode.ProtoTCP && !soughtEverywhere(c.DstPort)
}

// sweep counts what a source does with one service, at whatever addresses: worms, and
// who goes through all of the Internet, take those by chance, so that hardly two lie in
// one network. Nobody else tries so many, and fails. The board is nil where c is no such
// contact.
func (e *Engine) sweep(src netip.Addr, c *detect.Contact, t thing, tool detect.Tool, flooded bool) *board {
	if e.local(c.Dst) || !sweeps(c, t.kind()) {
		return nil
	}
	b := e.board(src, c, uint64(t.service())<<2)
	b.tool = max(b.tool, tool)
	b.touch(c.Time)
	if e.note(b, t) && !flooded {
		w := e.weigh(b, c, t, false)
		if w.score > 0 {
			w.score = min(w.score, Step*quarter)
		}
		e.add(b, w, c.Time, e.print(t))
	}
	return b
}
