package nft

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"portsentry/internal/config"
)

// NFLOG of hits is bounded: a forged flood must not cost more than this. What
// is not announced is counted all the same (Stats.TrapHits).
const (
	announceRate  = 5000 // per second and protocol
	announceBurst = 1000
)

// priority is behind connection tracking (-200), so that ct state is known,
// and before destination NAT (-100), so that forwarded traffic is seen alike.
const priority = -150

func (l *layout) chain(name string) *nftables.Chain {
	return &nftables.Chain{Name: name, Table: l.table}
}

func (l *layout) baseChain(name string, hook *nftables.ChainHook) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	c := l.chain(name)
	c.Type, c.Hooknum, c.Priority, c.Policy = nftables.ChainTypeFilter, hook, nftables.ChainPriorityRef(priority), &accept
	return c
}

// bases are the base chains that the options want.
func (t *Table) bases() []*nftables.Chain {
	switch {
	case t.opt.Standby:
		return nil
	case t.opt.Untracked:
		return []*nftables.Chain{t.lay.trap(), t.lay.sent()}
	}
	return []*nftables.Chain{t.lay.pre(), t.lay.trap()}
}

// isBase reports whether a chain in the kernel is one of them, as we would make it.
func (t *Table) isBase(c *nftables.Chain) bool {
	for _, ours := range t.bases() {
		if c.Name == ours.Name && c.Type == ours.Type && c.Hooknum != nil && *c.Hooknum == *ours.Hooknum &&
			c.Priority != nil && *c.Priority == *ours.Priority && c.Policy != nil && *c.Policy == *ours.Policy {
			return true
		}
	}
	return false
}

func (l *layout) pre() *nftables.Chain  { return l.baseChain("pre", nftables.ChainHookPrerouting) }
func (l *layout) trap() *nftables.Chain { return l.baseChain("trap", nftables.ChainHookInput) }
func (l *layout) sent() *nftables.Chain { return l.baseChain("sent", nftables.ChainHookOutput) }

// rule queues one rule.
func (t *Table) rule(c *nftables.Chain, comment string, parts ...match) {
	r := &nftables.Rule{Table: t.lay.table, Chain: c, Exprs: slices.Concat(parts...)}
	if comment != "" {
		r.UserData = userdata.AppendString(nil, userdata.TypeComment, comment)
	}
	t.conn.AddRule(r)
}

// oneOf queues an anonymous set of one-byte values and gives its lookup.
func (t *Table) oneOf(key nftables.SetDatatype, values ...byte) (match, error) {
	s := &nftables.Set{Table: t.lay.table, Anonymous: true, Constant: true, KeyType: key}
	var els []nftables.SetElement
	for _, v := range values {
		els = append(els, nftables.SetElement{Key: []byte{v}})
	}
	err := t.conn.AddSet(s, els)
	return match{lookup(s)}, err
}

// transport matches these protocols.
func (t *Table) transport(protocols ...byte) (match, error) {
	some, err := t.oneOf(nftables.TypeInetProto, protocols...)
	return append(match{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1}}, some...), err
}

// someSocket matches packets for any socket: both values of transparent do, TIME_WAIT
// included. The key "wildcard" would not: it breaks on sockets that are not full ones.
func (t *Table) someSocket() (match, error) {
	flag := nftables.TypeInteger
	flag.Bytes = 1
	either, err := t.oneOf(flag, 0, 1)
	return append(match{&expr.Socket{Key: expr.SocketKeyTransparent, Register: unix.NFT_REG_1}}, either...), err
}

// rules queues all of them.
func (t *Table) rules() error {
	if t.opt.Standby {
		c := t.conn.AddChain(t.lay.chain("standby")) // which nobody jumps to: for those who read it
		t.rule(c, "the XDP program keeps these sources out; there are rules when something comes in past it", verdict(expr.VerdictReturn))
		return nil
	}
	if t.opt.Untracked {
		t.rulesSent()
	} else if err := t.rulesPre(); err != nil {
		return err
	}
	return t.rulesTrap(true)
}

// rulesPre drops what banned sources send, to this host or through it.
func (t *Table) rulesPre() error {
	c := t.conn.AddChain(t.lay.pre())
	accept := verdict(expr.VerdictAccept)
	if err := t.rulesFull(c); err != nil {
		return err
	}
	// From here on a ban rests on evidence that anybody can forge: it never
	// cuts a connection that exists, nor an error message about one.
	t.rule(c, "", ctState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept)
	t.rule(c, "", inLoopback(), accept)
	if err := t.rulesDiscovery(c); err != nil {
		return err
	}
	t.rulesSpare(c)
	t.rule(c, "connections kept from tracking", ctState(expr.CtStateBitUNTRACKED), protocol(unix.IPPROTO_TCP), notSYN(), accept)
	// A connection that began before anything was tracked counts as new when its
	// remote end speaks first.
	t.rule(c, "connections older than tracking", ctState(expr.CtStateBitNEW|expr.CtStateBitINVALID), protocol(unix.IPPROTO_TCP),
		notSYN(), boundSocket(), accept)
	t.rulesBanned(c, counter(droppedSoft), verdict(expr.VerdictDrop))
	return nil
}

// rulesFull drops all of those with proof against them. What most packets need is first,
// and is little: they are looked up in the sets that hold somebody (see look), and whom to
// spare, in an interval set, is asked for those whose source is banned.
func (t *Table) rulesFull(c *nftables.Chain) error {
	full := t.conn.AddChain(t.lay.chain("full"))
	if err := t.rulesDiscovery(full); err != nil {
		return err
	}
	t.rulesSpare(full)
	t.rule(full, "", counter(droppedFull), verdict(expr.VerdictDrop))
	t.rule(c, "", jump(t.conn.AddChain(t.lay.looks())))
	clear(t.looked)
	for _, f := range t.lay.families() {
		if t.filled[f.full] {
			t.look(f, f.full)
		}
		if t.nets.has(f.fullnet) {
			t.look(f, f.fullnet)
		}
	}
	return nil
}

// looks is the chain in which fully banned sources are looked for. Nobody is, while there
// are none.
func (l *layout) looks() *nftables.Chain { return l.chain("look") }

// look has sources looked up in a set of full bans from now on.
func (t *Table) look(f *family, s *nftables.Set) {
	c := t.lay.looks()
	if len(t.looked) == 0 {
		t.rule(c, "", inLoopback(), verdict(expr.VerdictReturn)) // whatever range is banned
	}
	t.rule(c, "", f.in(s), jump(t.lay.chain("full")))
	t.looked[s] = true
}

// rulesBanned has a verdict for what softly banned sources send.
func (t *Table) rulesBanned(c *nftables.Chain, then ...match) {
	rule := func(parts ...match) { t.rule(c, "", append(parts, then...)...) }
	for _, f := range t.lay.families() {
		rule(f.in(f.soft))
		rule(f.source, f.protocol(), match{lookup(f.part)})
		if t.nets.has(f.softnet) {
			rule(f.in(f.softnet))
		}
		if f.hit != nil {
			rule(f.in(f.hit))
			rule(f.source, f.protocol(), match{lookup(f.hitpart)})
		}
	}
}

// rulesDiscovery lets pass neighbour discovery (RFC 4861), without which a source on our
// link could no longer be reached at all, whatever its ban leaves it.
func (t *Table) rulesDiscovery(c *nftables.Chain) error {
	discovery, err := t.oneOf(nftables.TypeICMP6Type, 133, 134, 135, 136)
	if err != nil {
		return err
	}
	t.rule(c, "", metaIs(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV6), protocol(unix.IPPROTO_ICMPV6),
		match{payload(expr.PayloadBaseTransportHeader, 0, 1)}, discovery, verdict(expr.VerdictAccept))
	return nil
}

// rulesSpare lets pass whom to spare.
func (t *Table) rulesSpare(c *nftables.Chain) {
	for _, f := range t.lay.families() {
		if f.spare != nil {
			t.rule(c, "", f.in(f.spare), verdict(expr.VerdictAccept))
		}
	}
}

// rulesTrap judges what is for this host and has no socket; not armed, it only
// silences limited sources. It is in the input hook, behind destination NAT:
// earlier, a port published to a container would look like a port that nobody
// serves.
func (t *Table) rulesTrap(armed bool) error {
	c := t.conn.AddChain(t.lay.trap())
	if t.opt.Untracked {
		t.rulesAnswers()
	}
	limited, err := t.rulesLimited()
	if err != nil {
		return err
	}
	accept := verdict(expr.VerdictAccept)
	if t.opt.Untracked {
		if err := t.rulesExisting(c); err != nil {
			return err
		}
		t.rule(c, "", notForUs(), accept)
	} else {
		// Both sides have spoken: somebody is there. What follows looks for a route and a
		// socket, which is much for each packet of every connection.
		t.rule(c, "", ctState(expr.CtStateBitESTABLISHED), accept)
		t.rule(c, "", inLoopback(), accept)
		t.rulesSpare(c)
		t.rule(c, "", notForUs(), accept)
		// Answers to what this host or a masqueraded guest sent.
		t.rule(c, "", replyDirection(), accept)
	}
	hits := t.rulesHits(armed)
	if t.opt.TrapServed {
		hits.first(c)
	}
	if armed && t.opt.OwnTraps {
		begins := []match{nil} // all that gets here
		if t.opt.Untracked {
			begins = []match{slices.Concat(protocol(unix.IPPROTO_TCP), bareSYN()), protocol(unix.IPPROTO_UDP)}
		}
		for _, packets := range begins {
			t.rule(c, "trap sockets of ours", packets, trapSocket(), jump(limited))
		}
	}
	some, err := t.someSocket()
	if err != nil {
		return err
	}
	t.rule(c, "", some, accept)
	t.rule(c, "", jump(limited))
	if !t.opt.TrapServed {
		hits.first(c)
	}
	hits.odd(c)
	return nil
}

// outside are the packets that belong to no connection, of those that no socket takes.
func (t *Table) outside() ([]match, error) {
	if t.opt.Untracked {
		transport, err := t.transport(unix.IPPROTO_TCP, unix.IPPROTO_UDP)
		return []match{transport, beginsSCTP()}, err
	}
	transport, err := t.transport(unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP)
	return []match{slices.Concat(ctState(expr.CtStateBitNEW|expr.CtStateBitINVALID|expr.CtStateBitUNTRACKED), transport)}, err
}

// rulesLimited drops what limited sources send outside of connections.
func (t *Table) rulesLimited() (*nftables.Chain, error) {
	c := t.conn.AddChain(t.lay.chain("limited"))
	if t.opt.Untracked { // the rest of what was on its way when this host aborted
		t.rule(c, "", protocol(unix.IPPROTO_TCP), notSYN(), jump(t.lay.answers()))
	}
	for _, f := range t.lay.families() {
		for _, s := range []*nftables.Set{f.lim, f.hitlim} {
			if s == nil {
				continue
			}
			outside, err := t.outside()
			if err != nil {
				return nil, err
			}
			for _, packets := range outside {
				t.rule(c, "", f.in(s), packets, counter(droppedLimited), verdict(expr.VerdictDrop))
			}
		}
	}
	return c, nil
}

// trapRules queue the trap matches. The flags are those of detect.KindSYN,
// KindFIN, KindNULL and KindXMAS, and a SYN with whatever Linux takes beside it: no
// stack sends any but the first, not even late (its FIN carries an ACK). Other probes are named and judged by user
// space, never banned by one packet here.
type trapRules struct {
	t        *Table
	tcp, udp *nftables.Chain // what a hit is answered with; nil: no trap
}

// rulesHits makes the chains that the trap matches jump to; where the kernel is
// not to act, none.
func (t *Table) rulesHits(armed bool) trapRules {
	r := trapRules{t: t}
	if armed && t.opt.trapsTCP() {
		r.tcp = t.conn.AddChain(t.lay.chain("hit_tcp"))
		t.rulesHit(r.tcp, t.opt.BlockTCP == config.BlockCommand)
	}
	if armed && t.opt.trapsUDP() {
		r.udp = t.conn.AddChain(t.lay.chain("hit_udp"))
		t.rulesHit(r.udp, t.opt.BlockUDP == config.BlockCommand)
	}
	return r
}

// first are the packets that ask for a service.
func (r trapRules) first(c *nftables.Chain) {
	if r.tcp != nil {
		r.t.rule(c, "", protocol(unix.IPPROTO_TCP), tcpFlags(sixFlags, expr.CmpOpEq, syn), destPort(r.t.lay.trapsTCP), jump(r.tcp))
	}
	if r.udp != nil {
		var isNew match // without tracking, what is not has been let pass
		if !r.t.opt.Untracked {
			isNew = ctState(expr.CtStateBitNEW)
		}
		r.t.rule(c, "", isNew, protocol(unix.IPPROTO_UDP), destPort(r.t.lay.trapsUDP), jump(r.udp))
	}
}

// odd are the packets that no stack sends.
func (r trapRules) odd(c *nftables.Chain) {
	t, o := r.t, &r.t.opt
	if r.tcp == nil || len(less(o.TrapsTCP, o.EphemeralFirst, o.EphemeralLast)) == 0 {
		return
	}
	tcp, traps := protocol(unix.IPPROTO_TCP), destPort(t.lay.trapsFIN)
	t.rule(c, "", tcp, tcpFlags(sixFlags, expr.CmpOpEq, fin), traps, jump(r.tcp))
	// Linux answers a SYN with PSH or URG as any other.
	t.rule(c, "", tcp, tcpFlags(syn|fin|rst|ack, expr.CmpOpEq, syn), traps, jump(r.tcp))
	t.rule(c, "", tcp, noTCPFlags(), traps, jump(r.tcp))
	t.rule(c, "", tcp, tcpFlags(sixFlags&^syn, expr.CmpOpEq, fin|psh|urg), traps, jump(r.tcp))
}

// rulesHit answers one hit. The announcement comes before the set, so that
// user space hears of a source for which a provisional set has no room left
// and bans it in its own, larger one.
func (t *Table) rulesHit(c *nftables.Chain, onlyProtocol bool) {
	drop := verdict(expr.VerdictDrop)
	t.rule(c, "", counter(trapHits))
	t.rule(c, "", match{
		&expr.Limit{Type: expr.LimitTypePkts, Rate: announceRate, Unit: expr.LimitTimeSecond, Burst: announceBurst},
		&expr.Log{Key: 1 << unix.NFTA_LOG_GROUP, Group: t.log.group},
	})
	for _, f := range []*family{&t.lay.v4, &t.lay.v6} {
		if t.opt.LimitedOnly {
			t.rule(c, "", f.source, add(f.hitlim, t.opt.Provisional), drop)
			continue
		}
		t.rule(c, "", f.in(f.peers), add(f.hitlim, t.opt.Provisional), drop)
		// Everybody but peers: where hitlim is full, a peer must not fall
		// through to the stronger ban.
		if onlyProtocol {
			t.rule(c, "", f.notIn(f.peers), f.protocol(), add(f.hitpart, t.opt.Provisional), drop)
		} else {
			t.rule(c, "", f.notIn(f.peers), add(f.hit, t.opt.Provisional), drop)
		}
	}
	t.rule(c, "a provisional set is full", counter(overflow), drop)
}

// disarm queues the removal of the trap matches.
func (t *Table) disarm() error {
	gone := []*nftables.Chain{t.lay.chain("limited")}
	if t.opt.Untracked {
		gone = append(gone, t.lay.looks(), t.lay.chain("full"), t.lay.chain("soft"), t.lay.answers())
	}
	if t.opt.trapsTCP() {
		gone = append(gone, t.lay.chain("hit_tcp"))
	}
	if t.opt.trapsUDP() {
		gone = append(gone, t.lay.chain("hit_udp"))
	}
	for _, c := range append([]*nftables.Chain{t.lay.chain("trap")}, gone...) {
		t.conn.FlushChain(c)
	}
	for _, c := range gone {
		t.conn.DelChain(c)
	}
	return t.rulesTrap(false)
}
