package app

import (
	"net/netip"

	"portsentry/internal/config"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/pktgen"
	"portsentry/internal/view/cli"
)

// role is who a probe of the test comes from.
type role uint8

const (
	stranger  role = iota // an address of its own, that nobody else uses
	connector             // opens a real connection to the trap
	client                // is connected to the served port
	gateway               // the host's way to everybody
)

// selfProbe is one kind of probe.
type selfProbe struct {
	name  string
	kind  detect.Kind // as it is to be named; KindNone: not at all
	role  role
	udp   bool
	flags uint16                // TCP
	shape func(*pktgen.Packet)  // nil: a plain packet
	shows func(*selfEvent) bool // nil: nothing but the kind is to be in the log
	scan  *selfScan             // nil: one packet says it all
}

// recordRoute is an IPv4 option with room for three addresses (RFC 791).
var recordRoute = []byte{7, 15, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// selfProbes is every kind of probe of a trap.
func selfProbes() []selfProbe {
	const syn = pktgen.SYN
	return []selfProbe{
		{name: "SYN", kind: detect.KindSYN, flags: syn},
		{name: "connect", kind: detect.KindConnect, role: connector},
		{name: "FIN", kind: detect.KindFIN, flags: pktgen.FIN},
		{name: "NULL", kind: detect.KindNULL},
		{name: "XMAS", kind: detect.KindXMAS, flags: pktgen.FIN | pktgen.PSH | pktgen.URG},
		{name: "Maimon", kind: detect.KindMaimon, flags: pktgen.FIN | pktgen.ACK},
		{name: "ACK", kind: detect.KindACK, flags: pktgen.ACK},
		{name: "odd flags", kind: detect.KindOdd, flags: syn | pktgen.FIN},
		{name: "UDP", kind: detect.KindUDP, udp: true},
		{
			name: "SYN in fragments", kind: detect.KindSYN, flags: syn,
			shape: func(p *pktgen.Packet) { p.FragmentSize, p.IPID = 8, 4242 },
			shows: func(e *selfEvent) bool { return e.Fragmented },
		},
		{
			name: "SYN with options", kind: detect.KindSYN, flags: syn,
			shape: func(p *pktgen.Packet) {
				if p.Src.Is4() {
					p.IPOptions = recordRoute
				} else {
					p.ExtHeaders = []pktgen.ExtHeader{{Type: pktgen.DestOptions, Len: 8}}
				}
			},
			shows: func(e *selfEvent) bool { return e.IPOptions || e.Source.Is6() },
		},
		{name: "bad checksum", flags: syn, shape: func(p *pktgen.Packet) { p.BadChecksum = true }},
		{name: "as the gateway", kind: detect.KindSYN, flags: syn, role: gateway},
		{name: "as a client", kind: detect.KindSYN, flags: syn, role: client},
	}
}

// servedProbes are of the served port: none is to be taken for a probe.
var servedProbes = []struct {
	name  string
	flags uint16
}{
	{"SYN to a service", pktgen.SYN}, {"FIN to a service", pktgen.FIN}, {"ACK to a service", pktgen.ACK},
}

// selfTrial is one probe from one address, and what becomes of it.
type selfTrial struct {
	cli.Trial
	probe selfProbe
	port  uint16 // where it goes; 0: nowhere

	mute, open *knock // what a ban is to silence, and what never falls silent; nil: not looked at
	times      int    // how often it is sent

	unsent  bool   // the interface did not take it
	spared  string // why the log says that nothing is done about it
	shown   bool   // the log has what the probe is to show besides its kind
	tooMuch bool   // what was to go on fell silent
}

// mostTimes bounds how often one probe is sent because of SCAN_TRIGGER.
const mostTimes = 10

// trials makes the trials, both families of each probe one after the other.
func (s *selfStage) trials() []*selfTrial {
	var all []*selfTrial
	place := placeStranger
	add := func(p selfProbe, port uint16) {
		for _, family := range s.families {
			t := &selfTrial{probe: p, port: port, times: 1}
			t.Event, t.Probe = "trial", p.name
			switch p.role {
			case connector:
				t.Source = s.address(family, placeConnect)
			case client:
				t.Source = s.address(family, placeClient)
			case gateway:
				t.Source = s.gatewayOf(family)
			default:
				t.Source = s.address(family, place)
			}
			s.promise(t)
			all = append(all, t)
		}
		place++
	}
	for _, p := range selfProbes() {
		port := s.trapTCP
		if p.udp {
			port = s.trapUDP
		}
		add(p, port)
	}
	for _, p := range s.scans() {
		add(p, s.served) // only for there to be one
	}
	for _, p := range servedProbes {
		add(selfProbe{name: p.name, flags: p.flags}, s.served)
	}
	return all
}

func (s *selfStage) gatewayOf(family int) netip.Addr {
	if family == 4 {
		return s.scanner.Addr4()
	}
	return s.scanner.Addr6()
}

// promise fills in what the configuration promises about t, by what is written
// about it and not by how the daemon comes to it.
func (s *selfStage) promise(t *selfTrial) {
	p := &t.probe
	mode, block := s.c.Modes.TCP, s.c.BlockTCP
	if p.udp {
		mode, block = s.c.Modes.UDP, s.c.BlockUDP
	}
	if p.scan != nil {
		s.promiseScan(t)
		return
	}
	if p.kind == detect.KindNone {
		t.Promise = cli.Promise{Seen: cli.MustNot, Banned: cli.MustNot}
		t.open = s.knockAt(t.Source, false, false)
		return
	}
	if p.role == client || p.role == gateway {
		t.Promise.Banned = cli.MustNot
		t.open = s.knockAt(t.Source, false, false)
	}
	kind, evidence, ok := s.named(p, mode)
	if !ok {
		return
	}
	t.Promise.Seen, t.Promise.Named, t.Promise.Evidence = cli.Must, kind.String(), evidence.String()
	t.times = max(1, s.c.ScanTrigger)
	if t.times > mostTimes {
		t.times = 1
		return
	}
	if t.Promise.Banned == cli.MustNot {
		return
	}
	harder := judge.Soft
	if evidence == judge.E1 && (kind == detect.KindACK || kind == detect.KindMaimon) {
		harder = judge.Limited
	}
	s.promiseBan(t, harder, block)
}

// promiseBan fills in what is promised about a ban. Evidence that anybody can
// forge may be too little for one.
func (s *selfStage) promiseBan(t *selfTrial, harder judge.Strength, block config.Block) {
	if t.Promise.Evidence == judge.E1.String() && s.c.BlockEvidence == config.EvidenceVerified {
		harder = judge.Limited
	}
	scope := judge.AllProtocols
	if block == config.BlockCommand {
		scope = judge.TCPOnly
		if t.probe.udp {
			scope = judge.UDPOnly
		}
	}
	if block == config.BlockNone || !s.c.enforces(harder, scope) || harder == judge.Limited && s.closed == 0 {
		return
	}
	t.Promise.Banned, t.Promise.Released = cli.Must, cli.Must
	udp := scope == judge.UDPOnly
	t.mute, t.Silent = s.knockAt(t.Source, udp, false), servedPorts
	if harder == judge.Limited {
		t.open, t.mute, t.Silent = t.mute, s.knockAt(t.Source, udp, true), closedPorts
	}
}

// What a ban silences, in the words of the table.
const servedPorts, closedPorts = "served ports", "closed ports"

// named is how a probe is to be named and how sure one can be of its source; ok
// is false where the way of watching does not show it.
func (s *selfStage) named(p *selfProbe, mode config.Mode) (kind detect.Kind, sure judge.Evidence, ok bool) {
	port := s.trapTCP
	if p.udp {
		port = s.trapUDP
	}
	late := port >= s.ownPorts[0] && port <= s.ownPorts[1] // where late answers arrive: no evidence but a SYN
	switch {
	case mode == config.Unwatched || port == 0:
		return 0, 0, false
	case mode == config.Connect && p.udp:
		return detect.KindConnect, judge.E1, true
	case mode == config.Connect: // half of a handshake reaches no trap socket
		return detect.KindConnect, judge.E2, p.role == connector
	case p.role == connector && s.c.VerifySource && senses(s.c.Config):
		return detect.KindConnect, judge.E2, true
	case p.role == connector:
		return detect.KindSYN, judge.E1, true
	}
	return p.kind, judge.E1, p.kind == detect.KindSYN || !late
}
