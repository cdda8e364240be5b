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

// rulesPre drops what banned sources send, to this host or through it.
func (t *Table) rulesPre() error {
	c := t.conn.AddChain(t.lay.baseChain("pre", nftables.ChainHookPrerouting))
	accept, drop := verdict(expr.VerdictAccept), verdict(expr.VerdictDrop)

	t.rule(c, "", inLoopback(), accept)
	// Without neighbour discovery (RFC 4861) a source on our link could no
	// longer be reached at all, whatever its ban leaves it.
	discovery, err := t.oneOf(nftables.TypeICMP6Type, 133, 134, 135, 136)
	if err != nil {
		return err
	}
	t.rule(c, "", metaIs(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV6), protocol(unix.IPPROTO_ICMPV6),
		match{payload(expr.PayloadBaseTransportHeader, 0, 1)}, discovery, accept)
	for _, f := range t.lay.families() {
		if f.spare != nil {
			t.rule(c, "", f.in(f.spare), accept)
		}
	}
	for _, f := range t.lay.families() {
		t.rule(c, "", f.in(f.full), counter(droppedFull), drop)
	}
	// From here on a ban rests on evidence that anybody can forge: it never
	// cuts a connection that exists, nor an error message about one.
	t.rule(c, "", ctState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept)
	t.rule(c, "connections kept from tracking", ctState(expr.CtStateBitUNTRACKED), protocol(unix.IPPROTO_TCP),
		tcpFlags(syn|ack, expr.CmpOpNeq, syn), accept)
	for _, f := range t.lay.families() {
		t.rule(c, "", f.in(f.soft), counter(droppedSoft), drop)
		t.rule(c, "", f.source, f.protocol(), match{lookup(f.part)}, counter(droppedSoft), drop)
		if f.hit != nil {
			t.rule(c, "", f.in(f.hit), counter(droppedSoft), drop)
			t.rule(c, "", f.source, f.protocol(), match{lookup(f.hitpart)}, counter(droppedSoft), drop)
		}
	}
	return nil
}

// rulesTrap judges what is for this host and has no socket. It is in the input
// hook, behind destination NAT: earlier, a port published to a container would
// look like a port that nobody serves.
func (t *Table) rulesTrap(c *nftables.Chain) error {
	accept := verdict(expr.VerdictAccept)
	t.rule(c, "", inLoopback(), accept)
	for _, f := range t.lay.families() {
		if f.spare != nil {
			t.rule(c, "", f.in(f.spare), accept)
		}
	}
	t.rule(c, "", notForUs(), accept)
	// Answers to what this host or a masqueraded guest sent.
	t.rule(c, "", replyDirection(), accept)
	// Both values of transparent match any socket, TIME_WAIT included. The key
	// "wildcard" would not: it breaks on sockets that are not full ones.
	flag := nftables.TypeInteger
	flag.Bytes = 1
	anySocket, err := t.oneOf(flag, 0, 1)
	if err != nil {
		return err
	}
	t.rule(c, "", match{&expr.Socket{Key: expr.SocketKeyTransparent, Register: unix.NFT_REG_1}}, anySocket, accept)
	for _, f := range t.lay.families() {
		for _, s := range []*nftables.Set{f.lim, f.hitlim} {
			if s == nil {
				continue
			}
			transport, err := t.oneOf(nftables.TypeInetProto, unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP)
			if err != nil {
				return err
			}
			t.rule(c, "", f.in(s), ctState(expr.CtStateBitNEW|expr.CtStateBitINVALID|expr.CtStateBitUNTRACKED),
				match{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1}}, transport,
				counter(droppedLimited), verdict(expr.VerdictDrop))
		}
	}
	return nil
}

// rulesHits are the trap matches and the chains they jump to. The flags are
// those of detect.KindSYN, KindFIN, KindNULL and KindXMAS, exactly: no stack
// sends the last three, not even late (its FIN carries an ACK). Other probes
// are named and judged by user space, never banned by one packet here.
func (t *Table) rulesHits(trap *nftables.Chain) {
	l, o := t.lay, &t.opt
	if o.trapsTCP() {
		hit := t.conn.AddChain(l.chain("hit_tcp"))
		t.rulesHit(hit, o.BlockTCP == config.BlockCommand)
		tcp := protocol(unix.IPPROTO_TCP)
		t.rule(trap, "", tcp, tcpFlags(sixFlags, expr.CmpOpEq, syn), destPort(l.trapsTCP), jump(hit))
		if len(less(o.TrapsTCP, o.EphemeralFirst, o.EphemeralLast)) > 0 {
			t.rule(trap, "", tcp, tcpFlags(sixFlags, expr.CmpOpEq, fin), destPort(l.trapsFIN), jump(hit))
			t.rule(trap, "", tcp, noTCPFlags(), destPort(l.trapsFIN), jump(hit))
			t.rule(trap, "", tcp, tcpFlags(sixFlags&^syn, expr.CmpOpEq, fin|psh|urg), destPort(l.trapsFIN), jump(hit))
		}
	}
	if o.trapsUDP() {
		hit := t.conn.AddChain(l.chain("hit_udp"))
		t.rulesHit(hit, o.BlockUDP == config.BlockCommand)
		t.rule(trap, "", ctState(expr.CtStateBitNEW), protocol(unix.IPPROTO_UDP), destPort(l.trapsUDP), jump(hit))
	}
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
			t.rule(c, "", f.source, add(f.hitlim), drop)
			continue
		}
		t.rule(c, "", f.in(f.peers), add(f.hitlim), drop)
		// Everybody but peers: where hitlim is full, a peer must not fall
		// through to the stronger ban.
		if onlyProtocol {
			t.rule(c, "", f.notIn(f.peers), f.protocol(), add(f.hitpart), drop)
		} else {
			t.rule(c, "", f.notIn(f.peers), add(f.hit), drop)
		}
	}
	t.rule(c, "a provisional set is full", counter(overflow), drop)
}

// disarm queues the removal of the trap matches.
func (t *Table) disarm() error {
	trap := t.lay.chain("trap")
	t.conn.FlushChain(trap)
	if err := t.rulesTrap(trap); err != nil {
		return err
	}
	for name, there := range map[string]bool{"hit_tcp": t.opt.trapsTCP(), "hit_udp": t.opt.trapsUDP()} {
		if there {
			t.conn.FlushChain(t.lay.chain(name))
			t.conn.DelChain(t.lay.chain(name))
		}
	}
	return nil
}
