// Package tools names programs by what they send. In: the header of a packet that
// begins something, and of the one that its source sent before. Out: the program and
// the number of its run, from signatures that are data: signatures.txt.
package tools

import (
	_ "embed" // signatures.txt
	"encoding/binary"
	"strings"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

//go:embed signatures.txt
var embedded string

// Set is a set of signatures. It does not change; any goroutine may ask.
type Set struct {
	version string
	names   []string // of Tool n at n-1

	// Candidates in the order of the file. What has another window has
	// no place among those of TCP, which keeps the look at an ordinary packet short.
	tcp       [buckets][]*signature
	udp, icmp []*signature
}

// buckets is in how many lists the TCP windows are sorted, a power of two.
const buckets = 256

// bucket is the list of a window. Windows are powers of two more often than not, so
// their low bits would not tell them apart.
func bucket(window uint32) uint32 { return window * 0x9e3779b1 >> 24 % buckets }

var _ detect.Labeler = (*Set)(nil)

// Load gives the signatures that come with the program.
func Load() (*Set, error) { return Parse(strings.NewReader(embedded)) }

// Version is what the file calls itself.
func (s *Set) Version() string { return s.version }

// Name is the name of a program, "" for 0 and what is not in the set.
func (s *Set) Name(t detect.Tool) string {
	if t == 0 || int(t) > len(s.names) {
		return ""
	}
	return s.names[t-1]
}

// Label names the program that sent now. Of before, which may be nil, it reads
// Dst, ports, Flags, Window and Seq only; a Dst that is not valid is one that was
// not kept. run is unique to tool and key: the tool stands in its upper half.
func (s *Set) Label(before, now *detect.Header) (t detect.Tool, run uint64) {
	shape := shapeOf(now)
	for _, g := range s.candidates(now) {
		if g.shapes>>shape&1 != 0 && g.fits(before, now) {
			if g.run != nil {
				run = uint64(g.tool)<<32 | uint64(g.run(now))
			}
			return g.tool, run
		}
	}
	return 0, 0
}

func (s *Set) candidates(now *detect.Header) []*signature {
	switch now.Proto {
	case decode.ProtoTCP:
		return s.tcp[bucket(uint32(now.Window))]
	case decode.ProtoUDP:
		return s.udp
	case decode.ProtoICMP:
		return s.icmp
	}
	return nil
}

// signature is one line of the file. All of it has to hold.
type signature struct {
	tool   detect.Tool
	proto  uint8
	shapes uint8            // a bit for each shape that it takes
	flags  [512 / 64]uint64 // a bit for each combination of the nine TCP flags; of other protocols: all
	conds  []cond
	within []func(now *detect.Header) bool
	across []func(before, now *detect.Header) bool
	run    func(*detect.Header) uint32 // nil: its runs are not known apart
	same   bool                        // before has the same run
}

// The shapes of a packet: its family, and whether "don't fragment" is set.
const (
	shape6 uint8 = iota
	shape4
	shape4DF
)

func shapeOf(h *detect.Header) uint8 {
	switch {
	case !h.Dst.Is4():
		return shape6
	case h.DF:
		return shape4DF
	}
	return shape4
}

func (g *signature) fits(before, now *detect.Header) bool {
	if g.flags[now.Flags>>6&7]>>(now.Flags&63)&1 == 0 {
		return false
	}
	for i := range g.conds {
		if !g.conds[i].takes(g.conds[i].field.of(now)) {
			return false
		}
	}
	for _, f := range g.within {
		if !f(now) {
			return false
		}
	}
	if !g.same && len(g.across) == 0 {
		return true
	}
	if before == nil || !related(before, now) || g.same && g.run(before) != g.run(now) {
		return false
	}
	for _, f := range g.across {
		if !f(before, now) {
			return false
		}
	}
	return true
}

// related reports whether both are probes of one kind, and the later one is no
// retransmission of the earlier, in which every relation would hold.
func related(before, now *detect.Header) bool {
	if before.Flags != now.Flags || before.Window != now.Window {
		return false
	}
	return before.SrcPort != now.SrcPort || before.DstPort != now.DstPort || before.Dst.IsValid() && before.Dst != now.Dst
}

// cond asks for the value of a field: in first, or in one of more.
type cond struct {
	field field
	not   bool
	first span
	more  []span
}

type span struct{ lo, hi uint32 }

func (s span) has(v uint32) bool { return s.lo <= v && v <= s.hi }

func (c *cond) takes(v uint32) bool {
	if c.first.has(v) {
		return !c.not
	}
	for _, s := range c.more {
		if s.has(v) {
			return !c.not
		}
	}
	return c.not
}

// address4 is the destination address as a big-endian number.
func address4(h *detect.Header) uint32 {
	if !h.Dst.Is4() {
		return 0
	}
	a := h.Dst.As4()
	return binary.BigEndian.Uint32(a[:])
}
