// Package host knows this machine: what addresses and interfaces it has, who
// its gateways, resolvers and time servers are, which ports are served, which
// connections exist and who is connected. The kernel (netlink) and a few files
// go in; facts come out. It judges nothing and imports nothing of ours, and only
// Names sends anything: questions for the names of others, to the resolvers of
// this machine.
//
// Three kinds of facts have three shapes. What changes seldom is a Snapshot,
// kept by a Watcher and replaced as a whole. What is asked about one packet is
// asked of the kernel at that moment, by a look-up without allocation: Sockets
// and Conntrack, one of each per worker. Who is connected is remembered by
// Peers.
//
// Everything belongs to the network namespace of the thread that called the
// constructor, whichever thread uses it later.
package host

import "net/netip"

// Snapshot is one view of the machine. It is immutable and replaced as a whole.
// Addresses carry no zone; lists are sorted and free of duplicates.
type Snapshot struct {
	Links []Link // all links of the namespace, by index

	Own       map[netip.Addr]struct{} // every unicast address of every interface, loopback included
	Broadcast map[netip.Addr]struct{} // IPv4 subnet broadcast addresses

	Gateways    []netip.Addr // next hops of default routes: every table, every path
	Resolvers   []netip.Addr // name servers in use, those behind a local stub too
	TimeServers []netip.Addr // NTP and DHCP servers configured or leased as literal addresses
	Logins      []netip.Addr // remote ends of login sessions, the one we were started from first of all

	EphemeralFirst, EphemeralLast uint16 // ip_local_port_range, both included

	Forwards bool // packets that are for others are passed on, of either family, from any link
}

// Link is one network interface.
type Link struct {
	Index        int32
	Name         string
	Kind         string // of a virtual device (veth, bridge, vlan, ...), "" for a card
	HardwareType uint16 // ARPHRD_*: 1 Ethernet, 772 loopback, 65534 no link header at all
	Up, Loopback bool

	Master int32  // index of the device that this one belongs to, 0 for none
	PortOf string // kind of a master that takes our frames away: bridge, bond, team, openvswitch
	Parent int32  // index of the device below a vlan, macvlan or the like, 0 for none
	VLANID uint16 // of Kind vlan

	HasAddress    bool // holds a unicast address of ours, link-local ones count
	DefaultRoute  bool // a default route leaves here
	ContainerVeth bool // host end of a container's veth: see isContainerEnd
}

// IsOwn reports whether a is an address of this machine. All of 127.0.0.0/8 is.
func (s *Snapshot) IsOwn(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	_, ok := s.Own[a]
	return ok
}

// VLANDevice is the device that takes the frames which arrive on parent with
// VLAN id vid. The kernel shows such a frame twice, on the parent and on the
// device: who watches both counts it on the device.
func (s *Snapshot) VLANDevice(parent int32, vid uint16) (int32, bool) {
	for i := range s.Links {
		if l := &s.Links[i]; l.Kind == "vlan" && l.Parent == parent && l.VLANID == vid {
			return l.Index, true
		}
	}
	return 0, false
}
