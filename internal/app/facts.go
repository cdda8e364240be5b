package app

import (
	"net/netip"
	"sync/atomic"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/host"
	"portsentry/internal/judge"
)

// facts are what the stages need to know of this machine, kept up to date.
type facts struct {
	watcher *host.Watcher
	watched atomic.Pointer[map[int32]bool] // by index
	latest  atomic.Pointer[judge.Trust]    // of trust
	forced  forced                         // who is acted on all the same
}

// seenElsewhere reports whether frames of this VLAN on this interface are seen
// once more on an interface of their own that is watched as well.
func (f *facts) seenElsewhere(ifindex int32, vid uint16) bool {
	if vid == 0 { // priority tag only, IEEE 802.1Q
		return false
	}
	own, ok := f.watcher.Snapshot().VLANDevice(ifindex, vid)
	watched := f.watched.Load()
	return ok && watched != nil && (*watched)[own]
}

// interfaceName is the name of the interface with this index, "" if it is gone.
func (f *facts) interfaceName(index int32) string {
	for _, l := range f.watcher.Snapshot().Links {
		if l.Index == index {
			return l.Name
		}
	}
	return ""
}

// trust is whom to spare as of now.
func (f *facts) trust(ignore []netip.Prefix, names map[netip.Addr]string, geo *host.GeoNetworks) *judge.Trust {
	s := f.watcher.Snapshot()
	t := judge.NewTrust(judge.TrustFrom{
		Ignore: f.forced.without(ignore), Own: s.Own, Broadcasts: s.Broadcast,
		Names: f.forced.otherNames(names), Geo: unforced{geo, f.forced.list()}, Few: f.forced.without(geo.Few()),
		Gateways: f.forced.others(s.Gateways), Resolvers: f.forced.others(s.Resolvers),
		Logins: f.forced.others(s.Logins), TimeServers: f.forced.others(s.TimeServers),
	})
	f.latest.Store(t)
	return t
}

// spares reports whether nothing is done to src, whatever it does to dst.
func (f *facts) spares(src, dst netip.Addr) bool {
	return f.latest.Load().Spares(src, dst) != judge.NotSpared
}

// asHost answers detect's questions for one worker.
type asHost struct {
	facts  *facts
	lookup *host.Lookup
	q      host.Question
	told   bool // of this packet the kernel has said that it is for us and nobody takes it
	// sent reports whether this host has sent anything in the flow, where connection
	// tracking does not know.
	sent func(proto uint8, remote, local netip.AddrPort) bool
}

// Own is for detect.Host. No packet from outside gets to a loopback address (RFC
// 1122 section 3.2.1.3, RFC 4291 section 2.5.3), and loopback is not watched.
func (h *asHost) Own(a netip.Addr) bool {
	return h.told || !a.IsLoopback() && h.facts.watcher.Snapshot().IsOwn(a)
}

// Ephemeral is for detect.Host.
func (h *asHost) Ephemeral(port uint16) bool {
	s := h.facts.watcher.Snapshot()
	return port >= s.EphemeralFirst && port <= s.EphemeralLast
}

// Use is for detect.Host.
func (h *asHost) Use(p *decode.Probe, bareSYN bool) detect.Use {
	if h.told {
		return detect.Free
	}
	h.q = host.Question{
		Time: p.Time, Proto: p.Proto, IfIndex: p.IfIndex, AnyPeer: bareSYN,
		Src: netip.AddrPortFrom(p.Src, p.SrcPort), Dst: netip.AddrPortFrom(p.Dst, p.DstPort),
	}
	switch h.lookup.Use(&h.q) {
	case host.Free:
		if !bareSYN && h.sent(p.Proto, h.q.Src, h.q.Dst) {
			return detect.Reply
		}
		return detect.Free
	case host.Served:
		return detect.Served
	case host.Reply:
		return detect.Reply
	case host.Translated:
		return detect.Translated
	}
	return detect.Unsure
}

// asPeers answers the judge's questions about connections.
type asPeers struct{ peers *host.Peers }

// Has is for judge.Peers.
func (p asPeers) Has(a netip.Addr) bool { return p.peers.Has(a) }

// Any is for judge.Peers.
func (p asPeers) Any(net netip.Prefix) bool { return p.peers.Any(net) }
