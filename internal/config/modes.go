package config

// Mode is a way of watching the ports of one protocol.
type Mode uint8

// Modes. The words of 1.x are in the comments, for TCP and for UDP.
const (
	Unwatched Mode = iota
	Connect        // trap sockets take what comes: tcp, udp
	Stealth        // packets are looked at below the sockets: stcp, sudp
	Advanced       // as Stealth, for the ports below ADVANCED_PORTS_*: atcp, audp
)

// Modes says how each protocol is watched.
type Modes struct{ TCP, UDP Mode }

// Dialect is the generation of PortSentry whose habits are asked for.
type Dialect uint8

// Dialects. Started with a flag of 1.x it is Dialect1x, else Dialect2x.
const (
	Dialect2x Dialect = iota
	Dialect1x
)

// firstAdvanced is N of the ports 1 to N-1 where ADVANCED_PORTS_* is not set.
const firstAdvanced = 1024

// TrapsTCP are the TCP ports to watch, as the mode has it.
func (c *Config) TrapsTCP() PortSet {
	return traps(c.Modes.TCP, c.TCPPorts, c.AdvancedPortsTCP, c.AdvancedExcludeTCP)
}

// TrapsUDP are the UDP ports to watch, as the mode has it.
func (c *Config) TrapsUDP() PortSet {
	return traps(c.Modes.UDP, c.UDPPorts, c.AdvancedPortsUDP, c.AdvancedExcludeUDP)
}

func traps(m Mode, listed PortSet, below int, exclude PortSet) PortSet {
	switch m {
	case Unwatched:
		return nil
	case Advanced:
		if below == 0 {
			below = firstAdvanced
		}
		return PortSet{{1, uint16(below - 1)}}.Less(exclude)
	}
	return listed
}

// Less is s without the ports of t.
func (s PortSet) Less(t PortSet) PortSet {
	var out PortSet
	for _, r := range s {
		next := int(r.First)
		for _, x := range t {
			if int(x.Last) < next || x.First > r.Last {
				continue
			}
			if int(x.First) > next {
				out = append(out, PortRange{uint16(next), x.First - 1})
			}
			next = int(x.Last) + 1
		}
		if next <= int(r.Last) {
			out = append(out, PortRange{uint16(next), r.Last})
		}
	}
	return out
}

// Word is the mode as $MODE$ and the names of the files of 1.x have it.
func (m Mode) Word(d Dialect, udp bool) string {
	if d == Dialect2x {
		return [...]string{"none", "connect", "stealth", "advanced"}[m]
	}
	if udp {
		return [...]string{"none", "udp", "sudp", "audp"}[m]
	}
	return [...]string{"none", "tcp", "stcp", "atcp"}[m]
}
