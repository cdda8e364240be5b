package sqlite

import (
	"net/netip"
	"slices"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/store"
)

const (
	ringSize   = 8192 // packets; 0.7 MiB, from the first of them on
	mostRecent = 64   // that Recent gives
	mostOfBan  = 16   // that are kept of a ban
)

// ring holds the last packets that were looked at. Those whose sources share a bucket
// are chained, so that finding one source's costs what it has sent and not the whole
// ring.
type ring struct {
	packets []compact
	before  []uint64 // the number of the packet before it in its chain, and one; 0: none
	heads   []uint64 // of each bucket the number of the last, and one
	next    uint64   // how many there have been
}

// compact is a store.Packet without pointers: it costs the packets of a flood one line
// of the cache less, and the collector nothing.
type compact struct {
	time                                int64
	src, dst                            [16]byte // IPv4 as IPv6 has it (RFC 4291 section 2.5.5.2)
	ifIndex                             int32
	seq, ack                            uint32
	srcPort, dstPort, flags, window, id uint16
	proto, ttl                          uint8
	kind                                detect.Kind
	options                             decode.Tri
	fragmented, verified                bool
}

func (c *compact) packet() store.Packet {
	return store.Packet{
		Time: c.time, IfIndex: c.ifIndex, Src: netip.AddrFrom16(c.src).Unmap(), Dst: netip.AddrFrom16(c.dst).Unmap(),
		SrcPort: c.srcPort, DstPort: c.dstPort, Proto: c.proto, Kind: c.kind, Flags: c.flags, TTL: c.ttl,
		IPOptions: c.options, Fragmented: c.fragmented, Verified: c.verified,
		Seq: c.seq, Ack: c.ack, Window: c.window, IPID: c.id,
	}
}

// put keeps the packet of a sighting of a source with the hash h.
func (r *ring) put(h uint64, s *detect.Sighting) {
	if r.packets == nil {
		r.packets, r.before, r.heads = make([]compact, ringSize), make([]uint64, ringSize), make([]uint64, ringSize)
	}
	at, b := r.next%ringSize, h%ringSize
	r.packets[at] = compact{
		time: s.Time, ifIndex: s.IfIndex, src: s.Src.As16(), dst: s.Dst.As16(), srcPort: s.SrcPort, dstPort: s.DstPort,
		proto: s.Proto, kind: s.Kind, flags: s.Flags, ttl: s.TTL, options: s.IPOptions, fragmented: s.Fragmented,
		verified: s.Verified, seq: s.Seq, ack: s.Ack, window: s.Window, id: s.IPID,
	}
	r.before[at] = r.heads[b]
	r.next++
	r.heads[b] = r.next
}

// recent are the last n packets of a, whose hash is h, until the time until, oldest
// first.
func (r *ring) recent(h uint64, a netip.Addr, n int, until int64) []store.Packet {
	if r.packets == nil {
		return nil
	}
	var out []store.Packet
	src := a.As16()
	for i := r.heads[h%ringSize]; i > 0 && i+ringSize > r.next && len(out) < n; i = r.before[(i-1)%ringSize] {
		if p := &r.packets[(i-1)%ringSize]; p.src == src && p.time <= until {
			out = append(out, p.packet())
		}
	}
	slices.Reverse(out)
	return out
}

// scans holds the last scans that were found.
type scans struct {
	last [128]struct {
		source netip.Addr
		found  detect.Found
	}
	next uint
}

func (s *scans) put(g *detect.Sighting) {
	if g.Scan.Kind == detect.KindNone {
		return
	}
	at := &s.last[s.next%uint(len(s.last))]
	at.source, at.found = g.Src, g.Scan
	s.next++
}

// of is the last scan of a, if it is among them.
func (s *scans) of(a netip.Addr) detect.Found {
	n := uint(len(s.last))
	for i := s.next; i > 0 && i+n > s.next; i-- {
		if at := &s.last[(i-1)%n]; at.source == a {
			return at.found
		}
	}
	return detect.Found{}
}
