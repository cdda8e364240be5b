package full

import (
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
		23, 2323, 7547, 37215, 52869, // Mirai and its children
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
