package pktgen

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	firstIndex = 100 // of the interfaces that are made first in a pair
	upTimeout  = 5 * time.Second
)

// End is one end of a veth pair.
type End struct {
	NS    *NS
	Name  string // eth0, eth1, ... in the order of linking
	Index int
	MAC   net.HardwareAddr
	Addrs []netip.Prefix
	Peer  *End
}

// Link joins a and b by a veth pair, gives the ends their addresses and brings
// them up. The addresses are usable at once. Neither end leaves checksums to its
// card, so what the other end captures is what a wire would carry.
func (n *Net) Link(a, b *NS, addrsA, addrsB []netip.Prefix) (*End, *End, error) {
	ends := [2]*End{
		{NS: a, Name: a.nextName(), Addrs: addrsA},
		{NS: b, Name: b.nextName(), Addrs: addrsB},
	}
	ends[0].Peer, ends[1].Peer = ends[1], ends[0]

	veth := netlink.NewVeth(netlink.NewLinkAttrs())
	veth.Name = ends[0].Name
	// The kernel activates a link at once only if its index differs from its
	// peer's, and else within a second (linkwatch); the peer's is a small one.
	veth.Index = firstIndex + a.links
	veth.PeerName = ends[1].Name
	veth.PeerNamespace = netlink.NsFd(b.ns)
	if err := a.handle.LinkAdd(veth); err != nil {
		return nil, nil, fmt.Errorf("pktgen: veth from %s to %s: %w", a.name, b.name, err)
	}
	for _, e := range ends {
		if err := e.setUp(); err != nil {
			return nil, nil, fmt.Errorf("pktgen: %s in %s: %w", e.Name, e.NS.name, err)
		}
	}
	for _, e := range ends {
		if err := e.waitUp(); err != nil {
			return nil, nil, fmt.Errorf("pktgen: %s in %s: %w", e.Name, e.NS.name, err)
		}
	}
	return ends[0], ends[1], nil
}

func (ns *NS) nextName() string {
	ns.links++
	return "eth" + strconv.Itoa(ns.links-1)
}

// waitUp returns when packets of ordinary sockets get through.
func (e *End) waitUp() error {
	for end := time.Now().Add(upTimeout); ; time.Sleep(time.Millisecond) {
		link, err := e.NS.handle.LinkByIndex(e.Index)
		if err != nil || link.Attrs().OperState == netlink.OperUp {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("link is %v after %v", link.Attrs().OperState, upTimeout)
		}
	}
}

func (e *End) setUp() error {
	link, err := e.NS.handle.LinkByName(e.Name)
	if err != nil {
		return err
	}
	e.Index, e.MAC = link.Attrs().Index, link.Attrs().HardwareAddr
	for _, p := range e.Addrs {
		bits := p.Addr().BitLen()
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), bits)}}
		if p.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := e.NS.handle.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("address %v: %w", p, err)
		}
	}
	if err := e.NS.handle.LinkSetUp(link); err != nil {
		return err
	}
	return e.fullChecksums()
}

// Addr4 and Addr6 are the first address of the family, invalid when there is none.
func (e *End) Addr4() netip.Addr { return e.first(netip.Addr.Is4) }

// Addr6 is the first IPv6 address.
func (e *End) Addr6() netip.Addr { return e.first(netip.Addr.Is6) }

func (e *End) first(is func(netip.Addr) bool) netip.Addr {
	for _, p := range e.Addrs {
		if is(p.Addr()) {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

// StaticNeighbours tells both ends the other's hardware address for good, so
// that no neighbour discovery stands between two packets.
func (e *End) StaticNeighbours() error {
	for _, x := range []*End{e, e.Peer} {
		if err := x.Neighbour(x.Peer); err != nil {
			return err
		}
	}
	return nil
}

// Neighbour tells e for good that the addresses of other, which need not be its
// peer, are on its wire.
func (e *End) Neighbour(other *End) error {
	for _, p := range other.Addrs {
		err := e.NS.handle.NeighSet(&netlink.Neigh{
			LinkIndex:    e.Index,
			State:        netlink.NUD_PERMANENT,
			IP:           p.Addr().AsSlice(),
			HardwareAddr: other.MAC,
		})
		if err != nil {
			return fmt.Errorf("pktgen: neighbour %v on %s: %w", p.Addr(), e.Name, err)
		}
	}
	return nil
}
