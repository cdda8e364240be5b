package app

import (
	"context"
	"slices"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/pktgen"
	"portsentry/internal/view/cli"
)

// selfScan is a probe of the test that only several packets show, none of which
// goes to a trap: what SCAN_DETECT="full" is for.
type selfScan struct {
	proto uint8 // IP protocol; 0: one after the other
	slow  bool  // one packet every scanPause
}

const (
	scanWidth = 8           // things that a scan turns to: five are enough
	scanPause = time.Second // between the packets of a slow one
	scanProto = 143         // the first of the IP protocols that nobody speaks (IANA: unassigned)
)

// scans are those that the configuration asks for; they are shown as not asked
// for where it does not.
func (s *selfStage) scans() []selfProbe {
	return []selfProbe{
		{name: "closed TCP ports", kind: detect.KindSYN, flags: pktgen.SYN, scan: &selfScan{proto: pktgen.ProtoTCP}},
		{name: "one every second", kind: detect.KindSYN, flags: pktgen.SYN, scan: &selfScan{proto: pktgen.ProtoTCP, slow: true}},
		{name: "closed UDP ports", kind: detect.KindUDP, udp: true, scan: &selfScan{proto: pktgen.ProtoUDP}},
		{name: "SCTP INITs", kind: detect.KindINIT, scan: &selfScan{proto: pktgen.ProtoSCTP}},
		{name: "IP protocols", kind: detect.KindProto, scan: &selfScan{}},
	}
}

// promiseScan fills in what is promised about a scan that touches no trap. Only
// of TCP and UDP the configuration says how they are answered.
func (s *selfStage) promiseScan(t *selfTrial) {
	proto := t.probe.scan.proto
	watched := s.c.Modes.TCP
	block := s.c.BlockTCP
	if t.probe.udp {
		watched, block = s.c.Modes.UDP, s.c.BlockUDP
	}
	ports := proto == pktgen.ProtoTCP || proto == pktgen.ProtoUDP
	if s.c.ScanDetect != config.DetectFull || !looksAtPackets(s.c.Modes) || len(s.quiet) < scanWidth || ports && watched == 0 {
		t.port = 0 // not even sent
		return
	}
	t.Promise.Seen, t.Promise.Named, t.Promise.Evidence = cli.Must, t.probe.kind.String(), judge.E1.String()
	if ports {
		s.promiseBan(t, judge.Soft, block)
	}
}

// sendScan sends all of a scan, or of a slow one nothing yet.
func (s *selfStage) sendScan(t *selfTrial) error {
	if t.probe.scan.slow {
		return nil
	}
	for i := range scanWidth {
		if err := s.sendPart(t, i); err != nil {
			return err
		}
	}
	return nil
}

// sendPart sends one packet of a scan.
func (s *selfStage) sendPart(t *selfTrial, i int) error {
	p := s.tcp(t.Source, s.quiet[i], t.probe.flags)
	switch t.probe.scan.proto {
	case pktgen.ProtoUDP:
		p = s.udp(t.Source, s.quiet[i])
	case 0:
		p.Proto = scanProto + uint8(i)
	default:
		p.Proto = t.probe.scan.proto
	}
	return s.offer(p)
}

// slowly sends the slow scans.
func (s *selfStage) slowly(ctx context.Context, trials []*selfTrial, progress func(string)) error {
	slow := slices.DeleteFunc(slices.Clone(trials), func(t *selfTrial) bool {
		return t.port == 0 || t.probe.scan == nil || !t.probe.scan.slow
	})
	if len(slow) == 0 {
		return nil
	}
	progress("probing slowly ...")
	for i := range scanWidth {
		if i > 0 {
			if err := pause(ctx, scanPause); err != nil {
				return err
			}
		}
		for _, t := range slow {
			if err := s.sendPart(t, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// concerns reports whether an event is about what t is to show: a scan, or a
// single probe. Where nothing is to be shown, every event is.
func (t *selfTrial) concerns(e *selfEvent) bool {
	switch {
	case t.Promise.Seen == cli.MustNot:
		return true
	case t.probe.scan != nil:
		return e.Event == "scan"
	}
	return e.Event == "sighting"
}
