package app

import (
	"net/netip"
	"time"

	"portsentry/internal/capture"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// replayTraps is the detection of trap ports over captures. Live, the kernel is
// asked who listens; a capture shows it by the answers, which come a moment after
// the question. So probes of traps wait for that moment, in their order.
type replayTraps struct {
	rules    detect.Rules
	detector *detect.Detector
	host     *heard
	waiting  []decode.Probe // a ring
	head, n  int
	found    *hits
	sighting detect.Sighting
}

const (
	// answerTime is how long an answer may take: the first retransmission of a SYN
	// or a SYN-ACK comes after 1 s (RFC 6298 section 2), the next 2 s later.
	answerTime = int64(3 * time.Second)
	// maxWaiting probes wait at most, 3 MiB of them; in a flood the oldest is judged
	// by what has been heard until then.
	maxWaiting = 1 << 14
)

func newReplayTraps(rules detect.Rules, own func(netip.Addr) bool) *replayTraps {
	h := &heard{own: own, fresh: make(map[talk]struct{}), aged: make(map[talk]struct{})}
	return &replayTraps{
		rules: rules, host: h, waiting: make([]decode.Probe, maxWaiting), found: newHits(),
		detector: detect.New(detect.Options{Rules: rules, Host: h, Capture: true}),
	}
}

// packet is for replayEngine.
func (t *replayTraps) packet(p *decode.Probe, f *capture.Frame) {
	traps := t.rules.TCP
	switch p.Proto {
	case decode.ProtoUDP:
		traps = t.rules.UDP
	case decode.ProtoTCP:
	default:
		return
	}
	if traps.Has(p.SrcPort) {
		t.host.hear(p)
	}
	if !traps.Has(p.DstPort) || toGroup(f) {
		return
	}
	if p.Proto == decode.ProtoTCP && detect.Classify(p.Flags) == detect.KindNone && p.Marks&decode.Overlapping == 0 {
		return
	}
	for t.n > 0 && !t.waits(p.Time) {
		t.judge()
	}
	t.waiting[(t.head+t.n)%maxWaiting] = *p
	t.n++
}

// toGroup reports whether f went to everybody on its wire, or to those who had
// asked for it.
func toGroup(f *capture.Frame) bool {
	switch f.PacketType {
	case capture.PacketBroadcast, capture.PacketMulticast:
		return true
	}
	return f.Link == capture.LinkEthernet && len(f.Data) > 0 && f.Data[0]&1 != 0
}

// waits reports whether the oldest probe may still be answered at the time now.
// Where time has gone back, another capture has begun.
func (t *replayTraps) waits(now int64) bool {
	age := now - t.waiting[t.head].Time
	return t.n < maxWaiting && age >= 0 && age <= answerTime
}

// judge decides about the oldest probe.
func (t *replayTraps) judge() {
	p := &t.waiting[t.head]
	t.head = (t.head + 1) % maxWaiting
	t.n--
	if t.detector.Observe(p, &t.sighting) {
		t.found.add(&t.sighting)
	}
}

// scans is for replayEngine.
func (t *replayTraps) scans() []*detect.Scan {
	for t.n > 0 {
		t.judge()
	}
	return t.found.scans()
}

// losses is for replayEngine.
func (t *replayTraps) losses() (said []string) {
	if n := t.found.lost; n > 0 {
		said = append(said, quantity(n, "probe")+" of more scanners than can be kept are in no scan")
	}
	return said
}

// heard is the host that a capture tells of: a port is served if an answer came
// from there.
type heard struct {
	own         func(netip.Addr) bool
	fresh, aged map[talk]struct{}
}

// talk is a port that was heard to answer: anybody, or over TCP without its
// beginning, one peer.
type talk struct {
	at, peer netip.AddrPort
	proto    uint8
}

// maxHeard is the size of each of the two generations of what was heard.
const maxHeard = 1 << 16

// hear notes the answer of a port that would be a trap.
func (h *heard) hear(p *decode.Probe) {
	k := talk{at: netip.AddrPortFrom(p.Src, p.SrcPort), proto: p.Proto}
	if p.Proto == decode.ProtoTCP {
		switch p.Flags & (decode.SYN | decode.ACK | decode.RST) {
		case decode.SYN | decode.ACK:
		case decode.ACK:
			k.peer = netip.AddrPortFrom(p.Dst, p.DstPort)
		default:
			return
		}
	}
	if _, ok := h.fresh[k]; ok {
		return
	}
	if len(h.fresh) == maxHeard {
		h.fresh, h.aged = h.aged, h.fresh
		clear(h.fresh)
	}
	h.fresh[k] = struct{}{}
}

func (h *heard) has(k talk) bool {
	if _, ok := h.fresh[k]; ok {
		return true
	}
	if _, ok := h.aged[k]; ok {
		h.fresh[k] = struct{}{} // in use: stays
		return true
	}
	return false
}

// Own is for detect.Host.
func (h *heard) Own(a netip.Addr) bool { return h.own(a) }

// Ephemeral is for detect.Host, with the range that Linux begins with
// (ip_local_port_range).
func (h *heard) Ephemeral(port uint16) bool { return port >= 32768 && port <= 60999 }

// Use is for detect.Host.
func (h *heard) Use(p *decode.Probe, bareSYN bool) detect.Use {
	k := talk{at: netip.AddrPortFrom(p.Dst, p.DstPort), proto: p.Proto}
	if h.has(k) {
		return detect.Served
	}
	if k.peer = netip.AddrPortFrom(p.Src, p.SrcPort); !bareSYN && h.has(k) {
		return detect.Served
	}
	return detect.Free
}
