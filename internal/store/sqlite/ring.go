package sqlite

import (
	"net/netip"
	"slices"

	"portsentry/internal/detect"
	"portsentry/internal/store"
)

const (
	ringSize   = 8192 // packets; 0.9 MiB, from the first of them on
	mostRecent = 64   // that Recent gives
	mostOfBan  = 16   // that are kept of a ban
)

// ring holds the last packets that were looked at. Those whose sources share a bucket
// are chained, so that finding one source's costs what it has sent and not the whole
// ring.
type ring struct {
	packets []store.Packet
	before  []uint64 // the number of the packet before it in its chain, and one; 0: none
	heads   []uint64 // of each bucket the number of the last, and one
	next    uint64   // how many there have been
}

// put keeps the packet of a sighting of a source with the hash h.
func (r *ring) put(h uint64, s *detect.Sighting) {
	if r.packets == nil {
		r.packets, r.before, r.heads = make([]store.Packet, ringSize), make([]uint64, ringSize), make([]uint64, ringSize)
	}
	at, b := r.next%ringSize, h%ringSize
	r.packets[at] = store.Packet{
		Time: s.Time, IfIndex: s.IfIndex, Src: s.Src, Dst: s.Dst, SrcPort: s.SrcPort, DstPort: s.DstPort,
		Proto: s.Proto, Kind: s.Kind, Flags: s.Flags, TTL: s.TTL, IPOptions: s.IPOptions, Fragmented: s.Fragmented,
		Verified: s.Verified, Seq: s.Seq, Ack: s.Ack, Window: s.Window, IPID: s.IPID,
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
	for i := r.heads[h%ringSize]; i > 0 && i+ringSize > r.next && len(out) < n; i = r.before[(i-1)%ringSize] {
		if p := &r.packets[(i-1)%ringSize]; p.Src == a && p.Time <= until {
			out = append(out, *p)
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
