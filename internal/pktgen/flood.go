package pktgen

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Bounds of one Flood.
const (
	maxFlood     = 50_000_000
	maxFloodTime = 2 * time.Minute
)

// FloodOpts says how many frames, how fast, and what changes from one to the
// next. Frame i has source i modulo Sources and port i modulo their number.
type FloodOpts struct {
	Count int     // 1 to 50 million
	Rate  float64 // frames a second; 0 is as fast as possible

	SourcePrefix netip.Prefix // sources are its first Sources addresses
	Sources      int          // 0: the packet's own source
	DstPorts     []uint16     // empty: the packet's own
	VarySrcPort  bool         // counts up from the packet's, from 1024 again after 65535
}

// Flood sends many variations of one whole packet, two minutes long at most.
// Nothing is allocated per frame. It returns early, with what was sent, when
// ctx ends.
func (s *Sender) Flood(ctx context.Context, p Packet, o FloodOpts) (Sent, error) {
	if o.Count < 1 || o.Count > maxFlood || o.Rate < 0 {
		return Sent{}, fmt.Errorf("pktgen: a flood of %d frames at %v a second", o.Count, o.Rate)
	}
	v, err := newVariation(&p, &s.link, o)
	if err != nil {
		return Sent{}, err
	}
	for slot, f := range v.frames {
		s.set(slot, f)
	}
	ctx, cancel := context.WithTimeout(ctx, maxFloodTime)
	defer cancel()
	return s.run(ctx, o.Count, o.Rate, v.edit)
}

// variation edits preformatted frames in place. Every slot of a batch has its
// own copy; a checksum is corrected by what the copy held before.
type variation struct {
	o        FloodOpts
	frames   [batch][]byte
	base     []byte // first source of the prefix
	srcPort0 uint16

	src       int // offset of the source address
	ipSum     int // offset of the IPv4 header checksum; 0: none
	transport int // offset of the ports; 0: there are none
	sum       int // offset of a checksum over ports and addresses; 0: none
	sctp      bool
	udp       bool
}

func newVariation(p *Packet, l *Link, o FloodOpts) (*variation, error) {
	if p.FragmentSize != 0 {
		return nil, errors.New("pktgen: a flood of fragments")
	}
	frame, err := p.AppendTo(nil, l)
	if err != nil {
		return nil, err
	}
	v := &variation{o: o, srcPort0: p.SrcPort, udp: p.Proto == ProtoUDP, sctp: p.Proto == ProtoSCTP}
	for i := range v.frames {
		v.frames[i] = append([]byte(nil), frame...)
	}
	ip := 14 + 4*len(p.VLANs)
	if p.Src.Is4() {
		v.src, v.ipSum = ip+12, ip+10
		v.transport = ip + int(frame[ip]&15)*4
	} else {
		v.src = ip + 8
		v.transport = ip + 40
		for _, h := range p.ExtHeaders {
			v.transport += h.Len
		}
	}
	switch p.Proto {
	case ProtoTCP:
		v.sum = v.transport + 16
	case ProtoUDP:
		v.sum = v.transport + 6
	case ProtoSCTP:
	case ProtoICMPv6:
		v.sum, v.transport = v.transport+2, 0
	default:
		v.transport = 0
	}
	if v.transport == 0 && (len(o.DstPorts) > 0 || o.VarySrcPort) {
		return nil, fmt.Errorf("pktgen: protocol %d has no ports to vary", p.Proto)
	}
	if v.sctp && p.BadChecksum {
		return nil, errors.New("pktgen: a flood of SCTP with wrong checksums")
	}
	return v, v.sources(p)
}

func (v *variation) sources(p *Packet) error {
	if v.o.Sources == 0 {
		return nil
	}
	prefix := v.o.SourcePrefix.Masked()
	if !prefix.IsValid() || prefix.Addr().Is4() != p.Src.Is4() {
		return fmt.Errorf("pktgen: sources %v for a packet from %v", v.o.SourcePrefix, p.Src)
	}
	// The low 32 bits are counted up.
	free := min(prefix.Addr().BitLen()-prefix.Bits(), 32)
	if v.o.Sources < 0 || int64(v.o.Sources) > 1<<free {
		return fmt.Errorf("pktgen: %v has no %d addresses", prefix, v.o.Sources)
	}
	v.base = prefix.Addr().AsSlice()
	return nil
}

// edit makes the copy of slot frame i of the run.
func (v *variation) edit(slot, i int) {
	f := v.frames[slot]
	if v.o.Sources > 0 {
		n := len(v.base)
		low := binary.BigEndian.Uint32(v.base[n-4:]) + uint32(i%v.o.Sources)
		// Only the first edit of a copy changes the upper part.
		for k := 0; k < n-4; k += 2 {
			v.put(f, v.src+k, binary.BigEndian.Uint16(v.base[k:]), true)
		}
		v.put(f, v.src+n-4, uint16(low>>16), true)
		v.put(f, v.src+n-2, uint16(low), true)
	}
	if v.o.VarySrcPort {
		v.put(f, v.transport, v.srcPort(i), false)
	}
	if n := len(v.o.DstPorts); n > 0 {
		v.put(f, v.transport+2, v.o.DstPorts[i%n], false)
	}
	if v.sctp && (v.o.VarySrcPort || len(v.o.DstPorts) > 0) {
		putCRC32c(f[v.transport:])
	}
}

func (v *variation) srcPort(i int) uint16 {
	const lowest, ports = 1024, 65536 - 1024
	first := max(int(v.srcPort0), lowest) - lowest
	return uint16(lowest + (first+i)%ports)
}

// put writes one word and corrects the checksums that cover it.
func (v *variation) put(f []byte, at int, word uint16, addr bool) {
	old := binary.BigEndian.Uint16(f[at:])
	if old == word {
		return
	}
	binary.BigEndian.PutUint16(f[at:], word)
	if addr && v.ipSum > 0 {
		fix(f[v.ipSum:], old, word)
	}
	if v.sum > 0 {
		fix(f[v.sum:], old, word)
		if v.udp && f[v.sum] == 0 && f[v.sum+1] == 0 {
			f[v.sum], f[v.sum+1] = 0xff, 0xff // RFC 768: 0 says "none"
		}
	}
}

func fix(b []byte, old, word uint16) {
	binary.BigEndian.PutUint16(b, replace(binary.BigEndian.Uint16(b), old, word))
}
