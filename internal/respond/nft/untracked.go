package nft

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Rules that ask nothing of connection tracking, which costs every packet of a host more
// than all of them: where nothing is forwarded, sockets tell which packets of TCP belong
// to a connection, and what was sent tells which datagrams are answers. They are in the
// input hook alone, behind the look-up of the socket that the kernel makes anyhow (early
// demux).

// ICMP messages that ask (RFC 792, RFC 950, RFC 4443). All others pass.
const (
	echoRequest        = 8
	timestampRequest   = 13
	informationRequest = 15
	maskRequest        = 17
	echoRequest6       = 128
)

const (
	sctpFirstChunk = 12 // offset of its type, RFC 9260 section 3
	sctpInit       = 1
)

// bareSYN matches what begins a connection, notSYN all else of TCP.
func bareSYN() match { return tcpFlags(syn|ack, expr.CmpOpEq, syn) }
func notSYN() match  { return tcpFlags(syn|ack, expr.CmpOpNeq, syn) }

// laterFragment matches fragments of IPv6 but for the first: without that, which has the
// ports, a datagram is nothing. Those of IPv4 are whole by here.
func laterFragment() match {
	return append(metaIs(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV6),
		&expr.Exthdr{DestRegister: unix.NFT_REG_1, Type: unix.IPPROTO_FRAGMENT, Offset: 2, Len: 2, Op: expr.ExthdrOpIpv6},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 2, Mask: []byte{0xff, 0xf8}, Xor: []byte{0, 0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: []byte{0, 0}})
}

// rulesExisting drops what a full ban does, lets pass what no soft ban cuts, and drops
// what one does.
func (t *Table) rulesExisting(c *nftables.Chain) error {
	if err := t.rulesFull(c); err != nil {
		return err
	}
	accept := verdict(expr.VerdictAccept)
	t.rule(c, "connections that exist", protocol(unix.IPPROTO_TCP), notSYN(), boundSocket(), accept)
	t.rule(c, "", inLoopback(), accept)
	t.rule(c, "", protocol(unix.IPPROTO_UDP), jump(t.lay.answers()))
	t.rule(c, "", laterFragment(), accept)
	if err := t.rulesDiscovery(c); err != nil {
		return err
	}
	t.rulesSpare(c)
	soft, err := t.rulesSoft()
	if err != nil {
		return err
	}
	t.rulesBanned(c, jump(soft))
	return nil
}

// rulesSoft drops what begins something.
func (t *Table) rulesSoft() (*nftables.Chain, error) {
	c := t.conn.AddChain(t.lay.chain("soft"))
	goesOn := slices.Concat(protocol(unix.IPPROTO_TCP), notSYN())
	t.rule(c, "", goesOn, jump(t.lay.answers()))
	// A handshake under way, and TIME_WAIT, are no full sockets, of which alone the kernel
	// says whether they listen to any address.
	t.rule(c, "", goesOn, wildcardSocket(), counter(droppedSoft), verdict(expr.VerdictDrop))
	some, err := t.someSocket()
	if err != nil {
		return nil, err
	}
	t.rule(c, "", goesOn, some, verdict(expr.VerdictAccept))
	transport, err := t.transport(unix.IPPROTO_TCP, unix.IPPROTO_UDP)
	if err != nil {
		return nil, err
	}
	asks, err := t.oneOf(nftables.TypeICMPType, echoRequest, timestampRequest, informationRequest, maskRequest)
	if err != nil {
		return nil, err
	}
	first := match{payload(expr.PayloadBaseTransportHeader, 0, 1)}
	for _, begins := range []match{
		transport,
		slices.Concat(protocol(unix.IPPROTO_ICMP), first, asks),
		slices.Concat(protocol(unix.IPPROTO_ICMPV6), first, equals(echoRequest6)),
		beginsSCTP(),
	} {
		t.rule(c, "", begins, counter(droppedSoft), verdict(expr.VerdictDrop))
	}
	t.rule(c, "", verdict(expr.VerdictAccept))
	return c, nil
}

func equals(b byte) match {
	return match{&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{b}}}
}

func beginsSCTP() match {
	return slices.Concat(protocol(unix.IPPROTO_SCTP), match{payload(expr.PayloadBaseTransportHeader, sctpFirstChunk, 1)}, equals(sctpInit))
}

// Untracked reports whether the rules do without connection tracking, or would, where the
// table stands by. It waits for nothing.
func (t *Table) Untracked() bool { return t.untracked.Load() }
