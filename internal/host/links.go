package host

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// rtLink, rtAddr and rtHop are what rtnetlink's messages say, before anything
// is concluded from them.
type rtLink struct {
	Link
	peerElsewhere bool // IFLA_LINK_NETNSID: its other end, or what is below it, is in another namespace
}

type rtAddr struct {
	index     int32
	addr      netip.Prefix // the address, with the length of its subnet
	broadcast netip.Addr
}

type rtHop struct {
	index int32
	via   netip.Addr // invalid: the route needs none
}

type rtFacts struct {
	links []rtLink
	addrs []rtAddr
	hops  []rtHop // of default routes

	forwards bool
}

// listRoutes asks for links, addresses, default routes and what is forwarded.
func listRoutes(c *conn) (*rtFacts, error) {
	f := new(rtFacts)
	link := newRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP, unix.SizeofIfInfomsg+8)
	// Leave the counters out: they are most of the answer.
	const rtextFilterSkipStats = 1 << 3
	ext := link[unix.SizeofNlMsghdr+unix.SizeofIfInfomsg:]
	native.PutUint16(ext, 8)
	native.PutUint16(ext[2:], unix.IFLA_EXT_MASK)
	native.PutUint32(ext[4:], rtextFilterSkipStats)

	steps := []struct {
		what string
		req  []byte
		each func(kind uint16, body []byte)
		drop func() // what an interrupted attempt has left
	}{
		{"links", link, f.link, func() { f.links = nil }},
		{"addresses", newRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP, unix.SizeofIfAddrmsg), f.addr, func() { f.addrs = nil }},
		{"routes", newRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP, unix.SizeofRtMsg), f.route, func() { f.hops = nil }},
		{"settings of IPv4", netconfRequest(unix.AF_INET), f.netconf, func() {}},
		{"settings of IPv6", netconfRequest(unix.AF_INET6), f.netconf, func() {}},
	}
	for _, s := range steps {
		// A change while listing interrupts it. One more try, then what there
		// is must do: the change has sent a notification and we list again.
		err := c.dump(s.req, s.each)
		if errors.Is(err, errInterrupted) {
			s.drop()
			err = c.dump(s.req, s.each)
		}
		if err != nil && !errors.Is(err, errInterrupted) && !errors.Is(err, unix.EOPNOTSUPP) { // that: a kernel without IPv6
			return nil, fmt.Errorf("list %s: %w", s.what, err)
		}
	}
	return f, nil
}

// link reads RTM_NEWLINK: struct ifinfomsg {family u8, pad, type u16, index
// i32, flags u32, change u32}.
func (f *rtFacts) link(kind uint16, b []byte) {
	if kind != unix.RTM_NEWLINK || len(b) < unix.SizeofIfInfomsg {
		return
	}
	flags := native.Uint32(b[8:])
	l := rtLink{Link: Link{
		Index:        int32(native.Uint32(b[4:])),
		HardwareType: native.Uint16(b[2:]),
		Up:           flags&unix.IFF_UP != 0,
		Loopback:     flags&unix.IFF_LOOPBACK != 0,
	}}
	var below int32
	for k, v, rest, ok := nextAttribute(b[unix.SizeofIfInfomsg:]); ok; k, v, rest, ok = nextAttribute(rest) {
		switch k {
		case unix.IFLA_IFNAME:
			l.Name = text(v)
		case unix.IFLA_MASTER:
			l.Master = int32(u32(v))
		case unix.IFLA_LINK:
			below = int32(u32(v))
		case unix.IFLA_LINK_NETNSID:
			l.peerElsewhere = true
		case unix.IFLA_LINKINFO:
			l.info(v)
		}
	}
	// A veth's IFLA_LINK is its peer, not something below it.
	if !l.peerElsewhere && !l.pair() && below != l.Index {
		l.Parent = below
	}
	f.links = append(f.links, l)
}

func (l *rtLink) info(b []byte) {
	var data []byte
	for k, v, rest, ok := nextAttribute(b); ok; k, v, rest, ok = nextAttribute(rest) {
		switch k {
		case unix.IFLA_INFO_KIND:
			l.Kind = text(v)
		case unix.IFLA_INFO_DATA:
			data = v
		case unix.IFLA_INFO_SLAVE_KIND:
			// A VRF's members keep their addresses and their frames.
			if s := text(v); s != "vrf" {
				l.PortOf = s
			}
		}
	}
	if l.Kind != "vlan" {
		return
	}
	for k, v, rest, ok := nextAttribute(data); ok; k, v, rest, ok = nextAttribute(rest) {
		if k == unix.IFLA_VLAN_ID && len(v) >= 2 {
			l.VLANID = native.Uint16(v)
		}
	}
}

// pair reports a device that is one end of a pair.
func (l *Link) pair() bool { return l.Kind == "veth" || l.Kind == "netkit" }

// addr reads RTM_NEWADDR: struct ifaddrmsg {family u8, prefix length u8, flags
// u8, scope u8, index u32}.
func (f *rtFacts) addr(kind uint16, b []byte) {
	if kind != unix.RTM_NEWADDR || len(b) < unix.SizeofIfAddrmsg {
		return
	}
	a := rtAddr{index: int32(native.Uint32(b[4:]))}
	flags := uint32(b[2])
	var local, address netip.Addr
	for k, v, rest, ok := nextAttribute(b[unix.SizeofIfAddrmsg:]); ok; k, v, rest, ok = nextAttribute(rest) {
		switch k {
		case unix.IFA_LOCAL: // differs from IFA_ADDRESS on point-to-point links: that is the other end
			local, _ = netip.AddrFromSlice(v)
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(v)
		case unix.IFA_BROADCAST:
			a.broadcast, _ = netip.AddrFromSlice(v)
		case unix.IFA_FLAGS:
			flags = u32(v)
		}
	}
	if !local.IsValid() {
		local = address
	}
	// An address that failed duplicate detection is somebody else's (RFC 4862).
	if a.addr = netip.PrefixFrom(local, int(b[1])); a.addr.IsValid() && flags&unix.IFA_F_DADFAILED == 0 {
		f.addrs = append(f.addrs, a)
	}
}

// netconfmsgSize is that of struct netconfmsg {family u8}, padded.
const netconfmsgSize = 4

func netconfRequest(family byte) []byte {
	req := newRequest(unix.RTM_GETNETCONF, unix.NLM_F_DUMP, netconfmsgSize)
	req[unix.SizeofNlMsghdr] = family
	return req
}

// netconf reads RTM_NEWNETCONF, the settings of one link, or of all of them. Those
// that only new links begin with are no matter.
func (f *rtFacts) netconf(kind uint16, b []byte) {
	if kind != unix.RTM_NEWNETCONF || len(b) < netconfmsgSize {
		return
	}
	// Of linux/netconf.h.
	const (
		ifindex, forwarding = 1, 2
		ofNewLinks          = -2
	)
	forwards, of := false, int32(0)
	for k, v, rest, ok := nextAttribute(b[netconfmsgSize:]); ok; k, v, rest, ok = nextAttribute(rest) {
		switch k {
		case ifindex:
			of = int32(u32(v))
		case forwarding:
			forwards = u32(v) != 0
		}
	}
	f.forwards = f.forwards || forwards && of != ofNewLinks
}

// isDefault reports whether an RTM_NEWROUTE or RTM_DELROUTE message is about a
// route that as good as everything takes: 0/0 and ::/0, the halves 0/1 and
// 128/1 that VPN clients set, and 2000::/3. struct rtmsg begins {family u8,
// destination length u8, ..., type u8 at 7}.
func isDefault(b []byte) bool {
	if len(b) < unix.SizeofRtMsg || b[7] != unix.RTN_UNICAST {
		return false
	}
	switch b[0] {
	case unix.AF_INET:
		return b[1] <= 1
	case unix.AF_INET6:
		return b[1] <= 3
	}
	return false
}

func (f *rtFacts) route(kind uint16, b []byte) {
	if kind != unix.RTM_NEWROUTE || !isDefault(b) {
		return
	}
	var h rtHop
	for k, v, rest, ok := nextAttribute(b[unix.SizeofRtMsg:]); ok; k, v, rest, ok = nextAttribute(rest) {
		switch k {
		case unix.RTA_OIF:
			h.index = int32(u32(v))
		case unix.RTA_GATEWAY, unix.RTA_VIA:
			h.via = nextHop(k, v)
		case unix.RTA_MULTIPATH:
			f.multipath(v)
		}
	}
	if h.index != 0 || h.via.IsValid() {
		f.hops = append(f.hops, h)
	}
}

// multipath reads a list of struct rtnexthop {length u16, flags u8, hops u8,
// index i32}, each with attributes of its own.
func (f *rtFacts) multipath(b []byte) {
	for len(b) >= unix.SizeofRtNexthop {
		n := int(native.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			return
		}
		h := rtHop{index: int32(native.Uint32(b[4:]))}
		for k, v, rest, ok := nextAttribute(b[unix.SizeofRtNexthop:n]); ok; k, v, rest, ok = nextAttribute(rest) {
			if k == unix.RTA_GATEWAY || k == unix.RTA_VIA {
				h.via = nextHop(k, v)
			}
		}
		f.hops = append(f.hops, h)
		b = b[min(align4(n), len(b)):]
	}
}

// nextHop reads RTA_GATEWAY, an address, or RTA_VIA (an IPv4 route by way of an
// IPv6 neighbour, RFC 8950), a family u16 and an address.
func nextHop(kind uint16, v []byte) netip.Addr {
	if kind == unix.RTA_VIA {
		v = v[min(2, len(v)):]
	}
	a, _ := netip.AddrFromSlice(v)
	return a
}

// snapshot concludes the part of a Snapshot that rtnetlink tells.
func (f *rtFacts) snapshot() *Snapshot {
	s := &Snapshot{Own: make(map[netip.Addr]struct{}), Broadcast: make(map[netip.Addr]struct{}), Forwards: f.forwards}
	for _, a := range f.addrs {
		ip := a.addr.Addr()
		if ip.IsMulticast() || ip.IsUnspecified() {
			continue
		}
		s.Own[ip] = struct{}{}
		if !ip.Is4() {
			continue
		}
		if a.broadcast.Is4() {
			s.Broadcast[a.broadcast] = struct{}{}
		}
		if bits := a.addr.Bits(); bits < 31 && !ip.IsLoopback() { // RFC 3021: a /31 has none
			s.Broadcast[lastOf(a.addr)] = struct{}{}
		}
	}
	for _, h := range f.hops {
		if h.via.IsValid() && !h.via.IsUnspecified() {
			s.Gateways = append(s.Gateways, h.via)
		}
	}
	s.Gateways = sorted(s.Gateways)
	for _, l := range f.links {
		for _, a := range f.addrs {
			l.HasAddress = l.HasAddress || a.index == l.Index
		}
		l.DefaultRoute = slices.ContainsFunc(f.hops, func(h rtHop) bool { return h.index == l.Index })
		l.ContainerVeth = isContainerEnd(&l, f.addrs)
		s.Links = append(s.Links, l.Link)
	}
	slices.SortFunc(s.Links, func(a, b Link) int { return cmp.Compare(a.Index, b.Index) })
	return s
}

// lastOf is the last address of an IPv4 subnet.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

func sorted(l []netip.Addr) []netip.Addr {
	slices.SortFunc(l, netip.Addr.Compare)
	return slices.Compact(l)
}
