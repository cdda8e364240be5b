package app

import (
	"fmt"
	"net/netip"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// hits gathers sightings into scans, one for each source and kind.
type hits struct {
	sources map[netip.Addr]*hitSource
	order   []*hitSource
	parts   int    // of all sources
	crowded bool   // with scanners, not with sources of which little was seen
	lost    uint64 // sightings of sources for which there was no room
}

type hitSource struct {
	triggered int64 // when; 0: not yet
	scans     []*hitScan
}

// hitScan is a scan with what was counted in it.
type hitScan struct {
	detect.Scan
	first   uint16 // port of the first probe
	ports   map[uint16]struct{}
	targets map[netip.Addr]struct{}
}

const (
	maxHitSources = detect.DefaultSources
	// maxHitParts bounds what is told apart, of all sources together; beyond it
	// ports and addresses are counted too low.
	maxHitParts = 1 << 20
)

func newHits() *hits { return &hits{sources: make(map[netip.Addr]*hitSource)} }

func (h *hits) add(s *detect.Sighting) {
	src := h.sources[s.Src]
	if src == nil {
		if len(h.order) == maxHitSources {
			h.forget()
		}
		if len(h.order) > maxHitSources*7/8 && h.crowded {
			h.lost++
			return
		}
		src = new(hitSource)
		h.sources[s.Src] = src
		h.order = append(h.order, src)
	}
	if s.Triggered && src.triggered == 0 {
		src.triggered = s.Time
	}
	scan := src.of(s)
	scan.First, scan.Last = min(scan.First, s.Time), max(scan.Last, s.Time)
	scan.Probes++
	scan.Failed++
	if _, ok := scan.ports[s.DstPort]; !ok && h.parts < maxHitParts {
		scan.ports[s.DstPort] = struct{}{}
		h.parts++
	}
	if _, ok := scan.targets[s.Dst]; !ok && h.parts < maxHitParts {
		scan.targets[s.Dst] = struct{}{}
		h.parts++
	}
}

// forget makes room: those who have triggered nothing go.
func (h *hits) forget() {
	kept := h.order[:0]
	for _, src := range h.order {
		if src.triggered != 0 {
			kept = append(kept, src)
			continue
		}
		for _, s := range src.scans {
			h.parts -= len(s.ports) + len(s.targets)
		}
		delete(h.sources, src.scans[0].Source)
	}
	h.order = kept
	h.crowded = len(kept) > maxHitSources*7/8
}

// of is the scan that s belongs to.
func (src *hitSource) of(s *detect.Sighting) *hitScan {
	for _, scan := range src.scans {
		if scan.Kind == s.Kind {
			return scan
		}
	}
	scan := &hitScan{
		Scan:  detect.Scan{Source: s.Src, Kind: s.Kind, Proto: s.Proto, First: s.Time, Last: s.Time},
		first: s.DstPort, ports: make(map[uint16]struct{}), targets: make(map[netip.Addr]struct{}),
	}
	src.scans = append(src.scans, scan)
	return scan
}

// scans are those of the sources that have triggered, in the order in which they
// came.
func (h *hits) scans() []*detect.Scan {
	var out []*detect.Scan
	for _, src := range h.order {
		if src.triggered == 0 {
			continue
		}
		for _, s := range src.scans {
			s.Found = src.triggered
			s.Ports, s.Targets = len(s.ports), len(s.targets)
			s.Direction = direction(s.Ports, s.Targets)
			s.Reason = trapReason(s)
			out = append(out, &s.Scan)
		}
	}
	return out
}

func direction(ports, targets int) detect.Direction {
	switch {
	case targets < 2:
		return detect.Vertical
	case ports < targets && ports < 3:
		return detect.Horizontal
	}
	return detect.Block
}

func trapReason(s *hitScan) string {
	proto := "tcp"
	if s.Proto == decode.ProtoUDP {
		proto = "udp"
	}
	return fmt.Sprintf("%d %s of %d trap %s where nobody answered, first %d/%s",
		s.Probes, plural(s.Probes, "probe", "probes"), s.Ports, plural(s.Ports, "port", "ports"), s.first, proto)
}
