package config

import (
	"fmt"
	"strings"
)

// belowAdvanced is N of the ports 1 to N-1 that Advanced watches, set being what
// ADVANCED_PORTS_* says.
func belowAdvanced(set int) int {
	if set == 0 {
		return 1024
	}
	return set
}

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
		return PortSet{{1, uint16(belowAdvanced(below) - 1)}}.Less(exclude)
	}
	return listed
}

// WithModes is c watched as m says, in the habits of d; c stays as it is. 1.x
// refuses a mode whose list of ports is missing; in 2.x one list is enough, and
// the protocol without one is Unwatched. 1.x also has a log format of its own,
// unless LOG_FORMAT is set. The error is a *Mistakes.
func (c *Config) WithModes(m Modes, d Dialect) (*Config, error) {
	n := *c
	n.Modes, n.Dialect = m, d
	if d == Dialect1x && c.Line("LOG_FORMAT") == 0 {
		n.LogFormat = Log1x
	}
	rep := &report{file: c.Path}
	if rep.file == "" {
		rep.file = "the built-in configuration"
	}
	for _, p := range n.protocols() {
		switch {
		case *p.mode == Unwatched:
		case *p.mode == Advanced && len(p.traps) == 0:
			rep.add(c.Line("ADVANCED_EXCLUDE_"+p.name), "ADVANCED_EXCLUDE_"+p.name, "leaves none of the ports 1 to %d to watch", p.below-1)
		case len(p.traps) > 0:
		case d == Dialect1x:
			rep.add(0, p.name+"_PORTS", "is not set, and -%s watches the ports it lists; set it, or start with -%s to watch the ports below ADVANCED_PORTS_%s",
				p.mode.Word(d, p.udp), Advanced.Word(d, p.udp), p.name)
		default:
			*p.mode = Unwatched
		}
	}
	if rep.list == nil && n.Modes == (Modes{}) {
		rep.add(0, "", "nothing to watch: %s", n.whatWouldHelp(m))
	}
	if err := rep.err(); err != nil {
		return nil, err
	}
	return &n, nil
}

// whatWouldHelp is for a configuration in which m finds no ports.
func (c *Config) whatWouldHelp(m Modes) string {
	if m == (Modes{}) {
		return "no mode for TCP and none for UDP"
	}
	var lists, flags, below []string
	for i, p := range c.protocols() {
		if [...]Mode{m.TCP, m.UDP}[i] != Unwatched {
			lists = append(lists, p.name+"_PORTS")
		}
		if p.set > 0 {
			flags = append(flags, "-"+Advanced.Word(Dialect1x, p.udp))
			below = append(below, "ADVANCED_PORTS_"+p.name)
		}
	}
	s := lists[0] + " is not set; set it"
	if len(lists) > 1 {
		s = "neither TCP_PORTS nor UDP_PORTS is set; set one"
	}
	if flags != nil {
		s += ", or start with " + strings.Join(flags, " ") + " to watch the ports below " + strings.Join(below, " and ")
	}
	return s
}

// Notes says, a sentence each, what is assumed because it is not set.
func (c *Config) Notes() []string {
	var out []string
	for _, p := range c.protocols() {
		if *p.mode == Advanced && p.set == 0 {
			out = append(out, fmt.Sprintf("ADVANCED_PORTS_%s is not set: ports 1 to %d are watched, as of old", p.name, p.below-1))
		}
	}
	return out
}

// protocol is what a Config says about watching TCP or UDP.
type protocol struct {
	name  string
	udp   bool
	mode  *Mode
	set   int // ADVANCED_PORTS_*; 0: not set
	below int // what Advanced then means
	traps PortSet
}

func (c *Config) protocols() [2]protocol {
	return [2]protocol{
		{"TCP", false, &c.Modes.TCP, c.AdvancedPortsTCP, belowAdvanced(c.AdvancedPortsTCP), c.TrapsTCP()},
		{"UDP", true, &c.Modes.UDP, c.AdvancedPortsUDP, belowAdvanced(c.AdvancedPortsUDP), c.TrapsUDP()},
	}
}
