package full

import (
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"strings"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// finding is a source that scans, by one kind of probe.
type finding struct {
	from               netip.Addr // as Scan.Source
	kind               detect.Kind
	proto              uint8
	first, last, found int64
	score, verified    float32
	probes, failed     int
	halfOpen           int // probes that found somebody, and left it at that
	ports              numbers
	targets            distinct
	tool               detect.Tool
	campaign           uint64
	enough             int  // of shown, to be told of
	told               bool // it is a Scan
	next               int  // probes at which it is told of again
}

type findingKey struct {
	src  netip.Addr // see sourceOf
	kind detect.Kind
}

// findings are kept in whole while there is room; those that came first stay.
type findings struct {
	of    map[findingKey]*finding // of KindNone: the newest
	list  []*finding
	limit int
}

func newFindings(n int) findings { return findings{of: make(map[findingKey]*finding), limit: n} }

func (f *findings) has(src netip.Addr) bool { return f.of[findingKey{src, detect.KindNone}] != nil }

// goesOn takes a contact of a source that scans into the finding it belongs to.
func (e *Engine) goesOn(src netip.Addr, b *board, c *detect.Contact, t thing, campaign uint64) *detect.Scan {
	f := e.found.of[findingKey{src, t.kind()}]
	if f != nil {
		f.add(t)
	} else if f = e.find(src, b, c, t); f == nil {
		return nil
	}
	if c.HalfOpen {
		f.halfOpen++
	}
	f.first, f.last = min(f.first, c.Time), max(f.last, c.Time)
	f.score, f.verified = max(f.score, b.score), max(f.verified, b.verified)
	if b.tool != 0 {
		f.tool = b.tool
	}
	if campaign != 0 {
		f.campaign = campaign
	}
	if !f.told && f.shown() < f.enough {
		return nil
	}
	if !f.told {
		f.told, f.found = true, c.Time
		e.scans.Add(1)
	}
	if f.probes < f.next {
		return nil
	}
	f.next = 2 * f.probes
	f.fill(&e.scan, e.o.Labels)
	return &e.scan
}

// find begins the finding of the kind of t, with what the board remembers of it. The
// kind that has shown itself most when its source is found is told of at once.
func (e *Engine) find(src netip.Addr, b *board, c *detect.Contact, t thing) *finding {
	if len(e.found.list) >= e.found.limit {
		e.full.Add(1)
		return nil
	}
	f := &finding{
		from: b.address(), kind: t.kind(), enough: enough(t.kind()), proto: c.Proto,
		first: c.Time, last: c.Time, tool: b.tool,
	}
	if f.kind == detect.KindProto {
		f.proto = 0
	}
	others := 0
	for _, o := range e.things(b) {
		if o.kind() == t.kind() {
			f.add(o)
		} else if o.gone() {
			others++
		}
	}
	if f.probes == 0 { // the board had forgotten it
		f.add(t)
	}
	if !e.found.has(src) {
		f.first = b.first
		e.found.of[findingKey{src, detect.KindNone}] = f
		if f.shown() > others/2 {
			f.enough = 1
		}
	}
	e.found.of[findingKey{src, t.kind()}] = f
	e.found.list = append(e.found.list, f)
	return f
}

// shown is how many contacts show that it is a scan.
func (f *finding) shown() int {
	if neverAnswered(f.kind) {
		return f.probes
	}
	return f.failed + f.halfOpen
}

func (f *finding) add(t thing) {
	f.probes++
	if t.gone() {
		f.failed++
	}
	switch {
	case f.kind == detect.KindProto:
		f.ports.add(uint16(t.service() >> 16))
	case hasPorts(f.proto):
		f.ports.add(t.port())
	}
	f.targets.add(t.addr())
}

// fill writes the finding as others see it.
func (f *finding) fill(s *detect.Scan, l detect.Labeler) {
	*s = detect.Scan{
		Source: f.from, Kind: f.kind, Proto: f.proto, Verified: f.verified >= Threshold,
		First: f.first, Last: f.last, Found: f.found,
		Ports: f.ports.n, Targets: f.targets.count(), Probes: f.probes, Failed: f.failed, Score: float64(f.score),
		Campaign: f.campaign,
	}
	s.Direction = direction(s.Ports, s.Targets)
	if l != nil {
		s.Tool = l.Name(f.tool)
	}
	if likeWorm(s, f.ports.first) {
		s.Kind = detect.KindWorm
	}
	s.Reason = reason(s)
}

func hasPorts(proto uint8) bool {
	return proto == decode.ProtoTCP || proto == decode.ProtoUDP || proto == decode.ProtoSCTP
}

// direction is how a scan of so many ports and addresses spreads. Who tries 1,000
// ports of each of ten machines goes through the ports.
func direction(ports, targets int) detect.Direction {
	switch {
	case targets <= 2 || targets < ports/16:
		return detect.Vertical
	case ports <= 3:
		return detect.Horizontal
	}
	return detect.Block
}

// reason says in words why s is a scan.
func reason(s *detect.Scan) string {
	what := ""
	switch {
	case s.Kind == detect.KindProto:
		what = count(s.Ports, "protocol") + " of "
	case hasPorts(s.Proto):
		what = count(s.Ports, "port") + " of "
	}
	if s.Failed == 0 {
		return fmt.Sprintf("tried %s%s, and wanted nothing of whom it found there", what, count(s.Targets, "address"))
	}
	return fmt.Sprintf("tried %s%s, and nobody was there %d of %d times", what, count(s.Targets, "address"), s.Failed, s.Probes)
}

// count is a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "one " + noun
	}
	if strings.HasSuffix(noun, "s") {
		noun += "e"
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// numbers is a set of ports or protocols: exact, in pages of 1,024 that are made when
// they are needed, 8 KiB at most.
type numbers struct {
	page  [64]*[16]uint64
	n     int
	first uint16
}

func (s *numbers) add(v uint16) {
	p := s.page[v>>10]
	if p == nil {
		p = new([16]uint64)
		s.page[v>>10] = p
	}
	if w, bit := &p[v>>6&15], uint64(1)<<(v&63); *w&bit == 0 {
		*w |= bit
		if s.n == 0 {
			s.first = v
		}
		s.n++
	}
}

// distinct counts different addresses by their hashes: exactly up to 64, then by the
// share of a bitmap that stays empty (linear counting: Whang, Vander-Zanden and
// Taylor, ACM TODS 1990), within a few percent up to some 30,000.
type distinct struct {
	few  []uint64
	many *[128]uint64
}

func (d *distinct) add(h uint64) {
	if d.many == nil {
		for _, o := range d.few {
			if o == h {
				return
			}
		}
		if len(d.few) < 64 {
			d.few = append(d.few, h)
			return
		}
		d.many = new([128]uint64)
		for _, o := range d.few {
			d.set(o)
		}
		d.few = nil
	}
	d.set(h)
}

func (d *distinct) set(h uint64) {
	h = h * 0x9e3779b97f4a7c15 >> 51
	d.many[h>>6] |= 1 << (h & 63)
}

func (d *distinct) count() int {
	if d.many == nil {
		return len(d.few)
	}
	empty := 0
	for _, w := range d.many {
		empty += bits.OnesCount64(^w)
	}
	const all = 64 * 128
	return int(math.Round(-all * math.Log(float64(max(1, empty))/all)))
}
