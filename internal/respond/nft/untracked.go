package nft

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"portsentry/internal/host"
)

// Rules that ask nothing of connection tracking, which costs every packet of a host more
// than all of them: where nothing is forwarded, sockets tell which packets of TCP belong
// to a connection, and what was sent tells which datagrams are answers. They are in the
// input hook alone, behind the look-up of the socket that the kernel makes anyhow (early
// demux).

// sentFor is how long connection tracking keeps an exchange of datagrams.
const sentFor = 2 * time.Minute

// Names of the sets of what was sent, before the suffix of the family.
const (
	sentName   = "sent"   // from a port within ip_local_port_range
	servedName = "served" // from another one
)

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

// flow loads the flow of a packet as the sets of what was sent have it: protocol . remote
// address . its port . own address . its port. out: the packet is on its way out.
func (f *family) flow(out bool) match {
	from, to, size, words := uint32(12), uint32(16), uint32(4), uint32(1)
	if f.addrType.Bytes == 16 {
		from, to, size, words = 8, 24, 16, 4
	}
	fromPort, toPort := uint32(0), uint32(2)
	if out {
		from, to, fromPort, toPort = to, from, toPort, fromPort
	}
	register := uint32(unix.NFT_REG32_00)
	m := append(f.is[:len(f.is):len(f.is)], &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register})
	load := func(base expr.PayloadBase, offset, length uint32) {
		m = append(m, &expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: length})
	}
	register++
	load(expr.PayloadBaseNetworkHeader, from, size)
	register += words
	load(expr.PayloadBaseTransportHeader, fromPort, 2)
	register++
	load(expr.PayloadBaseNetworkHeader, to, size)
	register += words
	load(expr.PayloadBaseTransportHeader, toPort, 2)
	return m
}

// note puts the flow that is loaded into a set of what was sent, for its time from now
// on. A set that is full ends the rule.
func note(s *nftables.Set) match {
	return match{&expr.Dynset{
		SrcRegKey: unix.NFT_REG_1, SetName: s.Name, SetID: s.ID, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: sentFor,
	}}
}

// rulesAnswers lets pass what comes back in a flow of ours. Such a flow lasts as long as
// either side sends.
func (t *Table) rulesAnswers() {
	c := t.conn.AddChain(t.lay.answers())
	for _, f := range []*family{&t.lay.v4, &t.lay.v6} {
		for _, s := range []*nftables.Set{f.sent, f.served} {
			t.rule(c, "", f.flow(false), match{lookup(s)}, note(s), verdict(expr.VerdictAccept))
		}
	}
}

func (l *layout) answers() *nftables.Chain { return l.chain("answers") }

// rulesSent remembers what leaves. Of TCP, of which sockets tell most, only what begins
// or ends a connection is kept.
func (t *Table) rulesSent() {
	c := t.conn.AddChain(t.lay.sent())
	accept, tcp := verdict(expr.VerdictAccept), protocol(unix.IPPROTO_TCP)
	t.rule(c, "", tcp, tcpFlags(fin|syn|rst, expr.CmpOpEq, 0), accept)
	t.rule(c, "", metaIs(expr.MetaKeyOIF, loopback...), accept)
	t.rule(c, "", metaIs(expr.MetaKeyMARK, binaryutil.NativeEndian.PutUint32(host.TrapMark)...), accept)
	// What answers a stranger: he would bring himself in.
	t.rule(c, "", tcp, tcpFlags(syn|ack, expr.CmpOpEq, syn|ack), accept)
	t.rule(c, "", tcp, tcpFlags(rst|ack, expr.CmpOpEq, rst), accept)
	t.rule(c, "", tcp, tcpFlags(rst, expr.CmpOpEq, rst), match{
		payload(expr.PayloadBaseTransportHeader, 4, 4),
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: make([]byte, 4)}, // RFC 9293 section 3.10.7.1
	}, accept)
	keep := t.conn.AddChain(t.lay.chain("remember"))
	t.rule(c, "", tcp, jump(keep))
	t.rule(c, "", protocol(unix.IPPROTO_UDP), jump(keep))
	// What services send to whoever asks, forged or not, takes no room from what this host
	// begins by itself.
	both := []*family{&t.lay.v4, &t.lay.v6}
	if last := t.opt.EphemeralLast; last != 0 {
		own := match{
			payload(expr.PayloadBaseTransportHeader, 0, 2),
			&expr.Range{
				Op: expr.CmpOpEq, Register: unix.NFT_REG_1,
				FromData: binaryutil.BigEndian.PutUint16(t.opt.EphemeralFirst), ToData: binaryutil.BigEndian.PutUint16(last),
			},
		}
		for _, f := range both {
			t.rule(keep, "", own, f.flow(true), note(f.sent), accept)
		}
	}
	for _, f := range both {
		t.rule(keep, "", f.flow(true), note(f.served), accept)
	}
	t.rule(keep, "no room", counter(unremembered))
}

// rulesExisting drops what a full ban does, lets pass what no soft ban cuts, and drops
// what one does.
func (t *Table) rulesExisting(c *nftables.Chain) error {
	if err := t.rulesFull(c); err != nil {
		return err
	}
	accept := verdict(expr.VerdictAccept)
	t.rule(c, "connections that exist", protocol(unix.IPPROTO_TCP), notSYN(), boundSocket(), accept)
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

// asking puts single questions about what was sent, each with one system call and
// without waiting for a transaction.
type asking struct {
	mu              sync.Mutex
	conn            *netlink.Conn
	raw             syscall.RawConn
	seq             uint32
	request, answer []byte
}

func openAsking() (*asking, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &asking{conn: conn, raw: raw, answer: make([]byte, 2<<10)}, nil
}

// Untracked reports whether the rules do without connection tracking, or would, where the
// table stands by. It waits for nothing.
func (t *Table) Untracked() bool { return t.untracked.Load() }

// Sent reports whether this host has sent something to remote from local in the last two
// minutes: of TCP, what begins or ends a connection. Only rules that have nothing
// tracked know.
func (t *Table) Sent(proto uint8, remote, local netip.AddrPort) bool {
	if !t.untracked.Load() {
		return false
	}
	f, key := t.familyOf(remote.Addr()), flowKey(proto, remote, local)
	return t.asking.has(sentName+f.suffix, key) || t.asking.has(servedName+f.suffix, key)
}

// has reports whether the set has the element. What cannot be known is not there.
func (a *asking) has(set string, key []byte) (there bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seq++
	a.request = appendGet(a.request[:0], a.seq, set, key)
	err := a.raw.Control(func(fd uintptr) {
		if _, err := unix.Write(int(fd), a.request); err != nil {
			return
		}
		for { // it has been answered by now; first comes what an error may have left unread
			n, err := unix.Read(int(fd), a.answer)
			switch {
			case errors.Is(err, unix.EINTR):
				continue
			case err != nil:
				return
			}
			if err = found(a.answer[:n], a.seq); !errors.Is(err, unix.EBADMSG) {
				there = err == nil
				return
			}
		}
	})
	return err == nil && there
}

// flowKey is the element for a flow: each part is padded to four bytes.
func flowKey(proto uint8, remote, local netip.AddrPort) []byte {
	key := []byte{proto, 0, 0, 0}
	for _, end := range []netip.AddrPort{remote, local} {
		key = append(key, end.Addr().AsSlice()...)
		key = append(key, byte(end.Port()>>8), byte(end.Port()), 0, 0)
	}
	return key
}
