package nft

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"

	"portsentry/internal/config"
)

const (
	tableName = "portsentry"

	// banSize bounds each set of confirmed bans, peerSize each set of peers.
	// The kernel grows these sets as they fill; the bound costs nothing.
	banSize  = 1 << 20
	peerSize = 1 << 16
)

// Counters of the table.
const (
	droppedFull    = "dropped_full"
	droppedSoft    = "dropped_soft"
	droppedLimited = "dropped_limited"
	trapHits       = "trap_hits"
	overflow       = "overflow"
	unremembered   = "unremembered"
)

// layout is the table with its sets. The names of the sets that hold bans are
// an interface with later versions: rebuild carries their elements over. Those
// of interval sets end in a number, see intervals.
type layout struct {
	table *nftables.Table
	v4    family
	v6    family
	net6  family // /64s of IPv6: bans only

	trapsTCP, trapsFIN, trapsUDP *nftables.Set

	turn int // number of the interval sets
}

// family holds the sets of one kind of source. Only user space writes the
// confirmed bans (full, soft, lim, part), and only the trap rules write the
// provisional ones (hit, hitlim, hitpart). They are apart because a dynamic
// set has a bound that forged sources can fill: it must never be able to keep
// user space from confirming a ban, nor cost a confirmed one its place.
type family struct {
	suffix   string // of the names of its sets
	is       match  // ends the rule for other families
	source   match  // loads the source into register 1, or ends the rule
	protoReg uint32 // the register right behind the source's

	spare, peers           *nftables.Set // net6 has neither
	fullnet, softnet       *nftables.Set // ranges; net6, whose networks are all of one length, has none
	full, soft, lim        *nftables.Set
	part                   *nftables.Set // source . protocol: soft, for one protocol
	hit, hitlim, hitpart   *nftables.Set // net6 has none
	sent, served           *nftables.Set // flows, where nothing is tracked; net6 has none
	addrType, addrProtType nftables.SetDatatype
}

// numbered is a set whose name ends in a number.
type numbered struct {
	name string // without the number
	set  *nftables.Set
}

// intervals are the interval sets. What is in such a set is never changed:
// kernels differ in the moment from which new elements of one are found, and
// some lose old ones for a moment meanwhile. So each change makes new sets, under
// the next number and in a transaction before that of the rules that name them.
func (l *layout) intervals() []numbered {
	return append([]numbered{{"spare4", l.v4.spare}, {"spare6", l.v6.spare},
		{"traps_tcp", l.trapsTCP}, {"traps_tcp_fin", l.trapsFIN}, {"traps_udp", l.trapsUDP}}, l.nets()...)
}

// nets are the interval sets of banned ranges.
func (l *layout) nets() []numbered {
	return []numbered{{"fullnet4", l.v4.fullnet}, {"softnet4", l.v4.softnet},
		{"fullnet6", l.v6.fullnet}, {"softnet6", l.v6.softnet}}
}

// number names the interval sets.
func (l *layout) number(n int) {
	l.turn = n
	for _, i := range l.intervals() {
		i.set.Name = fmt.Sprintf("%s_%d", i.name, n)
	}
}

// nextNumber is one that none of the sets has.
func (l *layout) nextNumber(there []*nftables.Set) int {
	next := 1
	for _, i := range l.intervals() {
		for _, s := range there {
			digits, ok := strings.CutPrefix(s.Name, i.name+"_")
			if n, err := strconv.Atoi(digits); ok && err == nil {
				next = max(next, n+1)
			}
		}
	}
	return next
}

// families gives the three in the order in which rules ask for them.
func (l *layout) families() []*family { return []*family{&l.v4, &l.v6, &l.net6} }

func newLayout(dynamicSize uint32) *layout {
	l := &layout{table: &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}}
	l.v4 = family{source: sourceV4(), protoReg: unix.NFT_REG32_01, addrType: nftables.TypeIPAddr}
	l.v6 = family{source: sourceV6(), protoReg: unix.NFT_REG_2, addrType: nftables.TypeIP6Addr}
	l.net6 = family{source: sourceNet6(), protoReg: unix.NFT_REG_2, addrType: nftables.TypeIP6Addr}

	for i, suffix := range []string{"4", "6", "6n"} {
		f := l.families()[i]
		f.suffix, f.is = suffix, f.source[:2]
		f.addrProtType = nftables.MustConcatSetType(f.addrType, nftables.TypeInetProto)
		ban := func(name string, key nftables.SetDatatype, comment string) *nftables.Set {
			return l.set(nftables.Set{Name: name + suffix, KeyType: key, HasTimeout: true, Size: banSize, Comment: comment})
		}
		f.full = ban("full", f.addrType, "everything dropped")
		f.soft = ban("soft", f.addrType, "new connections and datagrams dropped")
		f.lim = ban("lim", f.addrType, "silent where nothing listens")
		f.part = ban("part", f.addrProtType, "as soft, one protocol")
		if f == &l.net6 {
			continue
		}
		f.spare = l.set(nftables.Set{Name: "spare" + suffix, KeyType: f.addrType, Interval: true, Comment: "never acted on"})
		net := func(name, comment string) *nftables.Set {
			return l.set(nftables.Set{Name: name + suffix, KeyType: f.addrType, Interval: true, HasTimeout: true, Comment: comment})
		}
		f.fullnet, f.softnet = net("fullnet", "ranges, as full"), net("softnet", "ranges, as soft")
		f.peers = l.set(nftables.Set{Name: "peers" + suffix, KeyType: f.addrType, HasTimeout: true, Size: peerSize, Comment: "connected: limited at most"})
		hit := func(name string, key nftables.SetDatatype, comment string) *nftables.Set {
			// How long an element lasts is the rule's to say, so that a change of it
			// leaves the set alone.
			return l.set(nftables.Set{Name: name + suffix, KeyType: key, Dynamic: true, HasTimeout: true,
				Size: dynamicSize, Comment: comment})
		}
		f.hit = hit("hit", f.addrType, "provisional soft")
		f.hitlim = hit("hitlim", f.addrType, "provisional lim")
		f.hitpart = hit("hitpart", f.addrProtType, "provisional part")
		flow := nftables.MustConcatSetType(nftables.TypeInetProto, f.addrType, nftables.TypeInetService, f.addrType, nftables.TypeInetService)
		f.sent = hit(sentName, flow, "flows of the last two minutes that began here")
		f.served = hit(servedName, flow, "those of services")
	}

	traps := func(name, comment string) *nftables.Set {
		return l.set(nftables.Set{Name: name, KeyType: nftables.TypeInetService, Interval: true, Comment: comment})
	}
	l.trapsTCP = traps("traps_tcp", "a SYN here is a hit")
	l.trapsFIN = traps("traps_tcp_fin", "FIN, NULL and XMAS too")
	l.trapsUDP = traps("traps_udp", "a new datagram here is a hit")
	return l
}

func (l *layout) set(s nftables.Set) *nftables.Set {
	s.Table = l.table
	s.KeyByteOrder = binaryutil.BigEndian // addresses and ports are in network order
	return &s
}

// lasting are the sets whose elements outlive a restart.
func (l *layout) lasting(untracked bool) []*nftables.Set {
	var all []*nftables.Set
	for _, f := range l.families() {
		all = append(all, f.bans()...)
		if f.hit != nil {
			all = append(all, f.hit, f.hitlim, f.hitpart)
			if untracked {
				all = append(all, f.sent, f.served)
			}
		}
	}
	return all
}

func (f *family) bans() []*nftables.Set { return []*nftables.Set{f.full, f.soft, f.lim, f.part} }

// same says whether a set in the kernel is what we would make.
func same(a, b *nftables.Set) bool {
	return a.Name == b.Name && a.KeyType.GetNFTMagic() == b.KeyType.GetNFTMagic() && a.KeyType.Bytes == b.KeyType.Bytes &&
		a.IsMap == b.IsMap && a.Interval == b.Interval && a.Dynamic == b.Dynamic && a.HasTimeout == b.HasTimeout &&
		a.Timeout == b.Timeout && a.Size == b.Size
}

// less is the set without the ports from first to last.
func less(s config.PortSet, first, last uint16) config.PortSet {
	if last == 0 {
		return s
	}
	var out config.PortSet
	for _, r := range s {
		if r.Last < first || r.First > last {
			out = append(out, r)
			continue
		}
		if r.First < first {
			out = append(out, config.PortRange{First: r.First, Last: first - 1})
		}
		if r.Last > last {
			out = append(out, config.PortRange{First: last + 1, Last: r.Last})
		}
	}
	return out
}

// portElements are the ranges as an interval set has them: each start, and the
// first port behind each end.
func portElements(s config.PortSet) []nftables.SetElement {
	var out []nftables.SetElement
	for _, r := range s {
		start := nftables.SetElement{Key: binaryutil.BigEndian.PutUint16(r.First)}
		if r.Last == 65535 {
			start.IntervalOpen = true
			out = append(out, start)
			continue
		}
		out = append(out, start, nftables.SetElement{Key: binaryutil.BigEndian.PutUint16(r.Last + 1), IntervalEnd: true})
	}
	return out
}
