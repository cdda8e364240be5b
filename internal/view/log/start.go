package log

import (
	"strconv"

	"portsentry/internal/config"
)

// maxPortLines is how many ports have a line of their own when they are named
// at the start, as many as 1.x had room for. The others share one line.
const maxPortLines = 64

// advancedUnset is N of the ports 1 to N-1 where ADVANCED_PORTS_* is not set.
const advancedUnset = 1024

// Starting says who we are, before anything else.
func (w *Writer) Starting(version, commit string) {
	if w.o.Format == config.Log1x {
		w.State("starting", "adminalert: PortSentry "+version+" is starting.")
	} else {
		w.State("starting", "Portsentry "+version+" ("+commit+")")
	}
}

// Active says that something is watched from now on.
func (w *Writer) Active() {
	if w.o.Format == config.Log1x {
		w.State("active", "adminalert: PortSentry is now active and listening.")
	} else {
		w.State("active", "Portsentry is now active and listening.")
	}
}

// Stopping says that nothing is watched any more.
func (w *Writer) Stopping() {
	if w.o.Format == config.Log1x {
		w.Notice("securityalert: PortSentry is shutting down")
		w.State("stopping", "adminalert: PortSentry is shutting down")
	} else {
		w.State("stopping", "Portsentry is shutting down")
	}
}

// Watching names the ports of c as its modes have them, in the words of 1.x, or
// in connect mode in those of 2.x. inUse reports a port that somebody else
// serves, or that could not be bound.
func (w *Writer) Watching(c *config.Config, inUse func(udp bool, port uint16) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range []watch{
		{"TCP", c.Modes.TCP, c.TCPPorts, c.AdvancedPortsTCP, c.AdvancedExcludeTCP, func(port uint16) bool { return inUse(false, port) }},
		{"UDP", c.Modes.UDP, c.UDPPorts, c.AdvancedPortsUDP, c.AdvancedExcludeUDP, func(port uint16) bool { return inUse(true, port) }},
	} {
		switch w.o.Format {
		case config.Log1x:
			w.watching1x(&p)
		case config.Log2x:
			if p.mode == config.Connect {
				w.watching2x(&p)
			}
		}
	}
	w.flush()
}

// watch is how one protocol is watched.
type watch struct {
	proto   string
	mode    config.Mode
	ports   config.PortSet // named in the configuration
	below   int            // advanced: N, 0 when it is not set
	exclude config.PortSet // advanced
	inUse   func(port uint16) bool
}

func (w *Writer) watching1x(p *watch) {
	var going, taken, rest string
	switch p.mode {
	case config.Unwatched:
		return
	case config.Advanced:
		w.advanced1x(p)
		return
	case config.Connect:
		going = "adminalert: Going into listen mode on " + p.proto + " port"
		taken, rest = "adminalert: ERROR: could not bind "+p.proto+" socket: ", ". Attempting to continue"
	default:
		going = "adminalert: Going into stealth listen mode on " + p.proto + " port"
		taken, rest = "adminalert: ERROR: Socket ", " is in use and will not be monitored. Attempting to continue"
	}
	w.eachPort(p.ports, going, "", func(port uint16) {
		if p.inUse(port) {
			w.say(levelNotice, taken, strconv.Itoa(int(port)), rest)
		}
	})
}

// advanced1x names the ports that are no traps: served ones and excluded ones,
// which 1.x named twice.
func (w *Writer) advanced1x(p *watch) {
	below := p.below
	if below == 0 {
		below = advancedUnset
	}
	w.say(levelNotice, "adminalert: Advanced mode will monitor first ", strconv.Itoa(below), " ports")
	if len(p.exclude) == 0 {
		w.say(levelNotice, "adminalert: Advanced mode will manually exclude no ports")
	}
	w.eachPort(p.exclude, "adminalert: Advanced mode will manually exclude port", " ", nil)
	var served config.PortSet
	for port := 1; port < below; port++ {
		if p.inUse(uint16(port)) {
			served = withPort(served, uint16(port))
		}
	}
	ignored := "adminalert: Advanced Stealth scan detection mode activated. Ignored " + p.proto + " port"
	w.eachPort(served, ignored, "", nil)
	w.eachPort(p.exclude, ignored, "", nil)
}

// watching2x names the trap sockets that there are.
func (w *Writer) watching2x(p *watch) {
	var bound config.PortSet
	for _, r := range p.ports {
		for port := int(r.First); port <= int(r.Last); port++ {
			if !p.inUse(uint16(port)) {
				bound = withPort(bound, uint16(port))
			}
		}
	}
	w.eachPort(bound, "Listen on AF_INET6: "+p.proto+" port", "", nil)
}

// withPort is s and port, which lies behind all of s.
func withPort(s config.PortSet, port uint16) config.PortSet {
	if n := len(s); n > 0 && s[n-1].Last == port-1 {
		s[n-1].Last = port
		return s
	}
	return append(s, config.PortRange{First: port, Last: port})
}

// eachPort writes "words: port" with after behind it, a line a port, and calls
// each after it. The ports beyond the first maxPortLines share one line, in which
// "ports" is plural, so that nobody takes it for one.
func (w *Writer) eachPort(ports config.PortSet, words, after string, each func(port uint16)) {
	n := 0
	for i, r := range ports {
		for port := int(r.First); port <= int(r.Last); port++ {
			if n++; n > maxPortLines {
				others := append(config.PortSet{{First: uint16(port), Last: r.Last}}, ports[i+1:]...)
				w.say(levelNotice, words, "s: ", others.String(), after)
				return
			}
			w.say(levelNotice, words, ": ", strconv.Itoa(port), after)
			if each != nil {
				each(uint16(port))
			}
		}
	}
}
