package judge

import (
	"maps"
	"net/netip"
	"slices"
)

// Geo is what Trust asks about countries and autonomous systems.
type Geo interface {
	// Entry is the entry of the ignore file that p, or a part of it, belongs to, ""
	// for none.
	Entry(p netip.Prefix) string
}

// Trust is the list of whom to spare. It is immutable once built.
type Trust struct {
	ignore     map[netip.Prefix]struct{}
	lens4      []int // prefix lengths that occur in ignore, each once
	lens6      []int
	names      map[netip.Addr]string
	geo        Geo // nil: nobody is spared by it
	few        []netip.Prefix
	named      map[netip.Addr]Spared
	own        map[netip.Addr]struct{}
	broadcasts map[netip.Addr]struct{}
	nets       map[netip.Prefix]Spared // /64s with somebody of these in it, who is less than all of it
	hosts      map[netip.Addr]Spared   // all who are spared by their own address, for every packet asks
}

// TrustFrom is what a Trust is built from. The maps are kept, not copied.
type TrustFrom struct {
	Ignore      []netip.Prefix        // masked; the ignore file
	Names       map[netip.Addr]string // addresses of names in it, each with its name
	Geo         Geo                   // countries and systems in it; nil: there are none
	Few         []netip.Prefix        // those of their networks that a kernel has room for
	Own         map[netip.Addr]struct{}
	Broadcasts  map[netip.Addr]struct{}
	Gateways    []netip.Addr
	Resolvers   []netip.Addr
	Logins      []netip.Addr
	TimeServers []netip.Addr
}

// NewTrust builds a Trust.
func NewTrust(f TrustFrom) *Trust {
	t := &Trust{
		ignore: make(map[netip.Prefix]struct{}, len(f.Ignore)),
		names:  f.Names, geo: f.Geo, few: f.Few,
		named: make(map[netip.Addr]Spared),
		own:   f.Own, broadcasts: f.Broadcasts,
		nets: make(map[netip.Prefix]Spared),
	}
	var seen4, seen6 [129]bool
	for _, p := range f.Ignore {
		p = p.Masked()
		t.ignore[p] = struct{}{}
		seen, lens := &seen6, &t.lens6
		if p.Addr().Is4() {
			seen, lens = &seen4, &t.lens4
		}
		if !seen[p.Bits()] {
			seen[p.Bits()] = true
			*lens = append(*lens, p.Bits())
		}
	}
	// The last to name an address wins; a login is the most telling.
	for _, g := range []struct {
		addrs []netip.Addr
		as    Spared
	}{{f.TimeServers, TimeServer}, {f.Resolvers, Resolver}, {f.Gateways, Gateway}, {f.Logins, Login}} {
		for _, a := range g.addrs {
			t.named[a.Unmap().WithZone("")] = g.as
		}
	}
	t.findNets()
	t.findHosts()
	return t
}

// findHosts fills hosts. Of what somebody is, what goes before comes last.
func (t *Trust) findHosts() {
	t.hosts = make(map[netip.Addr]Spared, len(t.names)+len(t.named)+len(t.own)+len(t.broadcasts))
	for a := range t.names {
		t.hosts[a] = Ignored
	}
	maps.Copy(t.hosts, t.named)
	for a := range t.own {
		t.hosts[a] = Own
	}
	for a := range t.broadcasts {
		t.hosts[a] = Martian
	}
}

// findNets fills nets, in the order in which anybody asks.
func (t *Trust) findNets() {
	is := func(a netip.Addr, as Spared) {
		if net, err := a.WithZone("").Prefix(64); a.Is6() && err == nil && t.nets[net] == NotSpared {
			t.nets[net] = as
		}
	}
	for p := range t.ignore {
		if p.Bits() > 64 {
			is(p.Addr(), Ignored)
		}
	}
	for a, as := range t.named {
		is(a, as)
	}
	for a := range t.own {
		is(a, Own)
	}
	for a := range t.names {
		is(a, Ignored)
	}
}

// Spares says why a packet from src to dst is never acted on.
func (t *Trust) Spares(src, dst netip.Addr) Spared {
	if martian(src) {
		return Martian
	}
	as := t.hosts[src]
	switch {
	case as == Martian, as == Own:
		return as
	case src == dst:
		return Own
	case t.ignores(src):
		return Ignored
	case as != NotSpared:
		return as
	case t.geo != nil && t.geo.Entry(netip.PrefixFrom(src, src.BitLen())) != "":
		return Ignored
	}
	return NotSpared
}

// entry is the name, country or system in the ignore file that p, or somebody in
// it, is spared by.
func (t *Trust) entry(p netip.Prefix) string {
	if p.IsSingleIP() {
		if name, ok := t.names[p.Addr()]; ok {
			return name
		}
	} else {
		for a, name := range t.names {
			if p.Contains(a) {
				return name
			}
		}
	}
	if t.geo == nil {
		return ""
	}
	return t.geo.Entry(p)
}

// Reason says in words why p, which Within or Spares has spared as that, is not
// acted on: with the entry of the ignore file where it is none for an address.
func (t *Trust) Reason(p netip.Prefix, as Spared) string {
	if as == Ignored && !t.ignores(p.Addr()) {
		if entry := t.entry(p); entry != "" {
			return as.Reason() + " (" + entry + ")"
		}
	}
	return as.Reason()
}

func (t *Trust) ignores(a netip.Addr) bool {
	lens := t.lens6
	if a.Is4() {
		lens = t.lens4
	}
	for _, n := range lens {
		if p, err := a.Prefix(n); err == nil {
			if _, ok := t.ignore[p]; ok {
				return true
			}
		}
	}
	return false
}

// Within says why p is not to be banned: its one address, or somebody inside.
func (t *Trust) Within(p netip.Prefix) Spared {
	if p.IsSingleIP() {
		return t.Spares(p.Addr(), netip.Addr{})
	}
	// Anybody can make us ask about a /64, as often as he likes.
	if p.Addr().Is6() && p.Bits() == 64 {
		switch {
		case t.ignores(p.Addr()):
			return Ignored
		case t.nets[p.Masked()] != NotSpared:
			return t.nets[p.Masked()]
		case t.geo != nil && t.geo.Entry(p) != "":
			return Ignored
		}
		return NotSpared
	}
	return t.anybody(p)
}

// anybody is Within for a range, by a look at everybody.
func (t *Trust) anybody(p netip.Prefix) Spared {
	for ignored := range t.ignore {
		if ignored.Overlaps(p) {
			return Ignored
		}
	}
	for a, as := range t.named {
		if p.Contains(a) {
			return as
		}
	}
	for a := range t.own {
		if p.Contains(a) {
			return Own
		}
	}
	if t.entry(p) != "" {
		return Ignored
	}
	return NotSpared
}

// Martians lists what no host sends from, and what is no host here, for a kernel
// that is to leave such packets to us.
func (t *Trust) Martians() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []string{"0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/128", "::1/128", "ff00::/8"} {
		out = append(out, netip.MustParsePrefix(p))
	}
	for a := range t.broadcasts {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

// Prefixes lists everybody to be spared, for a kernel's lists, in order: the same
// trust gives the same list. Of countries and systems there are those that have few
// networks; whom a kernel bans of the others is let go when we hear of it.
func (t *Trust) Prefixes() []netip.Prefix {
	out := make([]netip.Prefix, 0, len(t.ignore)+len(t.names)+len(t.few)+len(t.named)+len(t.own))
	single := func(a netip.Addr) { out = append(out, netip.PrefixFrom(a.WithZone(""), a.BitLen())) }
	for p := range t.ignore {
		out = append(out, p)
	}
	out = append(out, t.few...)
	for a := range t.names {
		single(a)
	}
	for a := range t.named {
		single(a)
	}
	for a := range t.own {
		single(a)
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// martian reports sources that no host sends from: this network (RFC 1122
// section 3.2.1.3), loopback, multicast, limited broadcast and class E.
func martian(a netip.Addr) bool {
	if a.Is4() {
		b := a.As4()
		return b[0] == 0 || b[0] == 127 || b[0] >= 224
	}
	return a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.Is4In6()
}

// Reason is the sparing in words.
func (s Spared) Reason() string {
	return [...]string{
		NotSpared: "", Ignored: "in the ignore file", Own: "an address of this host",
		Martian: "an address no host sends from", Gateway: "a gateway of this host",
		Resolver: "a resolver of this host", Login: "your login session",
		TimeServer: "a time or DHCP server of this host",
	}[s]
}

// String is the sparing in one word, as JSON has it.
func (s Spared) String() string {
	return [...]string{"", "ignored", "own", "martian", "gateway", "resolver", "login", "timeserver"}[s]
}
