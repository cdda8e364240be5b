package app

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"portsentry/internal/decode"
)

// localNetworks are the networks on whose side a capture was made. They say in
// which direction a scan went, and which trap ports count if they were given;
// where they are guessed, nobody is a scanner or none because of them.
type localNetworks struct {
	given   []netip.Prefix
	looking bool // packets are looked at, to guess by

	looked int
	pairs  map[pair]struct{}     // who sent to whom
	peers  map[netip.Addr]int    // with how many others an address spoke, both ways
	ranges map[netip.Prefix]bool // private ranges that were seen
}

type pair struct{ from, to netip.Addr }

// maxLooked packets are looked at for a guess.
const maxLooked = 1 << 16

// private are the ranges that are of somebody's own: RFC 1918, RFC 6598 and
// RFC 4193.
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("fc00::/7"),
}

// parseNetworks reads --local.
func parseNetworks(list string) ([]netip.Prefix, error) {
	if list == "" {
		return nil, nil
	}
	var out []netip.Prefix
	for word := range strings.SplitSeq(list, ",") {
		word = strings.TrimSpace(word)
		p, err := netip.ParsePrefix(word)
		if err != nil {
			a, aerr := netip.ParseAddr(word)
			if aerr != nil || a.Zone() != "" {
				return nil, fmt.Errorf("--local: %.60q is no network; write, for example, 192.0.2.0/24,2001:db8::/32", word)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

func newLocalNetworks(given []netip.Prefix) *localNetworks {
	return &localNetworks{
		given: given, looking: len(given) == 0,
		pairs: make(map[pair]struct{}), peers: make(map[netip.Addr]int), ranges: make(map[netip.Prefix]bool),
	}
}

// known tells what was given; nil: nothing.
func (l *localNetworks) known() func(netip.Addr) bool {
	if len(l.given) == 0 {
		return nil
	}
	return func(a netip.Addr) bool { return contains(l.given, a) }
}

// own reports whether packets to a count as packets to this side: without a list
// those to any single host do.
func (l *localNetworks) own(a netip.Addr) bool {
	if len(l.given) > 0 {
		return contains(l.given, a)
	}
	return a.IsValid() && !a.IsMulticast() && !a.IsUnspecified() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// look takes one packet into account.
func (l *localNetworks) look(p *decode.Probe) {
	if l.looked++; l.looked > maxLooked {
		l.looking = false
		return
	}
	there := pair{p.Src, p.Dst}
	if _, ok := l.pairs[there]; ok {
		return
	}
	l.pairs[there] = struct{}{}
	if _, ok := l.pairs[pair{p.Dst, p.Src}]; ok && p.Src != p.Dst {
		l.peers[p.Src]++
		l.peers[p.Dst]++
	}
	for _, a := range []netip.Addr{p.Src, p.Dst} {
		for _, r := range private {
			if r.Contains(a) {
				l.ranges[r] = true
			}
		}
	}
}

// guess is what the packets suggest, and why: the private ranges in use, else the
// network of the address that spoke with most others.
func (l *localNetworks) guess() (networks []netip.Prefix, why string) {
	for _, r := range private {
		if l.ranges[r] {
			networks = append(networks, r)
		}
	}
	if networks != nil {
		return networks, "private addresses in use"
	}
	var busiest netip.Addr
	for a, n := range l.peers {
		if most := l.peers[busiest]; n > most || n == most && a.Less(busiest) {
			busiest = a
		}
	}
	if !busiest.IsValid() {
		return nil, ""
	}
	bits := 24
	if busiest.Is6() {
		bits = 64
	}
	return []netip.Prefix{netip.PrefixFrom(busiest, bits).Masked()}, "the network of " + busiest.String() + ", which spoke with most others"
}

// words says what the local networks are and how that is known.
func (l *localNetworks) words() string {
	if len(l.given) > 0 {
		return "local networks: " + joined(l.given)
	}
	networks, why := l.guess()
	if networks == nil {
		return "local networks: none could be guessed, as nobody answered; --local names them"
	}
	return fmt.Sprintf("local networks: %s (guessed: %s; --local says otherwise)", joined(networks), why)
}

// inside tells whether an address is on this side; nil: nobody knows.
func (l *localNetworks) inside() func(netip.Addr) bool {
	if len(l.given) > 0 {
		return l.known()
	}
	networks, _ := l.guess()
	if networks == nil {
		return nil
	}
	return func(a netip.Addr) bool { return contains(networks, a) }
}

func joined(networks []netip.Prefix) string {
	words := make([]string, len(networks))
	for i, n := range networks {
		words[i] = n.String()
	}
	return strings.Join(words, ", ")
}
